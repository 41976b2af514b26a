"""Workers of a store on a disk: killed at any moment, a disk that is full or loses power, and lock files."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest

from store import (
    Damaged,
    DocumentKey,
    Part,
    Run,
    RunStatus,
    StorageFailed,
    StoreError,
    Thread,
    ThreadStore,
)
from store.changes import Change
from store.disk import worker_locks
from store.disk.fsck import checking
from store.disk.fsck.repairing import Repair
from store.disk.layout import LOG, STATUS, WORKERS, answer_name, is_answer
from store.disk.mistaken import holds_no_thread
from store.disk.system_calls import SystemCalls
from store.errors import ToolCallNotFound
from store.names import WORKERS as WORKERS_KEY
from store.tools import calls_of
from store.working import Answer, Outcome, Registration, WorkerState
from tests.store import power_cut
from tests.store.conftest import texts
from tests.store.contract.working import (
    COMPLETED,
    STATE,
    WITH_CALLS,
    ask,
    asked,
    eventually,
    growing_text,
    run_of,
    steps_of,
)
from tests.store.crash_script import Unsynced
from tests.store.power_cut import FragileDisk
from tests.store.test_concurrency import each_in_a_process
from tests.store.test_crash import in_memory


@pytest.fixture
def ram() -> Iterator[Path]:
    with in_memory() as directory:
        yield directory


def answers_in(store: ThreadStore, run_id: str = "R") -> list[Path]:
    return [path for path in store.run_dir("T", run_id).iterdir() if is_answer(path.name)]


# ── Killed, or without power ────────────────────────────────────────────────────────────────────────────


def answered(store: ThreadStore, outcome: Outcome) -> Iterator[str]:
    """What a mount and a worker do for an answer, step by step."""
    store.create_thread(Thread(id="T", created_at=1))
    yield "there"
    ask(store, "R")
    yield "asked"
    answer = store.register_worker(STATE).claim("T", "R")
    yield "claimed"
    answer.append("Yes.")
    yield "growing"
    answer.finish(outcome)
    yield "finished"
    for call in outcome.tool_calls:
        store.set_tool_output("T", "R", call.id, "rain")
        yield "finished"


def check_and_go_on(store: ThreadStore, done: str) -> None:
    """Judges what is left after *done*, by what others make of it."""
    if done in ("", "there") and (store.list_thread_ids() == [] or not store.list_run_ids("T")):
        assert done == "" or texts(store) in ([], ["question of R"])
        return
    taken_over = store.take_over()
    assert done != "finished" or [run.status for run in taken_over] in ([], [RunStatus.queued])
    while (status := store.get_run("T", "R").status) is not RunStatus.completed:
        if status is RunStatus.requires_action:
            waiting = [call for step in store.list_steps("T", "R") for call in calls_of(step)]
            for call in waiting:
                if call.output is None:
                    store.set_tool_output("T", "R", call.id, "rain")
        else:
            answer = store.register_worker(STATE).claim("T", "R")
            answer.append("Yes.")
            answer.finish(COMPLETED)
    fields, steps, answers = run_of(store), steps_of(store), store.list_messages("T")[1:]
    assert texts(store)[0] == "question of R"
    assert fields.keys().isdisjoint({"worker", "attempt", "required_action"})
    assert "in_progress" not in [step["status"] for step in steps]
    made = [step for step in steps if step["step_type"] == "message_creation" and "step_details" in step]
    assert sorted(step["step_details"]["message_id"] for step in made) == sorted(
        message.id for message in answers
    ), "an answer is lost, or there twice"
    # Text beside calls may have become the `partial` of a step.
    assert 1 <= len(answers) <= 1 + len([step for step in steps if step["step_type"] == "tool_calls"]) <= 2
    assert store.growing_answers("T") == []


@pytest.mark.parametrize(
    ("outcome", "cuts"),
    [
        pytest.param(COMPLETED, None, id="power cut"),
        pytest.param(WITH_CALLS, 1, id="kill, with calls"),  # The first outcome of a cut is that of a kill.
    ],
)
def test_a_kill_or_a_power_cut_after_any_call_loses_no_question_and_gives_one_answer(
    ram: Path, outcome: Outcome, cuts: int | None
) -> None:
    done, seen = "", set[tuple[str, power_cut.Shape]]()

    def check(disk: FragileDisk) -> None:
        for tree in islice(disk.outcomes(seed=disk.calls), cuts):
            shape = power_cut.shape(tree)
            if (done, shape) in seen:
                continue
            seen.add((done, shape))
            shutil.rmtree(ram / "cut", ignore_errors=True)
            (ram / "cut").mkdir()
            power_cut.build(tree, ram / "cut")
            try:
                with closing(ThreadStore(ram / "cut", calls=Unsynced())) as store:
                    check_and_go_on(store, done)
            except (AssertionError, StoreError, KeyError) as error:
                raise AssertionError(f"after call {disk.calls}, {disk.last}, {done!r}: {error}") from error

    (ram / "disk").mkdir()
    disk = FragileDisk(ram / "disk", check)
    store = ThreadStore(ram / "disk", calls=disk)
    for step in answered(store, outcome):
        done = step
        check(disk)
    assert len(seen) > 50
    disk.after_call = lambda disk: None
    store.close()


class Killed(BaseException):
    pass


class StoppedAtSyncOfLog(FragileDisk):
    """Raises `stop`, if any, in place of the next sync of a message log."""

    stop: BaseException | None = None

    def sync(self, file_or_directory: int) -> None:
        if self.stop and os.readlink(f"/proc/self/fd/{file_or_directory}").endswith(f"/{LOG}"):
            error, self.stop = self.stop, None
            raise error
        super().sync(file_or_directory)


def test_a_message_that_a_killed_worker_has_not_synced_is_synced_before_its_text_goes(ram: Path) -> None:
    (ram / "disk").mkdir()
    disk = StoppedAtSyncOfLog(ram / "disk")
    with closing(ThreadStore(ram / "disk", calls=disk)) as store:
        asked(store, "R")
        with store.register_worker(STATE) as worker:
            answer = worker.claim("T", "R")
            answer.append("Yes.")
            disk.stop = Killed()
            with pytest.raises(Killed):
                answer.finish(COMPLETED)
    with closing(ThreadStore(ram / "disk", calls=disk)) as store:
        (run,) = store.take_over()
        assert run.status is RunStatus.completed
    for number, tree in enumerate(disk.outcomes()):
        cut = ram / str(number)
        cut.mkdir()
        power_cut.build(tree, cut)
        with closing(ThreadStore(cut, calls=Unsynced())) as store:
            assert texts(store) == ["question of R", "Yes."]


def test_a_message_that_could_not_be_synced_is_written_anew_when_the_end_is_tried_again(ram: Path) -> None:
    disk = StoppedAtSyncOfLog(ram)
    with closing(ThreadStore(ram, calls=disk)) as store:
        asked(store, "R")
        answer = store.register_worker(STATE).claim("T", "R")
        answer.append("Yes.")
        disk.stop = OSError(errno.EIO, os.strerror(errno.EIO))
        with pytest.raises(StorageFailed):
            answer.finish(COMPLETED)
        assert texts(store) == ["question of R"]
        assert answer.finish(COMPLETED).status is RunStatus.completed
        assert texts(store) == ["question of R", "Yes."]


# ── A disk that is full ─────────────────────────────────────────────────────────────────────────────────


class Failing(Unsynced):
    """Fails one call with ENOSPC: the one of that number, counted from `begin`."""

    def __init__(self) -> None:
        self.failing: int | None = None
        self.calls = 0

    def begin(self, failing: int | None) -> None:
        self.failing, self.calls = failing, 0

    def _may_fail(self) -> None:
        self.calls += 1
        if self.calls - 1 == self.failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def create(self, directory: int, name: str, replaced: os.stat_result | None = None) -> int:
        self._may_fail()
        return super().create(directory, name, replaced)

    def write(self, file: int, data: bytes) -> int:
        self._may_fail()
        return super().write(file, data)

    def sync(self, file_or_directory: int) -> None:
        self._may_fail()
        super().sync(file_or_directory)

    def rename(self, directory: int, name: str, new_directory: int, new_name: str) -> None:
        self._may_fail()
        super().rename(directory, name, new_directory, new_name)


def failing_at_each_call(
    directory: Path, work: Callable[[ThreadStore], Callable[[], object]], judge: Callable[[ThreadStore], None]
) -> int:
    """Does *work* in a new store for each of its calls, which fails, and has *judge* look at what is there.

    Returns:
        How many of these failures were reported.
    """
    reported = 0
    for number in range(1000):
        calls = Failing()
        store = ThreadStore(directory / str(number), calls=calls)
        act = work(store)
        calls.begin(number)
        try:
            act()
        except StorageFailed:
            reported += 1
        is_over = calls.calls <= number
        calls.begin(None)
        judge(store)
        store.close()
        if is_over:
            return reported
    raise AssertionError("it has no end")


def test_an_end_that_fails_is_written_once_when_it_is_tried_again(ram: Path) -> None:
    answers: list[Answer] = []

    def work(store: ThreadStore) -> Callable[[], object]:
        asked(store, "R")
        answers.append(store.register_worker(STATE).claim("T", "R"))
        answers[-1].append("Yes.")
        return lambda: answers[-1].finish(COMPLETED)

    def judge(store: ThreadStore) -> None:
        if "worker" in run_of(store) or store.get_run("T", "R").status is not RunStatus.completed:
            answers[-1].finish(COMPLETED)
        assert texts(store) == ["question of R", "Yes."]
        assert run_of(store)["status"] == "completed"
        assert [step["status"] for step in steps_of(store)] == ["completed"]
        assert answers_in(store) == []
        assert store.workers()[0].jobs_in_use <= 1

    assert failing_at_each_call(ram, work, judge) > 5


def test_an_end_whose_success_could_not_be_reported_is_no_loss(ram: Path) -> None:
    calls = Failing()
    store = ThreadStore(ram, calls=calls)
    asked(store, "R")
    answer = store.register_worker(STATE).claim("T", "R")
    answer.append("Yes.")
    for failing in range(100):
        calls.begin(failing)
        try:
            answer.finish(COMPLETED)
        except StorageFailed:
            continue
        break
    assert texts(store) == ["question of R", "Yes."]
    assert run_of(store)["status"] == "completed"
    store.close()


def test_a_run_that_could_not_be_answered_is_answered_once_by_the_next(ram: Path) -> None:
    workers: list[Registration] = []

    def work(store: ThreadStore) -> Callable[[], object]:
        asked(store, "R")
        workers.append(store.register_worker(STATE))

        def claim() -> None:
            with workers[-1].claim("T", "R") as answer:
                answer.append("Yes.")
                answer.finish(COMPLETED)

        return claim

    def judge(store: ThreadStore) -> None:
        store.take_over()
        if store.get_run("T", "R").status is not RunStatus.completed:
            with workers[-1].claim("T", "R") as answer:
                answer.append("Yes.")
                answer.finish(COMPLETED)
        assert run_of(store)["status"] == "completed"
        assert texts(store) == ["question of R", "Yes."]
        assert "in_progress" not in [step["status"] for step in steps_of(store)]

    assert failing_at_each_call(ram, work, judge) > 5


def test_asking_that_fails_stores_nothing_or_says_that_the_message_is_stored(ram: Path) -> None:
    said: list[str] = []

    def work(store: ThreadStore) -> Callable[[], object]:
        asked(store)

        def act() -> None:
            try:
                ask(store, "R")
            except StorageFailed as error:
                said.append(str(error))
                raise

        return act

    def judge(store: ThreadStore) -> None:
        is_there = texts(store) == ["question of R"]
        if said and "message is stored" in said[-1]:
            assert is_there
        said.append("")
        if store.list_run_ids("T"):
            assert is_there
        for directory, _, names in os.walk(store.root):
            assert not [name for name in names if name.startswith(".threadfs-tmp-")], directory

    assert failing_at_each_call(ram, work, judge) > 5
    assert any("message is stored" in reason for reason in said)


class FailingAfterRename(Unsynced):
    """Cannot sync that a run has its name."""

    is_renamed = False

    def rename(self, directory: int, name: str, new_directory: int, new_name: str) -> None:
        super().rename(directory, name, new_directory, new_name)
        self.is_renamed = new_name == "R"

    def sync(self, file_or_directory: int) -> None:
        if self.is_renamed:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_run_that_was_made_and_not_synced_is_told_and_not_said_to_be_missing(ram: Path) -> None:
    with closing(ThreadStore(ram, calls=FailingAfterRename())) as store:
        asked(store)
        told: list[Change] = []
        watch = store.watch(told.append)
        with pytest.raises(StorageFailed, match="message is stored, but a power cut may still undo the run"):
            ask(store, "R")
        watch.close()
        assert store.list_run_ids("T") == ["R"]
        assert Change(Part.RUNS, "T", "R", is_own=True) in told


def test_text_that_cannot_be_shown_is_shown_with_the_next_and_is_in_the_message(ram: Path) -> None:
    calls = Failing()
    store = ThreadStore(ram, calls=calls)
    asked(store, "R")
    answer = store.register_worker(STATE).claim("T", "R")
    answer.append("a")
    calls.begin(0)
    with pytest.raises(StorageFailed):
        answer.append("b")
    answer.append("c")
    assert growing_text(store) == ["abc"]
    answer.finish(COMPLETED)
    assert texts(store)[-1] == "abc"
    store.close()


class FailingAtRun(Unsynced):
    """Cannot put a run's document in place while *is_full*."""

    is_full = False

    def rename(self, directory: int, name: str, new_directory: int, new_name: str) -> None:
        if self.is_full and new_name == STATUS:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().rename(directory, name, new_directory, new_name)


