"""How a worker ends, and what becomes of its runs: signals, kill -9, a full disk, `--once`."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import re
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from store import Run, RunStatus, Store, ThreadStore
from store.disk.layout import WORKERS
from store.disk.system_calls import SystemCalls
from store.working import WorkerState
from tests.conftest import seeds
from tests.work.running import (
    all_answered,
    answers,
    ask,
    ended,
    growing,
    has_status,
    settings,
    start,
    wait_until,
    working,
)
from tests.work.scripted import Exchange, ScriptedEndpoint
from tests.work.test_claims import hold

STOPS_S = 1.0


def stopped(worker: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit status and stderr of a worker that ends."""
    out, err = worker.communicate(timeout=20)
    assert out == ""
    return worker.returncode, err


# ── Signals ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.alone  # It measures time.
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_hands_runs_back_and_ends_the_worker_within_a_second(
    store: Store, place: Path, endpoint: ScriptedEndpoint, number: signal.Signals
) -> None:
    endpoint.script = hold
    run, other = ask(store, "secret question"), ask(store, thread_id="u")
    worker = start(place, endpoint.url, "--jobs", 1, THREADFS_API_KEY="sk-secret")
    wait_until(lambda: growing(store, run) == "It is")
    signalled_s = time.monotonic()
    worker.send_signal(number)
    status, told = stopped(worker)
    assert (status, time.monotonic() - signalled_s < STOPS_S) == (0, True)
    assert endpoint.exchange().hung_up.wait(1)
    for one in (run, other):
        stored = store.get_run(one.thread_id, one.id)
        assert (stored.status, stored.worker, stored.tries) == (RunStatus.queued, None, 0)
    assert answers(store) == []
    assert store.workers() == []
    assert [line.split(" ", 3)[3] for line in told.splitlines()] == [
        f"{number.name}: stopping",
        f"{run.id}@t: queued again",
    ]
    assert not re.search("secret|It is", told)


