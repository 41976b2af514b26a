"""What a source makes of its file: conversations, each with the path that the user saw, in order.

A path consists of messages, of calls of tools, and of thoughts. What stands between two messages of the user
is an answer; one that did more than speak becomes a run, with a step for each call and each message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from store import names
from threadfs.importing.pieces import Item
from threadfs.importing.values import Fields, digest

# Longer ids are replaced: branches add to them, and a run's link has two in its name.
_MAX_ID_BYTES = 100
_MAX_TITLE = 80
# In characters. A conversation that is a file of lines may be as large as a single value of JSON.
MAX_CONVERSATION = 64 << 20


class NotImported(Exception):
    """This conversation is skipped; the message says why."""


@dataclass(slots=True)
class Attached:
    """A file of a message, by the id that its source gives it, and its name, if it has one."""

    file_id: str
    name: str = ""
    is_image: bool = False


@dataclass(slots=True)
class Message:
    """*role* is ``user`` or ``assistant``; *blocks* are as they are stored."""

    id: str
    role: str
    time_s: int | None = None
    blocks: list[Fields] = field(default_factory=list)
    files: list[Attached] = field(default_factory=list)
    # Names of texts that came as files.
    names: list[str] = field(default_factory=list)
    model: str = ""

    @property
    def is_empty(self) -> bool:
        return not self.blocks and not self.files

    @property
    def text(self) -> str:
        """The texts, joined by newlines."""
        return "\n".join(block["text"]["value"] for block in self.blocks if block["type"] == "text")


@dataclass(slots=True)
class Call:
    """A call of a tool: of a function, or of an interpreter, whose *arguments* are a program."""

    id: str
    name: str
    arguments: str
    time_s: int | None = None
    is_code: bool = False
    outputs: list[str] = field(default_factory=list)
    is_failed: bool = False
    model: str = ""


@dataclass(slots=True)
class Thought:
    """What the model thought before the next part of the path."""

    id: str
    text: str
    time_s: int | None = None
    model: str = ""


Part: TypeAlias = Message | Call | Thought


@dataclass(slots=True)
class Conversation:
    """One conversation. *metadata* are further texts to keep, by their names.

    *others* makes the other paths of it, for those who want branches.
    """

    source_id: str
    parts: list[Part]
    title: str = ""
    created_s: int | None = None
    updated_s: int | None = None
    model: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    others: Callable[[], Iterable[list[Part]]] = field(default=lambda: ())
    # The number of contents of unknown kinds.
    unknown: int = 0
    # Its place in the file: ``line 3``, ``number 3``, or nothing for the whole file.
    where: str = ""

    @property
    def messages(self) -> list[Message]:
        return messages_of(self.parts)

    @property
    def shown_title(self) -> str:
        """Its title, or else the first line of the first text of the user."""
        if self.title.strip():
            return self.title
        texts = [message.text for message in self.messages if message.role == "user"]
        lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
        title = lines[0] if lines else ""
        return title if len(title) <= _MAX_TITLE else title[: _MAX_TITLE - 1].rstrip() + "…"


@dataclass(frozen=True, slots=True)
class Skipped:
    """What is not imported, and why."""

    where: str
    title: str
    reason: str


Outcome: TypeAlias = Conversation | Skipped


def messages_of(parts: Iterable[Part]) -> list[Message]:
    return [part for part in parts if isinstance(part, Message)]


def settled(parts: list[Part]) -> list[Part]:
    """Without the calls at the end that have no output yet.

    A session that is being written is imported again. A step, once stored, is not changed, and steps have
    their order from their place.
    """
    end = next((at for at in range(len(parts), 0, -1) if isinstance(parts[at - 1], Message)), 0)
    for at in range(end, len(parts)):
        part = parts[at]
        if isinstance(part, Call) and not part.outputs and not part.is_failed:
            return parts[:at]
    return parts


def text_block(text: str) -> Fields:
    return {"type": "text", "text": {"value": text, "annotations": []}}


def image_block(file_id: str) -> Fields:
    return {"type": "image_file", "image_file": {"file_id": file_id}}


def thread_id_of(source: str, source_id: str) -> str:
    """The id of a conversation's thread: the same in every export, on every machine."""
    wanted = f"{source}-{source_id}"
    if names.is_id(wanted) and len(wanted.encode()) <= _MAX_ID_BYTES:
        return wanted
    return f"{source}-{digest(source_id)}"


class Lines(Protocol):
    """What the lines of a file say, one after the other, of the one conversation that it is."""

    @property
    def title(self) -> str: ...

    def add(self, given: Fields) -> None:
        """Raises NotImported when the whole is none."""

    def conversation(self) -> Conversation: ...


def of_lines(items: Iterable[Item], lines: Lines) -> Iterator[Outcome]:
    """The conversation that a file is. A broken line is skipped."""
    for item in items:
        if item.error:
            yield Skipped(item.where, "", item.error)
        elif isinstance(item.value, dict):
            try:
                lines.add(item.value)
            except NotImported as error:
                yield Skipped("", lines.title, str(error))
                return
    yield lines.conversation()


def each(
    items: Iterable[Item],
    read: Callable[[Fields], Conversation],
    title_of: Callable[[Fields], Any] = lambda value: value.get("title"),
) -> Iterator[Outcome]:
    """What *read* makes of each value, for sources in which a value is a conversation."""
    for item in items:
        title: Any = ""
        if item.error:
            yield Skipped(item.where, "", item.error)
            continue
        if not isinstance(item.value, dict):
            yield Skipped(item.where, "", "is no conversation: not a JSON object")
            continue
        try:
            title = title_of(item.value)
            conversation = read(item.value)
        except NotImported as error:
            yield Skipped(item.where, title if isinstance(title, str) else "", str(error))
        except RecursionError:
            yield Skipped(item.where, title if isinstance(title, str) else "", "nested too deeply")
        else:
            conversation.where = item.where
            yield conversation
