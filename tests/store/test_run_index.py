"""The index of runs answers as the disk does, whoever changes that, and with however few watches."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from store import (
    DocumentKey,
    MessageRole,
    Run,
    RunStatus,
    RunStep,
    RunStepStatus,
    RunStepType,
    StorageFailed,
    StoreError,
    Thread,
    ThreadMessage,
    ThreadStore,
    WouldWait,
    without_waiting,
)
from store.disk import run_index
from store.disk.run_index import RunIndex
from tests.conftest import inotify_limit, seeds

# No watch at all; for a few threads; for all threads and some runs; for all.
WATCHES = [0, 5, 40, 1000]


@pytest.fixture
def store(tmp_path: Path) -> ThreadStore:
    """Ten threads with three runs each."""
    store = ThreadStore(tmp_path / "store")
    for number in range(10):
        store.create_thread(Thread(id=f"T{number}"))
        for status in (RunStatus.queued, RunStatus.in_progress, RunStatus.completed):
            store.create_run(f"T{number}", Run(id=f"R-{status}", status=status))
    return store


@pytest.fixture(params=WATCHES)
def index(request: pytest.FixtureRequest, store: ThreadStore) -> Iterator[RunIndex]:
    index = RunIndex(store, max_watches=request.param)
    try:
        yield index
    finally:
        index.close()


def on_disk(store: ThreadStore) -> list[tuple[str, str, str]]:
    return sorted(found for thread_id in store.list_thread_ids() for found in store.scan(thread_id))


def shown(index: RunIndex) -> list[tuple[str, str, str]]:
    return sorted(index.runs(tuple(RunStatus)))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def test_it_is_complete_when_asked_at_once(index: RunIndex, store: ThreadStore) -> None:
    assert shown(index) == on_disk(store)


def test_it_gives_the_runs_in_the_statuses_asked_for(index: RunIndex, store: ThreadStore) -> None:
    asked = {RunStatus.queued, RunStatus.completed}
    assert sorted(index.runs(asked)) == [found for found in on_disk(store) if found[2] in asked]
    assert list(index.runs({RunStatus.failed})) == []


def write(path: Path, status: str) -> None:
    path.write_text(json.dumps({"created_at": 1, "status": status}))


def another_thread(store: ThreadStore) -> None:
    store.delete_thread("T5", force=True)
    store.create_thread(Thread(id="T5"))
    store.create_run("T5", Run(id="R-queued", status=RunStatus.failed))


def another_run(store: ThreadStore) -> None:
    store.delete_run("T6", "R-queued")
    store.create_run("T6", Run(id="R-queued", status=RunStatus.expired))


def run_in_steps(store: ThreadStore) -> None:
    store.run_dir("T9", "slow").mkdir()
    time.sleep(0.05)
    write(store.run_dir("T9", "slow") / "status.json", "queued")


def thread_in_steps(store: ThreadStore) -> None:
    for make in (
        store.thread_dir("slow").mkdir,
        lambda: (store.thread_dir("slow") / "meta.json").write_text('{"created_at": 1}'),
        lambda: (store.thread_dir("slow") / "runs").mkdir(),
        lambda: store.run_dir("slow", "R").mkdir(),
        lambda: write(store.run_dir("slow", "R") / "status.json", "queued"),
    ):
        make()
        time.sleep(0.05)


def new_thread(store: ThreadStore) -> None:
    store.create_thread(Thread(id="new"))
    store.create_run("new", Run(id="R"))


CHANGES: dict[str, Callable[[ThreadStore], object]] = {
    "a run ends": lambda s: s.cancel_run("T1", "R-queued"),
    "a run comes": lambda s: s.create_run("T2", Run(id="new")),
    "a run goes": lambda s: s.delete_run("T3", "R-queued"),
    "a run is another": another_run,
    "a run is made in steps": run_in_steps,
    "a run is damaged": lambda s: write(s.run_dir("T7", "R-queued") / "status.json", "what?"),
    "a run is written in place": lambda s: write(s.run_dir("T8", "R-queued") / "status.json", "failed"),
    "a thread comes": new_thread,
    "a thread goes": lambda s: s.delete_thread("T4", force=True),
    "a thread is another": another_thread,
    "a thread is made in steps": thread_in_steps,
    "a thread is copied": lambda s: shutil.copytree(s.thread_dir("T1"), s.thread_dir("copy")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_another_program_changes_shows_within_a_second(
    index: RunIndex, store: ThreadStore, change: Callable[[ThreadStore], object]
) -> None:
    assert shown(index) == on_disk(store)
    change(ThreadStore(store.location))
    started = time.monotonic()
    wait_for(lambda: shown(index) == on_disk(store))
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("seed", seeds(3))
def test_after_random_changes_it_answers_as_the_disk(index: RunIndex, store: ThreadStore, seed: int) -> None:
    other, dice = ThreadStore(store.location), random.Random(seed)
    for _ in range(200):
        thread_id, run_id = f"T{dice.randrange(12)}", f"R{dice.randrange(4)}"
        try:
            match dice.randrange(7):
                case 0:
                    other.create_thread(Thread(id=thread_id))
                case 1:
                    other.delete_thread(thread_id, force=True)
                case 2 | 3:
                    other.create_run(thread_id, Run(id=run_id, status=dice.choice(list(RunStatus))))
                case 4 | 5:
                    other.update_run_status(thread_id, run_id, dice.choice(list(RunStatus)))
                case 6:
                    other.delete_run(thread_id, run_id, force=True)
        except StoreError:
            continue
    wait_for(lambda: shown(index) == on_disk(store))


def is_shown(store: ThreadStore, run_id: str, status: RunStatus) -> bool:
    return ("T0", run_id, status) in list(store.runs_by_status({status}))


def test_a_store_sees_its_own_changes_at_once(store: ThreadStore) -> None:
    store.index_runs()
    try:
        for number in range(100):
            store.create_run("T0", Run(id=f"{number}"))
            assert is_shown(store, f"{number}", RunStatus.queued)
            store.cancel_run("T0", f"{number}")
            assert is_shown(store, f"{number}", RunStatus.cancelled)
            store.delete_run("T0", f"{number}")
            assert not is_shown(store, f"{number}", RunStatus.cancelled)
    finally:
        store.close()


@pytest.mark.alone
def test_a_thread_that_another_program_makes_shows_when_the_system_has_no_watch_left(
    store: ThreadStore,
) -> None:
    with inotify_limit("max_user_watches", 0):
        store.index_runs()
        try:
            assert len(list(store.runs_by_status())) == 30
            other = ThreadStore(store.location)
            other.create_thread(Thread(id="new"))
            other.create_run("new", Run(id="R"))
            assert ("new", "R", RunStatus.queued) in list(store.runs_by_status({RunStatus.queued}))
        finally:
            store.close()


@pytest.mark.alone
def test_a_store_that_gets_no_watch_answers_from_the_disk(store: ThreadStore) -> None:
    with inotify_limit("max_user_instances", 0):
        store.index_runs()
    ThreadStore(store.location).cancel_run("T0", "R-queued")
    assert is_shown(store, "R-queued", RunStatus.cancelled)


def is_known(store: ThreadStore, thread_id: str = "T0") -> bool:
    """Whether the time of a thread is told without a look at the disk."""
    try:
        with without_waiting():
            store.thread_modified_ns(thread_id)
    except WouldWait:
        return False
    return True


TOUCHES: dict[str, Callable[[ThreadStore], object]] = {
    "message": lambda s: s.append_message("T0", ThreadMessage(role=MessageRole.user, content=[])),
    "document": lambda s: s.patch_document(DocumentKey("T0"), {"a": 1}),
    "run": lambda s: s.create_run("T0", Run(id="new")),
    "status": lambda s: s.force_update_run_status("T0", "R-completed", RunStatus.failed),
    "step": lambda s: s.append_step("T0", "R-queued", RunStep(id="S", step_type=RunStepType.tool_calls)),
    "step again": lambda s: s.update_step_status("T0", "R-in_progress", "S", RunStepStatus.completed),
}


@pytest.mark.parametrize("by", ["the store", "another program"])
@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES)
def test_the_time_of_a_thread_is_known_and_follows_each_change(
    store: ThreadStore, touch: Callable[[ThreadStore], object], by: str
) -> None:
    store.append_step("T0", "R-in_progress", RunStep(id="S", step_type=RunStepType.tool_calls))
    other = ThreadStore(store.location)
    store.index_runs()
    try:
        wait_for(lambda: is_known(store))
        assert store.thread_modified_ns("T0") == other.thread_modified_ns("T0")
        time.sleep(0.01)  # The clock of files has ticked.
        touch(store if by == "the store" else other)
        if by == "the store":
            assert store.thread_modified_ns("T0") == other.thread_modified_ns("T0")
        wait_for(lambda: store.thread_modified_ns("T0") == other.thread_modified_ns("T0"))
        wait_for(lambda: store.reports_all_of("T0"))
        store.thread_modified_ns("T0")
        assert is_known(store)
    finally:
        store.close()


@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES)
@pytest.mark.parametrize("is_damaged", [False, True], ids=["sound", "with a damaged run"])
def test_with_few_watches_the_time_of_a_thread_is_that_on_the_disk(
    store: ThreadStore, touch: Callable[[ThreadStore], object], *, is_damaged: bool
) -> None:
    store.append_step("T0", "R-in_progress", RunStep(id="S", step_type=RunStepType.tool_calls))
    if is_damaged:
        store.create_run("T0", Run(id="damaged"))
        write(store.run_dir("T0", "damaged") / "status.json", "what?")
    for number in range(1, 10):
        store.delete_thread(f"T{number}", force=True)
    for status in ("queued", "in_progress"):
        store.force_update_run_status("T0", f"R-{status}", RunStatus.failed)
    other = ThreadStore(store.location)
    # For the list of threads and the one of its runs.
    index = store._index = RunIndex(store, max_watches=2)
    try:
        index.catch_up()
        if is_damaged:
            assert index.run_ids("T0", some_may_be_none=True) is None
        else:
            wait_for(lambda: index.run_ids("T0", some_may_be_none=True) is not None)
        touch(other)
        wait_for(lambda: store.thread_modified_ns("T0") == other.thread_modified_ns("T0"))
        if is_damaged:
            later_ns = time.time_ns() + 10**9
            os.utime(store.run_dir("T0", "damaged") / "status.json", ns=(later_ns, later_ns))
            wait_for(lambda: store.thread_modified_ns("T0") == later_ns)
    finally:
        store.close()


def test_the_time_of_a_damaged_run_that_is_not_followed_is_read_each_time(
    store: ThreadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_index, "_MAX_ENDED", 0)
    for run_id in store.list_run_ids("T0"):
        store.delete_run("T0", run_id, force=True)
    store.create_run("T0", Run(id="damaged"))
    write(store.run_dir("T0", "damaged") / "status.json", "what?")
    index = store._index = RunIndex(store)
    try:
        index.catch_up()
        later_ns = time.time_ns() + 10**9
        os.utime(store.run_dir("T0", "damaged") / "status.json", ns=(later_ns, later_ns))
        wait_for(lambda: store.thread_modified_ns("T0") == later_ns)
    finally:
        store.close()


def test_without_enough_watches_times_are_read_each_time(store: ThreadStore) -> None:
    index = RunIndex(store, max_watches=20)
    try:
        index.catch_up()
        assert None in [index.times(f"T{number}") for number in range(10)]
    finally:
        index.close()


def test_a_store_that_cannot_be_read_is_reported_and_answers_again_later(store: ThreadStore) -> None:
    store.index_runs()
    try:
        before = on_disk(store)
        os.rename(store.location, f"{store.location}~")
        wait_for(lambda: fails(store))
        os.rename(f"{store.location}~", store.location)
        assert sorted(store.runs_by_status()) == before
        ThreadStore(store.location).cancel_run("T1", "R-queued")
        wait_for(lambda: ("T1", "R-queued", RunStatus.cancelled) in list(store.runs_by_status()))
    finally:
        store.close()


def fails(store: ThreadStore) -> bool:
    try:
        list(store.runs_by_status())
    except StorageFailed:
        return True
    return False
