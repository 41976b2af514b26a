"""Runs and their status, in every store."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from store import (
    AlreadyExists,
    InvalidDocument,
    NotEmpty,
    NotFound,
    Run,
    RunError,
    RunInProgress,
    RunInTerminalState,
    RunStatus,
    RunStep,
    StatusChanged,
    Store,
    Thread,
)
from tests.store.conftest import (
    IN_PROGRESS,
    LONG_AGO_NS,
    NOT_TERMINAL,
    RUN,
    TERMINAL,
    TIMESTAMP,
    MakeStore,
    make_run,
    make_step,
    make_thread,
    stored,
)


def test_a_created_run_is_there_for_another_store_on_the_same_data(make_store: MakeStore) -> None:
    store = make_store()
    make_thread(store)
    run = store.create_run("T", Run(id="R", created_at=2, model="llama3"))
    assert run.thread_id == "T"
    assert make_store().get_run("T", "R") == run


def test_a_run_made_without_arguments_is_queued_for_the_default_model(store: Store) -> None:
    make_thread(store)
    run = store.create_run("T", Run())
    assert run.id.startswith("run_")
    assert store.get_run("T", run.id).status is RunStatus.queued
    assert store.get_run("T", run.id).model == ""


def test_a_run_gets_the_id_of_the_thread_that_it_is_created_in(store: Store) -> None:
    make_thread(store)
    store.create_run("T", Run(id="R", thread_id="another"))
    assert stored(store, RUN)["thread_id"] == "T"


def test_creating_a_run_that_exists_is_refused_and_changes_nothing(store: Store) -> None:
    make_run(store)
    before = store.read_document(RUN)
    with pytest.raises(AlreadyExists):
        store.create_run("T", Run(id="R", created_at=99))
    assert store.read_document(RUN) == before


def test_two_threads_may_have_runs_of_one_id(store: Store) -> None:
    make_run(store)
    store.create_thread(Thread(id="U"))
    store.create_run("U", Run(id="R", model="other"))
    assert [store.get_run(thread, "R").model for thread in "TU"] == ["", "other"]


def test_all_runs_of_a_thread_are_listed_once(store: Store) -> None:
    make_thread(store)
    assert store.list_run_ids("T") == []
    for number in range(10):
        store.create_run("T", Run(id=f"R{number}"))
    assert sorted(store.list_run_ids("T")) == [f"R{number}" for number in range(10)]


# Every status after every other one: tests/store/test_transitions.py, on the functions that both stores call.


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (RunStatus.queued, RunStatus.in_progress),
        (RunStatus.in_progress, RunStatus.in_progress),
        (RunStatus.requires_action, RunStatus.queued),
        (RunStatus.cancelling, RunStatus.expired),
    ],
)
def test_a_run_that_has_not_ended_takes_any_status(
    make_store: MakeStore, before: RunStatus, after: RunStatus
) -> None:
    store = make_store()
    make_run(store, before)
    assert store.update_run_status("T", "R", after).status is after
    assert make_store().get_run("T", "R").status is after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (RunStatus.completed, RunStatus.completed),
        (RunStatus.cancelled, RunStatus.in_progress),
        (RunStatus.incomplete, RunStatus.failed),
    ],
)
def test_a_run_that_has_ended_takes_no_status_not_even_its_own(
    store: Store, before: RunStatus, after: RunStatus
) -> None:
    make_run(store, before)
    document = store.read_document(RUN)
    with pytest.raises(RunInTerminalState):
        store.update_run_status("T", "R", after)
    assert store.read_document(RUN) == document


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (RunStatus.failed, RunStatus.queued),
        (RunStatus.completed, RunStatus.completed),
        (RunStatus.expired, RunStatus.cancelled),
        (RunStatus.in_progress, RunStatus.completed),
    ],
)
def test_force_gives_any_run_any_status(store: Store, before: RunStatus, after: RunStatus) -> None:
    make_run(store, before)
    assert store.force_update_run_status("T", "R", after).status is after
    assert store.get_run("T", "R").status is after


@pytest.mark.parametrize("force", [False, True])
def test_an_unknown_status_is_refused_and_changes_nothing(store: Store, force: bool) -> None:
    make_run(store)
    document = store.read_document(RUN)
    unknown: Any = "done"
    update = store.force_update_run_status if force else store.update_run_status
    with pytest.raises(InvalidDocument):
        update("T", "R", unknown)
    assert store.read_document(RUN) == document


def test_an_expected_status_that_is_the_present_one_lets_the_update_through(store: Store) -> None:
    make_run(store)
    run = store.update_run_status("T", "R", RunStatus.in_progress, expected=RunStatus.queued)
    assert run.status is RunStatus.in_progress


@pytest.mark.parametrize("present", [status for status in NOT_TERMINAL if status is not RunStatus.queued])
def test_an_expected_status_that_is_not_the_present_one_refuses_the_update(
    store: Store, present: RunStatus
) -> None:
    make_run(store, present)
    document = store.read_document(RUN)
    with pytest.raises(StatusChanged):
        store.update_run_status("T", "R", RunStatus.in_progress, expected=RunStatus.queued)
    assert store.read_document(RUN) == document


@pytest.mark.parametrize("status", TERMINAL)
def test_expecting_the_status_of_a_run_that_has_ended_does_not_let_the_update_through(
    store: Store, status: RunStatus
) -> None:
    make_run(store, status)
    with pytest.raises(RunInTerminalState):
        store.update_run_status("T", "R", RunStatus.queued, expected=status)
    assert store.get_run("T", "R").status is status


def test_of_many_claims_of_one_run_at_once_one_succeeds(make_store: MakeStore) -> None:
    make_run(make_store())
    barrier = Barrier(6)

    def claim(_: int) -> bool:
        store = make_store()
        barrier.wait()
        try:
            store.update_run_status("T", "R", RunStatus.in_progress, expected=RunStatus.queued)
        except StatusChanged:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(claim, range(6))) == [False] * 5 + [True]


@pytest.mark.parametrize("force", [False, True])
def test_an_update_replaces_the_last_error(store: Store, force: bool) -> None:
    make_run(store, last_error=RunError(code="old", message="m"))
    update = store.force_update_run_status if force else store.update_run_status
    update("T", "R", RunStatus.failed, RunError(code="new", message="n"))
    assert stored(store, RUN)["last_error"] == {"code": "new", "message": "n"}


@pytest.mark.parametrize("force", [False, True])
def test_an_update_without_an_error_clears_the_last_one(store: Store, force: bool) -> None:
    make_run(store, last_error=RunError(code="old", message="m"))
    update = store.force_update_run_status if force else store.update_run_status
    update("T", "R", RunStatus.in_progress)
    assert "last_error" not in stored(store, RUN)


@pytest.mark.parametrize("status", RunStatus)
def test_the_time_of_a_change_of_status_is_set_and_no_other(store: Store, status: RunStatus) -> None:
    make_run(store)
    before_s = int(time.time())
    store.update_run_status("T", "R", status)
    times = {name: value for name, value in stored(store, RUN).items() if name in TIMESTAMP.values()}
    assert list(times) == [TIMESTAMP[status]] if status in TIMESTAMP else times == {}
    assert all(before_s <= value <= time.time() for value in times.values())


@pytest.mark.parametrize("status", TIMESTAMP)
def test_the_time_of_a_status_is_set_once(store: Store, status: RunStatus) -> None:
    make_run(store, RunStatus.queued, **{TIMESTAMP[status]: 5})
    store.force_update_run_status("T", "R", status)
    assert stored(store, RUN)[TIMESTAMP[status]] == 5


def test_a_forced_cancel_keeps_the_times_of_what_happened_before(store: Store) -> None:
    make_run(store, RunStatus.completed, started_at=5, completed_at=6)
    store.cancel_run("T", "R", force=True)
    fields = stored(store, RUN)
    assert fields["started_at"], fields["completed_at"] == (5, 6)
    assert fields["cancelled_at"] > 6


def test_the_times_and_the_error_have_their_places_before_unknown_fields(store: Store) -> None:
    make_run(store, zeta=1, alpha=None)
    store.update_run_status("T", "R", RunStatus.in_progress)
    store.update_run_status("T", "R", RunStatus.failed, RunError(code="c", message="m"))
    assert list(stored(store, RUN)) == [
        *("id", "object", "created_at", "thread_id", "status", "model"),
        *("last_error", "started_at", "failed_at", "zeta", "alpha"),
    ]


@pytest.mark.parametrize("status", [status for status in RunStatus if not status.is_terminal])
def test_cancel_ends_a_run_that_has_not_ended(store: Store, status: RunStatus) -> None:
    make_run(store, status)
    before_s = int(time.time())
    run = store.cancel_run("T", "R")
    assert run.status is RunStatus.cancelled
    assert run == store.get_run("T", "R")
    assert run.cancelled_at is not None
    assert before_s <= run.cancelled_at <= time.time()


@pytest.mark.parametrize("force", [False, True])
def test_cancel_of_a_cancelled_run_succeeds_and_changes_nothing(store: Store, force: bool) -> None:
    make_run(store, RunStatus.cancelled, last_error=RunError(code="c", message="m"), cancelled_at=5)
    document = store.read_document(RUN)
    assert store.cancel_run("T", "R", force=force).status is RunStatus.cancelled
    assert store.read_document(RUN) == document


@pytest.mark.parametrize("status", [status for status in TERMINAL if status is not RunStatus.cancelled])
def test_cancel_of_a_run_that_has_ended_otherwise_is_refused_and_changes_nothing(
    store: Store, status: RunStatus
) -> None:
    make_run(store, status)
    document = store.read_document(RUN)
    with pytest.raises(RunInTerminalState):
        store.cancel_run("T", "R")
    assert store.read_document(RUN) == document


@pytest.mark.parametrize("status", TERMINAL)
def test_force_cancels_a_run_that_has_ended(store: Store, status: RunStatus) -> None:
    make_run(store, status)
    assert store.cancel_run("T", "R", force=True).status is RunStatus.cancelled
    assert store.get_run("T", "R").status is RunStatus.cancelled


def test_a_deleted_run_is_gone_with_its_steps(make_store: MakeStore) -> None:
    store = make_store()
    make_step(store)
    store.cancel_run("T", "R")
    store.delete_run("T", "R")
    for seen_by in (store, make_store()):
        assert seen_by.list_run_ids("T") == []
        with pytest.raises(NotFound):
            seen_by.get_step("T", "R", "S")
    store.create_run("T", Run(id="R"))
    assert store.list_step_ids("T", "R") == []


@pytest.mark.parametrize("only_empty", [False, True])
@pytest.mark.parametrize("status", IN_PROGRESS)
def test_a_run_in_progress_is_not_deleted(store: Store, status: RunStatus, only_empty: bool) -> None:
    make_run(store, status)
    with pytest.raises(RunInProgress):
        store.delete_run("T", "R", only_empty=only_empty)
    assert store.get_run("T", "R").status is status


@pytest.mark.parametrize("status", IN_PROGRESS)
def test_a_run_in_progress_is_deleted_by_force(store: Store, status: RunStatus) -> None:
    make_run(store, status)
    store.delete_run("T", "R", force=True)
    assert store.list_run_ids("T") == []


@pytest.mark.parametrize("status", [RunStatus.queued, *TERMINAL])
def test_a_run_that_waits_or_has_ended_is_deleted(store: Store, status: RunStatus) -> None:
    make_run(store, status)
    store.delete_run("T", "R")
    assert store.list_run_ids("T") == []


def test_only_empty_deletes_a_queued_run_without_steps(store: Store) -> None:
    make_run(store)
    store.delete_run("T", "R", only_empty=True)
    assert store.list_run_ids("T") == []


@pytest.mark.parametrize("status", TERMINAL)
def test_only_empty_keeps_a_run_that_has_ended(store: Store, status: RunStatus) -> None:
    make_run(store, status)
    with pytest.raises(NotEmpty):
        store.delete_run("T", "R", only_empty=True)
    assert store.list_run_ids("T") == ["R"]


def test_only_empty_keeps_a_queued_run_with_steps(store: Store) -> None:
    make_run(store)
    store.append_step("T", "R", RunStep(id="S"))
    with pytest.raises(NotEmpty):
        store.delete_run("T", "R", only_empty=True)
    assert store.list_step_ids("T", "R") == ["S"]


def test_all_runs_of_all_threads_are_listed_with_their_status(make_store: MakeStore) -> None:
    store, other = make_store(), make_store()
    expected = set()
    for thread_id in "TU":
        store.create_thread(Thread(id=thread_id))
        for status in RunStatus:
            store.create_run(thread_id, Run(id=f"R {status}", status=status))
            expected.add((thread_id, f"R {status}", status))
    assert set(other.runs_by_status()) == expected
    store.update_run_status("T", "R queued", RunStatus.completed)
    expected ^= {("T", "R queued", RunStatus.queued), ("T", "R queued", RunStatus.completed)}
    assert set(other.runs_by_status()) == set(store.runs_by_status()) == expected


def test_a_store_without_runs_lists_none(store: Store) -> None:
    make_thread(store)
    assert list(store.runs_by_status()) == []
    assert list(store.stale_runs(0)) == []


@pytest.mark.parametrize("status", RunStatus)
def test_runs_that_have_not_ended_and_have_long_been_unchanged_are_stale(
    store: Store, status: RunStatus
) -> None:
    make_run(store, status)
    store.create_run("T", Run(id="fresh", status=status))
    store.set_document_modified(RUN, time.time_ns() - 7200 * 10**9)
    expected = [] if status.is_terminal else [("T", "R", status)]
    assert list(store.stale_runs(3600)) == expected
    assert list(store.stale_runs(10800)) == []


def test_a_run_that_changes_its_status_is_no_longer_stale(store: Store) -> None:
    make_run(store)
    store.set_document_modified(RUN, LONG_AGO_NS)
    store.update_run_status("T", "R", RunStatus.in_progress)
    assert list(store.stale_runs(3600)) == []
