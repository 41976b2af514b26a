"""ChatGPT's data export: ``conversations.json``, whole or in shards; a conversation is a tree of nodes."""

from __future__ import annotations

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
from threadfs.importing.files import File
from threadfs.importing.pieces import Item
from threadfs.importing.trees import Tree
from threadfs.importing.values import Fields, entries, fields, id_of, objects, text, time_s

_PYTHON = ("python", "python_user_visible")
# Where a text has marks of citations; and the marks that are removed when no reference explains them.
_MARK = re.compile("[\ue200-\ue20f]|【")
_LEFT = re.compile("\ue200[^\ue201]*\ue201|[\ue200-\ue20f]|【\\d+(?::\\d+)?†[^】]*】")


def is_mine(value: Any) -> bool:
    return isinstance(fields(value).get("mapping"), dict)


def conversations(items: Iterable[Item], file: File) -> Iterator[Outcome]:
    return each(items, _conversation)


def _conversation(given: Fields) -> Conversation:
    source_id = id_of(given.get("conversation_id")) or id_of(given.get("id"))
    if not source_id:
        raise NotImported("has no id")
    if not isinstance(given.get("mapping"), dict):
        raise NotImported("mapping: not an object of messages")
    nodes = {node_id: fields(node) for node_id, node in given["mapping"].items()}
    tree = Tree(
        {node_id: id_of(node.get("parent")) or None for node_id, node in nodes.items()},
        {node_id: time_s(_message_of(node).get("create_time")) for node_id, node in nodes.items()},
    )
    leaf = tree.visible_leaf(id_of(given.get("current_node")))
    path = _Path()
    for node_id in tree.path(leaf) if leaf is not None else []:
        path.add(node_id, _message_of(nodes[node_id]))

    def others() -> Iterator[list[Part]]:
        for other in tree.other_paths(leaf or ""):
            read = _Path()
            for node_id in other:
                read.add(node_id, _message_of(nodes[node_id]))
            yield read.parts

    project = id_of(given.get("conversation_template_id")) or id_of(given.get("gizmo_id"))
    return Conversation(
        source_id,
        path.parts,
        title=text(given.get("title")),
        created_s=time_s(given.get("create_time")),
        updated_s=time_s(given.get("update_time")),
        model=text(given.get("default_model_slug")) or path.model,
        metadata={
            "project": project,
            "instructions": "\n".join(path.instructions),
            "archived": "true" if given.get("is_archived") is True else "",
        },
        others=others,
        unknown=path.unknown,
    )


def _message_of(node: Fields) -> Fields:
    return fields(node.get("message"))


