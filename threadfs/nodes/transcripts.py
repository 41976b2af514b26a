"""``transcripts/``: each conversation as Markdown, rendered when it is read."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

from store import Damaged, DocumentKey, NotFound, Run, ThreadMessage, names
from threadfs.journal import printable
from threadfs.nodes.base import Attributes, BytesReader, Directory, Node, NoSuchName, Reader, regular

_SUFFIX = ".md"


@dataclass(frozen=True, slots=True)
class TranscriptsDirectory(Directory):
    is_slow: ClassVar[bool] = True

    @property
    def path(self) -> str:
        return "transcripts"

    def lookup(self, name: str) -> Node:
        thread_id = name.removesuffix(_SUFFIX)
        if thread_id == name or not names.is_id(thread_id):
            raise NoSuchName(name)
        self.store.document_info(DocumentKey(thread_id))
        return Transcript(self.tree, thread_id)

    def entries(self) -> Iterable[tuple[str, Node]]:
        return (
            (thread_id + _SUFFIX, Transcript(self.tree, thread_id))
            for thread_id in self.store.list_thread_ids()
        )


@dataclass(frozen=True, slots=True)
class Transcript(Node):
    """A conversation, ordered by time, with a line where a run ends."""

    is_slow: ClassVar[bool] = True

    thread_id: str

    @property
    def path(self) -> str:
        return f"transcripts/{self.thread_id}{_SUFFIX}"

    def _attributes(self, text: bytes) -> Attributes:
        return regular(0o444, len(text), self.store.thread_modified_ns(self.thread_id))

    def attributes(self) -> Attributes:
        return self._attributes(self.render())

    def open_for_reading(self) -> Reader:
        return _TranscriptReader(self)

    def render(self) -> bytes:
        self.store.document_info(DocumentKey(self.thread_id))
        head = f"# {printable(self.thread_id)}\n"
        runs = []
        for run_id in self.store.list_run_ids(self.thread_id):
            with suppress(NotFound, Damaged):
                run = self.store.get_run(self.thread_id, run_id)
                if run.status.is_terminal:
                    runs.append(run)
        outcomes = sorted((_ended_at(run), 1, _outcome(run)) for run in runs)
        messages = ((m.created_at, 0, _paragraph(m)) for m in self.store.iter_messages(self.thread_id))
        parts = [text for _, _, text in heapq.merge(_in_order(messages), outcomes)]
        return "".join([head, *parts]).encode(errors="replace")


class _TranscriptReader(BytesReader):
    """Reads on when the conversation has grown: what ``tail -f`` waits for."""

    def __init__(self, node: Transcript) -> None:
        text = node.render()
        super().__init__(text, node._attributes(text))
        self._node = node

    def read(self, offset: int, size: int) -> bytes:
        if offset >= len(self._data):
            grown = self._node.render()
            if grown.startswith(self._data):
                self._data = grown
        return super().read(offset, size)


def _in_order(messages: Iterable[tuple[int, int, str]]) -> Iterator[tuple[int, int, str]]:
    """The log's order, whatever the clocks said: a message is never older than the one before it."""
    latest = None
    for created_at, kind, text in messages:
        latest = created_at if latest is None else max(latest, created_at)
        yield latest, kind, text


def _time(seconds: int) -> str:
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return "at an unknown time"


def _paragraph(message: ThreadMessage) -> str:
    blocks = ["" if block.type == "text" else f"*({printable(block.type)})*\n" for block in message.content]
    text = "".join(blocks) + message.text
    return (
        f"\n## {message.role.value.capitalize()}, {_time(message.created_at)}\n\n{_quoted_headings(text)}\n"
    )


def _quoted_headings(text: str) -> str:
    """*text* with the lines escaped that would look like one of our own headings, outside code blocks."""
    lines = []
    fence = ""
    for line in text.splitlines():
        start = line.lstrip()[:3]
        if start in ("```", "~~~"):
            fence = "" if fence == start else fence or start
        lines.append("\\" + line if not fence and line.startswith("## ") else line)
    if fence:  # An open code block must not swallow the next message.
        lines.append(fence)
    return "\n".join(lines)


def _ended_at(run: Run) -> int:
    times = (run.cancelled_at, run.failed_at, run.completed_at, run.started_at, run.created_at)
    return next(at for at in times if at is not None)


def _outcome(run: Run) -> str:
    by = f" by {printable(run.model)}" if run.model else ""
    why = f": {printable(run.last_error.message)}" if run.last_error else ""
    return f"\n> Run `{printable(run.id)}`{by} {run.status.value}{why}\n"
