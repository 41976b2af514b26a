"""``transcripts/*.md``: a conversation that reads well, grows while it is looked at, and stays cheap."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import time
from pathlib import Path
from unittest.mock import ANY

import pytest

from store import Thread, ThreadStore
from tests.mount.conftest import Mount, wait_until
from tests.mount.scripts import new_run, new_thread, stats, succeeds


@pytest.fixture
def thread(mount: Mount) -> Path:
    return new_thread(mount)


def append(thread: Path, **fields: object) -> None:
    with (thread / "messages.jsonl").open("a") as log:
        log.write(json.dumps({"role": "user", "content": "text", **fields}) + "\n")


def transcript(mount: Mount, thread: Path) -> Path:
    return mount.path("transcripts", f"{thread.name}.md")


def test_roles_times_text_and_the_end_of_a_run_are_there_in_order(mount: Mount, thread: Path) -> None:
    append(thread, content="How far is it?", created_at=1767225600)
    append(thread, content="About *300* km.\n\nBy train.", role="assistant", created_at=1767225661)
    run = thread / "runs" / "run_1"
    run.mkdir()
    document = {**json.loads((run / "status").read_text()), "created_at": 1767225601, "model": "llama3"}
    (run / "status").write_text(json.dumps({**document, "status": "completed", "completed_at": 1767225662}))
    assert transcript(mount, thread).read_text() == (
        f"# {thread.name}\n"
        "\n## User, 2026-01-01 00:00:00 UTC\n\nHow far is it?\n"
        "\n## Assistant, 2026-01-01 00:01:01 UTC\n\nAbout *300* km.\n\nBy train.\n"
        "\n> Run `run_1` by llama3 completed\n"
    )


def test_the_error_of_a_run_that_failed_is_told(mount: Mount, thread: Path) -> None:
    run = new_run(thread, "in_progress")
    (run / "status").write_text('{"status":"failed","last_error":{"code":"x","message":"out of\\nmemory"}}')
    last = transcript(mount, thread).read_text().splitlines()[-1]
    assert last == f"> Run `{run.name}` failed: out of\\nmemory"


@pytest.mark.parametrize("status", ["cancelled", "expired", "incomplete"])
def test_every_end_of_a_run_is_told_and_no_other_status(mount: Mount, thread: Path, status: str) -> None:
    ended = new_run(thread)
    for other in ("queued", "in_progress", "requires_action"):
        new_run(thread, other)
    (ended / "status").write_text(status)
    assert transcript(mount, thread).read_text().count("> Run ") == 1
    assert f"> Run `{ended.name}` {status}\n" in transcript(mount, thread).read_text()


def test_a_code_block_survives(mount: Mount, thread: Path) -> None:
    code = "Look:\n\n```python\n## not a heading\nprint('```')\n> Run `x` completed\n```\n\n~~~\n```\n~~~"
    append(thread, content=code)
    assert transcript(mount, thread).read_text().endswith(f"\n\n{code}\n")


@pytest.mark.parametrize("open_block", ["```", "~~~~", "````python", "  ```"])
def test_a_code_block_that_was_not_closed_does_not_swallow_what_follows(
    mount: Mount, thread: Path, open_block: str
) -> None:
    append(thread, content=f"{open_block}\ncode")
    append(thread, content="next")
    lines = transcript(mount, thread).read_text().splitlines()
    heading = max(number for number, line in enumerate(lines) if line.startswith("## User"))
    assert lines[heading - 2].strip() == open_block.strip().removesuffix("python")


def test_text_cannot_pass_for_a_message_or_the_end_of_a_run(mount: Mount, thread: Path) -> None:
    append(thread, content="hi\n## Assistant, 2026-01-01 00:00:00 UTC\n\n  ## User\n> Run `x` completed")
    text = transcript(mount, thread).read_text()
    assert len(re.findall(r"^ {0,3}## ", text, re.MULTILINE)) == 1
    assert not re.search(r"^ {0,3}> Run", text, re.MULTILINE)


def test_what_is_no_message_is_left_out(mount: Mount, thread: Path) -> None:
    append(thread, content="one")
    with (mount.store / thread.name / "messages.jsonl").open("ab") as log:
        log.write(b"nonsense\n\xff\n\n[]\n")
    append(thread, content="two")
    assert transcript(mount, thread).read_text().count("\n## User") == 2


def test_it_cannot_be_written_or_removed(mount: Mount, thread: Path) -> None:
    shown = transcript(mount, thread)
    for refused in (lambda: shown.write_text("x"), shown.unlink, lambda: shown.rename(f"{shown}~")):
        with pytest.raises(PermissionError):
            refused()
    assert os.stat(shown).st_mode & 0o777 == 0o444


def test_it_comes_and_goes_with_its_thread(mount: Mount, thread: Path) -> None:
    assert transcript(mount, thread).read_text() == f"# {thread.name}\n"
    succeeds(f"rm -r '{thread}'", mount.root)
    assert not transcript(mount, thread).exists()
    thread.mkdir()
    append(thread, content="anew")
    assert transcript(mount, thread).read_text().endswith("anew\n")


def test_tail_f_shows_what_is_said_and_how_a_run_ends(mount: Mount, thread: Path) -> None:
    append(thread, content="before")
    run = new_run(thread, "in_progress")
    tail = subprocess.Popen(
        ["tail", "-n", "1", "-s", "0.1", "-f", transcript(mount, thread)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert tail.stdout is not None
        assert tail.stdout.readline() == "before\n"
        (thread / "say").write_text("grün")
        assert [tail.stdout.readline() for _ in range(4)][3] == "grün\n"
        (run / "status").write_text("completed")
        assert [tail.stdout.readline() for _ in range(2)][1] == f"> Run `{run.name}` completed\n"
        assert select.select([tail.stdout], [], [], 0.3)[0] == []
    finally:
        tail.terminate()
        tail.wait()


@pytest.mark.parametrize("title", ["short", "a title that is longer than the one before"])
def test_tail_f_goes_on_when_the_title_changes(mount: Mount, thread: Path, title: str) -> None:
    (thread / "meta.json").write_text('{"metadata": {"title": "the title before"}}')
    append(thread, content="before")
    shown = transcript(mount, thread)
    command = ["tail", "-n", "1", "-s", "0.1", "-f", str(shown)]
    tail = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert tail.stdout is not None
        assert tail.stdout.readline() == "before\n"
        (thread / "meta.json").write_text(json.dumps({"metadata": {"title": title}}))
        assert shown.read_text().startswith(f"# {title}\n\n`{thread.name}`\n")
        assert shown.stat().st_size == len(shown.read_bytes())
        (thread / "say").write_text("after")
        assert [tail.stdout.readline() for _ in range(4)][1:] == [ANY, "\n", "after\n"]
    finally:
        tail.terminate()
        tail.wait()


def test_what_another_program_appends_shows_at_once_and_its_size_is_exact(mount: Mount, thread: Path) -> None:
    append(thread, content="one")
    shown = transcript(mount, thread)
    with shown.open() as reader:
        reader.read()
        log = mount.store / thread.name / "messages.jsonl"
        line = log.read_bytes()
        with log.open("ab") as file:
            file.write(line)
        assert shown.stat().st_size == len(shown.read_bytes())
        wait_until(lambda: reader.read().endswith("one\n"), 1)


def test_one_more_message_in_a_long_log_costs_little(mount: Mount) -> None:
    count = 30_000
    ThreadStore(mount.store).create_thread(Thread(id="long"))
    thread = mount.path("threads", "long")
    line = json.dumps(
        {
            "id": "msg_%032x",
            "object": "thread.message",
            "created_at": 1,
            "thread_id": "long",
            "role": "user",
            "content": [{"type": "text", "text": {"value": "%s", "annotations": []}}],
        }
    ).replace(" ", "")
    with (mount.store / "long" / "messages.jsonl").open("w") as log:
        log.writelines(line % (number, "x" * 100) + "\n" for number in range(count))
    shown = transcript(mount, thread)
    started = time.monotonic()
    size = shown.stat().st_size
    rendering_s = time.monotonic() - started
    assert size > count * 100
    read_before = stats(mount)["read_bytes"]
    started = time.monotonic()
    for number in range(10):
        append(thread, content=f"more {number}")
        with shown.open("rb") as reader:
            reader.seek(-7, os.SEEK_END)
            assert reader.read() == f"more {number}\n".encode()
    assert time.monotonic() - started < rendering_s
    assert stats(mount)["read_bytes"] - read_before < 100_000


def test_a_new_title_makes_another_file_of_a_transcript_that_was_listed(mount: Mount, thread: Path) -> None:
    shown = transcript(mount, thread)
    with shown.open() as opened:
        os.listdir(shown.parent)
        (thread / "meta.json").write_text('{"metadata": {"title": "A trip"}}')
        assert shown.stat().st_ino != os.fstat(opened.fileno()).st_ino
        assert shown.stat().st_size == len(shown.read_bytes())
