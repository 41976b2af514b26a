"""``transcripts/``: each conversation as Markdown, rendered on demand, and then only what is new."""

from __future__ import annotations

import heapq
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import ClassVar
from weakref import WeakValueDictionary

from store import Damaged, DocumentKey, NotFound, Run, RunStatus, Store, names
from store.api import LogReader
from store.lines import iter_lines, message_of
from threadfs.nodes import markdown
from threadfs.nodes.base import (
    ALL_THREADS,
    Attributes,
    ListDirectory,
    Node,
    NoSuchName,
    PathNode,
    Reader,
    regular,
)
from threadfs.nodes.lives import Life

_SUFFIX = ".md"
# How many rendered conversations stay in memory, and how many bytes of each.
_MAX_RENDERED = 32
_IN_MEMORY_BYTES = 1 << 20
_COMPARED_BYTES = 4096

# A time in Unix seconds; 0 for a message and 1 for the end of a run, which comes after it; the text.
_Part = tuple[int, int, str]


class _Replaced(Exception):
    """Another thread than the rendered one: it was deleted and created again, or its log was replaced."""


class Rendered:
    """The text of one conversation. It only grows at the end; its heading stays."""

    def __init__(self, thread_id: str) -> None:
        self._thread_id = thread_id
        # The title in the heading, and a version of the thread's document that has it.
        self._title = ""
        self._document_version: object = None
        self._lock = threading.Lock()
        self._text = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - lives as long as this
        self._size = 0
        self._log_identity = 0
        self._log_bytes = 0
        # Where the last message begins, and its first bytes, which hold its id. The inode number alone is not
        # enough: the system may reuse that of a deleted thread's log.
        self._last_at = 0
        self._last = b""
        self._latest_s: int | None = None
        # For each run: the version of its document, its status, when it was created.
        self._runs: dict[str, tuple[object, RunStatus, int | None]] = {}

    def has_title_of(self, store: Store, document_version: object) -> bool:
        """Whether the heading still has the thread's title, in this version of its document."""
        # Without the lock: rendering a long conversation holds it for long.
        if self._size and document_version != self._document_version:
            if _title_of(store, self._thread_id) != self._title:
                return False
            self._document_version = document_version
        return True

    def update(self, store: Store) -> bool:
        """Renders what is new. False if the stored conversation is another one, which needs a new text."""
        with self._lock:
            log = store.open_log(self._thread_id)
            try:
                self._render_new(store, log)
            except _Replaced:
                return False
            finally:
                log.close()
            return True

    def _render_new(self, store: Store, log: LogReader) -> None:
        info = log.info()
        if self._log_bytes and (info.identity != self._log_identity or self._last_of(log) != self._last):
            raise _Replaced
        if self._runs and self._runs.keys().isdisjoint(store.list_run_ids(self._thread_id)):
            raise _Replaced
        if not self._size:
            self._document_version = store.document_info(DocumentKey(self._thread_id)).version
            self._title = _title_of(store, self._thread_id)
            self._write(markdown.head(self._thread_id, self._title))
        outcomes = sorted(self._outcomes(store))
        if outcomes or info.size_bytes > self._log_bytes:
            for _, _, text in heapq.merge(self._messages(log), outcomes):
                self._write(text)
        self._log_identity, self._last = info.identity, self._last_of(log)

    def _last_of(self, log: LogReader) -> bytes:
        return log.read(self._last_at, min(_COMPARED_BYTES, self._log_bytes - self._last_at))

    def _write(self, text: str) -> None:
        data = text.encode(errors="replace")
        self._text.seek(self._size)
        self._text.write(data)
        self._size += len(data)

    def _messages(self, log: LogReader) -> Iterator[_Part]:
        """In the order of the log: a message counts as no older than the one before it."""
        for line, end in iter_lines(log.read, self._log_bytes):
            if message := message_of(line, self._thread_id):
                self._latest_s = max(message.created_at, self._latest_s or message.created_at)
                yield self._latest_s, 0, markdown.paragraph(message)
                self._last_at = self._log_bytes
            self._log_bytes = end

    def _outcomes(self, store: Store) -> Iterator[_Part]:
        """The runs that have ended, or ended differently, since the last call."""
        for run_id in store.list_run_ids(self._thread_id):
            with suppress(NotFound, Damaged):
                key = DocumentKey(self._thread_id, run_id)
                version = store.document_info(key).version
                known_version, known_status, created_s = self._runs.get(
                    run_id, (None, RunStatus.queued, None)
                )
                if version != known_version:
                    run: Run = store.get_run(self._thread_id, run_id)
                    has_begun_again = known_status.is_terminal and not run.status.is_terminal
                    if known_version and (has_begun_again or created_s != run.created_at):
                        raise _Replaced
                    self._runs[run_id] = version, run.status, run.created_at
                    if run.status.is_terminal and run.status is not known_status:
                        yield markdown.ended_at(run), 1, markdown.outcome(run)

    @property
    def size_bytes(self) -> int:
        return self._size

    def read(self, offset: int, size: int) -> bytes:
        with self._lock:
            self._text.seek(offset)
            return self._text.read(min(size, max(0, self._size - offset)))


