"""What is left of the store when a process, the power or the disk fails.

The judge of all but the failing calls: what was acknowledged is there, the operation under way is there or
is not, nothing else, and work goes on.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import random
import re
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from store import DocumentKey, Run, RunStep, StorageFailed, StoreError, Thread, ThreadStore
from store.disk.system_calls import SystemCalls
from tests.mount.conftest import wait_until
from tests.store import power_cut
from tests.store.crash_script import (
    SCRIPT,
    STORE,
    State,
    Unsynced,
    hidden_names,
    message,
    resume,
    state_of,
    states_of_script,
    stopped_clock,
)
from tests.store.power_cut import FragileDisk, Sync

NAMES = ["open the store", *(operation.name for operation in SCRIPT)]


@pytest.fixture(scope="module", autouse=True)
def _clock() -> Iterator[None]:
    with stopped_clock():
        yield


@contextmanager
def in_memory() -> Iterator[Path]:
    """A new directory, in memory where that is possible: what is cut here is a model, thousands of times."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Path(directory)


@pytest.fixture
def ram() -> Iterator[Path]:
    with in_memory() as directory:
        yield directory


@pytest.fixture(scope="module")
def states() -> list[State]:
    return states_of_script()


# ── A killed process ────────────────────────────────────────────────────────────────────────────────


