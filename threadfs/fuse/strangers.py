"""Turns of searches: a few at once of whoever mounted, one of other users, whom ``--allow-other`` lets in.

A search may read a whole store. It computes in a thread, which slows every other request down, and a request
that waits takes one of the places that all requests share. So few search at once, and those that wait have
places of their own: `PLACES` are more than pyfuse3 has by default, by as many as may wait here.
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

# How many search at once, and how many do or wait to.
_OWN: Final = 4
_MAX_OWN: Final = 900
_MAX_STRANGERS: Final = 8
# How many requests may be in hand: what pyfuse3 has by default, for all that is no search, and searches.
PLACES: Final = 99 + _MAX_OWN + _MAX_STRANGERS
_NO_TURN: Final = nullcontext()


class _Turns:
    def __init__(self, at_once: int, most: int, reason: str) -> None:
        self._free = trio.Semaphore(at_once)
        self._most = most
        self._in_hand = 0
        self._reason = reason

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Raises Refused when too many wait."""
        if self._in_hand >= self._most:
            raise Refused(errno.EAGAIN, self._reason)
        self._in_hand += 1
        try:
            async with self._free:
                yield
        finally:
            self._in_hand -= 1


class Strangers:
    """All who are neither the user who mounted, nor the owner that is shown, nor root."""

    def __init__(self, ownership: Ownership) -> None:
        self.known = frozenset((0, os.getuid(), ownership.uid))
        self._own = _Turns(_OWN, _MAX_OWN, f"{_MAX_OWN} searches wait already")
        self._others = _Turns(1, _MAX_STRANGERS, "other users search already: they get one search at a time")

    def turn(self, uid: int, node: Node) -> AbstractAsyncContextManager[None]:
        """A block in which a request of *uid* may ask *node* for what a search finds.

        Entering it raises Refused when too many search at once.
        """
        return self.turn_of(uid not in self.known, node)

    def turn_of(self, is_stranger: bool, node: Node) -> AbstractAsyncContextManager[None]:
        """As `turn`, for a user of whom is known whether it is one of these."""
        if not node.searches:
            return _NO_TURN
        return (self._others if is_stranger else self._own).one()

    def handle(self, inode_number: int, uid: int) -> int:
        """The handle for a directory that *uid* opens: all that a READDIR brings along."""
        return inode_number << 1 | (uid not in self.known)

    @staticmethod
    def of_handle(handle: int) -> tuple[int, bool]:
        """The number of the inode, and whether a stranger has opened it."""
        return handle >> 1, bool(handle & 1)
