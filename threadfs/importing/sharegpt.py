"""Conversations as ShareGPT has them: ``{"conversations": [{"from": …, "value": …}]}``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from threadfs.importing.conversations import Conversation, NotImported, Outcome, each, text_block
from threadfs.importing.files import File
from threadfs.importing.pieces import Item
from threadfs.importing.reader import Reader
from threadfs.importing.values import Fields, as_text, canonical, digest, fields, id_of, text, time_s

_ROLES = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "claude": "assistant",
    "model": "assistant",
}
_CALLS = ("function_call", "tool_call")
_OUTPUTS = ("observation", "function_response", "tool_response", "tool", "function")


def is_mine(value: Any) -> bool:
    turns = fields(value).get("conversations")
    return isinstance(turns, list) and all(isinstance(turn, dict) and "from" in turn for turn in turns)


def conversations(items: Iterable[Item], file: File) -> Iterator[Outcome]:
    return each(items, _conversation)


def _conversation(given: Fields) -> Conversation:
    if not isinstance(given.get("conversations"), list):
        raise NotImported("conversations: not a list")
    read = Reader(id_of(given.get("id")) or digest(canonical(given)))
    read.instruct(text(given.get("system")))
    for turn in given["conversations"]:
        said = as_text(fields(turn).get("value"))
        who = text(fields(turn).get("from"))
        if who == "system":
            read.instruct(said)
        elif who in _CALLS:
            _call(read, said)
        elif who in _OUTPUTS:
            read.output("", "", said)
        elif who in _ROLES:
            read.say(_ROLES[who], [text_block(said)])
        else:
            raise NotImported(f"nobody knows the role {fields(turn).get('from')!r}")
    return read.conversation(
        title=text(given.get("title")),
        created_s=time_s(given.get("created_at")) or time_s(given.get("created")),
        model=text(given.get("model")),
    )


def _call(read: Reader, said: str) -> None:
    """A call is ``{"name": …, "arguments": …}`` as a text, or whatever a program made of it."""
    try:
        value = fields(json.loads(said))
    except (ValueError, RecursionError):
        value = {}
    if name := text(value.get("name")):
        read.call("", name, as_text(value.get("arguments")))
    else:
        read.call("", "", said)
