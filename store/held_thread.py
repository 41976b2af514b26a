"""What a worker does to a thread, written once for every store: each function runs while the thread is held.

A store gives it the thread as a `HeldThread`, which nobody else of threadfs changes meanwhile. On a disk each
change is durable when it has been made, and a kill may fall between two of them: the order is chosen so that
`take_over` finds out how far it came. In a database all of them are one transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Protocol

from store import attempts, names
from store.errors import (
    OutputIsSet,
    RunLost,
    StatusChanged,
    StorageFailed,
    ToolCallNotFound,
)
from store.models import Run, RunStep, RunStepType, ThreadMessage
from store.statuses import RunStatus, RunStepStatus
from store.tools import calls_of
from store.working import Outcome


class HeldThread(Protocol):
    """A thread that is locked, and what a worker needs of it."""

    def run(self, run_id: str) -> Run:
        """Raises RunNotFound."""
        ...

    def queued_before(self, run: Run) -> list[Run]:
        """The queued runs of the thread that are older than *run*, oldest first."""
        ...

    def in_progress(self) -> list[Run]:
        """The runs of the thread that are in progress."""
        ...

    def change_run(self, run_id: str, change: Callable[[Run], Run]) -> Run: ...

    def steps(self, run_id: str) -> list[RunStep]:
        """The steps that can be read, oldest first."""
        ...

    def change_step(self, run_id: str, step: RunStep, change: Callable[[RunStep], RunStep]) -> RunStep:
        """Changes the stored version of *step*, or adds what *change* makes of it if there is none."""
        ...

    def append(self, message: ThreadMessage) -> None: ...

    def messages_of(self, run_id: str) -> list[ThreadMessage]:
        """The messages in the log that name the run; durable."""
        ...

    def growing_text(self, run_id: str) -> str:
        """What is there of an answer that has not ended."""
        ...

    def drop_growing(self, run_id: str) -> None:
        """Removes the text of an answer that has ended; need not be durable."""
        ...


def claim(
    thread: HeldThread,
    run_id: str,
    yields_to: Callable[[Run], bool],
    worker: str | None = None,
    step_id: str | None = None,
) -> Run:
    """Claims a run. Raises RunNotFound, StatusChanged, RunWaits."""

    def changed(run: Run) -> Run:
        claimed = attempts.claimed(run, worker, step_id)
        attempts.check_turn(run, thread.queued_before(run), thread.in_progress(), yields_to)
        return claimed

    return thread.change_run(run_id, changed)


def begin_step(thread: HeldThread, attempt: Run, step: RunStep) -> None:
    """Adds the step of an attempt. If the disk is full, that is left to the end of the attempt."""
    with suppress(StorageFailed):
        thread.change_step(attempt.id, step, lambda new: new)


# ── The end of an attempt ───────────────────────────────────────────────────────────────────────────────


def finish(
    thread: HeldThread,
    attempt: Run,
    step: RunStep,
    message: ThreadMessage | None,
    outcome: Outcome,
    *,
    is_repeated: bool,
) -> Run:
    """Ends an attempt; *is_repeated*: an earlier call has failed, perhaps half way.

    Raises:
        RunNotFound, RunLost.
    """
    run = thread.run(attempt.id)
    if not attempts.is_of(run, attempt):
        if is_repeated and _was_ended_by_worker(thread, step):
            return run
        raise _lost(run)
    if outcome.tool_calls and run.status is not RunStatus.in_progress:
        outcome = replace(outcome, status=RunStatus.cancelled, tool_calls=())  # Nobody waits for them.
    if message is not None:
        if outcome.tool_calls and not _calling(thread, attempt.id):
            calling = RunStep(run_id=attempt.id, thread_id=attempt.thread_id)
            thread.change_step(attempt.id, calling, lambda new: attempts.with_calls(new, outcome.tool_calls))
        if not (is_repeated and message.id in {found.id for found in thread.messages_of(attempt.id)}):
            thread.append(message)
    thread.drop_growing(attempt.id)
    message_id = message.id if message is not None else None
    thread.change_step(attempt.id, step, lambda stored: attempts.ended_step(stored, outcome, message_id))
    return _change_if_of(thread, attempt, lambda now: attempts.ended(now, outcome))


def hand_back(thread: HeldThread, attempt: Run, step: RunStep) -> None:
    """Ends an attempt without a result. Raises RunNotFound, RunLost."""
    run = thread.run(attempt.id)
    if not attempts.is_of(run, attempt):
        raise _lost(run)
    thread.drop_growing(attempt.id)
    outcome = Outcome(RunStatus.cancelled)
    thread.change_step(attempt.id, step, lambda stored: attempts.ended_step(stored, outcome, None))
    _change_if_of(thread, attempt, attempts.handed_back)


def _lost(run: Run) -> RunLost:
    return RunLost(run.id, f"it is {run.status}{f', and has {run.worker}' if run.worker else ''}")


def _was_ended_by_worker(thread: HeldThread, step: RunStep) -> bool:
    """Whether the step of an attempt has ended, and not because its worker seemed to be dead."""
    return any(
        stored.id == step.id
        and (stored.status is not RunStepStatus.in_progress or stored.step_type is RunStepType.tool_calls)
        and stored.error != attempts.WORKER_DIED.message
        for stored in thread.steps(step.run_id)
    )


def _change_if_of(thread: HeldThread, attempt: Run, change: Callable[[Run], Run]) -> Run:
    """Changes the run, unless a program that takes no lock has given it to another worker by now."""
    return thread.change_run(attempt.id, lambda now: change(now) if attempts.is_of(now, attempt) else now)


# ── Outputs of tools ────────────────────────────────────────────────────────────────────────────────────


def set_tool_output(thread: HeldThread, run_id: str, call_id: str, output: str) -> Run:
    """Sets the output of a call. Raises RunNotFound, StatusChanged, ToolCallNotFound, OutputIsSet."""
    run = thread.run(run_id)
    if run.status is not RunStatus.requires_action:
        raise StatusChanged(run_id, RunStatus.requires_action, run.status)
    # An endpoint may give the same id again in a later round.
    calling = [(step, call) for step in _calling(thread, run_id) for call in calls_of(step)]
    step = next((step for step, call in calling if call.id == call_id), None)
    if step is None:
        is_set = call_id in {call.id for stored in thread.steps(run_id) for call in calls_of(stored)}
        # The program that set the last output may have failed before it came to the run.
        if is_set and (queued := queue_with_outputs(thread, run_id)):
            return queued
        raise ToolCallNotFound(call_id)
    if all(call.output is not None for _, call in calling if call.id == call_id):
        raise OutputIsSet(call_id)
    thread.change_step(run_id, step, lambda stored: attempts.with_output(stored, call_id, output))
    return queue_with_outputs(thread, run_id) or run


def queue_with_outputs(thread: HeldThread, run_id: str) -> Run | None:
    """Queues a run that requires no action any more; ``None``: it does, or nothing is known of its calls."""
    run = thread.run(run_id)
    has_calls = any(calls_of(step) for step in thread.steps(run_id))
    if run.status is not RunStatus.requires_action or not has_calls or _calling(thread, run_id):
        return None
    return thread.change_run(run_id, attempts.with_all_outputs)


def _calling(thread: HeldThread, run_id: str) -> list[RunStep]:
    """The steps that wait for outputs."""
    steps = thread.steps(run_id)
    return [step for step in steps if step.status is RunStepStatus.in_progress and calls_of(step)]


# ── A worker that died ──────────────────────────────────────────────────────────────────────────────────


def bury(thread: HeldThread, run_id: str, worker: str, step_id: str | None = None) -> Run | None:
    """Ends what a dead *worker* had begun, or the attempt with the step *step_id* that it gave up.

    Returns:
        The run as stored; ``None`` if it bears another worker or attempt.

    Raises:
        RunNotFound: no such run.
    """
    run = thread.run(run_id)
    if run.worker != worker or step_id not in (None, run.attempt):
        return None
    step = next((step for step in thread.steps(run_id) if step.id == run.attempt), None)
    message = _message_of_attempt(thread, run)
    outcome = attempts.outcome_of(message) if message else None
    if calls := [call for step in _calling(thread, run_id) for call in calls_of(step)]:
        # They are written first: the attempt was about to end with them.
        outcome = Outcome(RunStatus.requires_action, tool_calls=calls)
    if step is not None and step.status is not RunStepStatus.in_progress:
        outcome = outcome or attempts.outcome_of_step(step)
    elif step is not None and not calls_of(step):
        change = partial(attempts.step_of_dead, text=thread.growing_text(run_id))
        if outcome and message:
            change = partial(attempts.ended_step, outcome=outcome, message_id=message.id)
        thread.change_step(run_id, step, change)
    thread.drop_growing(run_id)

    def changed(now: Run) -> Run:
        return attempts.ended(now, outcome) if outcome else attempts.died(now)

    return _change_if_of(thread, run, changed)


def _message_of_attempt(thread: HeldThread, run: Run) -> ThreadMessage | None:
    """The message in the log that the attempt made; other programs may have written some for the run, too."""
    message_id = names.message_of_step(run.attempt) if run.attempt else None
    return next((found for found in thread.messages_of(run.id) if found.id == message_id), None)