def test_a_run_that_was_half_taken_over_is_queued_again_by_the_next(ram: Path) -> None:
    calls = FailingAtRun()
    with closing(ThreadStore(ram, calls=calls)) as store:
        asked(store, "R")
        with store.register_worker(STATE) as worker:
            worker.claim("T", "R").append("half")
        calls.is_full = True
        with pytest.raises(StorageFailed):
            store.take_over()
        calls.is_full = False
        assert [step["status"] for step in steps_of(store)] == ["failed"]
        (run,) = store.take_over()
        assert (run.status, run.tries) == (RunStatus.queued, 1)
        assert steps_of(store)[0]["partial"] == "half"


@pytest.fixture
def half_set(ram: Path) -> Iterator[ThreadStore]:
    """The run R has all outputs of its tools, and could not be queued."""
    calls = FailingAtRun()
    with closing(ThreadStore(ram, calls=calls)) as store:
        asked(store, "R")
        assert store.take_over() == []
        store.register_worker(STATE).claim("T", "R").finish(WITH_CALLS)
        store.set_tool_output("T", "R", "call_1", "rain")
        calls.is_full = True
        with pytest.raises(StorageFailed):
            store.set_tool_output("T", "R", "call_2", "noon")
        calls.is_full = False
        assert store.get_run("T", "R").status is RunStatus.requires_action
        yield store


