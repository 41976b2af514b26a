"""What usual documents and messages say, without their models, which take three times as long.

What is not usual is left to the models: ``None`` says so. What is said here is what they say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from store.catalogue.values import Kind, MessageText
from store.statuses import RunStatus

_FIRST_S: Final = -(2**63)
_AFTER_LAST_S: Final = 2**63
_STATUSES: Final = frozenset(status.value for status in RunStatus)
_TIMES_OF_RUN: Final = ("started_at", "completed_at", "cancelled_at", "failed_at")
_KINDS: Final = {"user": Kind.USER, "assistant": Kind.ASSISTANT}


def is_thread(fields: Mapping[str, Any]) -> bool:
    return _has_usual_names(fields) and _is_time(fields.get("created_at"))


def is_run(fields: Mapping[str, Any]) -> bool:
    status = fields.get("status")
    return (
        _has_usual_names(fields)
        and _is_time(fields.get("created_at"))
        and type(status) is str
        and status in _STATUSES
        and _is_text(fields.get("model", ""))
        and fields.get("last_error") is None
        and all(type(fields[name]) is int for name in _TIMES_OF_RUN if fields.get(name) is not None)
    )


def message(fields: Mapping[str, Any], number: int) -> MessageText | None:
    """The message in line *number* of a log."""
    kind = _KINDS.get(role) if type(role := fields.get("role")) is str else None
    content, run_id = fields.get("content"), fields.get("run_id")
    if (
        kind is None
        or not _has_usual_names(fields)
        or type(content) is not list
        or not _is_text(fields.get("id"))
        or fields.get("object", "thread.message") != "thread.message"
        or not _is_time(fields.get("created_at"))
        or not (run_id is None or _is_text(run_id))
    ):
        return None
    texts: list[str] = []
    for block in content:
        text = block.get("text") if type(block) is dict and block.get("type") == "text" else None
        if type(text) is not dict or type(text.get("annotations", [])) is not list:
            return None
        if not (_has_usual_names(block) and _has_usual_names(text) and _is_text(value := text.get("value"))):
            return None
        texts.append(str(value))
    return MessageText(number, kind, int(fields["created_at"]), "\n".join(texts))


def _has_usual_names(fields: Mapping[str, Any]) -> bool:
    return all(map(str.isascii, fields))


def _is_time(value: object) -> bool:
    return type(value) is int and _FIRST_S <= value < _AFTER_LAST_S


def _is_text(value: object) -> bool:
    """Without halves of pairs, which JSON can hold."""
    if type(value) is not str:
        return False
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
    return True
