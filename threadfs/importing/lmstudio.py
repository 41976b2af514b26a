"""Conversations of LM Studio, a file each; each message has the versions in which it was made."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Iterator
from typing import Any

from threadfs.importing.conversations import (
    Attached,
    Conversation,
    NotImported,
    Outcome,
    each,
    image_block,
    text_block,
)
from threadfs.importing.files import File
from threadfs.importing.pieces import Item
from threadfs.importing.reader import Reader
from threadfs.importing.values import Fields, as_text, entries, fields, id_of, objects, text, time_s

_ROLES = {"user": "user", "assistant": "assistant"}
# Beside what was said there is what LM Studio shows of how it was made.
_PASSED_OVER = ("debugInfoBlock", "status", "toolStatus", "genInfo")
_ROOT = "conversations"


def is_mine(value: Any) -> bool:
    given = fields(value)
    messages = given.get("messages")
    if not isinstance(messages, list) or "createdAt" not in given:
        return False
    if not messages:
        return "systemPrompt" in given
    return all(isinstance(fields(message).get("versions"), list) for message in messages)


def conversations(items: Iterable[Item], file: File) -> Iterator[Outcome]:
    return each(items, lambda given: _conversation(given, _folder(file)), lambda given: given.get("name"))


def _folder(file: File) -> str:
    """The folder in which the user keeps it: that below ``conversations``."""
    parts = posixpath.dirname(file.member).split("/")
    if _ROOT in parts:
        parts = parts[len(parts) - parts[::-1].index(_ROOT) :]
    return "/".join(parts)


def _conversation(given: Fields, folder: str) -> Conversation:
    source_id = id_of(given.get("createdAt"))
    if not source_id:
        raise NotImported("has no time, which is its id")
    if not isinstance(given.get("messages"), list):
        raise NotImported("messages: not a list")
    read = Reader(source_id)
    read.instruct(text(given.get("systemPrompt")))
    last_model = text(fields(given.get("lastUsedModel")).get("identifier"))
    for message in objects(given["messages"]):
        version = _selected(message)
        if version.get("type") == "multiStep":
            _steps(read, version)
        else:
            _say(read, version, version.get("role"), entries(version.get("content")), "")
    return read.conversation(
        title=text(given.get("name")),
        created_s=time_s(given.get("createdAt")),
        model=last_model,
        metadata={"project": folder},
    )


def _selected(message: Fields) -> Fields:
    """The version that the user saw: the last one, if none is selected that is there."""
    versions = list(objects(message.get("versions")))
    if not versions:
        raise NotImported("a message has no version")
    at = message.get("currentlySelected")
    return versions[at] if isinstance(at, int) and 0 <= at < len(versions) else versions[-1]


def _steps(read: Reader, version: Fields) -> None:
    model = text(fields(version.get("senderInfo")).get("senderName"))
    for step in objects(version.get("steps")):
        kind = text(step.get("type"))
        content = entries(step.get("content"))
        if kind in _PASSED_OVER:
            continue
        if fields(step.get("style")).get("type") == "thinking":
            read.think("".join(text(part.get("text")) for part in objects(content)), None, model)
            continue
        read.unknown += kind != "contentBlock"
        _say(read, step, version.get("role"), content, model)


def _say(read: Reader, step: Fields, role: Any, content: list[Any], model: str) -> None:
    """A message of what is said in a block; calls in it are added to the path instead."""
    if text(role) == "system":
        for part in objects(content):
            read.instruct(text(part.get("text")))
        return
    if text(role) not in _ROLES:
        raise NotImported(f"nobody knows the role {role!r}")
    blocks: list[Fields] = []
    files: list[Attached] = []
    for part in objects(content):
        kind = text(part.get("type"))
        if kind == "toolCallRequest":
            arguments = as_text(part.get("parameters"))
            read.call(_call_id(part), text(part.get("name")), arguments, None, model)
        elif kind == "toolCallResult":
            read.output(_call_id(part), text(part.get("name")), _result(as_text(part.get("content"))))
        elif kind == "file":
            is_image = text(part.get("fileType")).startswith("image")
            if file_id := id_of(part.get("fileIdentifier")):
                files.append(Attached(file_id, text(part.get("fileName")), is_image))
                blocks += [image_block(file_id)] if is_image else []
        else:
            read.unknown += kind != "text"
            blocks += [text_block(said)] if (said := text(part.get("text"))) else []
    read.say(_ROLES[text(role)], blocks, None, model, files)


def _result(content: str) -> str:
    """The texts of a result, which mostly is the JSON of a list of them."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return content
    found = [said for part in objects(value) if (said := text(part.get("text")))]
    return "\n".join(found) or text(value) or content


def _call_id(part: Fields) -> str:
    return id_of(part.get("toolCallRequestId")) or id_of(part.get("callId"))
