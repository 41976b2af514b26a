"""The outputs of tools that a run waits for, in every store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from store import OutputIsSet, RunNotFound, RunStatus, StatusChanged, Store, StoreError, ToolCallNotFound
from store.tools import calls_of
from store.working import Outcome
from tests.store.conftest import MakeStore, make_run
from tests.store.contract.working import CALLS, STATE, WITH_CALLS, claimed, steps_of


def test_an_output_is_set_once(store: Store) -> None:
    claimed(store).finish(WITH_CALLS)
    store.set_tool_output("T", "R", "call_1", "")
    with pytest.raises(OutputIsSet):
        store.set_tool_output("T", "R", "call_1", "rain")
    (step,) = steps_of(store)
    assert [call["function"]["output"] for call in step["step_details"]["tool_calls"]] == ["", None]


def test_a_call_of_a_later_round_may_have_the_id_of_an_earlier_one(store: Store) -> None:
    worker = store.register_worker(STATE)
    answer = claimed(store, worker)
    for output in ("rain", "snow"):
        answer.finish(Outcome(RunStatus.requires_action, tool_calls=CALLS[:1]))
        assert store.set_tool_output("T", "R", CALLS[0].id, output).status is RunStatus.queued
        answer = worker.claim("T", "R")
    outputs = [call.output for step in store.list_steps("T", "R") for call in calls_of(step)]
    assert sorted(filter(None, outputs)) == ["rain", "snow"]


def test_of_two_programs_that_set_an_output_at_once_one_succeeds(make_store: MakeStore) -> None:
    claimed(make_store()).finish(WITH_CALLS)
    together = Barrier(2)

    def set_output(store: Store) -> bool:
        together.wait()
        try:
            store.set_tool_output("T", "R", "call_1", "rain")
        except OutputIsSet:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(set_output, [make_store(), make_store()])) == [False, True]


def test_the_output_of_another_call_is_refused(store: Store) -> None:
    claimed(store).finish(WITH_CALLS)
    with pytest.raises(ToolCallNotFound):
        store.set_tool_output("T", "R", "call_3", "rain")


@pytest.mark.parametrize(
    ("status", "error"), [(RunStatus.cancelled, StatusChanged), (RunStatus.requires_action, ToolCallNotFound)]
)
def test_an_output_for_a_run_that_waits_for_none_is_refused(
    store: Store, status: RunStatus, error: type[StoreError]
) -> None:
    make_run(store, status)
    with pytest.raises(error):
        store.set_tool_output("T", "R", "call_1", "rain")


def test_an_output_for_a_run_that_is_not_there_is_refused(store: Store) -> None:
    make_run(store)
    with pytest.raises(RunNotFound):
        store.set_tool_output("T", "Q", "call_1", "rain")
