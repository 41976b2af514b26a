"""Exports that were made to do harm, or came to it: nothing leaves the store, and the rest comes in."""

from __future__ import annotations

import io
import json
import os
import resource
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from store import ThreadStore
from tests.importing.conftest import FIXTURES, chatgpt, complaints, imported, said, written, zipped

ROOT = Path(__file__).parents[2]
GOOD = json.dumps([chatgpt("Hello?", "Yes.")]).encode()


def process(
    *arguments: object, stdin: bytes = b"", memory_bytes: int = 0
) -> subprocess.CompletedProcess[bytes]:
    """``threadfs ARGUMENTS`` in a process of its own, which may take only so much memory."""

    def limit() -> None:
        if memory_bytes:
            resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))

    return subprocess.run(
        [sys.executable, "-m", "threadfs.cli", *map(str, arguments)],
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        preexec_fn=limit,
        timeout=100,
        check=False,
    )


def test_names_in_a_zip_lead_nowhere(tmp_path: Path) -> None:
    names = ["../../escaped.json", "/tmp/escaped.json", "..\\escaped.json", "a/../../../x/conversations.json"]
    members = {
        name: json.dumps([chatgpt("Hi", conversation_id=str(number))]).encode()
        for number, name in enumerate(names)
    }
    archive = zipped(tmp_path / "e.zip", members | {"../file-abc.png": b"\x89PNG"})
    before = set(tmp_path.rglob("*"))
    imported(tmp_path / "store", archive, "--files", tmp_path / "files").has(imported=4)
    made = {path for path in set(tmp_path.rglob("*")) - before if not path.is_relative_to(tmp_path / "store")}
    assert made == set()
    assert not Path("/tmp/escaped.json").exists()


def test_ids_of_files_lead_nowhere(tmp_path: Path) -> None:
    given = chatgpt("Look")
    pointer = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://../../../evil"}
    given["mapping"]["c-0"]["message"]["content"] = {"content_type": "multimodal_text", "parts": [pointer]}
    members = {
        "conversations.json": json.dumps([given]).encode(),
        "../../../evil": b"\x89PNG",
        "evil.png": b"x",
    }
    archive = zipped(tmp_path / "e.zip", members)
    imported(tmp_path / "store", archive, "--files", tmp_path / "files")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.zip", "store"]


@pytest.mark.parametrize(
    "wanted", ["../../outside", "a/b", ".hidden", "x@y", "a" * 200, "lost+found", "a\x1bb", "é" * 60]
)
def test_an_id_that_is_no_possible_name_is_replaced_by_one_that_is_the_same_each_time(
    wanted: str, tmp_path: Path
) -> None:
    archive = written(tmp_path / "e.json", [chatgpt("Hello?", conversation_id=wanted)])
    imported(tmp_path / "store", archive).has(imported=1)
    imported(tmp_path / "store", archive).has(left=1)
    (thread_id,) = ThreadStore(tmp_path / "store").list_thread_ids()
    assert len(thread_id) == len("chatgpt-") + 32 or thread_id == f"chatgpt-{wanted}"
    assert len(thread_id.encode()) <= 100


def test_links_in_a_zip_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_bytes(GOOD)
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        link = zipfile.ZipInfo("conversations.json")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, str(tmp_path / "secret.json"))
    assert imported(tmp_path / "store", tmp_path / "e.zip").status == 1
    assert not (tmp_path / "store").exists()


def test_links_in_a_directory_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_bytes(GOOD)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "conversations.json").symlink_to(tmp_path / "secret.json")
    (tmp_path / "export" / "up").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "export" / "fifo")
    assert imported(tmp_path / "store", tmp_path / "export").status == 1
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "filler",
    [
        b"[" + b" " * (1 << 20),
        b'[{"mapping":"' + b"x" * (1 << 20),
        b'{"a":' * (1 << 18),
        b"[" * (1 << 20),
        b"\0",
    ],
    ids=["blanks", "one text", "levels", "lists", "zeros"],
)
def test_a_zip_bomb_takes_little_memory_and_costs_itself(filler: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("bomb.json", "w", force_zip64=True) as member:
            member.write(filler)
            for _ in range(80):  # 80 MiB of what it ends with.
                member.write(filler[-1:] * (1 << 20))
        archive.writestr("conversations.json", GOOD)
    result = process("import", tmp_path / "store", tmp_path / "bomb.zip", memory_bytes=900 << 20)
    assert b"Traceback" not in result.stderr, result.stderr
    assert ThreadStore(tmp_path / "store").list_thread_ids() == ["chatgpt-c"]


def test_a_zip_whose_members_lie_in_one_another_is_refused(tmp_path: Path) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"{number}.json", json.dumps([chatgpt("x" * 500, conversation_id=str(number))]))
    with zipfile.ZipFile(data) as archive:
        offsets = [info.header_offset for info in archive.infolist()]
    raw = data.getvalue()
    # The second begins where the first one does.
    for offset in offsets[1:]:
        raw = raw.replace(
            offset.to_bytes(4, "little") + b"1.json", offsets[0].to_bytes(4, "little") + b"1.json"
        )
    (tmp_path / "e.zip").write_bytes(raw)
    result = imported(tmp_path / "store", tmp_path / "e.zip")
    assert result.status == 1
    assert "1.json" in result.stderr


