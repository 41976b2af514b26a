"""Drafts and scratch files on a real mount, and what refusals leave behind: no memory."""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.mount.conftest import Mount, wait_until
from tests.mount.scripts import SHELLS, contents, new_run, new_thread, run, succeeds

MIB = 1 << 20


def memory_bytes(mount: Mount) -> int:
    """What of it is in the memory of the mount's process."""
    status = Path("/proc", str(mount.process.pid), "status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def outcome(operation: Callable[[], object]) -> str:
    try:
        operation()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


@pytest.mark.alone
def test_a_file_of_a_gigabyte_takes_no_memory_and_delays_nobody(mount: Mount) -> None:
    before, file = memory_bytes(mount), mount.path("drafts", "large")
    succeeds("truncate -s 1G drafts/large", mount.root)
    started = time.monotonic()
    mount.path(".threadfs", "stats").read_text()
    assert time.monotonic() - started < 1
    with file.open("r+b") as opened:
        opened.seek(-4, os.SEEK_END)
        opened.write(b"ends")
    assert file.stat().st_size == 1 << 30
    with file.open("rb") as opened:
        opened.seek(-6, os.SEEK_END)
        assert opened.read() == b"\0\0ends"
    assert memory_bytes(mount) < before + 32 * MIB
    file.unlink()


def test_what_is_refused_is_kept_nowhere(mount: Mount) -> None:
    thread = new_thread(mount)
    made = new_run(thread)
    draft = mount.path("drafts", "wrong")
    draft.mkdir()
    documents = [thread / "meta.json", made / "status", made / "steps" / "s.json", thread / "messages.jsonl"]
    padding = "x" * (8 * MIB)
    wrong = [
        json.dumps({"id": "T", "created_at": "never", "pad": padding}),
        '{"pad":"' + padding + '"',
        padding,
    ]

    def refusals(text: str) -> list[str]:
        found = [outcome(partial(document.write_text, text)) for document in documents]
        (thread / ".tmp").write_text(text)
        (draft / "meta.json").write_text(text)
        renames = [(thread / ".tmp", thread / "meta.json"), (draft, mount.path("threads", "wrong"))]
        return found + [outcome(partial(os.rename, *rename)) for rename in renames]

    assert "ok" not in refusals("{]")
    before = memory_bytes(mount)
    for text in wrong * 2:
        assert "ok" not in refusals(text)
    assert memory_bytes(mount) < before + 32 * MIB


def test_what_a_large_document_was_taken_apart_into_goes_back_to_the_system(mount: Mount) -> None:
    """Pieces too small for malloc to give back by itself, some of them below one that stays in use."""
    document = new_thread(mount) / "meta.json"
    pieces = {f"k{number}": "x" * 10_000 for number in range(3_000)}
    texts = [json.dumps({"id": "T", "created_at": "never", "pad": pieces}), json.dumps({"pad": pieces})[:-1]]
    before = memory_bytes(mount)
    for text in texts * 4:
        assert outcome(partial(document.write_text, text)) == "EINVAL"
        # The kernel tells the mount of the last close after that has returned.
        wait_until(lambda: memory_bytes(mount) < before + 12 * MIB, timeout_s=3)


def test_modes_stick_among_drafts_and_nowhere_else(mount: Mount) -> None:
    made = succeeds(
        "umask 027; cd drafts; mkdir -m 700 a; mkdir b; touch c; mkdir d; chmod 2750 d; chmod 400 c;"
        " stat -c %a a b c d; rm -rf a b c d",
        mount.root,
    )
    assert made.split() == ["700", "750", "400", "2750"]
    thread = mount.path("threads", "with a mode")
    thread.mkdir(mode=0o700)
    (thread / "meta.json").chmod(0o600)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (thread, thread / "meta.json")]
    assert modes == [0o755, 0o644]


