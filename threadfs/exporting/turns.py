"""A thread as its messages and the calls of its runs, in the order in which they happened.

The log says in which order the messages came. The steps of a run say which calls stand before which of its
messages. A run without a message in the log stands where nobody answered the user.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeAlias

from store import (
    InvalidDocument,
    MessageRole,
    NotFound,
    RunStep,
    RunStepType,
    Store,
    StoreError,
    Thread,
    ThreadMessage,
    documents,
    lines,
)

Fields: TypeAlias = dict[str, Any]
# Is told what cannot be read, and why.
Missed: TypeAlias = Callable[[str, StoreError], None]


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool and what it gave; *arguments* is a text, which a function has as JSON."""

    id: str
    name: str
    arguments: str
    output: str


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls that were made at once: those of one step."""

    calls: list[Call]


Turn: TypeAlias = ThreadMessage | Calls


@dataclass(frozen=True, slots=True)
class _Run:
    """Its calls, and the ids of the messages that it made, in the order of its steps."""

    id: str
    created_at: int
    parts: list[Calls | str]


@dataclass(frozen=True, slots=True)
class TurnReader:
    """Reads threads; what is damaged is left out, and told."""

    store: Store
    missed: Missed

    def thread(self, thread_id: str) -> Thread | None:
        """``None``: there is none (any more), or it is damaged."""
        try:
            return self.store.get_thread(thread_id)
        except NotFound:
            return None
        except StoreError as error:
            self.missed(f"thread {thread_id}", error)
            return None

    def turns(self, thread_id: str) -> list[Turn]:
        """What was said and called; nothing in a thread that is gone."""
        try:
            messages = list(self._messages(thread_id))
            runs = list(self._runs(thread_id))
        except NotFound:
            return []
        except StoreError as error:
            self.missed(f"thread {thread_id}", error)
            return []
        return _in_order(messages, runs)

    def _messages(self, thread_id: str) -> Iterator[ThreadMessage]:
        with closing(self.store.open_log(thread_id)) as log:
            for number, (line, _) in enumerate(lines.iter_lines(log.read), 1):
                if line.strip():
                    try:
                        yield ThreadMessage.of({**documents.parse(line), "thread_id": thread_id})
                    except InvalidDocument as error:
                        self.missed(f"line {number} of the messages of thread {thread_id}", error)

    def _runs(self, thread_id: str) -> Iterator[_Run]:
        """Those that called something, the oldest first."""
        found = []
        for run_id in self.store.list_run_ids(thread_id):
            try:
                parts = list(self._parts(thread_id, run_id))
                if any(isinstance(part, Calls) for part in parts):
                    found.append(_Run(run_id, self.store.get_run(thread_id, run_id).created_at, parts))
            except NotFound:
                continue
            except StoreError as error:
                self.missed(f"run {run_id} of thread {thread_id}", error)
        yield from sorted(found, key=lambda run: (run.created_at, run.id))

    def _parts(self, thread_id: str, run_id: str) -> Iterator[Calls | str]:
        steps: list[RunStep] = []
        for step_id in self.store.list_step_ids(thread_id, run_id):
            try:
                steps.append(self.store.get_step(thread_id, run_id, step_id))
            except NotFound:
                continue
            except StoreError as error:
                self.missed(f"step {step_id} of run {run_id} of thread {thread_id}", error)
        for step in sorted(steps, key=lambda step: (step.created_at, step.id)):
            details = _fields(step.fields().get("step_details"))
            if step.step_type is RunStepType.message_creation:
                creation = _fields(details.get("message_creation")) or details
                yield _text(creation.get("message_id"))
            elif calls := list(_calls(step.id, details.get("tool_calls"))):
                yield Calls(calls)


def instructions_of(thread: Thread) -> str:
    """The system prompt of a conversation, which an import keeps in its metadata."""
    instructions = _text(_fields(thread.metadata).get("instructions"))
    return instructions if instructions.strip() else ""


def json_line(fields: Fields) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _fields(value: Any) -> Fields:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _entries(value: Any) -> Iterator[Fields]:
    return (entry for entry in value if isinstance(entry, dict)) if isinstance(value, list) else iter(())


def _calls(step_id: str, given: Any) -> Iterator[Call]:
    """The calls of a step. One without an id gets one from its place."""
    for position, call in enumerate(_entries(given)):
        kind = _text(call.get("type"))
        own = _fields(call.get(kind))
        call_id = _text(call.get("id")) or f"{step_id}-{position}"
        if kind == "function":
            output = _text(own.get("output"))
            yield Call(call_id, _text(own.get("name")), _text(own.get("arguments")), output)
        elif kind == "code_interpreter":
            logs = "\n".join(_text(output.get("logs")) for output in _entries(own.get("outputs")))
            yield Call(call_id, kind, _json({"input": _text(own.get("input"))}), logs)
        else:
            yield Call(call_id, kind or "tool", _json(own), "")


def _json(value: Fields) -> str:
    return json.dumps(value, ensure_ascii=False)


def _in_order(messages: list[ThreadMessage], runs: Iterable[_Run]) -> list[Turn]:
    before: dict[int, list[Turn]] = defaultdict(list)
    after: dict[int, list[Turn]] = defaultdict(list)
    of_run: dict[str, list[int]] = defaultdict(list)
    for index, message in enumerate(messages):
        of_run[message.run_id or ""].append(index)
    alone: list[_Run] = []
    for run in runs:
        own = {messages[index].id: index for index in of_run[run.id]}
        if not own:
            alone.append(run)
            continue
        waiting: list[Turn] = []
        last: int | None = None
        for part in run.parts:
            if isinstance(part, Calls):
                waiting.append(part)
            elif part in own:
                last = own[part]
                before[last] += waiting
                waiting = []
        if last is None:
            before[min(own.values())] += waiting
        else:
            after[last] += waiting
    for run, place in zip(alone, _places_of(alone, messages), strict=True):
        after[place] += [part for part in run.parts if isinstance(part, Calls)]
    found: list[Turn] = [*after[-1]]
    for index, message in enumerate(messages):
        found += [*before[index], message, *after[index]]
    return found


def _places_of(runs: list[_Run], messages: list[ThreadMessage]) -> Iterator[int]:
    """For each run without a message, the oldest first, the message that it follows; -1 for none.

    That is the last one of the user that is not later and that nothing answers, else the last not later.
    """
    seen = 0
    unanswered: list[int] = []
    for run in runs:
        while seen < len(messages) and messages[seen].created_at <= run.created_at:
            following = messages[seen + 1 : seen + 2]
            if all(message.role is MessageRole.user for message in (messages[seen], *following)):
                unanswered.append(seen)
            seen += 1
        yield unanswered.pop() if unanswered else seen - 1
