"""Telling the kernel to forget a name, an attribute or pages.

The kernel may have to wait before it can. Forgetting an inode takes locks that no request of ours holds, so
that is done at once. Forgetting a name takes the lock of its directory, which the kernel holds while it waits
for our answer to a mkdir or rename, and pages may be locked until somebody has read them: threads of their
own do these.
"""

from __future__ import annotations

import heapq
import math
import threading
import time
from contextlib import suppress

import pyfuse3
import trio

from threadfs.fuse import detached
from threadfs.fuse.inodes import Inode

# A lookup that was answered just before a change can be remembered just after it: names are forgotten twice.
_AGAIN_S = 0.3
# How long a change waits for the lock of a directory in which a name has to be forgotten.
_PATIENCE_S = 0.1
# How long the end of a mount waits for threads that wait in the kernel, and how often it looks.
_ENDS_S, _LOOKS_S = 1.0, 0.005


class Forgetting:
    def __init__(self) -> None:
        # A heap of when to forget, since when, which name in which directory; without a name, the inode.
        self._names: list[tuple[float, float, int, bytes]] = []
        # When a name was found to be right, since when there was nothing to forget.
        self._right: dict[tuple[int, bytes], float] = {}
        self._wakeup = threading.Condition()
        self._is_forgetting = False
        self._is_closed = False
        self._names_thread: threading.Thread | None = None
        self._caller: detached.Caller | None = None

    def start(self) -> None:
        """To be called once the mount stands."""
        self._names_thread = detached.start("forget names", self._forget_names)
        self._caller = detached.Caller("forget pages")

    def close(self) -> None:
        """Tells the kernel nothing from now on."""
        with self._wakeup:
            self._is_closed = True
            self._wakeup.notify_all()
        if self._caller is not None:
            self._caller.close()

    async def end(self) -> None:
        """As `close`; returns when the threads have ended, each with its clone of the connection, or soon.

        A thread that waits for a lock waits for its holder, which waits for our answer: we have to go on
        answering until then.
        """
        self.close()
        threads = [self._names_thread, self._caller and self._caller.thread]
        deadline_s = time.monotonic() + _ENDS_S
        while any(thread and thread.is_alive() for thread in threads) and time.monotonic() < deadline_s:
            await trio.sleep(_LOOKS_S)

    # ── Inodes ──────────────────────────────────────────────────────────────────────────────────────

    def forget_inode(self, inode: Inode, *, attributes_only: bool) -> None:
        """Returns when the kernel has forgotten its attributes and, unless *attributes_only*, its pages."""

        def invalidate() -> None:
            try:
                pyfuse3.invalidate_inode(pyfuse3.InodeT(inode.number), attributes_only)
            except OSError:
                # It has forgotten it by itself, or does not know it yet: what tells of it may be under way.
                now_s = time.monotonic()
                with self._wakeup:
                    heapq.heappush(self._names, (now_s + _AGAIN_S, now_s, inode.number, b""))
                    self._wakeup.notify_all()

        if self._is_closed:
            return
        if not attributes_only and self._caller is not None and (inode.readers or inode.listing):
            self._caller.call(invalidate)  # It may wait for a page that is being read.
        else:
            invalidate()

    # ── Names ───────────────────────────────────────────────────────────────────────────────────────

    def forget_name(self, parent: Inode, name: bytes) -> None:
        """Has the kernel forget a name soon: a handler of a mkdir, rename or the like may ask for it."""
        now_s = time.monotonic()
        with self._wakeup:
            for due_s in (now_s, now_s + _AGAIN_S):
                heapq.heappush(self._names, (due_s, now_s, parent.number, name))
            self._wakeup.notify_all()

    def is_right(self, parent: Inode, name: bytes, looked_s: float) -> None:
        """The kernel holds the lock of *parent* and is told what *name* was at *looked_s*: that stays.

        No earlier lookup is under way, which would be remembered only now. Programs may work there already,
        and would lose their path.
        """
        with self._wakeup:
            if self._names:
                self._right[parent.number, name] = looked_s

    def wait_for_names(self) -> None:
        """As `names_are_forgotten`, for a thread."""
        since_s = time.monotonic()
        with self._wakeup:
            self._wakeup.wait_for(lambda: self._are_forgotten(since_s), _PATIENCE_S)

    def _are_forgotten(self, since_s: float) -> bool:
        """Whether all names that were due by then are forgotten, or nothing is forgotten any more."""
        are_forgotten = not self._is_forgetting and (not self._names or self._names[0][0] > since_s)
        return are_forgotten or self._is_closed

    async def names_are_forgotten(self) -> None:
        """Returns when the names are forgotten, or soon. For requests that hold no directory's lock.

        A holder of a directory's lock may be waiting for a task or thread of ours, so the wait is short.
        """
        since_s, pause_s = time.monotonic(), 50e-6
        while time.monotonic() < since_s + _PATIENCE_S:
            with self._wakeup:
                if self._are_forgotten(since_s):
                    return
            # The thread that forgets them has no descriptors by which it could wake this one.
            await trio.sleep(pause_s)
            pause_s *= 2

    def _forget_names(self) -> None:
        with self._wakeup:
            while not self._is_closed:
                due_s = self._names[0][0] if self._names else math.inf
                wait_s = due_s - time.monotonic()
                if wait_s > 0:
                    self._wakeup.wait(wait_s if self._names else None)
                    continue
                _, since_s, parent, name = heapq.heappop(self._names)
                is_right = self._right.get((parent, name), 0.0) > since_s
                if not self._names:
                    self._right.clear()
                if not is_right:
                    self._is_forgetting = True
                    self._wakeup.release()
                    # The kernel may have forgotten it, or the directory, by itself.
                    with suppress(OSError):
                        if name:
                            pyfuse3.invalidate_entry(pyfuse3.InodeT(parent), pyfuse3.FileNameT(name))
                        else:
                            pyfuse3.invalidate_inode(pyfuse3.InodeT(parent), True)
                    self._wakeup.acquire()
                    self._is_forgetting = False
                self._wakeup.notify_all()  # Those that wait for names.
