"""When a thread was changed, and the space there is, in every store."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from store import (
    Run,
    RunStatus,
    RunStep,
    RunStepStatus,
    Store,
    Thread,
)
from tests.store.conftest import (
    LONG_AGO_NS,
    RUN,
    STEP,
    STEP_DOCUMENT,
    THREAD,
    make_step,
    make_thread,
    message,
)

CHANGES: dict[str, Callable[[Store], object]] = {
    "patch": lambda s: s.patch_document(THREAD, {"a": 1}),
    "append_message": lambda s: s.append_message("T", message()),
    "create_run": lambda s: s.create_run("T", Run()),
    "update_run_status": lambda s: s.update_run_status("T", "R", RunStatus.completed),
    "cancel_run": lambda s: s.cancel_run("T", "R"),
    "delete_run": lambda s: s.delete_run("T", "R", force=True),
    "append_step": lambda s: s.append_step("T", "R", RunStep()),
    "update_step_status": lambda s: s.update_step_status("T", "R", "S", RunStepStatus.failed),
    "replace a step": lambda s: s.replace_document(STEP, STEP_DOCUMENT),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_in_a_thread_is_a_change_of_the_thread(store: Store, change: str) -> None:
    make_step(store)
    before_ns = store.thread_modified_ns("T")
    let_the_clock_tick(before_ns)
    CHANGES[change](store)
    assert before_ns < store.thread_modified_ns("T") <= time.time_ns()


def test_the_times_of_many_threads_are_those_of_each_that_is_there(store: Store) -> None:
    make_step(store)
    store.create_thread(Thread(id="U"))
    assert store.times_of_threads(["U", "none", "T"]) == {
        "T": store.thread_times("T"),
        "U": store.thread_times("U"),
    }


def test_reading_is_no_change_of_the_thread(store: Store) -> None:
    make_step(store)
    store.append_message("T", message())
    before_ns = store.thread_modified_ns("T")
    store.list_messages("T")
    store.list_steps("T", "R")
    assert store.thread_modified_ns("T") == before_ns


def test_a_thread_that_holds_nothing_was_changed_when_its_document_was(store: Store) -> None:
    make_thread(store)
    store.set_document_modified(THREAD, LONG_AGO_NS)
    assert store.thread_modified_ns("T") == LONG_AGO_NS


SETTERS: dict[str, Callable[[Store], object]] = {
    "a thread's document": lambda s: s.set_document_modified(THREAD, LONG_AGO_NS),
    "a run's document": lambda s: s.set_document_modified(RUN, LONG_AGO_NS),
    "a step's document": lambda s: s.set_document_modified(STEP, LONG_AGO_NS),
    "a log": lambda s: s.set_log_modified("T", LONG_AGO_NS),
    "a thread": lambda s: s.set_thread_modified("T", LONG_AGO_NS),
}


def change_times(store: Store) -> list[int]:
    documents = [store.document_info(key).changed_ns for key in (THREAD, RUN, STEP)]
    return [*documents, store.log_info("T").changed_ns, store.thread_times("T").changed_ns]


def let_the_clock_tick(since_ns: int) -> None:
    """That of a disk goes in ticks of up to 10 ms."""
    while time.time_ns() < since_ns + 25_000_000:
        time.sleep(0.005)


@pytest.mark.parametrize("what", SETTERS)
def test_a_time_that_is_set_back_is_a_change_and_sets_no_change_time_back(store: Store, what: str) -> None:
    make_step(store)
    store.append_message("T", message())
    before = change_times(store)
    let_the_clock_tick(max(before))
    SETTERS[what](store)
    after = change_times(store)
    assert all(later >= earlier for later, earlier in zip(after, before, strict=True))
    assert after != before


def test_what_has_the_same_size_and_gets_the_same_time_has_another_change_time(store: Store) -> None:
    make_step(store)
    store.patch_document(THREAD, {"metadata": {"a": "one"}})
    before = store.document_info(THREAD)
    let_the_clock_tick(before.changed_ns)
    store.patch_document(THREAD, {"metadata": {"a": "two"}})
    store.set_document_modified(THREAD, before.modified_ns)
    after = store.document_info(THREAD)
    assert (after.size_bytes, after.modified_ns) == (before.size_bytes, before.modified_ns)
    assert after.changed_ns > before.changed_ns
    assert store.read_document(THREAD)[1].changed_ns == after.changed_ns


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_in_a_thread_is_one_of_its_change_time(store: Store, change: str) -> None:
    make_step(store)
    before_ns = store.thread_times("T").changed_ns
    let_the_clock_tick(before_ns)
    CHANGES[change](store)
    assert before_ns < store.thread_times("T").changed_ns <= time.time_ns()


COMINGS: dict[str, tuple[RunStatus | None, Callable[[Store], object]]] = {
    "a thread comes": (None, lambda s: s.create_thread(Thread(id="U"))),
    "a thread goes": (None, lambda s: s.delete_thread("T", force=True)),
    "a run comes": (RunStatus.queued, lambda s: s.create_run("T", Run())),
    "a run goes": (RunStatus.in_progress, lambda s: s.delete_run("T", "R", force=True)),
    "a run leaves": (RunStatus.in_progress, lambda s: s.update_run_status("T", "R", RunStatus.failed)),
    "a run changes to": (RunStatus.failed, lambda s: s.update_run_status("T", "R", RunStatus.failed)),
    "a run goes with its thread": (RunStatus.in_progress, lambda s: s.delete_thread("T", force=True)),
}


@pytest.mark.parametrize("is_indexed", [False, True])
@pytest.mark.parametrize("what", COMINGS)
def test_what_comes_to_a_list_or_leaves_it_changes_its_time(
    store: Store, what: str, *, is_indexed: bool
) -> None:
    make_step(store)
    store.update_run_status("T", "R", RunStatus.in_progress)
    if is_indexed:
        store.index_runs()
    status, change = COMINGS[what]
    before_ns = store.list_changed_ns(status)
    assert store.list_changed_ns(status) == before_ns
    change(store)
    after_ns = store.list_changed_ns(status)
    assert before_ns < after_ns <= time.time_ns()
    assert store.list_changed_ns(status) == after_ns


def test_the_space_of_the_store_is_known(store: Store) -> None:
    space = store.space()
    assert space.f_blocks >= space.f_bfree >= 0
