"""Threads and logs that the disk store keeps open: they are what their names lead to, and are let go soon."""

from __future__ import annotations

import _thread
import errno
import fcntl
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from store import Run, RunStatus, StorageFailed, Thread, ThreadStore
from store.disk.open_threads import KEPT_S, locked_thread
from store.disk.system_calls import SystemCalls
from tests.conftest import open_files
from tests.mount.conftest import wait_until
from tests.store.crash_script import message

PROCESSES = multiprocessing.get_context("fork")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ThreadStore]:
    store = ThreadStore(tmp_path / "store")
    store.create_thread(Thread(id="T"))
    store.append_message("T", message("before", "hello"))
    yield store
    store.close()


def ids(store: ThreadStore, thread_id: str = "T") -> list[str]:
    return [stored.id for stored in store.iter_messages(thread_id)]


def log(store: ThreadStore) -> Path:
    return store.thread_dir("T") / "messages.jsonl"


def held(store: ThreadStore) -> list[str]:
    """What this process has open in the store."""
    return [path for path in open_files() if path.startswith(str(store.root))]


# ── What another program does between two appends ───────────────────────────────────────────────────────


def made_again(store: ThreadStore) -> None:
    directory = store.thread_dir("T")
    document = (directory / "meta.json").read_bytes()
    shutil.rmtree(directory)
    directory.mkdir()
    (directory / "meta.json").write_bytes(document)


def moved_away(store: ThreadStore) -> None:
    directory = store.thread_dir("T")
    directory.rename(directory.with_name("U"))
    store.create_thread(Thread(id="T"))


def log_removed(store: ThreadStore) -> None:
    log(store).unlink()


def log_emptied(store: ThreadStore) -> None:
    log(store).write_bytes(b"")


def log_replaced(store: ThreadStore) -> None:
    other = log(store).with_name(".other")
    other.write_bytes(b"")
    other.rename(log(store))


@pytest.mark.parametrize("act", [made_again, moved_away, log_removed, log_emptied, log_replaced])
def test_the_next_message_goes_to_what_has_the_name_then(
    store: ThreadStore, act: Callable[[ThreadStore], None]
) -> None:
    act(store)
    store.append_message("T", message("after", "hello"))
    assert ids(store) == ["after"]


