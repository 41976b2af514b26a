"""Run steps and their status, in every store."""

from __future__ import annotations

import time
from typing import Any

import pytest

from store import (
    AlreadyExists,
    InvalidDocument,
    RunStatus,
    RunStep,
    RunStepInTerminalState,
    RunStepStatus,
    Store,
)
from tests.store.conftest import (
    STEP,
    MakeStore,
    make_run,
    make_step,
    stored,
)


def test_an_appended_step_is_returned_and_stored_with_the_ids_of_its_place(make_store: MakeStore) -> None:
    store = make_store()
    make_run(store)
    step = store.append_step("T", "R", RunStep(id="S", thread_id="another", run_id="another"))
    assert (step.thread_id, step.run_id) == ("T", "R")
    assert make_store().get_step("T", "R", "S") == step


def test_appending_a_step_whose_id_is_in_use_is_refused_and_changes_nothing(store: Store) -> None:
    make_step(store)
    before = store.read_document(STEP)
    with pytest.raises(AlreadyExists):
        store.append_step("T", "R", RunStep(id="S", created_at=99))
    assert store.read_document(STEP) == before


def test_a_run_without_steps_lists_none(store: Store) -> None:
    make_run(store)
    assert store.list_steps("T", "R") == []
    assert store.list_step_ids("T", "R") == []


def test_steps_are_listed_oldest_first(store: Store) -> None:
    make_run(store)
    for step_id, created_at in [("C", 3), ("A", 2), ("D", 1), ("B", 2)]:
        store.append_step("T", "R", RunStep(id=step_id, created_at=created_at))
    assert [step.id for step in store.list_steps("T", "R")] == ["D", "A", "B", "C"]
    assert sorted(store.list_step_ids("T", "R")) == ["A", "B", "C", "D"]


def test_a_run_that_has_ended_still_takes_steps(store: Store) -> None:
    make_run(store, RunStatus.completed)
    store.append_step("T", "R", RunStep(id="S"))
    assert store.list_step_ids("T", "R") == ["S"]


@pytest.mark.parametrize(
    ("status", "timestamp"),
    [
        (RunStepStatus.completed, "completed_at"),
        (RunStepStatus.failed, "failed_at"),
        (RunStepStatus.cancelled, None),
        (RunStepStatus.expired, None),
    ],
)
def test_a_step_that_ends_gets_the_time_of_it(
    store: Store, status: RunStepStatus, timestamp: str | None
) -> None:
    make_step(store)
    before_s = int(time.time())
    assert store.update_step_status("T", "R", "S", status) == store.get_step("T", "R", "S")
    fields = stored(store, STEP)
    assert fields["status"] == status
    assert {"completed_at", "failed_at"} & set(fields) == ({timestamp} if timestamp else set())
    if timestamp:
        assert before_s <= fields[timestamp] <= time.time()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (RunStepStatus.completed, RunStepStatus.completed),
        (RunStepStatus.completed, RunStepStatus.in_progress),
        (RunStepStatus.expired, RunStepStatus.failed),
    ],
)
def test_a_step_that_has_ended_takes_no_other_status(
    store: Store, before: RunStepStatus, after: RunStepStatus
) -> None:
    make_step(store, before)
    document = store.read_document(STEP)
    if before is after:
        store.update_step_status("T", "R", "S", after)
    else:
        with pytest.raises(RunStepInTerminalState):
            store.update_step_status("T", "R", "S", after)
    assert store.read_document(STEP) == document


def test_an_unknown_status_of_a_step_is_refused_and_changes_nothing(store: Store) -> None:
    make_step(store)
    document = store.read_document(STEP)
    unknown: Any = "queued"
    with pytest.raises(InvalidDocument):
        store.update_step_status("T", "R", "S", unknown)
    assert store.read_document(STEP) == document
