"""Open WebUI's export of chats: an array; a chat is a tree of messages, or in old exports a list."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from threadfs.importing.conversations import (
    Attached,
    Call,
    Conversation,
    Message,
    NotImported,
    Outcome,
    Part,
    Thought,
    each,
    image_block,
    text_block,
)
from threadfs.importing.files import File, Keep
from threadfs.importing.pieces import Item
from threadfs.importing.trees import Tree
from threadfs.importing.values import (
    Fields,
    as_text,
    digest,
    embedded,
    entries,
    fields,
    id_of,
    objects,
    text,
    time_s,
)

_ROLES = {"user": "user", "assistant": "assistant"}
# What is not said is in the text as a part that is folded up: thoughts, calls, programs that were run.
_FOLDED = re.compile(r"<details\b([^>]*)>(.*?)</details>\s*", re.DOTALL)
_ATTRIBUTE = re.compile(r'([\w-]+)="([^"]*)"')
_SUMMARY = re.compile(r"\s*<summary>.*?</summary>\s*", re.DOTALL)
_QUOTED = re.compile(r"(?m)^> ?")
_FENCED = re.compile(r"\A```\w*\n(.*?)\n?```\Z", re.DOTALL)
_FILE_ID = re.compile(r"/files/([^/?#]+)")


def is_mine(value: Any) -> bool:
    chat = fields(value).get("chat")
    return isinstance(chat, dict) and ("history" in chat or isinstance(chat.get("messages"), list))


def conversations(items: Iterable[Item], file: File) -> Iterator[Outcome]:
    return each(items, lambda given: _conversation(given, file.keep))


def _conversation(given: Fields, keep: Keep) -> Conversation:
    source_id = id_of(given.get("id"))
    chat = given.get("chat")
    if not source_id:
        raise NotImported("has no id")
    if not isinstance(chat, dict):
        raise NotImported("chat: not an object with messages")
    tree, nodes, named = _tree(chat)
    leaf = tree.visible_leaf(named)
    read = _Reader((nodes[node] for node in tree.path(leaf)) if leaf is not None else (), keep)

    def others() -> Iterator[list[Part]]:
        for path in tree.other_paths(leaf or ""):
            yield _Reader((nodes[node] for node in path), keep).parts

    system = text(chat.get("system")) or text(fields(chat.get("params")).get("system"))
    tags = entries(fields(given.get("meta")).get("tags")) or entries(chat.get("tags"))
    models = (part.model for part in read.parts if part.model)
    return Conversation(
        source_id,
        read.parts,
        title=text(given.get("title")) or text(chat.get("title")),
        created_s=time_s(given.get("created_at")) or time_s(chat.get("timestamp")),
        updated_s=time_s(given.get("updated_at")),
        model=next(models, "") or next((text(model) for model in entries(chat.get("models"))), ""),
        metadata={
            "project": id_of(given.get("folder_id")),
            "tags": ", ".join(filter(None, (text(tag) or text(fields(tag).get("name")) for tag in tags))),
            "instructions": "\n".join(filter(None, (system, *read.instructions))),
            "archived": "true" if given.get("archived") is True else "",
        },
        others=others,
        unknown=read.unknown,
    )


def _tree(chat: Fields) -> tuple[Tree, dict[str, Fields], str]:
    """The messages by their ids, and the one that the user saw last, if it is named."""
    history = fields(chat.get("history"))
    nodes: dict[str, Fields] = {}
    parents: dict[str, str | None] = {}
    named = id_of(history.get("currentId"))
    if messages := fields(history.get("messages")):
        for node, message in messages.items():
            nodes[node] = {"id": node, **fields(message)}
            parents[node] = id_of(nodes[node].get("parentId")) or None
    else:
        previous: str | None = None
        for number, message in enumerate(objects(chat.get("messages"))):
            node = id_of(message.get("id")) or f"{digest(as_text(message))}/{number}"
            nodes.setdefault(node, {**message, "id": node})
            parents.setdefault(node, previous)
            previous = named = node
    times = {node: time_s(message.get("timestamp")) for node, message in nodes.items()}
    return Tree(parents, times), nodes, named


class _Reader:
    """Reads the messages of one path."""

    def __init__(self, messages: Iterable[Fields], keep: Keep) -> None:
        self._keep = keep
        self.parts: list[Part] = []
        self.instructions: list[str] = []
        self.unknown = 0
        for message in messages:
            self._add(message)

    def _add(self, message: Fields) -> None:
        role = text(message.get("role"))
        texts = list(_texts(message.get("content")))
        if role == "system":
            self.instructions += texts
            return
        if role not in _ROLES:
            raise NotImported(f"nobody knows the role {message.get('role')!r}")
        model = text(message.get("model"))
        made = Message(id_of(message["id"]), _ROLES[role], time_s(message.get("timestamp")), model=model)
        output = list(objects(message.get("output")))
        if role == "user":
            said = texts
        elif output:
            # The same as in the text, but not written out for a browser.
            said = self._output(made, output)
        else:
            said = [_FOLDED.sub(lambda found: self._folded(made, found), text_) for text_ in texts]
        made.files = list(self._files(message))
        made.blocks = [image_block(file.file_id) for file in made.files if file.is_image]
        made.blocks += [text_block(one) for one in said if one.strip()]
        if not made.is_empty:
            self.parts.append(made)

    def _output(self, made: Message, output: list[Fields]) -> list[str]:
        """The texts; a call and a thought are added to the path instead."""
        said: list[str] = []
        calls: dict[str, Call] = {}
        for number, item in enumerate(output):
            kind = text(item.get("type"))
            item_id = f"{made.id}/{number}"
            if kind == "reasoning":
                thought = "\n".join(_texts(item.get("content") or item.get("summary")))
                self._think(item_id, thought, made)
            elif kind == "function_call":
                call_id = id_of(item.get("call_id")) or item_id
                arguments = as_text(item.get("arguments"))
                calls[call_id] = self._call(call_id, text(item.get("name")), arguments, made)
            elif kind == "function_call_output":
                if call := calls.get(id_of(item.get("call_id"))):
                    call.outputs += _texts(item.get("output"))
                    call.is_failed |= item.get("status") == "failed"
            elif kind == "message":
                said += _texts(item.get("content"))
            elif kind == "open_webui:code_interpreter":
                call = self._call(item_id, "code_interpreter", text(item.get("code")), made)
                call.is_code = True
                call.outputs += _texts(item.get("output"))
            else:
                self.unknown += 1
                said += _texts(item.get("content"))
        return said

    def _folded(self, made: Message, found: re.Match[str]) -> str:
        """Adds what is folded up in a text to the path; what stays of it in the text."""
        told = {name: html.unescape(value) for name, value in _ATTRIBUTE.findall(found[1])}
        part_id = f"{made.id}/{len(self.parts)}"
        inner = html.unescape(_SUMMARY.sub("", found[2], count=1)).strip()
        kind = told.get("type")
        if kind == "reasoning":
            self._think(part_id, _QUOTED.sub("", inner), made)
        elif kind == "tool_calls":
            call = self._call(
                told.get("id") or part_id, told.get("name", ""), _inner(told.get("arguments")), made
            )
            call.outputs += [result] if (result := _inner(told.get("result"))) else []
        elif kind == "code_interpreter":
            fenced = _FENCED.match(inner)
            call = self._call(part_id, "code_interpreter", fenced[1] if fenced else inner, made)
            call.is_code = True
            call.outputs += [told["output"]] if told.get("output") else []
        else:
            return found[0]
        return ""

    def _files(self, message: Fields) -> Iterator[Attached]:
        """Pictures as data or by their address, others by their id."""
        parts = (part for part in objects(message.get("content")) if part.get("type") == "image_url")
        for part in parts:
            yield Attached(self._picture(text(fields(part.get("image_url")).get("url"))), is_image=True)
        for file in objects(message.get("files")):
            told = fields(file.get("file"))
            url = text(file.get("url"))
            file_id = id_of(file.get("id")) or id_of(told.get("id")) or self._picture(url)
            name = text(file.get("name")) or text(told.get("filename"))
            is_image = file.get("type") == "image" or text(file.get("content_type")).startswith("image/")
            if file_id:
                yield Attached(file_id, name, is_image)

    def _picture(self, url: str) -> str:
        """The id in an address; if there is none, one that follows from what the address is, or holds."""
        if found := _FILE_ID.search(url[:1000]):
            return found[1]
        picture = f"image-{digest(url)}" if url else ""
        if data := embedded(url):
            self._keep(picture, data)
        return picture

    def _think(self, part_id: str, said: str, made: Message) -> None:
        if said.strip():
            self.parts.append(Thought(part_id, said, made.time_s, made.model))

    def _call(self, call_id: str, name: str, arguments: str, made: Message) -> Call:
        call = Call(call_id, name, arguments, made.time_s, model=made.model)
        self.parts.append(call)
        return call


def _inner(value: str | None) -> str:
    """What an attribute holds, which is the JSON of a text or of arguments."""
    try:
        return as_text(json.loads(value or '""'))
    except (ValueError, RecursionError):
        return value or ""


def _texts(content: Any) -> Iterator[str]:
    """The texts of a content: what it is, or those of its parts."""
    if isinstance(content, str):
        yield content
    for part in entries(content):
        if found := text(part) or text(fields(part).get("text")):
            yield found
