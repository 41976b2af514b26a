"""What of the store is followed, so that the kernel may remember it until it changes.

Watches are few, and there may be none at all. What the kernel holds and no watch covers is asked for again
each time. Following it is tried again once in a while: programs give watches back, and limits are raised.
"""

from __future__ import annotations

import logging
import threading

import trio

from store import Change, DocumentKey, Part, StorageFailed, Store, Watch
from store.changes import Subscriber
from threadfs.fuse.asking import in_thread
from threadfs.fuse.inodes import Inode
from threadfs.nodes.base import ALL_THREADS

log = logging.getLogger("threadfs")

TRIES_AGAIN_S = 5.0
# Of how many, one after the other, no watch is to be had before the others are left for the next time.
_MAX_FAILURES = 100
_CONSEQUENCE = "they show within a second, but all is asked for again, which is slower; it is tried again"


class Following:
    def __init__(self, store: Store, on_change: Subscriber) -> None:
        self._store = store
        self._on_change = on_change
        # Guards whether an inode is followed.
        self._lock = threading.Lock()
        self._watch: Watch | None = None
        # Why nothing is followed though it could be, in words for the user; empty when all is well.
        self.lack = ""

    def start(self) -> None:
        """Begins to follow the store. Without a watch, everything is asked for again."""
        self._watch = self._store.watch(self._on_change)
        # For good: names at the top are looked up one after the other, and none shall wait for a disk.
        self._watch.hold(ALL_THREADS)
        if why := self._watch.lack:
            self.lack = f"changes by other programs are not followed, as {why}: {_CONSEQUENCE}"
            log.warning("%s", self.lack)

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()

    def stats(self) -> dict[str, int]:
        """Of the threads, runs and lists that the kernel holds: which a watch follows and which not."""
        held = self._watch.held() if self._watch else []
        followed = sum(self.covers(scope) for scope in held)
        return {"followed": followed, "not_followed": len(held) - followed}

    def covers(self, scope: DocumentKey | None) -> bool:
        """Whether each change in *scope* will be reported."""
        return self._watch is not None and self._watch.covers(scope)

    # ── What the kernel holds ───────────────────────────────────────────────────────────────────────

    def hold(self, inode: Inode) -> None:
        """The kernel holds this inode now: changes of what it shows are followed from now on.

        Raises:
            WouldWait: as a store does, having changed nothing.
        """
        scope = inode.node.scope
        if inode.is_followed or scope is None or self._watch is None:
            return
        self._watch.hold(scope)
        if not self._is_first(inode):
            self._watch.forget(scope)

    def _is_first(self, inode: Inode) -> bool:
        """Marks an inode as followed. False if another thread was faster."""
        with self._lock:
            was_followed, inode.is_followed = inode.is_followed, True
        return not was_followed

    def release(self, inode: Inode) -> None:
        """The kernel has forgotten this inode."""
        scope = inode.node.scope
        if not inode.is_followed or scope is None or self._watch is None:
            return
        inode.is_followed = False
        self._watch.forget(scope)

    # ── What could not be followed ──────────────────────────────────────────────────────────────────

    def begin_again(self) -> None:
        """Changes may have been missed: all is followed anew, also what could not be followed before."""
        for scope in self._watch.held() if self._watch else []:
            self._follow(scope)

    def _follow(self, scope: DocumentKey) -> bool:
        try:
            return self._watch is not None and self._watch.follow(scope)
        except (StorageFailed, OSError):  # It has gone, or may not be read.
            return False

    async def keep_trying(self) -> None:
        """Tries again, for as long as the mount lives, what could not be followed."""
        while True:
            await trio.sleep(TRIES_AGAIN_S)
            if self.stats()["not_followed"]:
                try:
                    await in_thread(self.try_again)
                except Exception:
                    log.exception("what cannot be followed could not be tried again")

    def try_again(self) -> None:
        failures = 0
        for scope in self._watch.held() if self._watch else []:
            if self.covers(scope) or failures >= _MAX_FAILURES:
                continue
            if not self._follow(scope):
                failures += 1
            elif scope == ALL_THREADS:
                self._store.index_runs()
                self._on_change(Change(Part.EVERYTHING))  # On which it begins again.
                break
        if self.lack and self.covers(ALL_THREADS):
            log.info("changes by other programs are followed from now on")
            self.lack = ""
