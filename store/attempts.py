"""Runs and steps when a worker claims a run, ends it, or dies.

As in `transitions`, each function takes stored documents and gives the new ones, or refuses; every store
calls them under its lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

from store import transitions
from store.errors import RunWaits
from store.models import (
    ContentBlock,
    MessageCreationStepDetails,
    MessageRole,
    Run,
    RunError,
    RunStep,
    RunStepType,
    ThreadMessage,
    now_s,
)
from store.statuses import RunStatus, RunStepStatus
from store.tools import ToolCall, calls_of, details_of
from store.working import MAX_TRIES, Outcome

WORKER_DIED = RunError(code="server_error", message="the worker died while it answered")

_STEP_STATUS = {
    RunStatus.failed: RunStepStatus.failed,
    RunStatus.cancelled: RunStepStatus.cancelled,
}
# How a run ended whose message is not whole, by the message.
_RUN_OF_CUT = {
    "max_tokens": (RunStatus.incomplete, "max_completion_tokens"),
    "content_filter": (RunStatus.incomplete, "content_filter"),
    "run_failed": (RunStatus.failed, None),
    "run_cancelled": (RunStatus.cancelled, None),
}


# ── Claims ──────────────────────────────────────────────────────────────────────────────────────────────


def check_turn(
    run: Run, before: Iterable[Run], others: Iterable[Run], yields_to: Callable[[Run], bool]
) -> None:
    """Checks that no other run of its thread holds *run* up.

    *before* are the older queued runs, oldest first; *others* those that a worker may hold.

    Raises:
        RunWaits: for the one that is in progress, or else the oldest that goes first.
    """
    for other in others:
        if other.status.is_in_progress:
            raise RunWaits(run.id, other.id, other.status, other.worker)
    for other in before:
        if yields_to(other):
            raise RunWaits(run.id, other.id, other.status)


def claimed(run: Run, worker: str | None, step_id: str | None) -> Run:
    """*run* in progress, by *worker* of threadfs with a step, or by another program. Raises StatusChanged."""
    changed = transitions.with_status(run, RunStatus.in_progress, None, expected=RunStatus.queued)
    if worker:
        return changed.with_extra(worker=worker, attempt=step_id, tries=run.tries + 1)
    return without_worker(changed)


def without_worker(run: Run) -> Run:
    return run.with_extra(worker=None, attempt=None) if run.worker else run


def is_of(run: Run, attempt: Run) -> bool:
    """Whether the stored *run* still bears the worker and the step of the *attempt*, the run as claimed."""
    return run.worker == attempt.worker and run.attempt == attempt.attempt


# ── The end of an attempt ───────────────────────────────────────────────────────────────────────────────


def message_of(attempt: Run, message_id: str, text: str, cut: str | None) -> ThreadMessage:
    """The answer, with the time when it was begun, as while it grows; *cut* says why it is not whole."""
    message = ThreadMessage(
        id=message_id,
        created_at=attempt.created_at if attempt.started_at is None else attempt.started_at,
        thread_id=attempt.thread_id,
        role=MessageRole.assistant,
        content=[ContentBlock.of_text(text)],
        run_id=attempt.id,
    )
    if cut is None:
        return message
    return message.with_extra(status="incomplete", incomplete_details={"reason": cut})


def ended(run: Run, outcome: Outcome) -> Run:
    """*run* without its worker. Its status is that of the *outcome* only if it is still in progress."""
    changed = without_worker(run).with_extra(usage=_added(run.extra("usage"), outcome.usage))
    if run.status is RunStatus.cancelling:
        return transitions.with_status(changed, RunStatus.cancelled, None)
    if run.status is not RunStatus.in_progress:
        return changed
    changed = transitions.with_status(changed, outcome.status, outcome.error)
    if outcome.run_is_cut:
        changed = changed.with_extra(incomplete_details={"reason": outcome.run_is_cut})
    if outcome.status is RunStatus.requires_action:
        # The next attempt is another one, and not one more try of this.
        changed = changed.with_extra(tries=None, required_action=_required(outcome.tool_calls))
    return changed


def _required(calls: Iterable[ToolCall]) -> dict[str, Any]:
    asked = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in calls
    ]
    return {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": asked}}


def _added(before: Any, usage: dict[str, Any] | None) -> Any:
    """The *usage* of all attempts: whole numbers are added up, of anything else the last counts."""
    if usage is None or not isinstance(before, dict):
        return before if usage is None else usage
    sums = {
        name: value + before[name] if type(value) is int and type(before.get(name)) is int else value
        for name, value in usage.items()
    }
    return {**before, **sums}


def ended_step(step: RunStep, outcome: Outcome, message_id: str | None) -> RunStep:
    """The *step* of an attempt, with the message that it made, if any. One that has ended stays as it is."""
    if step.status is not RunStepStatus.in_progress:
        return step
    step = step.with_extra(usage=outcome.usage)
    if message_id is not None:
        step.step_details = MessageCreationStepDetails(message_id=message_id)
    elif outcome.tool_calls:
        return with_calls(step, outcome.tool_calls)
    if outcome.error is not None:
        step.error = outcome.error.message  # A text, as the reference has it.
    return transitions.with_step_status(step, _STEP_STATUS.get(outcome.status, RunStepStatus.completed))


def with_calls(step: RunStep, calls: Iterable[ToolCall]) -> RunStep:
    """*step*, which goes on until the outputs of the *calls* are there."""
    step = step.model_copy()
    step.step_type = RunStepType.tool_calls
    step.step_details = details_of(list(calls))
    return step


def handed_back(run: Run) -> Run:
    """*run*, queued again as if this attempt had not been; with another status, only without its worker."""
    if run.status is not RunStatus.in_progress:
        return ended(run, Outcome(run.status))
    changed = without_worker(run).with_extra(tries=run.tries - 1 or None)
    return transitions.with_status(changed, RunStatus.queued, None)


# ── Outputs of tools ────────────────────────────────────────────────────────────────────────────────────


def with_output(step: RunStep, call_id: str, output: str) -> RunStep:
    """*step* with the output of a call; with the last one it is completed."""
    changed = step.model_copy()
    details = deepcopy(step.fields()["step_details"])
    for call in details["tool_calls"]:
        if isinstance(call, dict) and call.get("id") == call_id and isinstance(call.get("function"), dict):
            call["function"]["output"] = output
    changed.step_details = details
    is_whole = all(call.output is not None for call in calls_of(changed))
    return transitions.with_step_status(changed, RunStepStatus.completed) if is_whole else changed


def with_all_outputs(run: Run) -> Run:
    """*run*, queued for the rest of its answer."""
    changed = transitions.with_status(run, RunStatus.queued, None, expected=RunStatus.requires_action)
    return changed.with_extra(required_action=None)


# ── A worker that died ──────────────────────────────────────────────────────────────────────────────────


def outcome_of_step(step: RunStep) -> Outcome | None:
    """How an attempt without a message ended, by its *step*.

    ``None``: without a result. It was handed back, or ended by a program that found its worker dead, and was
    killed before it came to the run.
    """
    if step.status is RunStepStatus.cancelled or step.error == WORKER_DIED.message:
        return None
    if step.status is RunStepStatus.completed:
        return Outcome(RunStatus.completed)
    error = step.error if isinstance(step.error, str) else "the attempt failed"
    return Outcome(RunStatus.failed, error=RunError(code="server_error", message=error))


def outcome_of(message: ThreadMessage) -> Outcome:
    """How an attempt ended, by the *message* that it left in the log."""
    details = message.extra("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    status, run_is_cut = _RUN_OF_CUT.get(str(reason), (RunStatus.completed, None))
    error = WORKER_DIED if status is RunStatus.failed else None
    return Outcome(status, error=error, run_is_cut=run_is_cut)


def died(run: Run) -> Run:
    """*run* after its worker died without a message: queued again, or failed if that was the last try."""
    changed = without_worker(run)
    if run.status is RunStatus.cancelling:
        return transitions.with_status(changed, RunStatus.cancelled, None)
    if run.status is not RunStatus.in_progress:
        return changed
    if run.tries >= MAX_TRIES:
        error = RunError(code="server_error", message=f"the worker died {run.tries} times while it answered")
        return transitions.with_status(changed, RunStatus.failed, error)
    return transitions.with_status(changed, RunStatus.queued, None)


def step_of_dead(step: RunStep, text: str) -> RunStep:
    """The *step* of an attempt whose worker died, with the *text* that it had by then."""
    step = step.with_extra(partial=text or None)
    step.status, step.failed_at, step.error = RunStepStatus.failed, now_s(), WORKER_DIED.message
    return step
