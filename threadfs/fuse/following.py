"""What of the store is followed, so that the kernel may remember it until it changes.

Watches are few, and there may be none at all. What the kernel holds and no watch covers is asked for again
each time. Following it is tried again once in a while: programs give watches back, and limits are raised.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import trio

from store import Change, DocumentKey, NoWatch, Part, StorageFailed, Store, Watch, waiting
from threadfs.fuse.asking import in_thread
from threadfs.fuse.inodes import Inode
from threadfs.nodes.base import ALL_THREADS

log = logging.getLogger("threadfs")

TRIES_AGAIN_S = 5.0
# Of how many, one after the other, no watch is to be had before the others are left for the next time.
_MAX_FAILURES = 100
_CONSEQUENCE = "they show within a second, but all is asked for again, which is slower; it is tried again"


class Following:
    def __init__(self, store: Store, on_change: Callable[[Change], None]) -> None:
        self._store = store
        self._on_change = on_change
        self._lock = threading.Lock()
        # How many held inodes depend on each followed thread or run.
        self._holders: Counter[DocumentKey] = Counter()
        # The same set for good.
        self.followed: set[DocumentKey] = set()
        self._watch: Watch = NoWatch()
        # Why nothing is followed though it could be, in words for the user; empty when all is well.
        self.lack = ""

    def start(self) -> None:
        """Begins to follow the store. Without a watch, everything is asked for again."""
        failure = self._begin_to_watch()
        # For good: names at the top are looked up one after the other, and none shall wait for a disk.
        self._holders[ALL_THREADS] = 1
        if self._watch.follow(ALL_THREADS):
            self.followed.add(ALL_THREADS)
        elif not self._store.is_remote:
            why = _reason(failure) if failure else "no inotify watch is left (fs.inotify.max_user_watches)"
            self.lack = f"changes by other programs are not followed, as {why}: {_CONSEQUENCE}"
            log.warning("%s", self.lack)
        elif failure:
            log.info("no watch: %s; the kernel asks again for everything", failure)

    def close(self) -> None:
        self._watch.close()

    def stats(self) -> dict[str, int]:
        """Of the threads, runs and lists that the kernel holds: which a watch follows and which not."""
        return {"followed": len(self.followed), "not_followed": len(self._holders) - len(self.followed)}

    # ── What the kernel holds ───────────────────────────────────────────────────────────────────────

    def hold(self, inode: Inode) -> None:
        """The kernel holds this inode now: changes of what it shows are followed from now on.

        Raises:
            WouldWait: as a store does, having changed nothing.
        """
        scope = inode.node.scope
        if inode.is_followed or scope is None:
            return
        if not waiting.is_refused():
            # This brings the directories into memory, so that the lock is not held while a disk is read.
            self._watch.follow(scope)
        with self._lock:
            if scope not in self._holders and self._watch.follow(scope):
                self.followed.add(scope)
            self._holders[scope] += not inode.is_followed
            inode.is_followed = True

    def release(self, inode: Inode) -> None:
        """The kernel has forgotten this inode."""
        scope = inode.node.scope
        if not inode.is_followed or scope is None:
            return
        inode.is_followed = False
        with self._lock:
            self._holders[scope] -= 1
            if not self._holders[scope]:
                del self._holders[scope]
                self._watch.forget(scope)
                self.followed.discard(scope)

    # ── What could not be followed ──────────────────────────────────────────────────────────────────

    def begin_again(self) -> None:
        """Changes may have been missed: all is followed anew, also what could not be followed before."""
        self.followed.clear()
        for scope in list(self._holders):
            self._follow_held(scope)

    async def keep_trying(self) -> None:
        """Tries again, for as long as the mount lives, what could not be followed."""
        while True:
            await trio.sleep(TRIES_AGAIN_S)
            if len(self.followed) < len(self._holders):
                try:
                    await in_thread(self.try_again)
                except Exception:
                    log.exception("what cannot be followed could not be tried again")

    def try_again(self) -> None:
        if isinstance(self._watch, NoWatch):
            if self._begin_to_watch() is not None:
                return
            self._store.index_runs()
            self._on_change(Change(Part.EVERYTHING))  # On which it begins again.
        else:
            self._follow_more()
        if self.lack and ALL_THREADS in self.followed:
            log.info("changes by other programs are followed from now on")
            self.lack = ""

    def _follow_more(self) -> None:
        failures = 0
        for scope in list(self._holders):
            if scope not in self.followed and failures < _MAX_FAILURES:
                self._follow_held(scope)
                failures += scope not in self.followed
                if scope == ALL_THREADS and scope in self.followed:
                    self._on_change(Change(Part.EVERYTHING))
                    return

    def _follow_held(self, scope: DocumentKey) -> None:
        with suppress(StorageFailed, OSError):  # It has gone, or may not be read.
            self._watch.follow(scope)  # As in `hold`.
            with self._lock:
                if scope not in self._holders:
                    self._watch.forget(scope)
                elif self._watch.follow(scope):
                    self.followed.add(scope)

    def _begin_to_watch(self) -> StorageFailed | None:
        """Why there is no watch, if so."""
        try:
            watch = self._store.watch(self._on_change)
        except StorageFailed as error:
            return error
        with self._lock:
            self._watch = watch
        return None


def _reason(failure: StorageFailed) -> str:
    if failure.errno == errno.EMFILE:
        return "no inotify instance is left (fs.inotify.max_user_instances)"
    return f"there is no watch ({failure})"