class Worker:
    """A process that runs the script in *directory* and acknowledges each operation with a byte."""

    def __init__(self, directory: Path, calls: SystemCalls | None = None) -> None:
        self.acknowledged = 0
        self._pipe, theirs = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                store = ThreadStore(directory, calls=calls)
                for operation in SCRIPT:
                    operation.do(store)
                    os.write(theirs, b".")
            finally:
                os._exit(0)
        os.close(theirs)

    def await_acknowledged(self, count: int) -> None:
        while self.acknowledged < count and self._read():
            pass

    def drain(self) -> int:
        """How many operations are acknowledged by now."""
        while select.select([self._pipe], [], [], 0)[0] and self._read():
            pass
        return self.acknowledged

    def _read(self) -> bool:
        got = len(os.read(self._pipe, len(SCRIPT)))
        self.acknowledged += got
        return got > 0

    def kill(self) -> int:
        """How many operations were acknowledged before it died."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.drain()
        os.close(self._pipe)
        return self.acknowledged


def test_a_process_killed_at_any_moment_leaves_what_it_acknowledged(ram: Path, states: list[State]) -> None:
    chance = random.Random()
    began = time.monotonic()
    worker = Worker(ram / "whole" / STORE)
    worker.await_acknowledged(len(SCRIPT))
    assert worker.kill() == len(SCRIPT)
    operation_s = (time.monotonic() - began) / len(SCRIPT)
    for number in range(120):
        base = ram / str(number)
        base.mkdir()
        worker = Worker(base / STORE)
        worker.await_acknowledged(number % len(SCRIPT))
        time.sleep(chance.uniform(0, 2 * operation_s))
        done = worker.kill()
        resume(ThreadStore(base / STORE, calls=Unsynced()), states, range(done, done + 2), limit=4)
        shutil.rmtree(base)


class DiesBetweenLines(Unsynced):
    def write(self, file: int, data: bytes) -> int:
        size = super().write(file, data)
        if b'"m3"' in data:
            os.kill(os.getpid(), signal.SIGKILL)
        return size


def test_a_process_killed_between_two_of_several_lines_leaves_the_first(
    ram: Path, states: list[State]
) -> None:
    worker = Worker(ram / STORE, DiesBetweenLines())
    worker.await_acknowledged(len(SCRIPT))
    done = worker.kill()
    assert done == SEVERAL_LINES - 1
    store = ThreadStore(ram / STORE, calls=Unsynced())
    assert [message.id for message in store.iter_messages("A")] == ["m1", "m2", "m3"]
    assert resume(store, states, range(done, done + 1)) == done


# ── A power cut ─────────────────────────────────────────────────────────────────────────────────────


class Judge:
    """Judges what a power cut leaves; each tree once, however often it comes."""

    def __init__(self, states: list[State], directory: Path) -> None:
        self.judged = 0
        self._states = states
        self._directory = directory
        self._verdicts: dict[power_cut.Shape, int | str] = {}

    def check(self, disk: FragileDisk, expected: range) -> None:
        for tree in disk.outcomes(seed=disk.calls):
            self.judged += 1
            verdict = self._verdict(tree)
            if verdict not in expected:
                raise AssertionError(
                    f"a cut after call {disk.calls}, {disk.last}, with {expected} done: {verdict}\n{tree}"
                )

    def _verdict(self, tree: power_cut.Tree) -> int | str:
        """How many operations of the script are there, or what is wrong."""
        shape = power_cut.shape(tree)
        if shape not in self._verdicts:
            base = self._directory / str(len(self._verdicts))
            base.mkdir()
            power_cut.build(tree, base)
            try:
                store = ThreadStore(base / STORE, calls=Unsynced())
                self._verdicts[shape] = resume(store, self._states, range(len(SCRIPT) + 1), limit=1)
            except (AssertionError, StoreError) as error:
                self._verdicts[shape] = f"{type(error).__name__}: {error}"
            shutil.rmtree(base)
        return self._verdicts[shape]


@pytest.fixture(scope="module")
def judge(states: list[State]) -> Iterator[Judge]:
    with in_memory() as directory:
        yield Judge(states, directory)


# Each of several lines is a write, and a cut may leave the first few of them; it has tests of its own.
SEVERAL_LINES = NAMES.index("append lines")


def run_with_cuts(base: Path, judge: Judge, *, first: int = 0, skipped: Sync | None = None) -> FragileDisk:
    """Runs the script, and judges what a cut after each call leaves, from operation *first* of it on."""
    base.mkdir()
    expected = range(1)

    def check(disk: FragileDisk) -> None:
        if expected.start >= first and expected != range(SEVERAL_LINES - 1, SEVERAL_LINES + 1):
            judge.check(disk, expected)

    disk = FragileDisk(base, check, skipped)
    store = ThreadStore(base / STORE, calls=disk)
    for number, operation in enumerate(SCRIPT):
        expected = range(number, number + 2)
        operation.do(store)
        expected = range(number + 1, number + 2)
        check(disk)
        assert power_cut.shape(disk.now()) == power_cut.shape(power_cut.found(base))
    return disk


def test_a_power_cut_after_any_call_leaves_what_was_acknowledged(ram: Path, judge: Judge) -> None:
    run_with_cuts(ram / "disk", judge)


def syncs_by_operation(base: Path) -> dict[str, list[Sync]]:
    """The syncs that each operation makes."""
    disk = FragileDisk(base)
    store = ThreadStore(base / STORE, calls=disk)
    found = {NAMES[0]: disk.syncs.copy()}
    for operation in SCRIPT:
        before = len(disk.syncs)
        operation.do(store)
        found[operation.name] = disk.syncs[before:]
    return found


# Syncs that are for names which another process made and died; see the test of successors.
OF_OTHERS = {
    "append to imported": ["new/nested/store/B"],
    "extend by a run": ["new/nested/store/B"],
    "extend by a step": ["new/nested/store/B/runs/X"],
}


@pytest.mark.parametrize("name", NAMES)
def test_the_judge_notices_a_missing_sync(name: str, ram: Path, judge: Judge) -> None:
    (ram / "syncs").mkdir()
    unnoticed = []
    for number, sync in enumerate(syncs_by_operation(ram / "syncs")[name]):
        try:
            first = max(0, NAMES.index(name) - 1)
            run_with_cuts(ram / str(number), judge, first=first, skipped=sync)
            unnoticed.append(sync.place)
        except AssertionError:
            pass
    assert unnoticed == OF_OTHERS.get(name, [])


def test_of_several_lines_under_way_in_a_power_cut_the_first_few_are_there(ram: Path) -> None:
    disk = FragileDisk(ram)
    store = ThreadStore(ram / STORE, calls=disk)
    for operation in SCRIPT[: SEVERAL_LINES - 1]:
        operation.do(store)
    before = [message.text for message in store.iter_messages("A")]
    SCRIPT[SEVERAL_LINES - 1].do(store)
    after = [message.text for message in store.iter_messages("A")]
    seen: set[int] = set()

    def check(disk: FragileDisk) -> None:
        for tree in disk.outcomes(seed=disk.calls):
            base = ram / "cut" / str(len(seen))
            shutil.rmtree(ram / "cut", ignore_errors=True)
            base.mkdir(parents=True)
            power_cut.build(tree, base)
            messages = [message.text for message in ThreadStore(base / STORE).iter_messages("A")]
            assert len(messages) >= len(before)
            assert messages == after[: len(messages)]
            seen.add(len(messages))

    shutil.rmtree(ram / STORE.parts[0])
    disk = FragileDisk(ram)
    store = ThreadStore(ram / STORE, calls=disk)
    for operation in SCRIPT[: SEVERAL_LINES - 1]:
        operation.do(store)
    disk.after_call = check
    SCRIPT[SEVERAL_LINES - 1].do(store)
    assert seen == {len(before), len(before) + 1, len(after)}


# ── A killed process, then a power cut ──────────────────────────────────────────────────────────────


def _threads(store: ThreadStore) -> list[DocumentKey]:
    return [DocumentKey(thread_id) for thread_id in store.list_thread_ids()]


def _runs(store: ThreadStore) -> list[DocumentKey]:
    return [
        DocumentKey(thread.thread_id, run_id)
        for thread in _threads(store)
        for run_id in store.list_run_ids(thread.thread_id)
    ]


def _steps(store: ThreadStore) -> list[DocumentKey]:
    return [
        DocumentKey(run.thread_id, run.run_id, step_id)
        for run in _runs(store)
        for step_id in store.list_step_ids(run.thread_id, run.run_id or "")
    ]


Find = Callable[[ThreadStore], list[DocumentKey]]
# What a successor does, to each thing it finds.
WORK: dict[str, tuple[Find, Callable[[ThreadStore, DocumentKey], object]]] = {
    "append message": (_threads, lambda s, key: s.append_message(key.thread_id, message("new", "new"))),
    "create run": (_threads, lambda s, key: s.create_run(key.thread_id, Run(id="new", created_at=20))),
    "patch thread": (_threads, lambda s, key: s.patch_document(key, {"new": 1})),
    "append step": (
        _runs,
        lambda s, key: s.append_step(key.thread_id, key.run_id or "", RunStep(id="new", created_at=20)),
    ),
    "patch run": (_runs, lambda s, key: s.patch_document(key, {"new": 1})),
    "patch step": (_steps, lambda s, key: s.patch_document(key, {"new": 1})),
    "create thread": (lambda store: [DocumentKey("new")], lambda s, key: s.create_thread(Thread(id="new"))),
}


def shown_by(store: ThreadStore, work: str, key: DocumentKey) -> object:
    """What is there of the successor's work."""
    match work:
        case "append message":
            return store.list_messages(key.thread_id)
        case "create run":
            return store.get_run(key.thread_id, "new")
        case "append step":
            return store.get_step(key.thread_id, key.run_id or "", "new")
    return store.read_document(key)[0]


