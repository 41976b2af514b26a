"""Chat completions as they come: events of JSON, each with a little more of the answer.

Servers differ in what they leave out. An event may have no ``choices``, a ``delta`` or a ``content`` of null,
and a ``finish_reason`` that never comes. What is there must have its type.

Source: https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from threadfs.work.failures import BrokenOff, Failure, of_status, shortened

_DONE = "[DONE]"
_HALVES = re.compile("[\ud800-\udfff]")


@dataclass(slots=True)
class Call:
    """A call of a tool; *arguments* is text that should be JSON."""

    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class Completion:
    """An answer, as far as it came. Each piece of its text goes to *on_text* at once.

    *finish_reason* is the endpoint's word for why it ended; ``length`` also when it has become longer than
    *max_bytes* of UTF-8, which counts what is said and what is called.
    """

    on_text: Callable[[str], None]
    max_bytes: int
    key: str | None = None
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    calls: dict[int, Call] = field(default_factory=dict)
    size_bytes: int = 0
    is_done: bool = False
    failure: Failure | None = None

    @property
    def has_begun(self) -> bool:
        """Whether there is something of the answer."""
        return self.size_bytes > 0

    @property
    def has_ended(self) -> bool:
        """Whether it is whole: many servers close the connection after the reason, or without one."""
        return self.failure is None and (self.is_done or self.finish_reason is not None)

    @property
    def is_too_long(self) -> bool:
        return self.size_bytes > self.max_bytes

    def take(self, event: str, data: str) -> None:
        """Takes an event of the stream. `is_done` after the last one, and after a `failure`."""
        if data.strip() == _DONE:
            self.is_done = True
            return
        try:
            self.take_object(parsed(data), is_error=event == "error")
        except Failure as failure:
            self.failure, self.is_done = failure, True

    def take_object(self, found: dict[str, Any], *, is_error: bool = False) -> None:
        """Takes the JSON of an event, or of a whole answer that is no stream.

        Raises:
            Failure: it says that there was an error, or is none of a chat completion.
        """
        if is_error or found.get("error"):
            raise self._failure(found)
        choices = found.get("choices") or [{}]
        choice = choices[0] if isinstance(choices, list) else None
        if not isinstance(choice, dict):
            raise _malformed("its choices are no objects")
        message = choice.get("delta") or choice.get("message") or {}
        if not isinstance(message, dict):
            raise _malformed("its message is no object")
        self._take_text(message.get("content") or message.get("refusal") or "")
        self._take_calls(message.get("tool_calls") or [])
        if isinstance(reason := choice.get("finish_reason"), str) and reason:
            self.finish_reason = reason
        if isinstance(usage := found.get("usage"), dict):
            self.usage = usage
        if self.is_too_long:
            self.finish_reason, self.is_done = "length", True

    def _take_text(self, text: object) -> None:
        if not isinstance(text, str):
            raise _malformed("its content is no text")
        if text:
            self.on_text(self._bounded(text))

    def _take_calls(self, calls: object) -> None:
        if not isinstance(calls, list):
            raise _malformed("its tool_calls are no list")
        for position, given in enumerate(calls):
            function = given.get("function") if isinstance(given, dict) else None
            if not isinstance(function, dict):
                raise _malformed("a tool call has no function")
            index = given.get("index")
            # A whole answer, and some servers, give each call at once and no number.
            call = self.calls.setdefault(index if isinstance(index, int) else position, Call())
            call.id = call.id or _text(given.get("id"))
            call.name = call.name or self._bounded(_text(function.get("name")))
            call.arguments += self._bounded(_text(function.get("arguments")))

    def _bounded(self, text: str) -> str:
        """*text* without halves of surrogate pairs, as far as the answer may still grow."""
        whole = _HALVES.sub("\ufffd", text)
        encoded = whole.encode()
        room = self.max_bytes - self.size_bytes
        self.size_bytes += len(encoded)
        return whole if len(encoded) <= room else encoded[: max(room, 0)].decode(errors="ignore")

    def _failure(self, found: dict[str, Any]) -> Failure:
        """What an event that is an error stands for: before anything was said, what its status would."""
        said = shortened(said_in(found), self.key)
        error = found.get("error")
        status = error.get("code") if isinstance(error, dict) else None
        if not self.has_begun and isinstance(status, int) and 400 <= status < 600:
            return of_status(status, said, has_key=self.key is not None)
        return BrokenOff("the endpoint ended its answer with an error", said)


def parsed(data: str | bytes) -> dict[str, Any]:
    """A JSON object. Raises BrokenOff."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _malformed("it is no JSON object")
    return found


def said_in(found: object) -> str:
    """The explanation in the body of an error, in any of the shapes that servers give it; perhaps empty."""
    if isinstance(found, str):
        return found
    if isinstance(found, dict):
        for name in ("error", "message", "detail"):
            if said := said_in(found.get(name)):
                return said
    return ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _malformed(why: str) -> BrokenOff:
    return BrokenOff(f"the endpoint sent an event that is none of a chat completion: {why}")
