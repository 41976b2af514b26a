"""What of a stored document OpenAI's types are told: filled in, said in their words, or left out.

Each kind of object is a table: for each field of OpenAI's type, what makes a valid value of the stored one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias

from threadfs.openai_shapes import (
    ATTACHMENTS,
    BLOCK,
    INCOMPLETE_MESSAGE,
    INCOMPLETE_RUN,
    REQUIRED_ACTION,
    RESPONSE_FORMAT,
    TOOL_CALL,
    TOOL_CHOICE,
    TOOL_RESOURCES,
    TOOLS,
    TRUNCATION,
    UNFIT,
    USAGE,
    Shape,
    list_of,
    number,
    one_of,
    text,
    truth,
    whole,
)

Fields: TypeAlias = dict[str, Any]
# Makes of a stored value (None: there is none) one that OpenAI's type accepts.
_Translation: TypeAlias = Callable[[Any], Any]


def _or(shape: Shape, default: Any = None) -> _Translation:
    def translate(value: Any) -> Any:
        made = shape(value)
        return default if made is UNFIT else made

    return translate


def _metadata(value: Any) -> Fields:
    """OpenAI's metadata are texts; other values are given as JSON."""
    if not isinstance(value, dict):
        return {}
    return {name: _as_text(item) for name, item in value.items()}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else compact(value)


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _last_error(*codes: str) -> _Translation:
    """An error with a code that OpenAI knows; any other is the server's."""

    def translate(value: Any) -> Fields | None:
        if value is None:
            return None
        if not isinstance(value, dict):
            return {"code": "server_error", "message": _as_text(value)}
        code, message = value.get("code"), value.get("message")
        return {
            "code": code if code in codes else "server_error",
            "message": message if isinstance(message, str) else compact(value),
        }

    return translate


def _content(blocks: Any) -> list[Any]:
    return [_block(block) for block in blocks]


def _block(block: Fields) -> Fields:
    """A block of a message; one that OpenAI does not know becomes a text that shows it."""
    shown = block["text"]["value"] if block.get("type", "text") == "text" else compact(block)
    made: Fields = _or(BLOCK, {"type": "text", "text": {"value": shown, "annotations": []}})(block)
    return made


_TIME = _or(whole)
_TEXT = _or(text, "")

_THREAD: dict[str, _Translation] = {
    "id": _TEXT,
    "object": lambda _: "thread",
    "created_at": _TIME,
    "metadata": _metadata,
    "tool_resources": _or(TOOL_RESOURCES),
}
_MESSAGE: dict[str, _Translation] = {
    "id": _TEXT,
    "object": lambda _: "thread.message",
    "created_at": _TIME,
    "thread_id": _TEXT,
    "status": _or(one_of("in_progress", "incomplete", "completed"), "completed"),
    "incomplete_details": _or(INCOMPLETE_MESSAGE),
    "completed_at": _TIME,
    "incomplete_at": _TIME,
    "role": _TEXT,
    "content": _content,
    "assistant_id": _or(text),
    "run_id": _or(text),
    "attachments": _or(ATTACHMENTS, []),
    "metadata": _metadata,
}
_RUN: dict[str, _Translation] = {
    "id": _TEXT,
    "object": lambda _: "thread.run",
    "created_at": _TIME,
    "assistant_id": _TEXT,
    "thread_id": _TEXT,
    "status": _TEXT,
    "started_at": _TIME,
    "expires_at": _TIME,
    "cancelled_at": _TIME,
    "failed_at": _TIME,
    "completed_at": _TIME,
    "required_action": _or(REQUIRED_ACTION),
    "last_error": _last_error("server_error", "rate_limit_exceeded", "invalid_prompt"),
    "incomplete_details": _or(INCOMPLETE_RUN),
    "model": _TEXT,
    "instructions": _TEXT,
    "tools": _or(TOOLS, []),
    "metadata": _metadata,
    "usage": _or(USAGE),
    "temperature": _or(number),
    "top_p": _or(number),
    "max_prompt_tokens": _TIME,
    "max_completion_tokens": _TIME,
    "truncation_strategy": _or(TRUNCATION),
    "tool_choice": _or(TOOL_CHOICE),
    "parallel_tool_calls": _or(truth, True),
    "response_format": _or(RESPONSE_FORMAT),
}
_STEP: dict[str, _Translation] = {
    "id": _TEXT,
    "object": lambda _: "thread.run.step",
    "created_at": _TIME,
    "assistant_id": _TEXT,
    "thread_id": _TEXT,
    "run_id": _TEXT,
    "type": _TEXT,
    "status": _TEXT,
    "step_details": lambda details: details,
    "last_error": _last_error("server_error", "rate_limit_exceeded"),
    "cancelled_at": _TIME,
    "completed_at": _TIME,
    "expired_at": _TIME,
    "failed_at": _TIME,
    "metadata": _metadata,
    "usage": _or(USAGE),
}
KINDS = {"thread": _THREAD, "thread.message": _MESSAGE, "thread.run": _RUN, "thread.run.step": _STEP}


def _step_in_openais_words(fields: Fields) -> Fields:
    kind = fields.get("step_type", fields.get("type"))
    details = fields.get("step_details")
    details = details if isinstance(details, dict) else {}
    given: Any
    if kind == "message_creation":
        creation = details.get("message_creation")
        message_id = (creation if isinstance(creation, dict) else details).get("message_id")
        given = {"message_creation": {"message_id": message_id if isinstance(message_id, str) else ""}}
    else:
        given = {"tool_calls": _or(list_of(TOOL_CALL), [])(details.get("tool_calls"))}
    said = {**fields, "type": kind, "step_details": {"type": kind, **given}}
    if said.get("last_error") is None:
        said["last_error"] = fields.get("error")
    return said


def translated(fields: Fields) -> Fields:
    """The object that OpenAI's type accepts, for a stored document."""
    table = KINDS[fields["object"]]
    said = _step_in_openais_words(fields) if table is _STEP else fields
    made = {name: translate(said.get(name)) for name, translate in table.items()}
    if said.get("metadata", {}) is None:
        made["metadata"] = None  # Which OpenAI's types accept, as they do none at all.
    return made