# The calls that make something show; what another process finds after a kill is what the last of them left.
_SHOWN = re.compile(r"(rename|make directory|open for appending) [^.]|write")


def run_script(
    base: Path, count: int, after_call: Callable[[FragileDisk], None] | None = None
) -> FragileDisk:
    """The disk in *base*, which is made, after *count* operations of the script."""
    base.mkdir()
    disk = FragileDisk(base, after_call or (lambda disk: None))
    store = ThreadStore(base / STORE, calls=disk)
    for operation in SCRIPT[:count]:
        operation.do(store)
    return disk


@pytest.mark.parametrize("work", WORK)
def test_work_on_what_a_killed_process_left_survives_a_power_cut(work: str, ram: Path) -> None:
    lost = {}

    def killed(disk: FragileDisk) -> None:
        if _SHOWN.match(disk.last):
            base = ram / str(disk.calls)
            if things := lost_by_successor(base, disk.copy(base), work):
                lost[f"killed after call {disk.calls}, {disk.last}"] = things

    run_script(ram / "disk", len(SCRIPT), killed)
    assert not lost, "\n".join(f"{when}: {what}" for when, what in lost.items())


@pytest.mark.parametrize(
    ("work", "killed_after", "place"),
    [
        ("append message", "open for appending messages.jsonl", "store/A"),
        ("create run", "make directory runs", "store/A"),
        ("append step", "make directory steps", "runs/R"),
    ],
)
def test_the_judge_notices_a_missing_sync_of_what_a_killed_process_made(
    work: str, killed_after: str, place: str, ram: Path
) -> None:
    noticed = []

    def killed(disk: FragileDisk) -> None:
        if disk.last != killed_after:
            return
        disk.after_call = lambda disk: None
        whole = disk.copy(ram / "whole")
        assert not lost_by_successor(ram / "whole", whole, work)
        for number, sync in enumerate(whole.syncs):
            base = ram / str(number)
            if lost_by_successor(base, disk.copy(base), work, skipped=sync):
                noticed.append("/".join(sync.place.split("/")[-2:]))

    run_script(ram / "disk", 7, killed)
    assert place in noticed


