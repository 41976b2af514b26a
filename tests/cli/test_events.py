"""`threadfs events`: what happens in a store, and what has happened."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from store import DocumentKey, Run, RunStatus, RunStep, RunStepStatus, Thread, ThreadStore
from tests.cli.conftest import command, fails, threadfs
from tests.events.conftest import Told, shown
from tests.mount.conftest import ANSWERS_S, Mount, wait_until
from tests.store.conftest import message
from threadfs.commands.events import _of_mount
from threadfs.events.event import Event
from threadfs.mounting.mount_table import KIND
from threadfs.mounting.mount_table import Mount as MountEntry


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ThreadStore]:
    opened = ThreadStore(tmp_path / "store")
    yield opened
    opened.close()


class Events:
    """A command that is running, and what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self._output = output

    def lines(self) -> list[bytes]:
        return self._output.read_bytes().splitlines()

    def told(self) -> list[Told]:
        return [shown(line) for line in self.lines()]

    def tells(self, *events: Told) -> None:
        """These have been told soon, and nothing else."""
        wait_until(lambda: len(self.told()) >= len(events))
        assert self.told() == [*events]


@contextmanager
def events(tmp_path: Path, *arguments: object, says: str = "") -> Iterator[Events]:
    """*says*: what it has said on stderr when it ends."""
    output = tmp_path / "events"
    with (
        output.open("wb") as stdout,
        (tmp_path / "complaints").open("wb") as stderr,
        subprocess.Popen(command("events", *arguments), stdout=stdout, stderr=stderr) as process,
    ):
        try:
            yield Events(process, output)
        finally:
            process.kill()
    assert (tmp_path / "complaints").read_text() == says


def begins(running: Events, store: ThreadStore) -> None:
    """Waits until it follows the store: it tells of a thread that comes."""

    def is_told() -> bool:
        store.create_thread(Thread(id="first"))
        store.delete_thread("first")
        return ("thread.deleted", "first") in running.told()

    wait_until(is_told)


def later(running: Events) -> list[Told]:
    return [event for event in running.told() if event[1] != "first"]


def test_what_happens_in_a_store_is_printed_as_it_happens(store: ThreadStore, tmp_path: Path) -> None:
    store.create_thread(Thread(id="T", created_at=1))
    store.create_run("T", Run(id="R", created_at=1))
    with events(tmp_path, store.root) as running:
        begins(running, store)
        sent = store.append_message("T", message("hi"))
        wait_until(lambda: len(later(running)) == 1)
        store.update_run_status("T", "R", RunStatus.in_progress)
        wait_until(lambda: len(later(running)) == 2)
        store.append_step("T", "R", RunStep(id="S"))
        wait_until(lambda: len(later(running)) == 3)
        store.create_thread(Thread(id="U"))
        wait_until(lambda: len(later(running)) == 4)
        in_new = store.append_message("U", message("hi"))
        wait_until(lambda: len(later(running)) == 5)
        assert later(running) == [
            ("message.created", "T", sent.id),
            ("run.in_progress", "T", "R", "in_progress"),
            ("step.created", "T", "R", "S", "in_progress"),
            ("thread.created", "U"),
            ("message.created", "U", in_new.id),
        ]


def test_with_a_thread_only_its_events_are_printed(store: ThreadStore, tmp_path: Path) -> None:
    for thread_id in ("T", "U"):
        store.create_thread(Thread(id=thread_id))
    with events(tmp_path, store.root, "--since", "1h", "--thread", "T") as running:
        running.tells(("thread.created", "T"))
        store.append_message("U", message("hi"))
        store.create_run("T", Run(id="R"))
        running.tells(("thread.created", "T"), ("run.queued", "T", "R", "queued"))


def test_since_a_time_the_documents_tell_what_happened(store: ThreadStore, tmp_path: Path) -> None:
    now = int(time.time())
    store.create_thread(Thread(id="T", created_at=now - 500))
    for number, age_s in enumerate((9000, 400)):
        store.append_message("T", message("hi", id=f"m{number}", created_at=now - age_s))
    run = Run(id="R", created_at=now - 300, started_at=now - 200, completed_at=now - 100)
    run.status = RunStatus.completed
    store.create_run("T", run)
    step = RunStep(id="S", created_at=now - 150, completed_at=now - 120, status=RunStepStatus.completed)
    store.append_step("T", "R", step)
    store.create_thread(Thread(id="old", created_at=1))
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now - 3600))
    with events(tmp_path, store.root, "--since", since) as running:
        running.tells(
            ("thread.created", "T"),
            ("message.created", "T", "m1"),
            ("run.queued", "T", "R", "queued"),
            ("run.in_progress", "T", "R", "in_progress"),
            ("step.created", "T", "R", "S", "in_progress"),
            ("step.completed", "T", "R", "S", "completed"),
            ("run.completed", "T", "R", "completed"),
        )