def test_all_who_waited_while_the_log_was_replaced_write_to_the_new_one(store: ThreadStore) -> None:
    directory = os.open(store.thread_dir("T"), os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    names = [f"after{number}" for number in range(4)]
    with ThreadPoolExecutor() as threads:
        appended = [threads.submit(store.append_message, "T", message(name, "hello")) for name in names]
        time.sleep(0.1)
        log_replaced(store)
        os.close(directory)
        for each in appended:
            each.result(10)
    assert sorted(ids(store)) == names


def test_a_line_whose_newline_another_program_overwrote_is_not_glued_to_the_next(store: ThreadStore) -> None:
    with log(store).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    store.append_message("T", message("after", "hello"))
    assert ids(store) == ["after"]


def test_what_another_program_appended_stays_before_the_next(store: ThreadStore) -> None:
    line = log(store).read_bytes()
    for torn in (line.replace(b"before", b"theirs"), line.replace(b"before", b"theirs2")[:-1]):
        with log(store).open("ab") as file:
            file.write(torn)
        store.append_message("T", message("after", "hello"))
    assert ids(store) == ["before", "theirs", "after", "theirs2", "after"]


# ── Letting go ──────────────────────────────────────────────────────────────────────────────────────────


def unknown_threads() -> int:
    """How many threads of this process the system knows and `threading` does not."""
    return len(os.listdir("/proc/self/task")) - threading.active_count()


# What runs the tests may have some.
OF_THE_RUNNER = unknown_threads()


def no_thread_closes() -> bool:
    return unknown_threads() <= OF_THE_RUNNER


def test_nothing_stays_open_a_moment_after_the_last_change(store: ThreadStore) -> None:
    with locked_thread(store.open_threads, "T"):
        assert held(store) != []
    wait_until(lambda: held(store) == [], 10 * KEPT_S)
    wait_until(no_thread_closes, 10 * KEPT_S)


def test_nothing_stays_open_in_a_closed_store(store: ThreadStore) -> None:
    store.close()
    assert held(store) == []


def test_nothing_of_a_deleted_thread_stays_open(store: ThreadStore) -> None:
    store.delete_thread("T")
    assert held(store) == []


def test_the_number_of_open_threads_has_a_limit(store: ThreadStore) -> None:
    for number in range(200):
        store.create_thread(Thread(id=f"T{number}"))
        store.append_message(f"T{number}", message("m", "hello"))
    assert len(held(store)) <= 2 * 64


def test_nothing_stays_open_when_no_thread_can_be_started_to_close_it(
    store: ThreadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(function: object, arguments: object) -> None:
        raise RuntimeError("can't start new thread")

    store.close()
    wait_until(no_thread_closes)
    monkeypatch.setattr(_thread, "start_new_thread", start)
    store.append_message("T", message("after", "hello"))
    assert held(store) == []


CHANGES_AT_EXIT = """
import sys
from store import MessageRole, Thread, ThreadMessage, ThreadStore

class AtExit:
    def __init__(self):
        self.store = ThreadStore(sys.argv[1])
        self.store.create_thread(Thread(id="T"))
        self.message = ThreadMessage(id="last", role=MessageRole.user, content=[])

    def __del__(self):
        self.store.append_message("T", self.message)

at_exit = AtExit()
"""


def test_a_program_that_changes_something_while_it_exits_ends(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", CHANGES_AT_EXIT, tmp_path], timeout=30, check=True)
    assert ids(ThreadStore(tmp_path)) == ["last"]


# ── Sharing ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_forked_process_that_holds_the_lock_keeps_its_parent_out(store: ThreadStore) -> None:
    receiver, sender = PROCESSES.Pipe(duplex=False)
    may_end = PROCESSES.Event()

    def hold() -> None:
        with locked_thread(store.open_threads, "T"):
            sender.send("held")
            may_end.wait()

    process = PROCESSES.Process(target=hold, daemon=True)
    process.start()
    receiver.recv()
    with ThreadPoolExecutor() as threads:
        appended = threads.submit(store.append_message, "T", message("after", "hello"))
        time.sleep(0.1)
        assert not appended.done()
        may_end.set()
        appended.result(10)
    process.join()


def test_a_process_that_was_forked_in_a_change_keeps_nobody_out_when_the_change_is_done(
    store: ThreadStore,
) -> None:
    may_end = PROCESSES.Event()
    with locked_thread(store.open_threads, "T"):
        process = PROCESSES.Process(target=may_end.wait, daemon=True)
        process.start()
    other = ThreadStore(store.root)
    other.append_message("T", message("after", "hello"))
    other.close()
    may_end.set()
    process.join()


class Meeting(SystemCalls):
    """The syncs of the directories *meeting* end when all of them have begun."""

    def __init__(self, *meeting: Path) -> None:
        self.meeting = [os.stat(path).st_ino for path in meeting]
        self.all_have_begun = threading.Barrier(len(meeting))
        self.order: list[int] = []

    def sync(self, file_or_directory: int) -> None:
        inode = os.fstat(file_or_directory).st_ino
        self.order.append(inode)
        if inode in self.meeting:
            self.all_have_begun.wait(10)


def test_names_that_another_program_made_are_synced_side_by_side_after_the_first_change(
    tmp_path: Path,
) -> None:
    maker = ThreadStore(tmp_path / "store")
    maker.create_thread(Thread(id="T"))
    maker.create_run("T", Run(id="R"))
    calls = Meeting(tmp_path / "store", tmp_path / "store" / "T" / "runs")
    store = ThreadStore(tmp_path / "store", calls=calls)
    calls.order.clear()
    calls.all_have_begun.reset()
    store.cancel_run("T", "R")
    first, calls.order = calls.order, []
    assert set(first[-2:]) == set(calls.meeting)
    store.force_update_run_status("T", "R", RunStatus.failed)
    assert len(calls.order) == len(first) - 2


class SlowSync(SystemCalls):
    """Once it is armed, a sync waits, and fails if it shall."""

    def __init__(self) -> None:
        self.is_armed = False
        self.fails = True
        self.is_syncing = threading.Event()
        self.may_end = threading.Event()

    def sync(self, file_or_directory: int) -> None:
        if self.is_armed:
            self.is_armed = False
            self.is_syncing.set()
            self.may_end.wait(10)
            if self.fails:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(file_or_directory)


@pytest.fixture
def calls() -> SlowSync:
    return SlowSync()


@pytest.fixture
def slow_store(tmp_path: Path, calls: SlowSync) -> Iterator[ThreadStore]:
    store = ThreadStore(tmp_path / "slow", calls=calls)
    store.create_thread(Thread(id="T"))
    store.append_message("T", message("before", "hello"))
    calls.is_armed = True
    yield store
    store.close()


def test_a_sync_that_fails_fails_for_all_that_had_written_to_the_open_log_and_not_for_the_next(
    slow_store: ThreadStore, calls: SlowSync
) -> None:
    """The kernel says only once for an open file that it could not write."""
    with ThreadPoolExecutor() as threads:
        first = threads.submit(slow_store.append_message, "T", message("first", "hello"))
        assert calls.is_syncing.wait(10)
        second = threads.submit(slow_store.append_message, "T", message("second", "hello"))
        wait_until(lambda: len(log(slow_store).read_bytes().splitlines()) == 3)
        calls.may_end.set()
        assert isinstance(first.exception(10), StorageFailed)
        assert isinstance(second.exception(10), StorageFailed)
    slow_store.append_message("T", message("after", "hello"))
    assert ids(slow_store)[-1] == "after"


def test_who_waits_for_the_lock_while_a_sync_fails_is_not_told_of_that(
    slow_store: ThreadStore, calls: SlowSync
) -> None:
    with ThreadPoolExecutor() as threads:
        first = threads.submit(slow_store.append_message, "T", message("first", "hello"))
        assert calls.is_syncing.wait(10)
        with locked_thread(slow_store.open_threads, "T"):
            second = threads.submit(slow_store.append_message, "T", message("second", "hello"))
            time.sleep(0.1)
            calls.may_end.set()
            assert isinstance(first.exception(10), StorageFailed)
        second.result(10)


def lock_and_die(store: ThreadStore) -> None:
    with locked_thread(store.open_threads, "T"):
        os.kill(os.getpid(), signal.SIGKILL)


def assert_blocks_nobody(store: ThreadStore, lives_on: Event, work: Callable[[], None]) -> None:
    """*work*, in a process of its own, forks one that lives on, and dies with the lock."""
    process = PROCESSES.Process(target=work, daemon=True)
    process.start()
    other = ThreadStore(store.root)
    with ThreadPoolExecutor() as threads:
        try:
            wait_until(lambda: process.exitcode is not None)
            assert process.exitcode == -signal.SIGKILL
            threads.submit(other.append_message, "T", message("after", "hello")).result(10)
        finally:
            lives_on.set()
    other.close()


def fork_one_that_lives_on(until: Event) -> None:
    if os.fork() == 0:
        until.wait()
        os._exit(0)


def test_a_process_forked_while_a_sync_is_under_way_keeps_no_lock_of_its_killed_parent(
    slow_store: ThreadStore, calls: SlowSync
) -> None:
    calls.fails = False
    may_end = PROCESSES.Event()

    def work() -> None:
        threading.Thread(target=slow_store.append_message, args=("T", message("first", "hello"))).start()
        calls.is_syncing.wait(10)
        fork_one_that_lives_on(may_end)
        lock_and_die(slow_store)

    assert_blocks_nobody(slow_store, may_end, work)


def test_a_process_forked_while_another_thread_waits_for_the_lock_keeps_no_lock_of_its_killed_parent(
    store: ThreadStore,
) -> None:
    may_end = PROCESSES.Event()
    directory = os.open(store.thread_dir("T"), os.O_RDONLY)

    def work() -> None:
        fcntl.flock(directory, fcntl.LOCK_EX)
        waiting = threading.Thread(target=lock_and_die, args=(store,))
        waiting.start()
        time.sleep(0.1)
        fork_one_that_lives_on(may_end)
        fcntl.flock(directory, fcntl.LOCK_UN)
        waiting.join()

    assert_blocks_nobody(store, may_end, work)
    os.close(directory)