def test_the_last_output_is_set_again_when_the_run_could_not_be_queued(half_set: ThreadStore) -> None:
    assert half_set.set_tool_output("T", "R", "call_2", "noon").status is RunStatus.queued


def test_an_unknown_call_does_not_queue_a_run_with_all_outputs(half_set: ThreadStore) -> None:
    with pytest.raises(ToolCallNotFound):
        half_set.set_tool_output("T", "R", "call_3", "noon")


def test_workers_queue_a_run_that_has_all_outputs_whenever_they_look(half_set: ThreadStore) -> None:
    (run,) = half_set.take_over()
    assert run.status is RunStatus.queued
    assert half_set.take_over() == []


class Counting(Unsynced):
    syncs = 0

    def sync(self, file_or_directory: int) -> None:
        self.syncs += 1


def test_an_answer_takes_fourteen_syncs_from_the_question_to_its_end(ram: Path) -> None:
    calls = Counting()
    store = ThreadStore(ram, calls=calls)
    asked(store, "before")
    worker = store.register_worker(STATE)
    worker.claim("T", "before").finish(COMPLETED)
    calls.syncs = 0
    ask(store, "R")
    answer = worker.claim("T", "R")
    for _ in range(100):
        answer.append("text ")
    answer.finish(COMPLETED)
    assert calls.syncs == 14
    store.close()


