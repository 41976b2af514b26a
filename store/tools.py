"""The calls of tools that a run waits for, in its ``tool_calls`` step, in OpenAI's form.

"step_details": {"type": "tool_calls", "tool_calls": [{"id": "call_1", "type": "function",
    "function": {"name": "weather", "arguments": "{\"city\":\"Oslo\"}", "output": null}}]}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from store.models import RunStep, RunStepType


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a function. ``arguments`` is what the model wrote, JSON in most cases."""

    id: str
    name: str
    arguments: str
    output: str | None = None

    def fields(self) -> dict[str, Any]:
        function = {"name": self.name, "arguments": self.arguments, "output": self.output}
        return {"id": self.id, "type": "function", "function": function}


def calls_of(step: RunStep) -> list[ToolCall]:
    """The calls of functions in a step, in their order; what has another form is left out."""
    if step.step_type is not RunStepType.tool_calls or not isinstance(step.step_details, dict):
        return []
    given = step.step_details.get("tool_calls")
    return [call for value in given if (call := _call(value))] if isinstance(given, list) else []


def _call(value: Any) -> ToolCall | None:
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict):
        return None
    match value.get("id"), function.get("name"), function.get("arguments"), function.get("output"):
        case str(call_id), str(name), str(arguments), str() | None as output:
            return ToolCall(call_id, name, arguments, output)
    return None


def details_of(calls: list[ToolCall]) -> dict[str, Any]:
    """The ``step_details`` of a step with these *calls*."""
    return {"type": "tool_calls", "tool_calls": [call.fields() for call in calls]}