class _Path:
    """Reads the nodes of one path."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.instructions: list[str] = []
        self.unknown = 0
        # The model of the first answer.
        self.model = ""

    def add(self, node_id: str, message: Fields) -> None:
        if not message:
            return
        author = fields(message.get("author"))
        role = author.get("role")
        content = fields(message.get("content"))
        kind = text(content.get("content_type"))
        found_s = time_s(message.get("create_time"))
        message_id = id_of(message.get("id")) or node_id
        if kind == "user_editable_context":
            self._instruct(text(content.get("user_profile")), text(content.get("user_instructions")))
        elif role == "system":
            self._instruct(*_texts(content))
        elif role == "user":
            self._speak(Message(message_id, "user", found_s), message, content)
        elif role == "assistant":
            model = text(fields(message.get("metadata")).get("model_slug"))
            self.model = self.model or model
            self._answer(Message(message_id, "assistant", found_s, model=model), message, content)
        elif role == "tool":
            self._tool(Message(message_id, "assistant", found_s), message, content, text(author.get("name")))
        else:
            raise NotImported(f"nobody knows the role {role!r}")

    def _instruct(self, *texts: str) -> None:
        self.instructions += [found for found in texts if found.strip() and found not in self.instructions]

    def _speak(self, made: Message, message: Fields, content: Fields) -> None:
        """Adds a message, if there is anything in it and it is not hidden."""
        told = fields(message.get("metadata"))
        if told.get("is_visually_hidden_from_conversation") is True:
            return
        known = text(content.get("content_type")) in _KINDS
        texts = [without_marks(found, told) for found in _texts(content)]
        made.files = list(_pointers(content))
        named = {
            id_of(entry.get("id")): text(entry.get("name")) for entry in objects(told.get("attachments"))
        }
        for file in made.files:
            file.name = named.pop(file.file_id, "")
        made.files += [Attached(file_id, name) for file_id, name in named.items() if file_id]
        # ChatGPT shows pictures above the text.
        made.blocks = [image_block(file.file_id) for file in made.files if file.is_image]
        made.blocks += [text_block(found) for found in texts if found.strip()]
        if not known:
            self.unknown += 1
        self.unknown += _unknown_parts(content)
        if not made.is_empty:
            self.parts.append(made)

    def _answer(self, made: Message, message: Fields, content: Fields) -> None:
        kind = text(content.get("content_type"))
        recipient = text(message.get("recipient")) or "all"
        if kind == "thoughts":
            for number, thought in enumerate(objects(content.get("thoughts"))):
                if thought_text := text(thought.get("content")) or text(thought.get("summary")):
                    self.parts.append(Thought(f"{made.id}/{number}", thought_text, made.time_s, made.model))
        elif kind in ("reasoning_recap", "model_editable_context"):
            pass
        elif recipient != "all":
            arguments = "\n".join(_texts(content))
            is_code = recipient in _PYTHON
            self.parts.append(
                Call(made.id, recipient, arguments, made.time_s, is_code=is_code, model=made.model)
            )
        else:
            self._speak(made, message, content)

    def _tool(self, made: Message, message: Fields, content: Fields, name: str) -> None:
        """The output of the last call; a picture is shown, as if the assistant had sent it."""
        pictures = [file for file in _pointers(content) if file.is_image]
        call = next((part for part in reversed(self.parts) if isinstance(part, Call)), None)
        if (
            call is not None
            and not self._user_has_spoken_since(call)
            and _root(name) in ("", _root(call.name))
        ):
            call.outputs += [found for found in _texts(content) if found.strip()]
            call.is_failed |= content.get("content_type") == "system_error"
        if pictures:
            self._speak(
                made, message, {**content, "parts": [part for part in _parts(content) if _is_picture(part)]}
            )

    def _user_has_spoken_since(self, call: Call) -> bool:
        for part in reversed(self.parts):
            if part is call:
                return False
            if isinstance(part, Message) and part.role == "user":
                return True
        return True


def _root(tool: str) -> str:
    return tool.partition(".")[0]


_KINDS = (
    "text",
    "multimodal_text",
    "code",
    "execution_output",
    "tether_quote",
    "tether_browsing_display",
    "system_error",
)
_POINTERS = (
    "image_asset_pointer",
    "audio_asset_pointer",
    "real_time_user_audio_video_asset_pointer",
)


def _parts(content: Fields) -> list[Any]:
    return entries(content.get("parts"))


def _texts(content: Fields) -> list[str]:
    """The texts in a content of any kind."""
    found = [text(content.get(name)) for name in ("title", "url", "text", "result", "content")]
    if content.get("content_type") == "tether_quote":
        return ["\n".join(line for line in found[:3] if line)]
    for part in _parts(content):
        found.append(part if isinstance(part, str) else text(fields(part).get("text")))
    return [line for line in found[2:] if line]


def _is_picture(part: Any) -> bool:
    return fields(part).get("content_type") == "image_asset_pointer"


def _pointers(content: Fields) -> Iterator[Attached]:
    for part in objects(content.get("parts")):
        kind = text(part.get("content_type"))
        if kind in _POINTERS:
            pointer = text(part.get("asset_pointer")) or text(
                fields(part.get("audio_asset_pointer")).get("asset_pointer")
            )
            file_id = re.split("[?#]", pointer.rpartition("://")[2])[0]
            if file_id:
                yield Attached(file_id, is_image=kind == "image_asset_pointer")


def _unknown_parts(content: Fields) -> int:
    kinds = (*_POINTERS, "audio_transcription")
    return sum(text(part.get("content_type")) not in kinds for part in objects(content.get("parts")))


def without_marks(said: str, told: Fields) -> str:
    """A text in which marks are replaced by the Markdown of their references, and other marks removed."""
    if not _MARK.search(said):
        return said
    for reference in objects(told.get("content_references")):
        matched = text(reference.get("matched_text"))
        if _MARK.search(matched):
            said = said.replace(matched, text(reference.get("alt")))
    return _LEFT.sub("", said)