# ── Processes ───────────────────────────────────────────────────────────────────────────────────────────


def test_of_processes_that_claim_at_once_each_run_has_one(tmp_path: Path) -> None:
    runs = [f"R{number}" for number in range(12)]
    asked(ThreadStore(tmp_path), *runs)

    def work() -> list[str]:
        store, done = ThreadStore(tmp_path, calls=Unsynced()), []
        with store.register_worker(STATE) as worker:
            for run_id in runs:
                while store.get_run("T", run_id).status is RunStatus.queued:
                    try:
                        answer = worker.claim("T", run_id)
                    except StoreError:
                        continue
                    answer.append(run_id)
                    answer.finish(COMPLETED)
                    done.append(run_id)
        return done

    assert sorted(run for done in each_in_a_process([work] * 3) for run in done) == sorted(runs)
    assert texts(ThreadStore(tmp_path))[len(runs) :] == runs


def test_the_death_of_a_worker_is_told_at_once(tmp_path: Path) -> None:
    store = ThreadStore(tmp_path)
    asked(store, "R")
    told: list[Change] = []
    ours = store.register_worker(STATE)
    watch = store.watch(told.append)
    assert watch.follow(WORKERS_KEY)
    ready, is_ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            ThreadStore(tmp_path).register_worker(STATE).claim("T", "R")
            os.write(is_ready, b".")
            time.sleep(60)
        finally:
            os._exit(1)
    os.read(ready, 1)
    assert len(store.workers()) == 2
    assert store.take_over() == []
    told.clear()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert eventually(lambda: bool(told)), "nobody told of it"
    assert told[0].part is Part.WORKERS
    found: list[Run] = []

    def takes_over() -> bool:
        found.extend(store.take_over())
        return bool(found)

    # The kernel reports that the file was closed before it releases the lock.
    assert eventually(takes_over)
    assert [(run.id, run.status) for run in found] == [("R", RunStatus.queued)]
    assert [worker.id for worker in store.workers()] == [ours.id]
    assert os.listdir(tmp_path / WORKERS) == [ours.id]
    watch.close()
    store.close()
    for end in (ready, is_ready):
        os.close(end)


