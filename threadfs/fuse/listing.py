"""The names of a directory in an order that stays while programs go through them.

A program takes some entries at a time, and goes on after the *cookie* of the last (``d_off``, telldir(3)).
A name keeps its cookie for as long as it is there, a new one comes to the end, and no cookie is given twice.
So whatever is there all the time is seen exactly once, however many programs list at once.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import islice

from threadfs.fuse.asking import in_thread
from threadfs.nodes.base import Attributes, Directory, Node

# The cookies of ``.`` and ``..``.
DOTS = (1, 2)
_FIRST = 3
# Of how many names that have gone the cookies are kept.
_MAX_GONE = 100
# How many attributes are read at a time: about as many entries as the kernel takes; and how long they hold.
_AT_ONCE = 160
_HOLD_S = 1.0
# By when the kernel has taken an answer in, also on a machine that is busy.
_TAKEN_S = 1.0


class Listing:
    """What a directory held when it was last looked into."""

    __slots__ = (
        *("began_s", "cookies", "gives_attributes", "is_current", "is_lasting", "known", "known_s", "names"),
        *("nodes", "times_wanted", "told_s", "was_current", "_gone", "_next", "_other_told_s"),
    )

    def __init__(self, directory: Directory, before: Listing | None) -> None:
        """Looks into *directory*; names that were there *before* keep their cookies."""
        # When it was begun to look.
        self.began_s = time.monotonic()
        names: list[str] = []  # Of threads and runs these are the texts of the nodes, and take no memory.
        nodes: list[Node] = []
        for name, node in directory.entries():
            names.append(name)
            nodes.append(node)
        self.names, self.nodes = names, nodes
        # Of some that have gone, as they may come again: what is saved anew shall keep its place.
        self._gone: dict[str, int] = {}
        # When the kernel last got entries of this, and last got some of another one; 0 where it holds none.
        self.told_s = self._other_told_s = 0.0
        self.cookies: Sequence[int]
        if before is None:
            # Names that are hidden now have their place, too.
            whole = [] if directory.lists_store else [*directory.names_when_whole()]
            if whole[: len(names)] == names[: len(whole)]:
                self._next = _FIRST + max(len(names), len(whole))
                self.cookies = range(_FIRST, _FIRST + len(names))
            else:
                self._next = _FIRST + len(whole)
                self._go_on({name: cookie for cookie, name in enumerate(whole, _FIRST)})
        elif names == before.names:
            self.cookies, self._gone, self._next = before.cookies, before._gone, before._next
            self.told_s, self._other_told_s = before.told_s, before._other_told_s
        else:
            self._next = before._next
            self._go_on({**before._gone, **dict(zip(before.names, before.cookies, strict=True))})
            self._other_told_s = max(before.told_s, before._other_told_s)
        # Whether each change of the names will be reported, and none was; whether that has been so.
        self.is_current = self.was_current = False
        # Whether it may be kept as far as the entries go: they keep their numbers, and to ask for their
        # attributes is not dearer than to list them again.
        self.is_lasting = True
        # With `ls -l` the kernel asks for the attributes of an entry: from then on it gets them here.
        self.times_wanted = 0
        self.gives_attributes = False
        # Attributes that cost something, as they were at that time; None where they cannot be read.
        self.known: dict[Node, Attributes | None] | None = None
        self.known_s = 0.0

    def _go_on(self, given: dict[str, int]) -> None:
        """Takes over the cookies that were *given*."""
        following = self._next
        cookies = []
        for name in self.names:
            if (cookie := given.pop(name, None)) is None:
                cookie, following = following, following + 1
            cookies.append(cookie)
        order = sorted(range(len(cookies)), key=cookies.__getitem__)
        self.names, self.nodes = [self.names[i] for i in order], [self.nodes[i] for i in order]
        self.cookies = [cookies[i] for i in order]
        self._next = following
        self._gone = dict(islice(given.items(), max(0, len(given) - _MAX_GONE), None))

    def after(self, cookie: int) -> int:
        """The index of the first name behind *cookie*."""
        return bisect_right(self.cookies, cookie)

    def is_told(self) -> None:
        """A reader has got all of it: what is made anew for the next one is given back."""
        self.known = None
        if not self.is_current:
            self.nodes = []

    # ── What the kernel may keep ────────────────────────────────────────────────────────────────────

    @property
    def kernel_has_other(self) -> bool:
        """Whether the kernel may hold entries that this listing has not."""
        return self._other_told_s > 0

    @property
    def is_settled(self) -> bool:
        """Whether entries of another listing have arrived, if there were any, so that they can be dropped."""
        return not self._other_told_s or time.monotonic() > self._other_told_s + _TAKEN_S

    @property
    def may_be_kept(self) -> bool:
        """Whether the kernel need not ask again before it is told that something has changed."""
        return self.is_current and self.is_lasting and not self._other_told_s

    def kernel_dropped_other(self) -> None:
        self._other_told_s = 0

    # ── Attributes ──────────────────────────────────────────────────────────────────────────────────

    async def know_from(
        self, start: int, directory: Directory, are_costly: Callable[[Node], bool]
    ) -> dict[Node, Attributes | None]:
        """The attributes of the entries from *start* on, as far as the kernel may take them at once."""
        nodes = self.nodes[start : start + _AT_ONCE]
        if self.known is None or (
            nodes and (nodes[0] not in self.known or time.monotonic() >= self.known_s + _HOLD_S)
        ):
            costly = [node for node in nodes if are_costly(node)]
            self.known_s = time.monotonic()
            found = await in_thread(directory.attributes_of, costly) if costly else {}
            self.known = {node: found.get(node) for node in nodes}
        return self.known
