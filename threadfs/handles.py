"""What is open: files, and directories that are being listed."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

import trio

from store import StoreError
from threadfs import memory
from threadfs.asking import in_thread
from threadfs.inodes import Entries, Inode
from threadfs.nodes.base import Attributes, Directory, Node, Reader, Writer

# About as many entries as the kernel takes at a time.
_LISTED_AT_ONCE = 160
# As libfuse says it.
_UNKNOWN_NUMBER = 0xFFFFFFFF


def entries_of(directory: Directory) -> Entries:
    names, nodes = [], []
    for name, node in directory.entries():
        names.append(os.fsencode(name))
        nodes.append(node)
    return Entries(names, nodes, [None] * len(nodes))


def _attributes_of(nodes: list[Node]) -> dict[Node, Attributes]:
    found = {}
    for node in nodes:
        with suppress(StoreError):  # It has gone, or is not readable; a lookup will tell.
            found[node] = node.attributes()
    return found


class OpenFile:
    """What a file handle stands for. Calls on one handle take turns: ``async with`` it is one."""

    __slots__ = ("_lock", "inode", "is_cached", "is_judged", "opener", "reader", "taken_bytes", "writer")

    def __init__(
        self, inode: Inode, reader: Reader | None, writer: Writer | None, *, is_cached: bool, opener: int = 0
    ) -> None:
        self.inode = inode
        # The id of the process (or thread) that has opened it for writing; 0: one that cannot be seen here.
        self.opener = opener
        # Whether what was written has been committed, or refused, at its end.
        self.is_judged = False
        # How much was written, whether or not it was refused.
        self.taken_bytes = 0
        self.reader = reader
        self.writer = writer
        self.is_cached = is_cached
        self._lock = trio.Lock()

    @property
    def owes(self) -> bool:
        """Whether something was written that has not been committed."""
        return self.writer is not None and self.writer.owes

    async def __aenter__(self) -> None:
        try:
            self._lock.acquire_nowait()  # `acquire` lets all other tasks go first, even if it is free.
        except trio.WouldBlock:
            await self._lock.acquire()

    async def __aexit__(self, kind: object, error: object, origin: object) -> None:
        self._lock.release()
        if error is not None and self.taken_bytes > memory.LARGE_BYTES:
            await in_thread(memory.give_back)  # Before the caller hears of the refusal.


class Listing:
    """An open directory: what it held when it was opened or begun again, in an order that stays."""

    def __init__(self, number: int, entries: Entries, asked_for: int, *, gives_attributes: bool) -> None:
        self.number = number
        self.is_begun = False
        # The kernel neither counts these nor believes what they say of the directory above.
        self.dots = ((b".", number), (b"..", _UNKNOWN_NUMBER))
        self.names, self.nodes, self.inodes = entries.names, entries.nodes, entries.inodes
        self.names_timeout_s = entries.names_timeout_s
        # With `ls -l` the kernel asks for the attributes of each entry: from then on it gets them here.
        self.asked_for = asked_for
        self.gives_attributes = gives_attributes
        self.known: dict[Node, Attributes] = {}
        self._known_to = 0

    async def prepared_to(self, start: int, must_be_asked: Callable[[Node], bool]) -> int:
        """Before which entry the next reply has to end."""
        if not self.gives_attributes:
            return len(self.nodes)
        if start >= self._known_to:
            self._known_to = min(start + _LISTED_AT_ONCE, len(self.nodes))
            nodes = [node for node in self.nodes[start : self._known_to] if must_be_asked(node)]
            self.known = await in_thread(_attributes_of, nodes) if nodes else {}
        return self._known_to
