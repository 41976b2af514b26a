"""What of the store is followed, so that the kernel may remember it until it changes.

Watches are few, and there may be none at all. What the kernel holds and no watch covers is asked for again
each time. Following it is tried again once in a while, for as long as something lacks a watch: programs give
watches back, and limits are raised.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Set as AbstractSet
from contextlib import suppress

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
        # What is followed, so that each change in it will be reported.
        self.covered: AbstractSet[DocumentKey] = set()
        # Set when something may lack a watch; by whom runs the loop, as soon as there is one.
        self._lacks = trio.Event()
        self._loop: trio.lowlevel.TrioToken | None = None
        # Why nothing is followed though it could be, in words for the user; empty when all is well.
        self.lack = ""

    def start(self) -> None:
        """Begins to follow the store. Without a watch, everything is asked for again."""
        self._watch = self._store.watch(self._on_change)
        self.covered = self._watch.covered
        # For good: names at the top are looked up one after the other, and none shall wait for a disk.
        if not self._watch.hold(ALL_THREADS):
            self._note_lack()
        if self._store.is_remote:  # A store on a disk follows them by itself.
            self._store.follow_all_runs(self._watch)
        if why := self._watch.lack:
            self.lack = f"changes by other programs are not followed, as {why}: {_CONSEQUENCE}"
            log.warning("%s", self.lack)

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()

    def stats(self) -> dict[str, int]:
        """Of the threads, runs and lists that the kernel holds: which a watch follows and which not."""
        return {"followed": len(self.covered), "not_followed": self._watch.uncovered if self._watch else 0}

    # ── What the kernel holds ───────────────────────────────────────────────────────────────────────

    def hold(self, inode: Inode) -> None:
        """The kernel holds this inode now: changes of what it shows are followed from now on.

        Raises:
            WouldWait: as a store does, having changed nothing.
        """
        scope = inode.node.scope
        if inode.is_followed or scope is None or self._watch is None:
            return
        if not self._watch.hold(scope):
            self._note_lack()
        if not self._is_first(inode):
            self._watch.forget(scope)

    def _is_first(self, inode: Inode) -> bool:
        """Marks an inode as followed. False if another thread was faster."""
        with self._lock:
            was_followed, inode.is_followed = inode.is_followed, True
        return not was_followed

    def covers(self, scope: DocumentKey | None) -> bool:
        """Whether *scope* is one of the `covered`."""
        return scope is not None and self._watch is not None and self._watch.covers(scope)

    def is_heard(self, scope: DocumentKey | None) -> bool:
        """Whether changes in *scope* are reported already, for whomever, or it is nothing to be followed."""
        if scope is None or self.covers(scope):
            return True
        return self._watch is not None and self._watch.is_heard(scope)

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
            if not self._follow(scope):
                self._note_lack()

    def _follow(self, scope: DocumentKey) -> bool:
        try:
            return self._watch is not None and self._watch.follow(scope)
        except (StorageFailed, OSError):  # It has gone, or may not be read.
            return False

    def _note_lack(self) -> None:
        if self._loop is None:
            self._lacks.set()
        else:
            with suppress(trio.RunFinishedError):
                self._loop.run_sync_soon(self._wake_up, idempotent=True)

    def _wake_up(self) -> None:
        self._lacks.set()

    async def keep_trying(self) -> None:
        """Tries again, for as long as the mount lives, what could not be followed."""
        self._loop = trio.lowlevel.current_trio_token()
        while True:
            await self._lacks.wait()
            await trio.sleep(TRIES_AGAIN_S)
            self._lacks = trio.Event()  # Before it is looked at, so that no later lack is missed.
            if self.stats()["not_followed"]:
                self._lacks.set()
                try:
                    await in_thread(self.try_again)
                except Exception:
                    log.exception("what cannot be followed could not be tried again")

    def try_again(self) -> None:
        failures = 0
        for scope in self._watch.held() if self._watch else []:
            if scope in self.covered or failures >= _MAX_FAILURES:
                continue
            if not self._follow(scope):
                failures += 1
            elif scope == ALL_THREADS:
                self._store.index_runs()
                self._on_change(Change(Part.EVERYTHING))  # On which it begins again.
                break
        if self.lack and ALL_THREADS in self.covered:
            log.info("changes by other programs are followed from now on")
            self.lack = ""
