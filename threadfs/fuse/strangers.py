"""Searches for other users, whom ``--allow-other`` lets in: one at a time.

A search may read a whole store, and a request that waits takes one of the places that all requests share.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Final

import trio

from threadfs.fuse.ownership import Ownership
from threadfs.nodes.base import Node, Refused

# How many of their requests wait for a turn; pyfuse3 has about 100 places.
_MAX_WAITING: Final = 8
_NO_TURN: Final = nullcontext()


class Strangers:
    """All who are neither the user who mounted, nor the owner that is shown, nor root."""

    def __init__(self, ownership: Ownership) -> None:
        self.known = frozenset((0, os.getuid(), ownership.uid))
        self._turn = trio.Lock()
        self._waiting = 0

    def turn(self, uid: int, node: Node) -> AbstractAsyncContextManager[None]:
        """A block in which a request of *uid* may ask *node* for what a search finds.

        Entering it raises Refused when too many other users search at once.
        """
        return self.turn_of(uid not in self.known, node)

    def turn_of(self, is_stranger: bool, node: Node) -> AbstractAsyncContextManager[None]:
        """As `turn`, for a user of whom is known whether it is one of these."""
        return self._one_turn() if node.searches and is_stranger else _NO_TURN

    def handle(self, inode_number: int, uid: int) -> int:
        """The handle for a directory that *uid* opens: all that a READDIR brings along."""
        return inode_number << 1 | (uid not in self.known)

    @staticmethod
    def of_handle(handle: int) -> tuple[int, bool]:
        """The number of the inode, and whether a stranger has opened it."""
        return handle >> 1, bool(handle & 1)

    @asynccontextmanager
    async def _one_turn(self) -> AsyncIterator[None]:
        if self._waiting >= _MAX_WAITING:
            raise Refused(errno.EAGAIN, "other users search already: they get one search at a time")
        self._waiting += 1
        try:
            async with self._turn:
                yield
        finally:
            self._waiting -= 1