def lost_by_successor(base: Path, disk: FragileDisk, work: str, skipped: Sync | None = None) -> list[str]:
    """On which things *work*, acknowledged, may be gone after a power cut."""
    find, do = WORK[work]
    successor = ThreadStore(base / STORE, calls=disk)
    disk.syncs.clear()
    disk.skipped = skipped
    things = find(successor)
    for key in things:
        do(successor, key)
    expected = {key: shown_by(successor, work, key) for key in things}
    lost = set()
    for number, tree in enumerate(disk.outcomes()):
        rest = base / f"cut-{number}"
        rest.mkdir()
        power_cut.build(tree, rest)
        store = ThreadStore(rest / STORE, calls=Unsynced())
        for key in things:
            try:
                if shown_by(store, work, key) != expected[key]:
                    lost.add(f"{key}: differs")
            except StoreError as error:
                lost.add(str(error))
    return sorted(lost)


# ── A failing disk ──────────────────────────────────────────────────────────────────────────────────


@dataclass
class Failure:
    """How an operation went of which a call failed."""

    number: int  # of the operation in the script, and how many are done before it
    error: int
    base: Path
    disk: FragileDisk
    store: ThreadStore
    call: str = ""  # the call that failed
    raised: StoreError | None = None

    def check_error(self) -> None:
        assert self.call
        assert isinstance(self.raised, StorageFailed), self
        assert self.raised.errno == self.error, self

    @property
    def allowed(self) -> range:
        """Whether a failed operation may show as done: after a failed sync only."""
        return range(self.number, self.number + (2 if self.call == "sync" else 1))


def failures(
    number: int, base: Path, states: list[State], fail: Callable[[Failure, int], None]
) -> Iterator[Failure]:
    """Runs operation *number* anew for each of its calls and both errors.

    *fail* is asked before every call, with the number (from 0) of the call that it is to make fail.
    """
    before = run_script(base / "before", number)
    after = before.copy(base / "after")
    store = ThreadStore(base / "after" / STORE, calls=after)
    after.calls = 0
    SCRIPT[number].do(store)
    for failing, error in itertools.product(range(after.calls), (errno.ENOSPC, errno.EIO)):
        copy = base / f"{failing}-{errno.errorcode[error]}"
        disk = before.copy(copy)
        store = ThreadStore(copy / STORE, calls=disk)
        assert state_of(store) == states[number]
        disk.calls = 0
        failure = Failure(number, error, copy, disk, store)
        disk.before_call = lambda disk, failure=failure, failing=failing: fail(failure, failing)  # type: ignore[misc]
        try:
            SCRIPT[number].do(store)
        except StoreError as raised:
            failure.raised = raised
        disk.before_call = lambda disk: None
        yield failure
        shutil.rmtree(copy)


def fail_once(failure: Failure, failing: int) -> None:
    if failure.disk.calls == failing + 1:
        fail_call(failure)


def fail_for_good(failure: Failure, failing: int) -> None:
    if failure.disk.calls > failing:
        fail_call(failure)


