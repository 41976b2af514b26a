"""Claude.ai's data export: ``conversations.json``; a conversation is a list of messages, or a tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from threadfs.importing.containers import beside
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
    text_block,
)
from threadfs.importing.files import File
from threadfs.importing.pieces import Item
from threadfs.importing.trees import Tree
from threadfs.importing.values import Fields, as_text, entries, fields, id_of, objects, text, time_s

_ROLES = {"human": "user", "assistant": "assistant"}
# Kinds of blocks that a program added, and nobody said.
_PASSED_OVER = ("token_budget", "injected_prompt_block")


def is_mine(value: Any) -> bool:
    return isinstance(fields(value).get("chat_messages"), list)


def conversations(items: Iterable[Item], file: File) -> Iterator[Outcome]:
    listed = entries(beside(file.container, file.member, "projects.json"))
    projects = {id_of(project.get("uuid")): text(project.get("name")) for project in objects(listed)}
    return each(items, lambda given: _conversation(given, projects), lambda given: given.get("name"))


def _conversation(given: Fields, projects: dict[str, str]) -> Conversation:
    source_id = id_of(given.get("uuid"))
    if not source_id:
        raise NotImported("has no id")
    if not isinstance(given.get("chat_messages"), list):
        raise NotImported("chat_messages: not a list")
    tree, nodes = _tree(given)
    is_list = all(not message.get("parent_message_uuid") for message in nodes.values())
    named = next(reversed(nodes), "") if is_list else id_of(given.get("current_leaf_message_uuid"))
    leaf = tree.visible_leaf(named)
    read = _Reader([nodes[node] for node in tree.path(leaf)] if leaf is not None else [])
    project_id = id_of(given.get("project_uuid")) or id_of(fields(given.get("project")).get("uuid"))

    def others() -> Iterator[list[Part]]:
        for path in tree.other_paths(leaf or ""):
            yield _Reader([nodes[node] for node in path]).parts

    return Conversation(
        source_id,
        read.parts,
        title=text(given.get("name")),
        created_s=time_s(given.get("created_at")),
        updated_s=time_s(given.get("updated_at")),
        model=text(given.get("model")),
        metadata={"project": projects.get(project_id) or project_id},
        others=others,
        unknown=read.unknown,
    )


def _tree(given: Fields) -> tuple[Tree, dict[str, Fields]]:
    """The messages by their ids. In exports without parents each follows the one before it."""
    nodes: dict[str, Fields] = {}
    parents: dict[str, str | None] = {}
    messages = list(objects(given["chat_messages"]))
    has_parents = any(message.get("parent_message_uuid") for message in messages)
    previous: str | None = None
    for number, message in enumerate(messages):
        node = id_of(message.get("uuid")) or f"{given['uuid']}/{number}"
        if node in nodes:
            continue
        nodes[node] = message
        parents[node] = (id_of(message.get("parent_message_uuid")) or None) if has_parents else previous
        previous = node
    return Tree(parents, {node: time_s(message.get("created_at")) for node, message in nodes.items()}), nodes


class _Reader:
    """Reads the messages of one path."""

    def __init__(self, messages: Iterable[Fields]) -> None:
        self.parts: list[Part] = []
        self.unknown = 0
        given = list(messages)
        self._results = {
            id_of(block.get("tool_use_id")): block
            for message in given
            for block in objects(message.get("content"))
            if block.get("type") == "tool_result"
        }
        for message in given:
            self._add(message)

    def _add(self, message: Fields) -> None:
        role = _ROLES.get(text(message.get("sender")))
        if role is None:
            raise NotImported(f"nobody knows the sender {message.get('sender')!r}")
        made = Message(id_of(message.get("uuid")), role, time_s(message.get("created_at")))
        texts = [found for block in objects(message.get("content")) if (found := self._block(made, block))]
        if not texts and (said := text(message.get("text"))):
            texts = [said]
        for pasted in objects(message.get("attachments")):
            texts += [text(pasted.get("extracted_content"))]
            made.names += [text(pasted.get("file_name"))]
        made.names = [name for name in made.names if name]
        made.blocks = [text_block(found) for found in texts if found.strip()]
        made.files = [
            Attached(file_id, text(file.get("file_name")))
            for file in objects(message.get("files"))
            if (file_id := id_of(file.get("file_uuid")) or id_of(file.get("uuid")))
        ]
        if not made.is_empty:
            self.parts.append(made)

    def _block(self, made: Message, block: Fields) -> str:
        """The text of a block; a call and a thought are added to the path instead."""
        kind = text(block.get("type"))
        block_id = f"{made.id}/{len(self.parts)}"
        if kind == "thinking":
            if thought := text(block.get("thinking")):
                self.parts.append(Thought(block_id, thought, made.time_s))
        elif kind == "tool_use":
            call_id = id_of(block.get("id")) or block_id
            arguments = as_text(block.get("input"))
            call = Call(call_id, text(block.get("name")), arguments, made.time_s)
            if result := self._results.get(call_id):
                call.outputs = list(_output(result.get("content")))
                call.is_failed = result.get("is_error") is True
            self.parts.append(call)
        elif kind == "text":
            return text(block.get("text"))
        elif kind not in ("tool_result", *_PASSED_OVER):
            self.unknown += kind != "voice_note"
            return text(block.get("text"))
        return ""


def _output(content: Any) -> Iterator[str]:
    """The texts of a result: what it is, or those of its blocks."""
    if isinstance(content, str):
        yield content
    for block in objects(content):
        if found := text(block.get("text")):
            yield found
