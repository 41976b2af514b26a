"""Translates the fields of stored documents to those of OpenAI's types.

Each kind of object has a table: for each field of OpenAI's type, a function that makes a valid value from the
stored one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias

from threadfs.openai.shapes import (
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
# Converts a stored value (None: there is none) to one that OpenAI's type accepts.
_Translation: TypeAlias = Callable[[Any], Any]


def _or(shape: Shape, default: Any = None) -> _Translation:
    def translate(value: Any) -> Any:
        result = shape(value)
        return default if result is UNFIT else result

    return translate


def _metadata(value: Any) -> Fields:
    """OpenAI's metadata are strings; other values become JSON text."""
    if not isinstance(value, dict):
        return {}
    return {name: _as_text(item) for name, item in value.items()}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else compact(value)


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _last_error(*codes: str) -> _Translation:
    """An error with one of OpenAI's *codes*; any other code becomes ``server_error``."""

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
    """A block of a message; a kind that OpenAI does not have becomes a text block with its JSON."""
    shown = block["text"]["value"] if block.get("type", "text") == "text" else compact(block)
    translated_block: Fields = _or(BLOCK, {"type": "text", "text": {"value": shown, "annotations": []}})(
        block
    )
    return translated_block


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


def _with_openais_step_names(fields: Fields) -> Fields:
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
    renamed = {**fields, "type": kind, "step_details": {"type": kind, **given}}
    if renamed.get("last_error") is None:
        renamed["last_error"] = fields.get("error")
    return renamed


def translated(fields: Fields) -> Fields:
    """The object that OpenAI's type accepts, for a stored document."""
    table = KINDS[fields["object"]]
    source = _with_openais_step_names(fields) if table is _STEP else fields
    result = {name: translate(source.get(name)) for name, translate in table.items()}
    if source.get("metadata", {}) is None:
        result["metadata"] = None  # OpenAI's types accept null.
    return result
