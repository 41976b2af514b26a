"""What becomes of a run: from how its answer ended to what the store is told."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence

from store import RunError, RunStatus
from store.tools import ToolCall
from store.working import Outcome
from threadfs.work.completions import Call, Completion
from threadfs.work.failures import CannotCall, Failure, shortened

# The counts of a usage that OpenAI's runs have; endpoints add others.
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


def of_completion(completion: Completion, tools: Collection[str]) -> Outcome:
    """The outcome of an answer that came to its end; *tools* are the names that the run may call."""
    usage = usage_of(completion)
    match completion.finish_reason:
        case "length":
            return Outcome(
                RunStatus.incomplete,
                message_is_cut="max_tokens",
                run_is_cut="max_completion_tokens",
                usage=usage,
            )
        case "content_filter":
            return Outcome(
                RunStatus.incomplete,
                message_is_cut="content_filter",
                run_is_cut="content_filter",
                usage=usage,
            )
    if not completion.calls:
        return Outcome(RunStatus.completed, usage=usage)
    calls = [call for _, call in sorted(completion.calls.items())]
    if unknown := [call.name for call in calls if call.name not in tools]:
        return of_failure(
            CannotCall(f"the model called {shortened(unknown[0])!r}, which is no tool of the run")
        )
    return Outcome(RunStatus.requires_action, usage=usage, tool_calls=_tool_calls(calls))


def of_failure(failure: Failure) -> Outcome:
    """The run failed. What was said before is kept, as far as it came."""
    error = RunError(code=failure.code, message=str(failure))
    return Outcome(RunStatus.failed, message_is_cut="run_failed", error=error)


def of_cancel(status: RunStatus | None) -> Outcome:
    """Somebody gave the run *status*, or deleted it (``None``); what was said is kept if that ended it."""
    is_kept = status is not None and status.is_terminal
    return Outcome(RunStatus.cancelled, message_is_cut="run_cancelled", keeps_text=is_kept)


def usage_of(completion: Completion) -> dict[str, int] | None:
    given = completion.usage or {}
    found = {name: given[name] for name in _COUNTS if type(given.get(name)) is int and given[name] >= 0}
    return found or None


def _tool_calls(calls: Sequence[Call]) -> list[ToolCall]:
    """The calls with ids that differ, as their outputs are known by them."""
    found: dict[str, ToolCall] = {}
    for call in calls:
        call_id = call.id if call.id and call.id not in found else f"call_{uuid.uuid4().hex}"
        found[call_id] = ToolCall(call_id, call.name, call.arguments)
    return list(found.values())
