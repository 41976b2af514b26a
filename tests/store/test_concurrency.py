"""The disk store among others: other processes of ours, programs that take no lock, and deaths.

The neighbour in these tests writes as the reference does: a line with one ``write``, its newline with a
second one; a document by a temporary file and ``rename``. It never locks.

With ``THREADFS_SOAK=1`` in the environment the huge log has 1 GiB instead of 256 MiB.
"""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import pytest

from store import (
    AlreadyExists,
    ContentBlock,
    DocumentKey,
    MessageRole,
    NotFound,
    Run,
    RunContents,
    RunInTerminalState,
    RunNotFound,
    RunStatus,
    RunStep,
    StatusChanged,
    Thread,
    ThreadMessage,
    ThreadNotFound,
    ThreadStore,
)
from store.disk import paths
from store.disk.open_threads import OpenThreads, locked_thread
from store.disk.system_calls import SystemCalls

# Forked, so that a process starts warm, in about a millisecond, and shares what the test has made.
PROCESSES = multiprocessing.get_context("fork")

T = TypeVar("T")


def a_message(message_id: str, text: str = "hello") -> ThreadMessage:
    return ThreadMessage(id=message_id, role=MessageRole.user, content=[ContentBlock.of_text(text)])


def ids_in_log(root: Path, thread_id: str = "T") -> list[str]:
    return [message.id for message in ThreadStore(root).iter_messages(thread_id)]


def a_store_with_thread(root: Path, calls: SystemCalls | None = None) -> ThreadStore:
    ThreadStore(root).create_thread(Thread(id="T"))
    return ThreadStore(root, calls=calls)


def each_in_a_process(calls: Sequence[Callable[[], T]]) -> list[T]:
    """What *calls* return, each made in a process of its own, all at the same moment."""
    together = PROCESSES.Barrier(len(calls))

    def work(call: Callable[[], T], results: Connection) -> None:
        together.wait()
        try:
            results.send((call(), None))
        except BaseException as error:
            results.send((None, repr(error)))

    started = []
    for call in calls:
        receiver, sender = PROCESSES.Pipe(duplex=False)
        process = PROCESSES.Process(target=work, args=(call, sender), daemon=True)
        process.start()
        sender.close()
        started.append((process, receiver))
    answers = [receiver.recv() for _, receiver in started]
    for process, receiver in started:
        process.join()
        receiver.close()
    assert [error for _, error in answers if error] == []
    return [result for result, _ in answers]