def test_since_a_time_a_mount_prints_the_events_that_it_keeps(mounted: Mount, tmp_path: Path) -> None:
    other = ThreadStore(mounted.store)
    other.create_thread(Thread(id="T"))
    kept = mounted.path(".threadfs", "events")
    wait_until(lambda: b'"thread.created","thread_id":"T"' in kept.read_bytes())
    other.delete_thread("T")  # Which no document tells.
    wait_until(lambda: b'"thread.deleted","thread_id":"T"' in kept.read_bytes())
    with events(tmp_path, mounted.root, "--since", "1h") as running:
        wait_until(lambda: len(running.told()) == 2)
        other.create_thread(Thread(id="U"))
        running.tells(("thread.created", "T"), ("thread.deleted", "T"), ("thread.created", "U"))
    other.close()


def _unmount(mount: Mount) -> None:
    assert threadfs("umount", mount.root).returncode == 0


def _kill(mount: Mount) -> None:
    mount.process.kill()


@pytest.mark.parametrize("end", [_unmount, _kill])
def test_the_end_of_a_mount_ends_the_printing_of_its_events(
    mounted: Mount, tmp_path: Path, end: Callable[[Mount], None]
) -> None:
    said = f"threadfs: the mount on {mounted.root} has ended\n"
    with events(tmp_path, mounted.root, "--since", "1h", says=said) as running:
        other = ThreadStore(mounted.store)
        begins(running, other)
        other.close()
        end(mounted)
        assert running.process.wait(ANSWERS_S) == 1


def test_a_mount_that_has_ended_before_has_no_events(mounted: Mount) -> None:
    _kill(mounted)
    mounted.process.wait()
    fails(threadfs("events", mounted.root), 1, f"the mount on {mounted.root} has ended")


def test_the_end_of_a_store_ends_the_printing_of_its_events(store: ThreadStore, tmp_path: Path) -> None:
    store.create_thread(Thread(id="T"))
    with events(tmp_path, store.root, says=f"threadfs: {store.root}: No such file or directory\n") as running:
        begins(running, store)
        shutil.rmtree(store.root)
        assert running.process.wait(ANSWERS_S) == 1


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_at_a_signal(store: ThreadStore, tmp_path: Path, end: signal.Signals) -> None:
    store.create_thread(Thread(id="T"))
    with events(tmp_path, store.root) as running:
        begins(running, store)
        running.process.send_signal(end)
        assert running.process.wait(ANSWERS_S) != 0


def test_it_ends_when_nobody_reads_it_any_more(store: ThreadStore) -> None:
    store.create_thread(Thread(id="T"))
    process = subprocess.Popen(
        command("events", store.root, "--since", "1h"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(ANSWERS_S) != 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_what_cannot_be_told_is_said_in_one_line(store: ThreadStore) -> None:
    store.create_thread(Thread(id="T"))
    fails(threadfs("events", store.root, "--since", "yesterday"), 2, "'yesterday' is no time", "12h")
    fails(threadfs("events", store.root, "--thread", "missing"), 1, "missing")
    fails(threadfs("events", f"{store.root}/none"), 1, "none")


def test_a_run_that_ends_in_the_moment_of_its_beginning_is_told_once(
    store: ThreadStore, tmp_path: Path
) -> None:
    store.create_thread(Thread(id="T", created_at=1))
    store.create_run("T", Run(id="R", created_at=1))
    store.cancel_run("T", "R")
    with events(tmp_path, store.root, "--since", "1h") as running:
        wait_until(lambda: ("run.cancelled", "T", "R", "cancelled") in running.told())
        store.patch_document(DocumentKey("T", "R"), {"metadata": {"a": "b"}})
        wait_until(lambda: ("run.updated", "T", "R", "cancelled") in running.told())
        assert len([event for event in running.told() if event[0] == "run.cancelled"]) == 1


def test_events_that_a_mount_drops_while_they_are_read_are_left_out(tmp_path: Path) -> None:
    events = tmp_path / ".threadfs/events"
    events.parent.mkdir()
    kept = Event(1_000_000_000, "thread.created", "T")
    events.write_bytes(b'\n\n{"time":"2026-\n' + kept.line())
    mount = MountEntry(str(tmp_path), KIND, "", "0:0", frozenset(), frozenset())
    options = Namespace(store=tmp_path, since_ns=0, thread=None)
    assert list(_of_mount(mount, options)) == [kept]