def fail_after_half(failure: Failure, failing: int) -> None:
    """Call *failing*, if it writes, writes half; the next one, which writes the rest, fails."""
    if failure.disk.last == "write":
        if failure.disk.calls == failing + 1:
            failure.disk.writes_half = True
        elif failure.disk.calls == failing + 2:
            fail_call(failure)


def write_half(failure: Failure, failing: int) -> None:
    failure.disk.writes_half = failure.disk.calls == failing + 1 and failure.disk.last == "write"


def fail_call(failure: Failure) -> None:
    failure.call = failure.call or failure.disk.last
    raise OSError(failure.error, os.strerror(failure.error))


def _each(names: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("number", [NAMES.index(name) - 1 for name in names], ids=names)


each_operation = _each(NAMES[1:])
each_writing_operation = _each([name for name in NAMES[1:] if not name.startswith("delete")])


def is_cleaning_up(failure: Failure) -> bool:
    """The thread or run is gone; that its files cannot be removed is no failure of the operation."""
    return SCRIPT[failure.number].name.startswith("delete") and failure.call.startswith("remove")


def check_failures(failed: Iterable[Failure], states: list[State]) -> None:
    checked = 0
    for failure in failed:
        if failure.call and not is_cleaning_up(failure):
            failure.check_error()
            assert hidden_names(failure.base) == []
            for log in failure.base.rglob("messages.jsonl"):
                assert log.read_bytes()[-1:] in (b"", b"\n"), failure
            resume(failure.store, states, failure.allowed, limit=2)
            checked += 1
    assert checked


@each_operation
def test_an_operation_that_fails_leaves_the_store_as_it_was(
    number: int, ram: Path, states: list[State]
) -> None:
    check_failures(failures(number, ram, states, fail_once), states)


@each_writing_operation
def test_an_operation_whose_write_stops_halfway_leaves_the_store_as_it_was(
    number: int, ram: Path, states: list[State]
) -> None:
    check_failures(failures(number, ram, states, fail_after_half), states)


@each_operation
def test_a_power_cut_after_a_failure_leaves_the_operation_done_or_not_and_its_repetition_done(
    number: int, ram: Path, states: list[State], judge: Judge
) -> None:
    for failure in failures(number, ram, states, fail_once):
        if failure.raised and number + 1 != SEVERAL_LINES:
            judge.check(failure.disk, range(number, number + 2))
        if state_of(failure.store) == states[number]:
            SCRIPT[number].do(failure.store)
            judge.check(failure.disk, range(number + 1, number + 2))


@each_operation
def test_a_disk_that_fails_for_good_is_reported_and_spoils_nothing(
    number: int, ram: Path, states: list[State]
) -> None:
    for failure in failures(number, ram, states, fail_for_good):
        if not is_cleaning_up(failure):
            failure.check_error()
        if number + 1 == SEVERAL_LINES and failure.call == "write":
            # What a disk has taken before it failed cannot be taken back from it.
            assert len(ThreadStore(failure.base / STORE).list_messages("A")) in (2, 3)
            continue
        resume(
            ThreadStore(failure.base / STORE, calls=Unsynced()), states, range(number, number + 2), limit=1
        )


@each_writing_operation
def test_a_short_write_is_completed(number: int, ram: Path, states: list[State]) -> None:
    for failure in failures(number, ram, states, write_half):
        assert failure.raised is None, failure
        assert state_of(failure.store) == states[number + 1]


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("delete")])
def test_a_deletion_whose_files_cannot_be_removed_is_done_and_can_be_finished(
    name: str, ram: Path, states: list[State]
) -> None:
    number = NAMES.index(name) - 1
    for failure in failures(number, ram, states, fail_once):
        if is_cleaning_up(failure):
            assert failure.raised is None
            assert state_of(failure.store) == states[number + 1]
            for leftover in list(failure.store.list_leftovers(0)):
                failure.store.clear_leftover(leftover)
            assert hidden_names(failure.base) == []
            resume(failure.store, states, range(number + 1, number + 2), limit=1)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_store_that_cannot_be_made_is_reported_and_can_be_made_later(ram: Path, error: int) -> None:
    whole = FragileDisk(ram)
    ThreadStore(ram / STORE, calls=whole)
    for failing in range(whole.calls):
        shutil.rmtree(ram / STORE.parts[0], ignore_errors=True)
        disk = FragileDisk(ram)

        def fail(disk: FragileDisk, failing: int = failing) -> None:
            if disk.calls == failing + 1:
                raise OSError(error, os.strerror(error))

        disk.before_call = fail
        with pytest.raises(StorageFailed) as raised:
            ThreadStore(ram / STORE, calls=disk)
        assert raised.value.errno == error
        assert ThreadStore(ram / STORE, calls=Unsynced()).list_thread_ids() == []