def test_a_worker_whose_lock_file_is_lost_in_a_power_cut_is_dead(tmp_path: Path) -> None:
    store = ThreadStore(tmp_path)
    asked(store, "R")
    with store.register_worker(STATE) as worker:
        worker.claim("T", "R")
    shutil.rmtree(tmp_path / WORKERS)
    (run,) = ThreadStore(tmp_path).take_over()
    assert (run.id, run.status) == ("R", RunStatus.queued)


def test_a_run_that_a_worker_gave_up_before_it_left_is_found_by_others(tmp_path: Path) -> None:
    store, other = ThreadStore(tmp_path), ThreadStore(tmp_path)
    asked(store, "R")
    assert other.take_over() == []
    with store.register_worker(STATE) as worker:
        worker.claim("T", "R").close()
    (run,) = other.take_over()
    assert (run.id, run.status) == ("R", RunStatus.queued)


def test_a_worker_that_leaves_during_a_claim_lives_until_that_has_ended(tmp_path: Path) -> None:
    store, other = ThreadStore(tmp_path), ThreadStore(tmp_path)
    asked(store, "Q", "R")
    worker = store.register_worker(STATE)

    def leaves(_: Run) -> bool:
        worker.close()
        assert other.take_over() == []
        return False

    worker.claim("T", "R", yields_to=leaves)
    assert not worker_locks.lives(store.root, worker.id)
    (run,) = other.take_over()
    assert (run.id, run.status) == ("R", RunStatus.queued)