@pytest.mark.alone  # As above.
def test_a_worker_whose_disk_does_not_answer_ends_within_a_second_nevertheless(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    run = ask(store)
    with held(place / "t") as let_go:
        worker = start(place, endpoint.url)
        wait_until(store.workers)
        # By then it waits for the lock.
        time.sleep(0.3)
        worker.terminate()
        signalled_s = time.monotonic()
        assert stopped(worker)[0] == 0
        assert time.monotonic() - signalled_s < STOPS_S
        let_go()
    assert all_answered_now(store, place, endpoint, run.id) == ["four"]


def test_a_second_signal_ends_a_worker_at_once(store: Store, place: Path, endpoint: ScriptedEndpoint) -> None:
    endpoint.script = hold
    run = ask(store)
    worker = start(place, endpoint.url)
    wait_until(lambda: growing(store, run) == "It is")
    with held(place / "t"):
        worker.terminate()
        assert endpoint.exchange().hung_up.wait(5)
        worker.terminate()
        assert stopped(worker)[0] == 128 + signal.SIGTERM
    assert all_answered_now(store, place, endpoint, run.id) == ["four"]


@contextmanager
def held(thread: Path) -> Iterator[Callable[[], None]]:
    """Holds the lock of a thread, so that whoever changes it waits as for a disk; or until the call."""
    descriptor = os.open(thread, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield lambda: fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def all_answered_now(store: Store, place: Path, endpoint: ScriptedEndpoint, run_id: str) -> list[str]:
    endpoint.script = lambda exchange: exchange.says("four")
    all_answered(place, endpoint.url)
    assert store.get_run("t", run_id).status is RunStatus.completed
    return answers(store)


# ── Death ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_run_of_a_worker_that_is_killed_is_taken_over_by_another(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    endpoint.first = [hold]
    run = ask(store)
    killed = start(place, endpoint.url)
    try:
        wait_until(lambda: growing(store, run) == "It is")
        with working(place, endpoint.url, settings(compares_s=60)):
            wait_until(lambda: len(store.workers()) == 2)
            killed.kill()
            assert ended(store, run).status is RunStatus.completed
    finally:
        killed.kill()
        killed.communicate()
    assert answers(store) == ["four"]
    assert store.get_run("t", run.id).tries == 2
    partial, whole = store.list_steps("t", run.id)
    assert (partial.status, partial.extra("partial")) == ("failed", "It is")
    assert whole.status == "completed"


@pytest.mark.parametrize("seed", seeds(20))
def test_workers_that_are_killed_at_any_moment_lose_no_run_and_answer_none_twice(
    store: Store, place: Path, endpoint: ScriptedEndpoint, seed: int
) -> None:
    chance = random.Random(seed)

    def script(exchange: Exchange) -> None:
        exchange.begins()
        for piece in ("an", "sw", "er"):
            exchange.text(piece)
            time.sleep(0.01)
        exchange.finishes()

    endpoint.script = script
    runs = [ask(store, f"question {number}", f"t{number % 3}") for number in range(9)]
    for _ in range(2):
        worker = start(place, endpoint.url)
        # After the start, which takes longer than all else.
        wait_until(store.workers)
        time.sleep(chance.uniform(0, 0.3))
        worker.kill()
        worker.communicate()
    with working(place, endpoint.url):
        assert {ended(store, run).status for run in runs} == {RunStatus.completed}
    for thread in ("t0", "t1", "t2"):
        assert answers(store, thread) == ["answer"] * 3
        assert len({message.run_id for message in store.iter_messages(thread) if message.run_id}) == 3


# ── A store that refuses ────────────────────────────────────────────────────────────────────────────────


class FullDisk(SystemCalls):
    """Refuses to write the text of messages while `is_full`."""

    def __init__(self) -> None:
        super().__init__()
        self.is_full = False
        self.refused = 0

    def write(self, descriptor: int, data: bytes) -> int:
        if self.is_full:
            self.refused += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(descriptor, data)


def test_an_answer_that_the_disk_refuses_is_stored_when_there_is_space_again(
    store: Store, place: Path, endpoint: ScriptedEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FullDisk()

    def script(exchange: Exchange) -> None:
        disk.is_full = True
        exchange.says("fo", "ur")

    endpoint.script = script
    run = ask(store)
    with working(place, endpoint.url, store=ThreadStore(place, calls=disk)):
        wait_until(lambda: disk.refused > 3)
        assert answers(store) == []
        disk.is_full = False
        assert ended(store, run).status is RunStatus.completed
    assert answers(store) == ["four"]
    assert caplog.text.count("No space left on device: trying again") == 1


def test_a_run_whose_answer_the_disk_refuses_for_long_fails_if_that_can_be_written(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    disk = FullDisk()

    def script(exchange: Exchange) -> None:
        exchange.begins()
        disk.is_full = True
        exchange.text("four")
        exchange.finishes()

    endpoint.script = script
    run = ask(store)
    with working(place, endpoint.url, settings(patience_s=0.2), store=ThreadStore(place, calls=disk)):
        wait_until(lambda: disk.refused > 3)
        time.sleep(0.3)
        has_status(store, run, RunStatus.in_progress)
    # Nothing could be written: it is left as if the worker had died.
    disk.is_full = False
    assert all_answered_now(store, place, endpoint, run.id) == ["four"]


def test_a_run_that_cannot_be_claimed_for_want_of_space_is_claimed_later(
    store: Store, place: Path, endpoint: ScriptedEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FullDisk()
    with working(place, endpoint.url, store=ThreadStore(place, calls=disk)):
        wait_until(store.workers)
        disk.is_full = True
        run = ask(store)
        wait_until(lambda: disk.refused > 2)
        assert store.get_run("t", run.id).status is RunStatus.queued
        disk.is_full = False
        assert ended(store, run).status is RunStatus.completed
    assert caplog.text.count("No space left on device") == 1


def test_a_run_that_cannot_be_taken_over_for_want_of_space_is_taken_over_later(
    store: Store, place: Path, endpoint: ScriptedEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FullDisk()
    registration = store.register_worker(WorkerState("elsewhere"))
    run = ask(store)
    answer = registration.claim(run.thread_id, run.id)
    answer.append("half")
    with working(place, endpoint.url, settings(compares_s=60), store=ThreadStore(place, calls=disk)):
        wait_until(lambda: len(store.workers()) == 2)
        disk.is_full = True
        registration.close()
        wait_until(lambda: disk.refused > 2)
        assert store.get_run("t", run.id).status is RunStatus.in_progress
        disk.is_full = False
        assert ended(store, run).status is RunStatus.completed
    assert caplog.text.count("No space left on device") == 1


class SlowToDie(ThreadStore):
    """Looks for dead workers, and lets go of the lock of one just after that."""

    looked_s = 0.0
    dying: Path | None = None

    def take_over(self) -> list[Run]:
        found = super().take_over()
        self.looked_s = time.monotonic()
        if self.dying:
            unlock(self.dying)
        return found


def unlock(place: Path) -> None:
    """Releases the lock that this process has on a file, and leaves it open."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), place.stat()):
                fcntl.fcntl(
                    descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0)
                )


def test_a_worker_whose_lock_is_released_just_after_its_end_was_reported_is_noticed(
    store: ThreadStore, place: Path, endpoint: ScriptedEndpoint
) -> None:
    run = ask(store)
    registration = store.register_worker(WorkerState("elsewhere"))
    registration.claim(run.thread_id, run.id)
    looking = SlowToDie(place)
    with working(place, endpoint.url, settings(compares_s=60), store=looking):
        wait_until(lambda: 0 < looking.looked_s < time.monotonic() - 0.5)
        looking.dying = place / WORKERS / registration.id
        os.close(os.open(looking.dying, os.O_WRONLY))  # What others hear of its end.
        assert ended(store, run).status is RunStatus.completed


# ── Once ────────────────────────────────────────────────────────────────────────────────────────────────


def test_once_ends_with_1_if_a_run_failed(store: Store, place: Path, endpoint: ScriptedEndpoint) -> None:
    assert all_answered(place, endpoint.url) is True
    ask(store)
    assert all_answered(place, endpoint.url) is True
    endpoint.script = lambda exchange: exchange.refuses(400)
    ask(store)
    assert all_answered(place, endpoint.url) is False


def test_once_leaves_runs_in_the_queue_when_the_endpoint_stays_away(
    store: Store, place: Path, endpoint: ScriptedEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.models = lambda exchange: exchange.drops()
    run = ask(store)
    given = settings(once=True, patience_s=0.2)
    assert all_answered(place, endpoint.url, given) is False
    assert "threads with runs that stay queued: 1; waiting: no answer from" in caplog.text
    assert store.get_run("t", run.id).status is RunStatus.queued
