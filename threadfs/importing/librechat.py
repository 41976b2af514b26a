"""LibreChat's export of a conversation: a list of messages, or messages with others in them."""

from __future__ import annotations

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
from threadfs.importing.files import File
from threadfs.importing.pieces import Item
from threadfs.importing.trees import Tree
from threadfs.importing.values import Fields, as_text, entries, fields, id_of, objects, text, time_s

_MESSAGES = ("messages", "messagesTree")


def is_mine(value: Any) -> bool:
    given = fields(value)
    return "conversationId" in given and any(isinstance(given.get(name), list) for name in _MESSAGES)


def conversations(items: Iterable[Item], file: File) -> Iterator[Outcome]:
    return each(items, _conversation)


def _conversation(given: Fields) -> Conversation:
    source_id = id_of(given.get("conversationId"))
    if not source_id:
        raise NotImported("has no id")
    listed = [given[name] for name in _MESSAGES if isinstance(given.get(name), list)]
    if not listed:
        raise NotImported("messages: not a list")
    tree, nodes = _tree(next(filter(None, listed), []))
    # Nothing says which branch was visible.
    leaf = tree.visible_leaf("")
    read = _Reader(nodes[node] for node in tree.path(leaf)) if leaf is not None else _Reader(())

    def others() -> Iterator[list[Part]]:
        for path in tree.other_paths(leaf or ""):
            yield _Reader(nodes[node] for node in path).parts

    options = fields(given.get("options"))
    models = (part.model for part in read.parts if part.model)
    instructions = (text(options.get(name)) for name in ("system", "promptPrefix", "instructions"))
    return Conversation(
        source_id,
        read.parts,
        title=text(given.get("title")),
        created_s=time_s(given.get("createdAt")),
        updated_s=time_s(given.get("updatedAt")),
        model=text(options.get("model")) or next(models, ""),
        metadata={
            "instructions": "\n".join(filter(None, instructions)),
            "tags": ", ".join(tag for tag in entries(options.get("tags")) if text(tag)),
        },
        others=others,
        unknown=read.unknown,
    )


def _tree(messages: list[Any]) -> tuple[Tree, dict[str, Fields]]:
    """The messages by their ids; those that stand in another one are its children."""
    nodes: dict[str, Fields] = {}
    parents: dict[str, str | None] = {}
    # In the order in which they stand, however deep: without recursion.
    waiting = [(message, "") for message in reversed(list(objects(messages)))]
    while waiting:
        message, above = waiting.pop()
        node = id_of(message.get("messageId"))
        if not node:
            raise NotImported("a message has no id")
        if node not in nodes:
            nodes[node] = message
            parents[node] = above or id_of(message.get("parentMessageId")) or None
        waiting += [(child, node) for child in reversed(list(objects(message.get("children"))))]
    times = {node: time_s(message.get("createdAt")) for node, message in nodes.items()}
    return Tree(parents, times), nodes


class _Reader:
    """Reads the messages of one path."""

    def __init__(self, messages: Iterable[Fields]) -> None:
        self.parts: list[Part] = []
        self.unknown = 0
        for message in messages:
            self._add(message)

    def _add(self, message: Fields) -> None:
        is_user = message.get("isCreatedByUser")
        if not isinstance(is_user, bool):
            is_user = text(message.get("sender")).lower() == "user"
        model = "" if is_user else text(message.get("model"))
        role = "user" if is_user else "assistant"
        made = Message(id_of(message["messageId"]), role, time_s(message.get("createdAt")), model=model)
        files = [*objects(message.get("files")), *objects(message.get("attachments"))]
        made.files = [attached for file in files if (attached := _attached(file)).file_id]
        texts = [
            said
            for number, block in enumerate(objects(message.get("content")))
            if (said := self._block(made, block, number))
        ]
        if not texts:
            texts = [text(message.get("text"))]
        made.blocks = [image_block(file.file_id) for file in made.files if file.is_image]
        made.blocks += [text_block(said) for said in texts if said.strip()]
        if not made.is_empty:
            self.parts.append(made)

    def _block(self, made: Message, block: Fields, number: int) -> str:
        """The text of a block; a call and a thought are added to the path instead."""
        kind = text(block.get("type"))
        block_id = f"{made.id}/{number}"
        if kind == "think":
            if thought := _value(block.get("think")):
                self.parts.append(Thought(block_id, thought, made.time_s, made.model))
        elif kind == "tool_call":
            told = fields(block.get("tool_call"))
            function = fields(told.get("function"))
            call = Call(
                id_of(told.get("id")) or block_id,
                text(told.get("name")) or text(function.get("name")),
                as_text(told.get("args")) or as_text(function.get("arguments")),
                made.time_s,
                model=made.model,
            )
            call.outputs += filter(None, [text(told.get("output")) or text(function.get("output"))])
            self.parts.append(call)
        elif kind == "image_file":
            image = _attached(fields(block.get("image_file")))
            if image.file_id:
                made.files.append(Attached(image.file_id, image.name, is_image=True))
        else:
            self.unknown += kind not in ("text", "error")
            return _value(block.get(kind)) or _value(block.get("text"))
        return ""


def _value(said: Any) -> str:
    """A text as it is, or as OpenAI has it."""
    return text(said) or text(fields(said).get("value"))


def _attached(file: Fields) -> Attached:
    is_image = text(file.get("type")).startswith("image/")
    return Attached(id_of(file.get("file_id")), text(file.get("filename")), is_image)