class Neighbour:
    """A writer of the reference's kind to one log."""

    def __init__(self, root: Path) -> None:
        self._file = os.open(root / "T" / "messages.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def line(self, message_id: str) -> None:
        fields = {**a_message(message_id).fields(), "thread_id": "T"}
        os.write(self._file, json.dumps(fields, separators=(",", ":")).encode())

    def newline(self) -> None:
        os.write(self._file, b"\n")

    def sync(self) -> None:
        os.fsync(self._file)


# ── The message log ─────────────────────────────────────────────────────────────────────────────────────


def test_appends_of_eight_processes_and_of_one_that_takes_no_lock_lose_nothing(tmp_path: Path) -> None:
    a_store_with_thread(tmp_path)
    writers, count = 8, 500
    still_writing = PROCESSES.Value("i", writers)

    def ours(writer: int) -> list[str]:
        store = ThreadStore(tmp_path)
        ids = [f"ours-{writer}-{number}" for number in range(count)]
        for message_id in ids:
            store.append_message("T", a_message(message_id))
        with still_writing.get_lock():
            still_writing.value -= 1
        return ids

    def theirs() -> list[str]:
        neighbour = Neighbour(tmp_path)
        ids: list[str] = []
        while still_writing.value:
            ids.append(f"theirs-{len(ids)}")
            neighbour.line(ids[-1])
            os.sched_yield()
            neighbour.newline()
            neighbour.sync()
        return ids

    calls: list[Callable[[], list[str]]] = [partial(ours, writer) for writer in range(writers)]
    *written, written_by_neighbour = each_in_a_process([*calls, theirs])
    found = Counter(ids_in_log(tmp_path))
    assert {found[message_id] for ids in written for message_id in ids} == {1}
    assert set(written_by_neighbour) <= set(found)
    assert len(found) == writers * count + len(written_by_neighbour)


class WritesBefore(SystemCalls):
    """Lets a neighbour act just before our first, second, … write."""

    def __init__(self, *acts: Callable[[], None]) -> None:
        self._acts = list(acts)

    def write(self, file: int, data: bytes) -> int:
        if self._acts:
            self._acts.pop(0)()
        return super().write(file, data)


@pytest.mark.parametrize("newline_comes", ["before our line", "before our second write", "after all"])
@pytest.mark.parametrize("count", [0, 1], ids=["new log", "old log"])
def test_a_line_of_a_neighbour_just_before_ours_leaves_both_readable(
    tmp_path: Path, newline_comes: str, count: int
) -> None:
    neighbour: list[Neighbour] = []

    def line() -> None:
        neighbour.append(Neighbour(tmp_path))
        neighbour[0].line("theirs")
        if newline_comes == "before our line":
            neighbour[0].newline()

    def second() -> None:
        if newline_comes == "before our second write":
            neighbour[0].newline()

    store = a_store_with_thread(tmp_path, WritesBefore(line, second))
    for number in range(count):
        ThreadStore(tmp_path).append_message("T", a_message(f"old-{number}"))
    store.append_message("T", a_message("ours"))
    if newline_comes == "after all":
        neighbour[0].newline()
    store.append_message("T", a_message("later"))
    found = ids_in_log(tmp_path)
    assert sorted(set(found)) == sorted({"theirs", "ours", "later", *(f"old-{n}" for n in range(count))})
    assert found.count("ours") == 1
    assert found.index("theirs") < found.index("ours") < found.index("later")


def test_lines_of_a_neighbour_before_each_of_our_writes_leave_all_readable(tmp_path: Path) -> None:
    store = a_store_with_thread(tmp_path)
    neighbour = Neighbour(tmp_path)
    neighbour.line("theirs-0")

    def next_line(number: int) -> None:
        neighbour.newline()
        neighbour.line(f"theirs-{number}")

    calls = WritesBefore(
        lambda: next_line(1), lambda: next_line(2), lambda: next_line(3), lambda: next_line(4)
    )
    store = ThreadStore(tmp_path, calls=calls)
    for number in range(4):
        store.append_message("T", a_message(f"ours-{number}"))
    neighbour.newline()
    found = ids_in_log(tmp_path)
    assert {f"theirs-{number}" for number in range(5)} <= set(found)
    assert [found.count(f"ours-{number}") for number in range(4)] == [1, 1, 1, 1]


def test_a_line_that_a_dead_neighbour_left_torn_is_ended_before_ours(tmp_path: Path) -> None:
    store = a_store_with_thread(tmp_path)
    log = tmp_path / "T" / "messages.jsonl"
    log.write_bytes(b'{"id":"torn \xc3')
    store.append_message("T", a_message("ours"))
    torn, ours, rest = log.read_bytes().split(b"\n")
    assert (torn, json.loads(ours)["id"], rest) == (b'{"id":"torn \xc3', "ours", b"")
    assert ids_in_log(tmp_path) == ["ours"]


def test_lines_appended_together_stay_side_by_side_when_a_neighbour_gets_in_between(tmp_path: Path) -> None:
    a_store_with_thread(tmp_path)
    neighbour = Neighbour(tmp_path)
    store = ThreadStore(tmp_path, calls=WritesBefore(lambda: neighbour.line("theirs")))
    lines = [json.dumps(a_message(name).fields()).encode() for name in ("question", "answer")]
    store.append_lines("T", lines)
    neighbour.newline()
    found = ids_in_log(tmp_path)
    assert "theirs" in found
    assert found.count("question") == found.count("answer") == 1
    assert found.index("answer") == found.index("question") + 1


def test_a_message_waits_for_no_deleted_thread_but_goes_to_the_one_that_took_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = a_store_with_thread(tmp_path)
    flock = fcntl.flock

    def replaced_while_waiting(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        other = ThreadStore(tmp_path)
        other.delete_thread("T")
        other.create_thread(Thread(id="T", metadata={"is": "new"}))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", replaced_while_waiting)
    store.append_message("T", a_message("m"))
    assert store.get_thread("T").metadata == {"is": "new"}
    assert ids_in_log(tmp_path) == ["m"]


def test_a_process_killed_while_appending_loses_nothing_that_it_was_told_is_stored(tmp_path: Path) -> None:
    moments = random.Random(20)
    for life in range(300):
        thread_id = f"T{life // 10}"
        if life % 10 == 0:  # Each time the whole log is read.
            ThreadStore(tmp_path).create_thread(Thread(id=thread_id))
            stored: set[str] = set()
        stored |= killed_while_appending(tmp_path, thread_id, life, moments)
        after = f"after-{life}"
        ThreadStore(tmp_path).append_message(thread_id, a_message(after))
        stored.add(after)
        found = Counter(ids_in_log(tmp_path, thread_id))
        assert [message_id for message_id in stored if found[message_id] != 1] == []


def killed_while_appending(root: Path, thread_id: str, life: int, moments: random.Random) -> set[str]:
    """The ids whose append has returned in a process that is killed within some milliseconds."""
    text = "x" * moments.choice([10, 10_000, 300_000])
    receiver, sender = os.pipe()
    process = os.fork()
    if process == 0:
        with suppress(BaseException):
            store, number = ThreadStore(root), 0
            while True:
                store.append_message(thread_id, a_message(f"{life}-{number}", text))
                os.write(sender, f"{life}-{number}\n".encode())
                number += 1
        os._exit(1)
    os.close(sender)
    time.sleep(moments.uniform(0, 0.01))
    os.kill(process, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(process, 0)[1])
    with open(receiver) as acknowledged:
        return set(acknowledged.read().split())


READ_LOG = """
import sys
from store import ThreadStore
store = ThreadStore(sys.argv[1])
print(sum(1 for message in store.iter_messages("T")))
print([line for line in open("/proc/self/status") if line.startswith("VmHWM")][0].split()[1])
"""


def test_a_huge_log_with_a_line_of_200_megabytes_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """256 MiB; 1 GiB with THREADFS_SOAK=1."""
    size, long_line, count = 256 << 20, 200_000_000, 0
    if os.environ.get("THREADFS_SOAK") == "1":
        size = 1 << 30
    a_store_with_thread(tmp_path)
    line = json.dumps(a_message("m", "x" * 100_000).fields()).encode() + b"\n"
    with open(tmp_path / "T" / "messages.jsonl", "wb") as log:
        log.write(line)
        log.truncate(log.seek(long_line, os.SEEK_CUR))
        log.write(b"\n")
        while log.tell() < size:
            log.write(line)
            count += 1
    started = time.monotonic()
    answer = subprocess.run([sys.executable, "-c", READ_LOG, tmp_path], capture_output=True, check=True)
    messages, peak_kib = map(int, answer.stdout.split())
    assert messages == count + 1
    assert peak_kib < 300 * 1024
    assert time.monotonic() - started < 20


def test_a_log_that_ends_in_a_torn_line_of_200_megabytes_is_read_in_pieces_in_time(tmp_path: Path) -> None:
    store = a_store_with_thread(tmp_path)
    for number in range(10):
        store.append_message("T", a_message(f"m{number}", "x" * 4_000_000))
    with open(tmp_path / "T" / "messages.jsonl", "ab") as log:
        log.truncate(log.tell() + 200_000_000)
    reader = store.open_log("T")
    size, offset = reader.info().size_bytes, 0
    started = time.monotonic()
    while offset < size and time.monotonic() - started < 5:
        offset += len(reader.read(offset, 128 << 10))
    reader.close()
    assert offset == size


# ── Races for an id, a run, a status ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("what", ["thread", "run"])
def test_of_eight_processes_that_create_the_same_id_exactly_one_succeeds(tmp_path: Path, what: str) -> None:
    a_store_with_thread(tmp_path)
    ids = [f"id-{number}" for number in range(40)]

    def create(process: int) -> list[str]:
        store, won = ThreadStore(tmp_path), []
        for new_id in ids:
            with suppress(AlreadyExists):
                if what == "thread":
                    store.create_thread(Thread(id=new_id, metadata=process))
                else:
                    store.create_run("T", Run(id=new_id, model=str(process)))
                won.append(new_id)
        return won

    won = each_in_a_process([partial(create, process) for process in range(8)])
    winner = {new_id: process for process, wins in enumerate(won) for new_id in wins}
    assert sorted(new_id for wins in won for new_id in wins) == sorted(ids)
    store = ThreadStore(tmp_path)
    if what == "thread":
        assert {new_id: store.get_thread(new_id).metadata for new_id in ids} == winner
    else:
        assert {new_id: int(store.get_run("T", new_id).model) for new_id in ids} == winner
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_each_run_is_claimed_by_exactly_one_worker(tmp_path: Path, workers: int) -> None:
    store = a_store_with_thread(tmp_path)
    run_ids = [f"R{number}" for number in range(200)]
    for run_id in run_ids:
        store.create_run("T", Run(id=run_id))

    def claim() -> list[str]:
        store, claimed = ThreadStore(tmp_path), []
        for run_id in run_ids:
            with suppress(StatusChanged, RunInTerminalState):
                store.update_run_status("T", run_id, RunStatus.in_progress, expected=RunStatus.queued)
                claimed.append(run_id)
                if len(claimed) % 2:
                    store.update_run_status("T", run_id, RunStatus.completed)
        return claimed

    claimed = each_in_a_process([claim] * workers)
    assert sorted(run_id for ids in claimed for run_id in ids) == sorted(run_ids)
    completed = {run_id for ids in claimed for run_id in ids[::2]}
    assert {r for r in run_ids if store.get_run("T", r).status is RunStatus.completed} == completed


def test_a_cancel_is_never_undone_by_the_update_of_a_worker(tmp_path: Path) -> None:
    store = a_store_with_thread(tmp_path)
    run_ids = [f"R{number}" for number in range(100)]
    for run_id in run_ids:
        store.create_run("T", Run(id=run_id))

    def work() -> dict[str, str]:
        """Works on every other run until it is cancelled, and completes the rest if it can."""
        store, ended = ThreadStore(tmp_path), {}
        latest = time.monotonic() + 60
        for number, run_id in enumerate(run_ids):
            try:
                store.update_run_status("T", run_id, RunStatus.in_progress)
                while number % 2 and time.monotonic() < latest:
                    store.update_run_status("T", run_id, RunStatus.in_progress)
                ended[run_id] = str(store.update_run_status("T", run_id, RunStatus.completed).status)
            except RunInTerminalState:
                ended[run_id] = "cancelled"
        return ended

    def cancel() -> dict[str, str]:
        store, ended = ThreadStore(tmp_path), {}
        for run_id in run_ids:
            while store.get_run("T", run_id).status is RunStatus.queued:
                time.sleep(0)
            try:
                ended[run_id] = str(store.cancel_run("T", run_id).status)
            except RunInTerminalState:
                ended[run_id] = "completed"
        return ended

    worker, canceller = each_in_a_process([work, cancel])
    assert worker == canceller
    assert {run_id: str(store.get_run("T", run_id).status) for run_id in run_ids} == worker
    assert {worker[run_id] for run_id in run_ids[1::2]} == {"cancelled"}


@contextmanager
def holder_of_the_lock(root: Path) -> Iterator[multiprocessing.process.BaseProcess]:
    receiver, sender = PROCESSES.Pipe(duplex=False)

    def hold() -> None:
        with locked_thread(OpenThreads(str(root)), "T"):
            sender.send("held")
            signal.pause()

    process = PROCESSES.Process(target=hold, daemon=True)
    process.start()
    receiver.recv()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def test_a_killed_holder_of_the_lock_blocks_neither_who_waits_nor_who_comes(tmp_path: Path) -> None:
    store = a_store_with_thread(tmp_path)

    def append() -> None:
        store.append_message("T", a_message("waited"))

    with holder_of_the_lock(tmp_path) as holder:
        waiting = PROCESSES.Process(target=append, daemon=True)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        holder.kill()
        waiting.join(10)
        assert waiting.exitcode == 0
    store.append_message("T", a_message("came"))
    assert ids_in_log(tmp_path) == ["waited", "came"]


class DiesAtRename(SystemCalls):
    def rename(self, directory: int, name: str, new_directory: int, new_name: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_killed_before_its_rename_leaves_the_old_document_and_no_lock(tmp_path: Path) -> None:
    store = a_store_with_thread(tmp_path)

    def patch() -> None:
        ThreadStore(tmp_path, calls=DiesAtRename()).patch_document(DocumentKey("T"), {"metadata": "lost"})

    process = PROCESSES.Process(target=patch, daemon=True)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert store.get_thread("T").metadata == {}
    store.patch_document(DocumentKey("T"), {"metadata": "kept"})
    assert store.get_thread("T").metadata == "kept"


class RemovesWhatIsMade(SystemCalls):
    def rename(self, directory: int, name: str, new_directory: int, new_name: str) -> None:
        super().rename(directory, name, new_directory, new_name)
        os.rename(new_name, ".tmpR3m0v3", src_dir_fd=new_directory, dst_dir_fd=new_directory)


def test_a_thread_that_another_program_removes_as_soon_as_it_is_there_was_made(tmp_path: Path) -> None:
    store = ThreadStore(tmp_path, calls=RemovesWhatIsMade())
    assert store.create_thread(Thread(id="T")).id == "T"
    assert store.list_thread_ids() == []


# ── Documents that others replace ───────────────────────────────────────────────────────────────────────


class ActsBeforeRename(SystemCalls):
    """Calls *act* while our temporary file is being synced: after our read, before our replacement."""

    def __init__(self, act: Callable[[], None], times: int = 1) -> None:
        self._act = act
        self._times = times

    def sync(self, file_or_directory: int) -> None:
        super().sync(file_or_directory)
        if self._times and stat.S_ISREG(os.fstat(file_or_directory).st_mode):
            self._times -= 1
            self._act()


def replace_as_the_reference_does(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    temporary = path.with_name(".tmpA1b2C3")
    temporary.write_text(json.dumps(change(json.loads(path.read_bytes())), indent=2))
    temporary.rename(path)


@pytest.mark.parametrize("times", [1, 2, 7])
def test_what_another_program_stored_after_our_read_is_in_what_we_store(tmp_path: Path, times: int) -> None:
    status = tmp_path / "T" / "runs" / "R" / "status.json"

    def count_up() -> None:
        replace_as_the_reference_does(status, lambda run: {**run, "theirs": run.get("theirs", 0) + 1})

    store = a_store_with_thread(tmp_path)
    store.create_run("T", Run(id="R"))
    store = ThreadStore(tmp_path, calls=ActsBeforeRename(count_up, times))
    store.patch_document(DocumentKey("T", "R"), {"ours": 1})
    found = json.loads(status.read_bytes())
    assert (found["theirs"], found["ours"]) == (times, 1)
    assert os.listdir(status.parent) == ["status.json"]


def test_a_run_that_another_program_ends_after_our_read_is_not_updated(tmp_path: Path) -> None:
    status = tmp_path / "T" / "runs" / "R" / "status.json"

    def complete() -> None:
        replace_as_the_reference_does(status, lambda run: {**run, "status": "completed"})

    a_store_with_thread(tmp_path).create_run("T", Run(id="R"))
    store = ThreadStore(tmp_path, calls=ActsBeforeRename(complete))
    with pytest.raises(RunInTerminalState):
        store.update_run_status("T", "R", RunStatus.in_progress)
    assert store.get_run("T", "R").status is RunStatus.completed
    assert os.listdir(status.parent) == ["status.json"]


@pytest.mark.parametrize("what", ["document", "directory"])
def test_a_run_that_another_program_deletes_after_our_read_is_not_found(tmp_path: Path, what: str) -> None:
    run = tmp_path / "T" / "runs" / "R"
    acts: dict[str, Callable[[], None]] = {
        "document": (run / "status.json").unlink,
        "directory": lambda: shutil.rmtree(run),
    }
    a_store_with_thread(tmp_path).create_run("T", Run(id="R"))
    store = ThreadStore(tmp_path, calls=ActsBeforeRename(acts[what]))
    with pytest.raises(RunNotFound):
        store.patch_document(DocumentKey("T", "R"), {"ours": 1})
    assert [str(path) for path in tmp_path.rglob("status.json")] == []
    assert [str(path) for path in tmp_path.rglob(".*")] == []


# ── Readers during a deletion ───────────────────────────────────────────────────────────────────────────

RUNS, MESSAGES = 30, 3


def make_full_thread(store: ThreadStore) -> None:
    store.create_thread(Thread(id="T"))
    for number in range(RUNS):
        store.create_run("T", Run(id=f"R{number}"))
    for number in range(MESSAGES):
        store.append_message("T", a_message(f"m{number}"))


def what_a_reader_sees(root: Path) -> dict[str, int]:
    """How many runs and messages the thread has, by each way to ask; what is not found is left out."""
    seen = {}
    ways: dict[str, Callable[[ThreadStore], int]] = {
        "runs": lambda store: len(store.list_run_ids("T")),
        "messages": lambda store: len(store.list_messages("T")),
        "log": lambda store: store.log_info("T").size_bytes,
        "statuses": lambda store: len(list(store.runs_by_status())) or RUNS,
    }
    for way, count in ways.items():
        with suppress(NotFound):
            seen[way] = count(ThreadStore(root))
    return seen


def test_readers_during_deletions_see_all_of_a_thread_or_nothing(tmp_path: Path) -> None:
    original = tmp_path / "original"
    store = ThreadStore(original)
    make_full_thread(store)
    everything = what_a_reader_sees(original)
    assert everything["runs"] == RUNS
    assert everything["messages"] == MESSAGES
    shared = tmp_path / "shared"
    store = ThreadStore(shared)
    still_deleting = PROCESSES.Value("i", 1)

    def delete_again_and_again() -> set[tuple[str, int]]:
        for number in range(100):
            shutil.copytree(original / "T", shared / f".copy-{number}")
            os.rename(shared / f".copy-{number}", shared / "T")
            store.delete_thread("T")
        still_deleting.value = 0
        return set()

    def read() -> set[tuple[str, int]]:
        halves: set[tuple[str, int]] = set()
        while still_deleting.value:
            seen = what_a_reader_sees(shared)
            seen.pop("statuses", None)  # Not of one moment: it goes from run to run.
            halves |= seen.items() - everything.items()
        return halves

    assert each_in_a_process([delete_again_and_again, read, read]) == [set(), set(), set()]


# How a reader asks.
WAYS: dict[str, Callable[[ThreadStore], object]] = {
    "list_run_ids": lambda store: len(store.list_run_ids("T")),
    "list_messages": lambda store: len(store.list_messages("T")),
    "log_info": lambda store: store.log_info("T").size_bytes,
    "list_step_ids": lambda store: len(store.list_step_ids("T", "R0")),
    "list_steps": lambda store: len(store.list_steps("T", "R0")),
}


class DeletesAtCall:
    """Stands for *function*, and deletes the thread just before its call number *call*."""

    def __init__(self, root: Path, function: Callable[..., Any], call: int) -> None:
        self._root = root
        self._function = function
        self._calls_left = call

    def __call__(self, *args: Any) -> Any:
        self._calls_left -= 1
        if self._calls_left == 0:
            ThreadStore(self._root).delete_thread("T")
        return self._function(*args)


@pytest.mark.parametrize("call", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("way", WAYS)
def test_a_thread_deleted_in_the_middle_of_a_read_is_whole_or_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, call: int
) -> None:
    ask = WAYS[way]
    store = ThreadStore(tmp_path)
    make_full_thread(store)
    store.append_step("T", "R0", RunStep(id="S"))
    whole = ask(ThreadStore(tmp_path))
    monkeypatch.setattr(paths, "_open", DeletesAtCall(tmp_path, paths._open, call))
    try:
        answer = ask(ThreadStore(tmp_path))
    except NotFound:
        return
    assert answer == whole


# ── Threads of one process ──────────────────────────────────────────────────────────────────────────────


def each_in_a_thread(calls: Sequence[Callable[[], T]]) -> list[T]:
    """What *calls* return, made at the same moment; the interpreter switches between them very often."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(calls)) as pool:
            together = threading.Barrier(len(calls))

            def work(call: Callable[[], T]) -> T:
                together.wait()
                return call()

            return list(pool.map(work, calls))
    finally:
        sys.setswitchinterval(interval)


def test_appends_of_many_threads_to_one_store_lose_nothing(tmp_path: Path) -> None:
    store = a_store_with_thread(tmp_path)
    ids = [[f"{thread}-{number}" for number in range(50)] for thread in range(16)]

    def append(thread: int) -> None:
        for message_id in ids[thread]:
            store.append_message("T", a_message(message_id))

    each_in_a_thread([partial(append, thread) for thread in range(16)])
    found = ids_in_log(tmp_path)
    assert sorted(found) == sorted(message_id for thread in ids for message_id in thread)
    assert [[i for i in found if i.startswith(f"{thread}-")] for thread in range(16)] == ids


def test_patches_of_many_threads_to_one_document_lose_nothing(tmp_path: Path) -> None:
    store = a_store_with_thread(tmp_path)

    def patch(thread: int) -> None:
        for number in range(20):
            store.patch_document(DocumentKey("T"), {"metadata": {f"{thread}-{number}": thread}})

    each_in_a_thread([partial(patch, thread) for thread in range(16)])
    expected = {f"{thread}-{number}": thread for thread in range(16) for number in range(20)}
    assert store.get_thread("T").metadata == expected


RUN = RunContents(b'{"created_at":1,"status":"queued"}')


class SyncsNothing(SystemCalls):
    """For a test of what is in memory, many times quicker."""

    def sync(self, file_or_directory: int) -> None:
        pass


def test_threads_that_list_while_others_create_and_delete_get_nothing_but_answers(tmp_path: Path) -> None:
    store = ThreadStore(tmp_path, calls=SyncsNothing())
    others = [f"other-{number}" for number in range(500)]
    for thread_id in others:
        store.import_thread(thread_id, b'{"created_at":1}', [], {"R": RUN})
    assert len(list(store.runs_by_status())) == len(others)

    def create_and_delete(number: int) -> None:
        for round_number in range(150):
            thread_id = f"T{number}-{round_number}"
            store.import_thread(thread_id, b'{"created_at":1}', [], {"R": RUN})
            assert store.list_run_ids(thread_id) == ["R"]
            store.delete_thread(thread_id)

    def read() -> None:
        for _ in range(10):
            for thread_id in store.list_thread_ids():
                with suppress(ThreadNotFound):
                    assert store.list_run_ids(thread_id) == ["R"]

    calls: list[Callable[[], None]] = [partial(create_and_delete, number) for number in range(4)]
    each_in_a_thread([*calls, read])
    assert sorted(store.list_thread_ids()) == sorted(others)