# ── A real power cut ────────────────────────────────────────────────────────────────────────────────

# EXT4_IOC_SHUTDOWN: from now on nothing reaches the disk, not even the journal (flag 2).
_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = struct.pack("I", 2)


class Ext4:
    """A small file system of its own, in a file, mounted at *path*."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "mounted"
        self.path.mkdir()
        self._image = directory / "image"
        with self._image.open("wb") as image:
            image.truncate(16 << 20)
        _system("mkfs.ext4", "-q", "-F", str(self._image))

    def mount(self) -> None:
        # The loop device goes with the mount.
        _system("mount", "-o", "loop", str(self._image), str(self.path))

    def unmount(self) -> None:
        """Returns when it is mounted nowhere: a test beside may have a copy in a namespace of its own.

        Another mount would be one more of that, with the power cut.
        """
        _system("umount", str(self.path))
        wait_until(lambda: not _system("losetup", "-j", str(self._image)))

    def cut_power(self) -> None:
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(directory, _SHUTDOWN, _NO_LOG_FLUSH)
        finally:
            os.close(directory)


def sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _system(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Ext4]:
    try:
        if os.geteuid() != 0:
            raise PermissionError("not root")
        _system("losetup", "-f")
        disk = Ext4(tmp_path)
        disk.mount()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs root and loop devices: {error}: {getattr(error, 'stderr', '')}")
    yield disk
    if disk.path.is_mount():
        disk.unmount()


def cut_at(ext4: Ext4, name: str, count: int, delay_s: float, calls: SystemCalls | None = None) -> range:
    """Cuts the power *delay_s* after *count* operations were acknowledged by a worker in *name*.

    Returns:
        How many operations may be done: from those acknowledged before the cut to the one under way
        when the worker found out.
    """
    base = ext4.path / name
    base.mkdir()
    sync_directory(ext4.path)
    worker = Worker(base / STORE, calls)
    worker.await_acknowledged(count)
    time.sleep(delay_s)
    before = worker.drain()
    ext4.cut_power()
    after = worker.kill()
    ext4.unmount()
    ext4.mount()
    return range(before, after + 2)


def test_a_real_power_cut_leaves_what_was_acknowledged(ext4: Ext4, states: list[State]) -> None:
    chance = random.Random()
    for number in range(0, len(SCRIPT), 2):
        expected = cut_at(ext4, str(number), number, chance.uniform(0, 0.002))
        with closing(ThreadStore(ext4.path / str(number) / STORE)) as store:
            resume(store, states, expected)


def test_a_real_power_cut_takes_what_was_not_synced(ext4: Ext4, states: list[State]) -> None:
    expected = cut_at(ext4, "unsynced", len(SCRIPT), 0, Unsynced())
    store = ThreadStore(ext4.path / "unsynced" / STORE)
    with closing(store), pytest.raises((AssertionError, StoreError)):
        resume(store, states, expected)


def test_blocks_that_a_disk_keeps_to_itself_are_no_room_for_a_message(ext4: Ext4) -> None:
    """They count as free, also for the superuser, who may use those that are kept for him."""
    with closing(ThreadStore(ext4.path / "store")) as store:
        store.create_thread(Thread(id="T"))
        store.check_appendable("T", 1 << 14)
        with suppress(OSError), (ext4.path / "all the rest").open("wb", buffering=0) as rest:
            while rest.write(bytes(1 << 10)):
                pass
        assert os.statvfs(ext4.path).f_bfree > 0
        with pytest.raises(StorageFailed) as raised:
            store.check_appendable("T", 1 << 14)
        assert raised.value.errno == errno.ENOSPC
