"""Links to threads and runs that the kernel may remember for a moment.

No report tells which links there are in a directory, so the kernel has to ask for each of them each time, and
for its attributes besides. A program that lists with attributes (`ls -l`, a file manager) would ask for what
it was told just before. So what such a listing tells of a link is lent to the kernel for a moment, and taken
back when the thread changes. (For that moment a title still leads to a thread that another one is called by,
too, by now.)
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Final

from threadfs.fuse.inodes import Inode

# For how long.
_LENT_S: Final = 0.8
# Of how many threads it is known when they last changed.
_MAX_CHANGED: Final = 10_000


class Lent:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By thread, and in the order in which their time ends.
        self._links: dict[str, list[Inode]] = {}
        self._ends: deque[tuple[float, str, Inode]] = deque()
        # When threads last changed, the latest one last; all others may have until then.
        self._changed_s: dict[str, float] = {}
        self._others_s = float("-inf")

    def lend(self, inode: Inode, thread_id: str, listed_s: float, looked_s: float) -> float:
        """For how many seconds the kernel may remember a link; 0 if its thread has changed since.

        Args:
            listed_s: when its name was looked for, by the monotonic clock.
            looked_s: from when on the moment counts.
        """
        now_s = time.monotonic()
        left_s = looked_s + _LENT_S - now_s
        with self._lock:
            while self._ends and self._ends[0][0] < now_s:
                self._end(*self._ends.popleft()[1:])
            if left_s <= 0 or self._changed_s.get(thread_id, self._others_s) >= listed_s:
                return 0
            self._links.setdefault(thread_id, []).append(inode)
            self._ends.append((now_s + _LENT_S, thread_id, inode))
        return left_s

    def _end(self, thread_id: str, inode: Inode) -> None:
        links = self._links.get(thread_id, [])
        if inode in links:
            links.remove(inode)
            if not links:
                del self._links[thread_id]

    def take_back(self, thread_id: str) -> list[Inode]:
        """The links to a thread that has changed, of which the kernel has to be told."""
        with self._lock:
            self._changed_s.pop(thread_id, None)
            self._changed_s[thread_id] = time.monotonic()
            if len(self._changed_s) > _MAX_CHANGED:
                self._others_s = self._changed_s.pop(next(iter(self._changed_s)))
            return self._links.pop(thread_id, [])

    def take_all_back(self) -> None:
        """As anything may have changed. The kernel is told of all that it holds."""
        with self._lock:
            self._others_s = time.monotonic()
            self._changed_s.clear()
            self._links.clear()
            self._ends.clear()
