"""`.threadfs/events` of a mount: what happened in its store, whoever did it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from store import Run, RunStatus, RunStep, Thread, ThreadStore
from tests.events.conftest import Told, shown
from tests.mount.conftest import ANSWERS_S, Mount, checked_mount, wait_until
from tests.mount.scripts import new_thread, stats, succeeds
from tests.store.conftest import message


def told(mount: Mount, thread_id: str) -> list[Told]:
    lines = mount.path(".threadfs", "events").read_bytes().splitlines()
    return [event for event in map(shown, lines) if event[1:2] == (thread_id,)]


def tells(mount: Mount, thread_id: str, *events: Told) -> None:
    wait_until(lambda: told(mount, thread_id) == [*events])


def test_what_is_done_through_the_mount_is_told(mount: Mount) -> None:
    thread = new_thread(mount)
    succeeds("echo hi > say; mkdir runs/R; echo completed > runs/R/status; rm -r runs/R", thread)
    (line,) = (thread / "messages.jsonl").read_text().splitlines()
    name = thread.name
    tells(
        mount,
        name,
        ("thread.created", name),
        ("message.created", name, json.loads(line)["id"]),
        ("run.queued", name, "R", "queued"),
        ("run.completed", name, "R", "completed"),
        ("run.deleted", name, "R"),
    )


def test_what_another_program_does_is_told(mount: Mount) -> None:
    thread = new_thread(mount)
    name = thread.name
    other = ThreadStore(mount.store)
    sent = other.append_message(name, message("hi"))
    tells(mount, name, ("thread.created", name), ("message.created", name, sent.id))
    other.create_run(name, Run(id="R", status=RunStatus.in_progress))
    wait_until(lambda: len(told(mount, name)) == 3)
    other.append_step(name, "R", RunStep(id="S"))
    wait_until(lambda: len(told(mount, name)) == 4)
    other.update_run_status(name, "R", RunStatus.completed)
    wait_until(lambda: len(told(mount, name)) == 5)
    other.delete_thread(name)
    wait_until(lambda: len(told(mount, name)) == 6)
    assert told(mount, name)[2:] == [
        ("run.in_progress", name, "R", "in_progress"),
        ("step.created", name, "R", "S", "in_progress"),
        ("run.completed", name, "R", "completed"),
        ("thread.deleted", name),
    ]
    other.close()


def test_tail_shows_events_as_they_come(mount: Mount, tmp_path: Path) -> None:
    follow = ["tail", "-n0", "-f", str(mount.path(".threadfs", "events"))]
    with (tmp_path / "shown").open("wb") as output, subprocess.Popen(follow, stdout=output) as tail:
        try:
            thread = new_thread(mount)
            expected = f'"event":"thread.created","thread_id":{json.dumps(thread.name)}'

            def makes_it_again() -> bool:
                """`tail` may begin after the thread was made."""
                thread.rmdir()
                thread.mkdir()
                return expected in (tmp_path / "shown").read_text()

            wait_until(makes_it_again, ANSWERS_S)
        finally:
            tail.kill()


def test_events_cannot_be_written_and_are_counted(mount: Mount) -> None:
    before = stats(mount)["events"]
    assert (
        "Permission denied"
        in subprocess.run(
            ["bash", "-c", "echo x > .threadfs/events"],
            cwd=mount.root,
            capture_output=True,
            text=True,
            check=False,
        ).stderr
    )
    thread = new_thread(mount)
    tells(mount, thread.name, ("thread.created", thread.name))
    assert stats(mount)["events"] > before


def test_a_mount_that_is_read_only_tells_what_others_do(tmp_path: Path) -> None:
    with checked_mount(tmp_path, "--read-only") as mount:
        other = ThreadStore(mount.store)
        other.create_thread(Thread(id="U"))
        tells(mount, "U", ("thread.created", "U"))
        other.close()
