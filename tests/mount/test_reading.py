"""The tree, for reading, on a real mount."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.mount.conftest import Mount, wait_until


def test_every_status_equals_its_stored_document_byte_for_byte(mount: Mount) -> None:
    runs = list(mount.path("threads").glob("*/runs/*"))
    assert len(runs) == len(list(mount.store.glob("*/runs/*/status.json")))
    for run in runs:
        assert (run / "status").read_bytes() == mount.stored(run).read_bytes()


def test_canonical_files_have_their_exact_size_and_bytes(mount: Mount) -> None:
    for stored in mount.store.glob("*/*.json*"):
        shown = mount.path("threads", stored.parent.name, stored.name)
        assert shown.read_bytes() == stored.read_bytes()
        assert shown.stat().st_size == stored.stat().st_size
        assert shown.stat().st_mtime_ns == stored.stat().st_mtime_ns


def test_each_run_is_linked_from_the_directory_of_its_status(mount: Mount) -> None:
    links = list(mount.path("runs").glob("*/*"))
    assert len(links) == len(list(mount.store.glob("*/runs/*/status.json")))
    for link in links:
        assert json.loads((link / "status").read_text())["status"] == link.parent.name


def test_the_top_is_what_the_readme_says(mount: Mount) -> None:
    assert sorted(os.listdir(mount.root)) == [
        ".threadfs",
        "README.md",
        "answers",
        "by-date",
        "by-title",
        "drafts",
        "runs",
        "search",
        "threads",
        "transcripts",
    ]
    assert "cancel" in mount.path("README.md").read_text()
    assert str(mount.store) in mount.path(".threadfs", "version").read_text()
    assert "operations " in mount.path(".threadfs", "stats").read_text()


def test_a_transcript_has_the_exact_size_and_holds_every_message(mount: Mount) -> None:
    for transcript in mount.path("transcripts").iterdir():
        text = transcript.read_bytes()
        assert transcript.stat().st_size == len(text)
        log = mount.path("threads", transcript.stem, "messages.jsonl").read_text()
        assert text.decode().count("\n## ") == len(log.splitlines())


def test_control_files_read_as_empty(mount: Mount) -> None:
    run = mount.run("queued")
    thread = run.parent.parent
    for control in (run / "cancel", thread / "say", thread / "ask", thread / "start"):
        assert control.read_bytes() == b""


def test_every_directory_lists_itself_and_the_one_above(mount: Mount) -> None:
    run = mount.run("queued")
    for directory in (mount.root, mount.path("threads"), mount.path("drafts"), run, run / "steps"):
        command, env = ["ls", "-a", str(directory)], os.environ | {"LC_ALL": "C"}
        shown = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        assert shown.stdout.splitlines() == [".", "..", *sorted(os.listdir(directory), key=os.fsencode)]


def test_grep_and_find_and_tar_read_the_whole_tree(mount: Mount) -> None:
    for command in (["grep", "-r", "role", "threads"], ["find", "."], ["tar", "cf", "/dev/null", "threads"]):
        result = subprocess.run(command, cwd=mount.root, capture_output=True, check=False)
        assert (result.returncode, result.stderr) == (0, b"")


def test_what_another_program_appends_shows_at_once(own_mount: Mount) -> None:
    log = next(own_mount.store.glob("*/messages.jsonl"))
    shown = own_mount.path("threads", log.parent.name, "messages.jsonl")
    line = log.read_bytes().splitlines(keepends=True)[0]
    with shown.open("rb") as reader:
        before = reader.read()
        with log.open("ab") as other:
            other.write(line)
        wait_until(lambda: shown.read_bytes() == before + line, 1)
        assert reader.read() == line


def test_a_torn_last_line_is_not_there_yet(own_mount: Mount) -> None:
    log = next(own_mount.store.glob("*/messages.jsonl"))
    shown = own_mount.path("threads", log.parent.name, "messages.jsonl")
    before = shown.read_bytes()
    with log.open("ab") as other:
        other.write(b'{"id":"msg_')
    assert shown.read_bytes() == before
    assert shown.stat().st_size == len(before)


def test_a_run_that_another_program_makes_appears_and_a_deleted_thread_goes(own_mount: Mount) -> None:
    stored = own_mount.stored(own_mount.run("queued"))
    new = stored.parents[1] / "run_new"
    new.mkdir()
    (new / "status.json").write_bytes(stored.read_bytes())
    thread = stored.parents[2].name
    wait_until(lambda: own_mount.path("runs", "queued", f"run_new@{thread}").exists(), 1)
    subprocess.run(["rm", "-r", str(stored.parents[2])], check=True)
    wait_until(lambda: thread not in os.listdir(own_mount.path("threads")), 1)


def test_a_slow_reader_gets_one_version_while_the_document_is_replaced(own_mount: Mount) -> None:
    status = own_mount.run("queued") / "status"
    stored = own_mount.stored(status.parent)
    old = json.dumps({**json.loads(stored.read_text()), "note": "a" * 300_000}).encode()
    new = json.dumps({**json.loads(stored.read_text()), "note": "b" * 100_000}).encode()
    stored.write_bytes(old)
    with status.open("rb", buffering=0) as slow:
        begin = slow.read(5000)
        beside = stored.with_name(".tmpABCDEF")
        beside.write_bytes(new)
        beside.rename(stored)
        wait_until(lambda: status.read_bytes() == new)
        assert status.stat().st_size == len(new)
        rest = b"".join(iter(lambda: slow.read(4096), b""))
    assert begin + rest == old


def test_leftovers_of_other_programs_are_not_shown(own_mount: Mount) -> None:
    (own_mount.store / ".tmpXXXXXX").mkdir()
    (own_mount.store / "stray").mkdir()
    (own_mount.store / "file").write_text("x")
    (own_mount.store / "linked").symlink_to(next(own_mount.store.glob("*/meta.json")).parent)
    names = set(os.listdir(own_mount.path("threads")))
    assert names.isdisjoint({".tmpXXXXXX", "stray", "file", "linked"})
    assert not own_mount.path("threads", "linked").exists()


def test_a_damaged_status_is_readable_and_its_run_cannot_be_cancelled(own_mount: Mount) -> None:
    run = own_mount.run("queued")
    own_mount.stored(run).write_bytes(b"{half")
    assert (run / "status").read_bytes() == b"{half"
    result = subprocess.run(["sh", "-c", f"echo 1 > '{run}/cancel'"], capture_output=True, check=False)
    assert result.returncode != 0
    assert "EIO" in own_mount.errors()


def test_everything_is_there_after_mounting_again(own_mount: Mount, tmp_path: Path) -> None:
    from tests.mount import conftest

    before = sorted(str(path.relative_to(own_mount.root)) for path in own_mount.path("threads").glob("**/*"))
    conftest.stop(own_mount)
    again = conftest.start(own_mount.store, own_mount.root, own_mount.log)
    try:
        after = sorted(str(path.relative_to(again.root)) for path in again.path("threads").glob("**/*"))
        assert after == before
    finally:
        conftest.stop(again)