def _title_of(store: Store, thread_id: str) -> str:
    with suppress(Damaged):
        return markdown.title_of(store.get_thread(thread_id).metadata)
    return ""


class Renderer:
    """Keeps the conversations that were rendered last, and those that are open.

    When the title changes, the conversation gets a new edition, with an inode number of its own. Readers of
    the old edition see the size of the text that they read.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: OrderedDict[str, Rendered] = OrderedDict()
        self._read: WeakValueDictionary[tuple[str, int], Rendered] = WeakValueDictionary()
        # The latest edition of each conversation that has had more than one.
        self._editions: dict[str, int] = {}

    def known_edition(self, thread_id: str) -> int:
        """The latest edition that was rendered."""
        return self._editions.get(thread_id, 0)

    def edition(self, store: Store, thread_id: str) -> int:
        """The current edition, which is a new one if the title has changed. Raises NotFound."""
        version = store.document_info(DocumentKey(thread_id)).version
        edition = self.known_edition(thread_id)
        rendered = self._read.get((thread_id, edition))
        if rendered is not None and not rendered.has_title_of(store, version):
            with self._lock:
                if self.known_edition(thread_id) == edition:
                    self._editions[thread_id] = edition + 1
        return self.known_edition(thread_id)

    def rendered(self, store: Store, thread_id: str, edition: int) -> Rendered:
        """The conversation as it is now: in *edition* while that is open, else in the current one.

        Raises NotFound.
        """
        latest = self.edition(store, thread_id)
        if edition != latest:
            earlier = self._read.get((thread_id, edition))
            if earlier is not None and earlier.update(store):
                return earlier
        rendered = self._existing_or_new(thread_id, latest, instead_of=None)
        if not rendered.update(store):
            # Open readers of the old text go on with it.
            rendered = self._existing_or_new(thread_id, latest, instead_of=rendered)
            rendered.update(store)
        with self._lock:
            self._last[thread_id] = rendered
            self._last.move_to_end(thread_id)
            if len(self._last) > _MAX_RENDERED:
                self._last.popitem(last=False)
        return rendered

    def _existing_or_new(self, thread_id: str, edition: int, *, instead_of: Rendered | None) -> Rendered:
        """The existing text, else a new one, registered before it is rendered so that it is rendered once."""
        with self._lock:
            rendered = self._read.get((thread_id, edition))
            if rendered is instead_of or rendered is None:
                rendered = self._read[thread_id, edition] = Rendered(thread_id)
            return rendered


@dataclass(frozen=True, slots=True)
class TranscriptsDirectory(ListDirectory):
    life = Life.MOUNT

    renderer: Renderer

    @property
    def path(self) -> str:
        return "transcripts"

    @property
    def names_scope(self) -> DocumentKey:
        return ALL_THREADS

    def lookup(self, name: str) -> Node:
        thread_id = name.removesuffix(_SUFFIX)
        if thread_id == name or not names.is_id(thread_id):
            raise NoSuchName(name)
        edition = self.renderer.edition(self.store, thread_id)
        return Transcript(self.tree, self.renderer, thread_id, edition)

    def entries(self) -> Iterable[tuple[str, Node]]:
        return (
            (
                thread_id + _SUFFIX,
                Transcript(self.tree, self.renderer, thread_id, self.renderer.known_edition(thread_id)),
            )
            for thread_id in self.store.list_thread_ids()
        )


@dataclass(frozen=True, slots=True)
class Transcript(PathNode):
    """A conversation, ordered by time, with a line for the end of each run."""

    is_slow: ClassVar[bool] = True
    has_cheap_attributes: ClassVar[bool] = False

    renderer: Renderer
    thread_id: str
    edition: int

    @property
    def path(self) -> str:
        return f"transcripts/{self.thread_id}{_SUFFIX}"

    def rendered(self) -> Rendered:
        return self.renderer.rendered(self.store, self.thread_id, self.edition)

    def attributes(self) -> Attributes:
        return self.attributes_of(self.rendered())

    def attributes_of(self, rendered: Rendered) -> Attributes:
        modified_ns, changed_ns = self.store.thread_times(self.thread_id)
        return regular(0o444, rendered.size_bytes, modified_ns, changed_ns=changed_ns)

    def open_for_reading(self) -> Reader:
        return _TranscriptReader(self)


class _TranscriptReader:
    """Follows the conversation as it grows, for ``tail -f``."""

    version: object = None

    def __init__(self, node: Transcript) -> None:
        self._node = node
        self._rendered = node.rendered()

    def read(self, offset: int, size: int) -> bytes:
        if not offset or offset >= self._rendered.size_bytes:
            with suppress(NotFound):
                if not self._rendered.update(self._node.store):
                    self._rendered = self._node.rendered()
        return self._rendered.read(offset, size)

    def attributes(self) -> Attributes:
        return self._node.attributes_of(self._rendered)

    def close(self) -> None:
        pass
