"""The names of a directory in an order that stays while programs go through them.

A program takes some entries at a time, and goes on after the *cookie* of the last (``d_off``, telldir(3)).
A name keeps its cookie for as long as it is there, a new one comes to the end, and no cookie is given twice.
So whatever is there all the time is seen exactly once, however many programs list at once.
"""

from __future__ import annotations

import os
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

from store import StoreError
from threadfs.fuse.asking import in_thread
from threadfs.nodes.base import Attributes, Directory, Node

# The cookies of ``.`` and ``..``.
DOTS = (1, 2)
# Of how many names that have gone the cookies are kept.
_MAX_GONE = 100
# How many attributes are read at a time: about as many entries as the kernel takes; and how long they hold.
_AT_ONCE = 160
_HOLD_S = 1.0


class Listing:
    """What a directory held when it was last looked into."""

    __slots__ = (
        *("cookies", "gives_attributes", "is_current", "known", "names", "names_timeout_s", "nodes"),
        *("_gone", "_known_until_s", "_next", "times_wanted"),
    )

    def __init__(self, directory: Directory, before: Listing | None) -> None:
        """Looks into *directory*; names that were there *before* keep their cookies."""
        found = {os.fsencode(name): node for name, node in directory.entries()}
        known = before.given() if before else {}
        self._next: int = before._next if before else DOTS[-1] + 1
        cookies: dict[bytes, int] = {}
        for name in found:
            if (cookie := known.pop(name, None)) is None:
                cookie, self._next = self._next, self._next + 1
            cookies[name] = cookie
        self.names: list[bytes] = sorted(cookies, key=cookies.__getitem__)
        self.nodes = [found[name] for name in self.names]
        self.cookies: array[int] = array("q", sorted(cookies.values()))
        # Of some that have gone, as they may come again: what is saved anew shall keep its place.
        self._gone: dict[bytes, int] = dict(islice(known.items(), _MAX_GONE))
        # Whether each change of the names will be reported; how long the kernel may remember the names.
        self.is_current = False
        self.names_timeout_s: float | None = None
        # With `ls -l` the kernel asks for the attributes of an entry: from then on it gets them here.
        self.times_wanted = 0
        self.gives_attributes = False
        # Attributes that cost something, as they were a moment ago; None where they cannot be read.
        self.known: dict[Node, Attributes | None] = {}
        self._known_until_s = 0.0

    def given(self) -> dict[bytes, int]:
        """The cookies of the names that are there, and of some that were."""
        return {**self._gone, **dict(zip(self.names, self.cookies, strict=True))}

    def after(self, cookie: int) -> int:
        """The index of the first name behind *cookie*."""
        return bisect_right(self.cookies, cookie)

    async def know_from(self, start: int, are_costly: Callable[[Node], bool]) -> None:
        """Reads the attributes of the entries from *start* on, as far as the kernel may take them at once."""
        nodes = self.nodes[start : start + _AT_ONCE]
        if not nodes or (nodes[0] in self.known and time.monotonic() < self._known_until_s):
            return
        costly = [node for node in nodes if are_costly(node)]
        found = await in_thread(_attributes_of, costly) if costly else {}
        self.known = {node: found.get(node) for node in nodes}
        self._known_until_s = time.monotonic() + _HOLD_S


def _attributes_of(nodes: list[Node]) -> dict[Node, Attributes]:
    found = {}
    for node in nodes:
        with suppress(StoreError):  # It has gone, or is not readable; a lookup will tell.
            found[node] = node.attributes()
    return found
