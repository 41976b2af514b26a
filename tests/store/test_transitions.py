"""Each status after each other, of runs and of steps: pure functions. Each store has a few cases besides."""

from __future__ import annotations

import pytest

from store import Run, RunInTerminalState, RunStatus, RunStep, RunStepInTerminalState, RunStepStatus
from store.documents import parse, pretty
from store.transitions import replaced, with_status, with_step_status
from tests.store.conftest import ENDED_STEP, NOT_TERMINAL, RUN, STEP, TERMINAL


def run_in(status: RunStatus) -> Run:
    return Run(id="R", thread_id="T", created_at=1, status=status)


def step_in(status: RunStepStatus) -> RunStep:
    return RunStep(id="S", run_id="R", thread_id="T", created_at=1, status=status)


@pytest.mark.parametrize("after", RunStatus)
@pytest.mark.parametrize("before", NOT_TERMINAL)
def test_a_run_that_has_not_ended_takes_any_status(before: RunStatus, after: RunStatus) -> None:
    run = run_in(before)
    assert with_status(run, after, None).status is after
    assert run == run_in(before)


@pytest.mark.parametrize("after", RunStatus)
@pytest.mark.parametrize("before", TERMINAL)
def test_a_run_that_has_ended_takes_no_status_not_even_its_own(before: RunStatus, after: RunStatus) -> None:
    run = run_in(before)
    with pytest.raises(RunInTerminalState):
        with_status(run, after, None)
    assert run == run_in(before)


@pytest.mark.parametrize("after", RunStatus)
@pytest.mark.parametrize("before", RunStatus)
def test_force_gives_any_run_any_status(before: RunStatus, after: RunStatus) -> None:
    assert with_status(run_in(before), after, None, force=True).status is after


@pytest.mark.parametrize("after", RunStepStatus)
def test_a_step_that_is_in_progress_takes_any_status(after: RunStepStatus) -> None:
    assert with_step_status(step_in(RunStepStatus.in_progress), after).status is after


@pytest.mark.parametrize("after", RunStepStatus)
@pytest.mark.parametrize("before", ENDED_STEP)
def test_a_step_that_has_ended_takes_no_other_status(before: RunStepStatus, after: RunStepStatus) -> None:
    step = step_in(before)
    if after is before:
        assert with_step_status(step, after) is step
    else:
        with pytest.raises(RunStepInTerminalState):
            with_step_status(step, after)
    assert step == step_in(before)


@pytest.mark.parametrize("after", RunStatus)
@pytest.mark.parametrize("before", TERMINAL)
def test_a_whole_document_with_another_status_for_a_run_that_has_ended_is_refused(
    before: RunStatus, after: RunStatus
) -> None:
    given = pretty(run_in(after))
    if after is before:
        assert replaced(RUN, run_in(before), given) == given
    else:
        with pytest.raises(RunInTerminalState):
            replaced(RUN, run_in(before), given)


@pytest.mark.parametrize("after", RunStepStatus)
@pytest.mark.parametrize("before", ENDED_STEP)
def test_a_whole_document_with_another_status_for_a_step_that_has_ended_is_refused(
    before: RunStepStatus, after: RunStepStatus
) -> None:
    given = pretty(step_in(after))
    if after is before:
        assert parse(replaced(STEP, step_in(before), given))["status"] == after
    else:
        with pytest.raises(RunStepInTerminalState):
            replaced(STEP, step_in(before), given)
