"""What a model is asked: pure functions from a thread's documents to the messages of a chat completion.

Roles and text go as they are in the log, oldest first. Three things are put in order on the way:

- Several runs may wait, each for another message. A run is asked what was said up to its own message, which
  comes last; what was said for later runs, or after it, belongs to theirs.
- An answer stands after its question, although other questions may have come into the log before it.
- The calls of tools, with their outputs, are in the steps of runs; they stand where the run made them.

Neighbours of one role are joined by a blank line, as many models take turns only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from store import MessageRole, Run, RunStatus, RunStep, Thread, ThreadMessage
from store.models import TextContent
from store.tools import ToolCall, calls_of
from threadfs.work.failures import PromptRefused

# A message of a chat completion: ``role``, ``content`` and so on, as JSON.
ChatMessage: TypeAlias = dict[str, Any]
# What stands in a conversation: a message, or calls of tools that were made at once.
Item: TypeAlias = ThreadMessage | list[ToolCall]

_JOINED = "\n\n"
_IMAGE = ("data:", "https:")
# Endpoints refuse other characters in the names of tools, which other programs may have given.
_NOT_IN_NAMES = re.compile("[^A-Za-z0-9_-]")
_MAX_NAME = 64


@dataclass(frozen=True, slots=True)
class Conversation:
    """A thread as it is when a run is claimed. *messages* is its log; *steps* those of its runs, by run."""

    thread: Thread
    messages: Sequence[ThreadMessage]
    runs: Sequence[Run] = ()
    steps: Mapping[str, Sequence[RunStep]] = field(default_factory=dict)


def prompt(
    conversation: Conversation, run: Run, instructions: str | None = None, last_messages: int | None = None
) -> list[ChatMessage]:
    """The messages for *run*, a run of the conversation.

    Args:
        instructions: the system text of runs and threads without one.
        last_messages: how many messages of the log there may be; the oldest are left out.

    Raises:
        PromptRefused: nothing waits for an answer.
    """
    items = _cut(list(_items(conversation, run)), last_messages)
    messages = [message for item in items for message in _chat_messages(item)]
    if not messages or messages[-1]["role"] == "assistant":
        raise PromptRefused("nothing to answer: the conversation does not end with a message of the user")
    for text in (run.extra("instructions"), _instructions_of(conversation.thread), instructions):
        if text and isinstance(text, str):
            messages.insert(0, {"role": "system", "content": text})
            break
    return _joined(messages)


def _instructions_of(thread: Thread) -> object:
    return thread.metadata.get("instructions") if isinstance(thread.metadata, dict) else None


# ── The order ───────────────────────────────────────────────────────────────────────────────────────────


def _items(conversation: Conversation, run: Run) -> Iterator[Item]:
    """What *run* is asked, in order."""
    log = conversation.messages
    positions = {message.id: position for position, message in enumerate(log)}
    end = positions.get(run.asked or "", len(log))
    asking = {other.asked: other for other in conversation.runs if other.asked in positions}
    asked = {other.id for other in asking.values()}
    answers = _answers(conversation)
    of_this_run = answers.pop(run.id, [])
    for position, message in enumerate(log):
        if message.role is MessageRole.user:
            other = asking.get(message.id)
            is_later = position >= end or (end == len(log) and other and other.status is RunStatus.queued)
            if not is_later:
                yield message
                yield from answers.pop(other.id, []) if other else ()
        elif message.run_id is None:
            yield message
        elif message.run_id not in asked:
            yield from answers.pop(message.run_id, [])
    yield from log[end : end + 1]
    yield from of_this_run


def _answers(conversation: Conversation) -> dict[str, list[Item]]:
    """What each run said and called, in order, by its id."""
    said: dict[str, list[ThreadMessage]] = {}
    for message in conversation.messages:
        if message.run_id is not None and message.role is MessageRole.assistant:
            said.setdefault(message.run_id, []).append(message)
    found = {}
    for run_id in {**said, **{run.id: () for run in conversation.runs}}:
        items = list(_in_order(said.get(run_id, []), conversation.steps.get(run_id, ())))
        if items:
            found[run_id] = items
    return found


def _in_order(messages: list[ThreadMessage], steps: Iterable[RunStep]) -> Iterator[Item]:
    """The messages of a run, and the calls of its *steps* that have outputs.

    What was said before a call is in the log before what was said after it, and no step names it.
    """
    unnamed = {message.id: message for message in messages}
    named = {}
    for step in steps:
        if (message := unnamed.pop(_message_id(step), None)) is not None:
            named[step.id] = message
    for step in steps:
        if step.id in named:
            yield named[step.id]
        calls = [call for call in calls_of(step) if call.output is not None]
        if calls:
            for message in [one for one in unnamed.values() if one.created_at <= _ended_s(step)][:1]:
                yield unnamed.pop(message.id)
            yield calls
    yield from unnamed.values()


def _message_id(step: RunStep) -> str:
    details = step.step_details
    found = details.get("message_id") if isinstance(details, dict) else getattr(details, "message_id", "")
    return found if isinstance(found, str) else ""


def _ended_s(step: RunStep) -> int:
    return step.created_at if step.completed_at is None else step.completed_at


def _cut(items: list[Item], last_messages: int | None) -> list[Item]:
    """The end of *items* with so many messages."""
    places = [place for place, item in enumerate(items) if isinstance(item, ThreadMessage)]
    if last_messages is None or len(places) <= last_messages:
        return items
    return items[places[-last_messages] :]


# ── The messages ────────────────────────────────────────────────────────────────────────────────────────


def _chat_messages(item: Item) -> Iterator[ChatMessage]:
    if isinstance(item, ThreadMessage):
        if content := _content(item):
            yield {"role": item.role.value, "content": content}
        return
    yield {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": _name(call), "arguments": call.arguments},
            }
            for call in item
        ],
    }
    for call in item:
        yield {"role": "tool", "tool_call_id": call.id, "content": call.output or ""}


def _name(call: ToolCall) -> str:
    return _NOT_IN_NAMES.sub("_", call.name)[:_MAX_NAME] or "_"


def _content(message: ThreadMessage) -> str | list[dict[str, Any]]:
    """The text of a message; with images a list of parts."""
    parts: list[dict[str, Any]] = []
    for block in message.content:
        image = block.extra("image_url") if block.type == "image_url" else None
        url = image.get("url") if isinstance(image, dict) else None
        if isinstance(url, str) and url.startswith(_IMAGE):
            parts.append({"type": "image_url", "image_url": image})
            continue
        text = block.text.value if isinstance(block.text, TextContent) else f"[{block.type}]"
        if parts and parts[-1]["type"] == "text":
            parts[-1]["text"] += f"\n{text}"
        else:
            parts.append({"type": "text", "text": text})
    if any(part["type"] != "text" for part in parts):
        return parts
    return parts[0]["text"] if parts else ""


def _joined(messages: Iterable[ChatMessage]) -> list[ChatMessage]:
    """*messages* with neighbours of one role as one."""
    joined: list[ChatMessage] = []
    for message in messages:
        before = joined[-1] if joined else None
        is_alone = message["role"] == "tool" or "tool_calls" in (before or ())
        if before is None or before["role"] != message["role"] or is_alone:
            joined.append(message)
        else:
            joined[-1] = {**before, **message, "content": _both(before["content"], message["content"])}
    return joined


def _both(one: str | list[Any], other: str | list[Any]) -> str | list[Any]:
    if isinstance(one, str) and isinstance(other, str):
        return f"{one}{_JOINED}{other}" if one and other else one or other
    return [*_parts(one), *_parts(other)]


def _parts(content: str | list[Any]) -> list[Any]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []
