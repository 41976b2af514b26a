"""Texts that are made from a thread when they are read, and that grow while they are open.

Whoever has such a text open sees it grow at its end, and nothing of it change. Most changes of a thread are
growth. Where a new rendering would be another text (there is a new title, or a message has come before an
answer that was shown already), the name gets a new *edition*, with an inode number of its own: what is opened
from then on is rendered anew, and ``tail -F`` follows. Readers of the earlier edition go on with theirs.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import ClassVar
from weakref import WeakValueDictionary

from store import DocumentKey, NotFound, Store, names
from store.waiting import waits
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
# How many texts stay in memory that nobody reads, and how many bytes of each.
_MAX_KEPT = 32
_IN_MEMORY_BYTES = 1 << 20


class GrowingText:
    """A text that is made from a thread. It only grows."""

    def __init__(self, thread_id: str) -> None:
        self.thread_id = thread_id
        # Whether a new rendering would be the same text. False for good when it is not.
        self.is_current = True
        self.is_rendered = False
        self.size_bytes = 0
        # When a piece of an answer was last added, which no time in the store tells; 0: never.
        self.grown_ns = 0
        self._lock = threading.Lock()
        self._text = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - lives as long as this

    def update(self, store: Store) -> None:
        """Adds what is new in the thread. Raises NotFound when that has gone."""
        with self._lock:
            self._update(store)
            self.is_rendered = True

    def _update(self, store: Store) -> None:
        """As `update`; one thread at a time. When it raises, the next call goes on where it was."""
        raise NotImplementedError

    def _write(self, text: str) -> None:
        data = text.encode(errors="replace")
        self._text.seek(self.size_bytes)
        self._text.write(data)
        self.size_bytes += len(data)

    def _grow(self, piece: str) -> None:
        """Writes a piece of an answer."""
        self._write(piece)
        self.grown_ns = time.time_ns()

    def _written(self, offset: int) -> bytes:
        """All that was written from *offset* on."""
        self._text.seek(offset)
        return self._text.read(self.size_bytes - offset)

    def read(self, offset: int, size: int) -> bytes:
        with self._lock:
            self._text.seek(offset)
            return self._text.read(min(size, max(0, self.size_bytes - offset)))


class Editions:
    """The texts of one kind, of all threads: those that are open, and those that were read last."""

    def __init__(self, make: Callable[[str], GrowingText]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._last: OrderedDict[str, GrowingText] = OrderedDict()
        self._texts: WeakValueDictionary[tuple[str, int], GrowingText] = WeakValueDictionary()
        # The latest edition for each thread that has had more than one.
        self._editions: dict[str, int] = {}

    def known(self, thread_id: str) -> int:
        """The latest edition, as far as it is known without looking at the thread."""
        return self._editions.get(thread_id, 0)

    def latest(self, store: Store, thread_id: str) -> int:
        """The edition that is opened now. Renders what is new, and nothing that was not rendered yet.

        Raises NotFound.
        """
        edition = self.known(thread_id)
        text = self._texts.get((thread_id, edition))
        if text is None or not text.is_rendered:  # It may be rendered just now, which may take long.
            store.document_info(DocumentKey(thread_id))
            return edition
        waits()
        text.update(store)
        if not text.is_current:
            self._end(thread_id, edition)
        return self.known(thread_id)

    def _end(self, thread_id: str, edition: int) -> None:
        with self._lock:
            if self.known(thread_id) == edition:
                self._editions[thread_id] = edition + 1

    def text_now(self, store: Store, thread_id: str) -> GrowingText:
        """The text as a new rendering has it. Raises NotFound."""
        while True:
            edition = self.known(thread_id)
            text = self._existing_or_new(thread_id, edition)
            text.update(store)
            if text.is_current:
                self._keep(text)
                return text
            self._end(thread_id, edition)

    def text_of(self, store: Store, thread_id: str, edition: int) -> GrowingText:
        """The text of an edition while anybody reads that, else the text as it is now. Raises NotFound."""
        text = self._texts.get((thread_id, edition))
        if text is None:
            return self.text_now(store, thread_id)
        text.update(store)
        return text

    def _existing_or_new(self, thread_id: str, edition: int) -> GrowingText:
        """The existing text, else a new one, registered before it is rendered so that it is rendered once."""
        with self._lock:
            text = self._texts.get((thread_id, edition))
            if text is None:
                text = self._texts[thread_id, edition] = self._make(thread_id)
            return text

    def _keep(self, text: GrowingText) -> None:
        with self._lock:
            self._last[text.thread_id] = text
            self._last.move_to_end(text.thread_id)
            if len(self._last) > _MAX_KEPT:
                self._last.popitem(last=False)


@dataclass(frozen=True, slots=True)
class ThreadTexts(ListDirectory):
    """A directory with a text for each thread."""

    life = Life.MOUNT

    name: str
    editions: Editions

    @property
    def path(self) -> str:
        return self.name

    @property
    def names_scope(self) -> DocumentKey:
        return ALL_THREADS

    def lookup(self, name: str) -> Node:
        thread_id = name.removesuffix(_SUFFIX)
        if thread_id == name or not names.is_id(thread_id):
            raise NoSuchName(name)
        return self._text(thread_id, self.editions.latest(self.store, thread_id))

    def entries(self) -> Iterable[tuple[str, Node]]:
        for thread_id in self.store.list_thread_ids():
            yield thread_id + _SUFFIX, self._text(thread_id, self.editions.known(thread_id))

    def text(self, name: str) -> ThreadText:
        """The text of a name, as far as it is known without looking at the thread."""
        thread_id = name.removesuffix(_SUFFIX)
        return self._text(thread_id, self.editions.known(thread_id))

    def _text(self, thread_id: str, edition: int) -> ThreadText:
        return ThreadText(self.tree, self.name, self.editions, thread_id, edition)


@dataclass(frozen=True, slots=True)
class ThreadText(PathNode):
    """An edition of the text of a thread. Its time is that of the last change in the thread or the text."""

    is_slow: ClassVar[bool] = True
    has_cheap_attributes: ClassVar[bool] = False

    directory: str
    editions: Editions
    thread_id: str
    edition: int

    @property
    def path(self) -> str:
        return f"{self.directory}/{self.thread_id}{_SUFFIX}"

    def attributes(self) -> Attributes:
        return self.attributes_of(self.editions.text_of(self.store, self.thread_id, self.edition))

    def attributes_of(self, text: GrowingText) -> Attributes:
        modified_ns, changed_ns = self.store.thread_times(self.thread_id)
        return regular(
            0o444,
            text.size_bytes,
            max(modified_ns, text.grown_ns),
            changed_ns=max(changed_ns, text.grown_ns),
        )

    def open_for_reading(self) -> Reader:
        return _TextReader(self)


class _TextReader:
    """Follows a text as it grows, for ``tail -f``."""

    version: object = None

    def __init__(self, node: ThreadText) -> None:
        self._node = node
        self._text = node.editions.text_now(node.store, node.thread_id)

    def read(self, offset: int, size: int) -> bytes:
        if not offset or offset >= self._text.size_bytes:
            with suppress(NotFound):
                self._text.update(self._node.store)
        return self._text.read(offset, size)

    def attributes(self) -> Attributes:
        return self._node.attributes_of(self._text)

    def close(self) -> None:
        pass
