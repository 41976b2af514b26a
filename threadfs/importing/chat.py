"""Conversations as chat-completions have them: ``{"messages": [{"role": …, "content": …}]}``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from threadfs.importing.conversations import Conversation, NotImported, Outcome, each, text_block
from threadfs.importing.files import File
from threadfs.importing.pieces import Item
from threadfs.importing.reader import Reader
from threadfs.importing.values import (
    Fields,
    as_text,
    canonical,
    digest,
    entries,
    fields,
    id_of,
    objects,
    text,
    time_s,
)

_INSTRUCTING = ("system", "developer")
_ROLES = {"user": "user", "assistant": "assistant"}
_OUTPUTS = ("tool", "function")
# Fields that other programs write beside ``messages``.
_OF_OTHERS = ("mapping", "chat_messages", "conversationId", "chat", "object")


def is_mine(value: Any) -> bool:
    given = fields(value)
    messages = given.get("messages")
    if not isinstance(messages, list) or any(name in given for name in _OF_OTHERS):
        return False
    return all("role" in message for message in objects(messages)) and all(
        isinstance(message, dict) for message in messages
    )


def conversations(items: Iterable[Item], file: File) -> Iterator[Outcome]:
    return each(items, _conversation)


def _conversation(given: Fields) -> Conversation:
    if not isinstance(given.get("messages"), list):
        raise NotImported("messages: not a list")
    source_id = id_of(given.get("id")) or digest(canonical(given))
    read = Reader(source_id)
    for message in given["messages"]:
        if not isinstance(message, dict):
            raise NotImported("messages: not a list of messages")
        _add(read, message)
    return read.conversation(
        title=text(given.get("title")),
        created_s=time_s(given.get("created_at")) or time_s(given.get("created")),
        model=text(given.get("model")),
    )


def _add(read: Reader, message: Fields) -> None:
    role = text(message.get("role"))
    content = message.get("content")
    if role in _INSTRUCTING:
        read.instruct("\n".join(text(block["text"]["value"]) for block in _texts_of(read, content)))
    elif role in _OUTPUTS:
        said = "\n".join(text(block["text"]["value"]) for block in _texts_of(read, content))
        read.output(id_of(message.get("tool_call_id")), text(message.get("name")), said)
    elif role in _ROLES:
        for name in ("reasoning_content", "reasoning"):
            read.think(text(message.get(name)))
        blocks = list(_blocks(read, content))
        if refusal := text(message.get("refusal")):
            blocks.append({"type": "refusal", "refusal": refusal})
        read.say(_ROLES[role], blocks, time_s(message.get("created_at")), text(message.get("model")))
        for call in objects(message.get("tool_calls")):
            function = fields(call.get("function"))
            read.call(id_of(call.get("id")), text(function.get("name")), as_text(function.get("arguments")))
        if function := fields(message.get("function_call")):
            read.call("", text(function.get("name")), as_text(function.get("arguments")))
    else:
        raise NotImported(f"nobody knows the role {message.get('role')!r}")


def _texts_of(read: Reader, content: Any) -> Iterator[Fields]:
    return (block for block in _blocks(read, content) if block["type"] == "text")


def _blocks(read: Reader, content: Any) -> Iterator[Fields]:
    if isinstance(content, str):
        yield text_block(content)
    for part in entries(content):
        kind = text(fields(part).get("type"))
        if isinstance(part, str):
            yield text_block(part)
        elif kind == "image_url" and isinstance(part.get("image_url"), dict):
            yield {"type": "image_url", "image_url": part["image_url"]}
        elif kind == "image_url" and isinstance(part.get("image_url"), str):
            yield {"type": "image_url", "image_url": {"url": part["image_url"]}}
        elif kind == "refusal":
            yield {"type": "refusal", "refusal": text(part.get("refusal"))}
        else:
            read.unknown += kind not in ("text", "input_text", "output_text")
            if said := text(fields(part).get("text")):
                yield text_block(said)