@pytest.mark.parametrize(
    ("place", "name", "kind", "expected"),
    [
        ("drafts", "file", stat.S_IFREG, "ok"),
        ("threads/T", "tmp.x", stat.S_IFREG, "ok"),
        ("threads/T", "notes", stat.S_IFREG, "EACCES"),
        ("threads/T", "meta.json", stat.S_IFREG, "EEXIST"),
        ("transcripts", "x", stat.S_IFREG, "EACCES"),
        ("drafts", "pipe", stat.S_IFIFO, "EPERM"),
        ("threads/T", "tmp.socket", stat.S_IFSOCK, "EPERM"),
    ],
)
def test_mknod_makes_regular_files_where_files_can_be_made(
    mount: Mount, place: str, name: str, kind: int, expected: str
) -> None:
    mount.path("threads", "T").mkdir(exist_ok=True)
    path = mount.path(place, name)
    assert outcome(lambda: os.mknod(path, kind | 0o640)) == expected
    if expected == "ok":
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.unlink()


def test_what_is_open_and_was_removed_has_no_link(mount: Mount) -> None:
    file, directory, thread = mount.path("drafts", "f"), mount.path("drafts", "d"), new_thread(mount)
    file.write_text("text")
    directory.mkdir()
    opened = [os.open(path, os.O_RDONLY) for path in (file, directory, thread)]
    try:
        assert [os.fstat(each).st_nlink for each in opened] == [1, 1, 1]
        file.unlink()
        directory.rmdir()
        thread.rmdir()
        assert [os.fstat(each).st_nlink for each in opened] == [0, 0, 0]
        assert os.read(opened[0], 10) == b"text"
        thread.mkdir()
        assert (os.fstat(opened[2]).st_nlink, thread.stat().st_nlink) == (0, 1)
    finally:
        for each in opened:
            os.close(each)


@pytest.mark.parametrize("name", ["meta.json", "messages.jsonl", "say", "runs/R/status"])
def test_what_is_open_of_a_thread_that_was_removed_has_no_link(mount: Mount, name: str) -> None:
    thread = new_thread(mount)
    (thread / "runs" / "R").mkdir()
    (thread / "say").write_text("text")
    with (thread / name).open("rb") as opened:
        before = os.fstat(opened.fileno())
        succeeds(f"rm -r '{thread}'", mount.root)
        after = os.fstat(opened.fileno())
        assert (before.st_nlink, after.st_nlink) == (1, 0)
        assert len(opened.read()) == before.st_size


def test_a_directory_that_is_read_again_from_its_start_shows_what_it_holds_now(mount: Mount) -> None:
    thread = new_thread(mount)
    for path in (mount.path("drafts"), mount.path("threads"), thread / "runs"):
        descriptor = os.open(path, os.O_RDONLY)  # os.listdir rewinds it.
        try:
            before = os.listdir(descriptor)
            (path / "came").mkdir()
            assert sorted(os.listdir(descriptor)) == sorted([*before, "came"])
        finally:
            os.close(descriptor)
    mount.path("drafts", "came").rmdir()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_file_that_is_dropped_into_a_thread_is_refused_and_not_lost(
    mount: Mount, tmp_path: Path, shell: str
) -> None:
    thread = new_thread(mount)
    (tmp_path / "attachment.txt").write_text("of today")
    for script in (
        f"cp '{tmp_path}/attachment.txt' .",
        f"mv '{tmp_path}/attachment.txt' .",
        "echo x > notes",
    ):
        result = run(script, thread, shell)
        assert result.returncode in (1, 2)
        assert "permission denied" in result.stderr.lower()
        assert "tmp…" in mount.errors().splitlines()[-1]
    assert (tmp_path / "attachment.txt").read_text() == "of today"
    assert sorted(os.listdir(thread)) == ["ask", "messages.jsonl", "meta.json", "runs", "say", "start"]
    # As the reason says.
    succeeds("jq '.metadata.kept = 1' meta.json > tmp.x && mv tmp.x meta.json", thread, shell)
    assert json.loads((mount.store / thread.name / "meta.json").read_text())["metadata"] == {"kept": 1}
    assert sorted(contents(mount.store / thread.name)) == ["meta.json"]
