"""What a catalogue is given, and what it answers with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class ThreadSummary:
    """A thread, as its document and its log say.

    *title* is that of its metadata, *title_line* the line of ``meta.json`` where it stands, from 1 on;
    *said_first* the text of the first message of the user. Times are as in the store: seconds, and
    nanoseconds, since 1970.
    """

    id: str
    created_at: int
    changed_ns: int
    title: str = ""
    title_line: int = 1
    said_first: str = ""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run of a thread."""

    id: str
    status: str
    model: str
    created_at: int
    changed_ns: int


class Kind(IntEnum):
    """What a text is: a message, by its role, or the title of a thread."""

    USER = 0
    ASSISTANT = 1
    TITLE = 2

    @property
    def shown(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class MessageText:
    """A message: the line of the log where it stands, from 1 on, and its texts, joined by newlines."""

    line: int
    kind: Kind
    created_at: int
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A message or title that a query finds: its place, without its text, which no catalogue keeps."""

    thread_id: str
    kind: Kind
    line: int
    created_at: int


@dataclass(frozen=True, slots=True)
class Link:
    """A thread with hits: its name among the others, and the time of its newest hit, in seconds."""

    name: str
    thread_id: str
    newest_s: int


class Signature(NamedTuple):
    """What a file or directory looked like: where that is equal, it is the same. All zero: there was none.

    Times are in nanoseconds since 1970. *is_settled*: its time was some seconds ago then, so that no later
    change can have given it the same one.
    """

    changed_ns: int
    size_bytes: int
    inode: int
    modified_ns: int
    is_settled: bool