def test_a_run_that_is_deleted_after_its_worker_gave_it_up_is_forgotten(tmp_path: Path) -> None:
    store = ThreadStore(tmp_path)
    asked(store, "R")
    with store.register_worker(STATE) as worker:
        worker.claim("T", "R").close()
        store.delete_run("T", "R", force=True)
        assert store.take_over() == []
    assert os.listdir(tmp_path / WORKERS) == []


def test_a_run_that_was_claimed_although_that_failed_is_queued_again(tmp_path: Path) -> None:
    store = ThreadStore(tmp_path)
    asked(store, "R")
    (store.run_dir("T", "R") / "steps").write_text("no directory")
    worker = store.register_worker(STATE)
    with pytest.raises(Damaged):
        worker.claim("T", "R")
    assert store.get_run("T", "R").status is RunStatus.in_progress
    (run,) = store.take_over()
    assert (run.id, run.status) == ("R", RunStatus.queued)


# ── Lock files ──────────────────────────────────────────────────────────────────────────────────────────


class TakenForDead(SystemCalls):
    """The first lock file is taken by another program before it is locked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.created: list[str] = []

    def create(self, directory: int, name: str, replaced: os.stat_result | None = None) -> int:
        file = super().create(directory, name, replaced)
        self.created.append(name)
        if len(self.created) == 1:
            with worker_locks.dead(str(self.root), self) as dead:
                assert [found.worker for found in dead] == [name]
        return file


def test_a_worker_whose_new_lock_file_is_taken_for_that_of_a_dead_one_begins_again(tmp_path: Path) -> None:
    store = ThreadStore(tmp_path)
    calls = TakenForDead(tmp_path)
    with closing(worker_locks.OwnLock(store.root, calls)) as lock:
        assert lock.worker == calls.created[1]
        assert os.listdir(tmp_path / WORKERS) == [lock.worker]
        assert worker_locks.lives(store.root, lock.worker)
        assert not worker_locks.lives(store.root, calls.created[0])


def test_a_file_system_without_locks_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    store = ThreadStore(tmp_path)
    monkeypatch.setattr("store.disk.worker_locks.fcntl.fcntl", refused)
    with pytest.raises(StorageFailed, match="locks"):
        store.register_worker(STATE)
    assert os.listdir(tmp_path / WORKERS) == []


def test_whatever_lies_among_the_lock_files_is_left_alone(tmp_path: Path) -> None:
    store = ThreadStore(tmp_path)
    with store.register_worker(STATE) as worker:
        directory = tmp_path / WORKERS
        (directory / "notes.txt").write_text("mine")
        (directory / f"worker_{'0' * 32}").mkdir()
        os.mkfifo(directory / f"worker_{'1' * 32}")
        (directory / worker.id).write_text("not JSON")
        (found,) = store.workers()
        assert (found.id, found.state.state) == (worker.id, "unknown")
        assert store.take_over() == []
        assert len(list(directory.iterdir())) == 4


@pytest.mark.parametrize(
    "told",
    ['{"endpoint":"e","jobs":Infinity,"state":"ready","notes":[],"answers":[]}', "[" * 100_000, "not JSON"],
    ids=["infinity", "nested", "none"],
)
def test_a_lock_file_that_makes_no_sense_keeps_nothing_from_being_taken_over(
    tmp_path: Path, told: str
) -> None:
    store = ThreadStore(tmp_path)
    asked(store, "R")
    assert store.take_over() == []
    with store.register_worker(STATE) as worker:
        worker.claim("T", "R")
        (tmp_path / WORKERS / worker.id).write_text(told)
        assert store.workers()[0].state.state == "unknown"
    (run,) = store.take_over()
    assert (run.id, run.status) == ("R", RunStatus.queued)
    assert os.listdir(tmp_path / WORKERS) == []


def test_a_run_that_cannot_be_taken_over_does_not_hold_up_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = ThreadStore(tmp_path)
    asked(store, "R")
    asked(store, "Q", thread_id="U")
    with store.register_worker(STATE) as worker:
        worker.claim("T", "R").append("long " * 1000)
        worker.claim("U", "Q")
    monkeypatch.setattr("store.documents.MAX_DOCUMENT_BYTES", 3000)
    (run,) = store.take_over()
    assert run.id == "Q"
    assert "R@T cannot be taken over: larger than 3000 bytes" in caplog.text


def test_looking_for_dead_workers_leaves_no_file_open_when_the_disk_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ThreadStore(tmp_path)
    asked(store, "R")
    with store.register_worker(STATE) as worker:
        worker.claim("T", "R")

    def failing(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    is_open = len(os.listdir("/proc/self/fd"))
    for name in ("fcntl.fcntl", "os.pread"):
        with monkeypatch.context() as failures:
            failures.setattr(f"store.disk.worker_locks.{name}", failing)
            with worker_locks.dead(store.root, Unsynced()) as dead:
                assert dead == []
    assert len(os.listdir("/proc/self/fd")) == is_open
    assert [run.id for run in store.take_over()] == ["R"]


def test_a_state_with_other_things_in_it_is_read_without_harm(tmp_path: Path) -> None:
    store = ThreadStore(tmp_path)
    asked(store, "R")
    with store.register_worker(WorkerState(endpoint="x" * 500)) as worker:
        place = tmp_path / WORKERS / worker.id
        place.write_text(place.read_text().replace('"answers": []', '"answers": [["../..", "a", "b"]]'))
        assert store.workers()[0].jobs_in_use == 0
        assert store.growing_answers("T") == []
        worker.set_state(STATE)
        assert store.workers()[0].state == STATE


# ── Maintenance ─────────────────────────────────────────────────────────────────────────────────────────


def leftovers_of(store: ThreadStore) -> list[str]:
    return [finding.path for finding in checking.find_leftovers(store, 0)]


def test_fsck_leaves_growing_answers_and_the_files_of_living_workers_alone(tmp_path: Path) -> None:
    store = ThreadStore(tmp_path)
    asked(store, "R", "Q")
    with store.register_worker(STATE) as worker:
        answer = worker.claim("T", "R")
        answer.append("half")
        store.cancel_run("T", "R")
        assert checking.places(store) == ["T"]
        assert list(checking.check_place(store, "T")) == []
        assert leftovers_of(store) == []
        answer.finish(COMPLETED)
        worker.claim("T", "Q").append("half")
    assert leftovers_of(store) == [], "a worker keeps its text, with the run that it takes over"


def test_fsck_clears_the_text_of_an_answer_whose_run_has_ended(tmp_path: Path) -> None:
    store = ThreadStore(tmp_path)
    asked(store, "R")
    with store.register_worker(STATE) as worker:
        answer = worker.claim("T", "R")
        answer.append("half")
        store.cancel_run("T", "R")
    (path,) = leftovers_of(store)
    assert path == f"T/runs/R/{answer_name(answer.message_id)}"
    for finding in checking.find_leftovers(store, 0):
        assert "moved" in Repair(store).mend(finding)
    assert answers_in(store) == []
    assert list(checking.check_place(store, "T")) == []


def test_a_thread_with_a_growing_answer_is_surely_ours(tmp_path: Path) -> None:
    store = ThreadStore(tmp_path)
    asked(store, "R")
    with store.register_worker(STATE) as worker:
        worker.claim("T", "R").append("half")
        store.check_ours(DocumentKey("T"))
        store.check_ours(DocumentKey("T", "R"))


def test_a_store_that_holds_only_workers_has_no_thread(tmp_path: Path) -> None:
    store = ThreadStore(tmp_path)
    with store.register_worker(STATE):
        assert store.list_thread_ids() == []
        assert not holds_no_thread(store.root)
