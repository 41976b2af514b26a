"""Open files."""

from __future__ import annotations

import trio

from threadfs.fuse.inodes import Inode
from threadfs.nodes.base import Reader, Writer


class OpenFile:
    """What a file handle stands for. Calls on one handle take turns: ``async with`` it is one."""

    __slots__ = ("_lock", "inode", "is_cached", "is_judged", "opener", "reader", "writer")

    def __init__(
        self, inode: Inode, reader: Reader | None, writer: Writer | None, *, is_cached: bool, opener: int = 0
    ) -> None:
        self.inode = inode
        # The id of the process (or thread) that has opened it for writing; 0: one that cannot be seen here.
        self.opener = opener
        # Whether what was written has been committed, or refused, at its end.
        self.is_judged = False
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

    async def __aexit__(self, *error: object) -> None:
        self._lock.release()