def test_an_encrypted_member_is_named(tmp_path: Path) -> None:
    raw = bytearray(zipped(tmp_path / "e.zip", {"conversations.json": GOOD}).read_bytes())
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(signature) + at] |= 1
    (tmp_path / "e.zip").write_bytes(raw)
    result = imported(tmp_path / "store", tmp_path / "e.zip")
    assert result.status == 1
    assert "e.zip/conversations.json: is encrypted" in result.stderr


def test_control_characters_in_titles_do_not_reach_the_terminal(tmp_path: Path) -> None:
    title = "\x1b]0;owned\x07\x1b[2J\u202eevil\n\x9b"
    bad = chatgpt("Hello?", title=title, conversation_id="")
    good = chatgpt("Hello?", title=title)
    result = imported(tmp_path / "store", written(tmp_path / "e\x1b[31m.json", [bad, good]))
    (line,) = result.stderr.splitlines()
    assert line.isprintable()
    assert "owned" in line
    assert ThreadStore(tmp_path / "store").get_thread("chatgpt-c").metadata["title"] == title


def test_200000_levels_cost_themselves(tmp_path: Path) -> None:
    deep = '{"mapping":' * 200_000 + "1" + "}" * 200_000
    (tmp_path / "e.json").write_text(
        f"[{json.dumps(chatgpt('a'))}, {deep}, {json.dumps(chatgpt('b', conversation_id='d'))}]"
    )
    result = imported(tmp_path / "store", tmp_path / "e.json")
    result.has(imported=2, skipped=1)
    assert "e.json, number 2: nested too deeply" in result.stderr


def test_a_path_of_2000_messages_is_read(tmp_path: Path) -> None:
    long = chatgpt(*(str(number) for number in range(2_000)))
    imported(tmp_path / "store", written(tmp_path / "e.json", [long])).has(imported=1)
    assert len(said(ThreadStore(tmp_path / "store"), "chatgpt-c")) == 2_000


def test_branches_without_end_cost_themselves(tmp_path: Path) -> None:
    given = chatgpt(*(str(number) for number in range(1_000)))
    for number in range(1_000):
        node = f"leaf-{number}"
        message = {**given["mapping"]["c-0"]["message"], "id": node}
        given["mapping"][node] = {"id": node, "parent": "c-998", "message": message}
    result = imported(tmp_path / "store", written(tmp_path / "e.json", [given]), "--branches")
    result.has(imported=1, skipped=1)
    assert "another branch: together they hold more than 200,000 messages" in result.stderr


def test_parents_in_a_circle_end_the_path(tmp_path: Path) -> None:
    given = chatgpt("one", "two", "three")
    given["mapping"]["c-0"]["parent"] = "c-2"
    imported(tmp_path / "store", written(tmp_path / "e.json", [given]), "--branches").has(imported=1)
    assert said(ThreadStore(tmp_path / "store"), "chatgpt-c") == [
        ["user", "one"],
        ["assistant", "two"],
        ["user", "three"],
    ]


def test_halves_of_surrogate_pairs_become_a_sign_for_that(tmp_path: Path) -> None:
    given = chatgpt("half \ud83d here", title="\udc00")
    imported(tmp_path / "store", written(tmp_path / "e.json", [given])).has(imported=1)
    store = ThreadStore(tmp_path / "store")
    assert said(store, "chatgpt-c") == [["user", "half \ufffd here"]]
    assert store.get_thread("chatgpt-c").metadata["title"] == "\ufffd"


def test_a_message_that_is_too_large_for_a_log_costs_its_conversation(tmp_path: Path) -> None:
    large = chatgpt("x" * (17 << 20), conversation_id="large")
    result = imported(tmp_path / "store", written(tmp_path / "e.json", [large, chatgpt("Hello?")]))
    result.has(imported=1, skipped=1)
    assert 'number 1 "Title"' in result.stderr


def test_a_pipe_that_breaks_off_gives_what_came_and_says_so(tmp_path: Path) -> None:
    data = json.dumps([chatgpt("a", conversation_id=str(n)) for n in range(5)]).encode()
    result = process("import", tmp_path / "store", stdin=data[: len(data) * 3 // 4])
    assert result.returncode == 1
    assert b"the rest of the file is missing" in result.stderr
    assert len(ThreadStore(tmp_path / "store").list_thread_ids()) == 3


def test_a_zip_that_was_cut_off_is_named(tmp_path: Path) -> None:
    data = (FIXTURES / "chatgpt/branches/export.zip").read_bytes()
    (tmp_path / "e.zip").write_bytes(data[: len(data) // 2])
    result = imported(tmp_path / "store", tmp_path / "e.zip")
    assert result.status == 1
    assert "e.zip: is a zip that is cut off or damaged" in result.stderr
    assert not (tmp_path / "store").exists()


def test_a_disk_that_fills_up_ends_the_import_and_what_came_in_is_whole(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], check=True)
    try:
        many = [chatgpt("x" * 20_000, conversation_id=str(number)) for number in range(100)]
        result = process("import", disk / "store", written(tmp_path / "e.json", many))
        assert result.returncode == 1
        assert b"No space left on device" in result.stderr
        assert complaints(result.stderr.decode()).count("\n") == 1
        store = ThreadStore(disk / "store")
        assert 0 < len(store.list_thread_ids()) < 100
        assert all(len(said(store, thread_id)) == 1 for thread_id in store.list_thread_ids())
        assert not [path for path in (disk / "store").iterdir() if path.name.startswith(".")]
    finally:
        subprocess.run(["umount", disk], check=True)
