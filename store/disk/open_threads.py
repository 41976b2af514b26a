"""Threads that are being changed: their directories, locked for each change, and their logs.

The lock is an exclusive ``flock`` on the directory. It works between processes, leaves no file, and dies with
its holder. Threads of this process share an open directory, and exclude one another by a lock in memory.
Readers take no lock.

An open thread stays open for a moment, since the next change is often to the same one, and a look whether it
still has its name costs less than to open it. It is closed soon: an open file keeps its disk from being
unmounted, and a deleted file on the disk. On a remote disk nothing stays open: there a name may be looked up
anew only when it is opened.

Source: https://man7.org/linux/man-pages/man2/flock.2.html
"""

from __future__ import annotations

import _thread
import fcntl
import math
import os
import resource
import threading
import time
import weakref
from contextlib import suppress

from store.disk import paths
from store.disk.appending import OpenLog
from store.disk.paths import storage_errors
from store.errors import ThreadNotFound
from store.waiting import waits

KEPT_S = 0.3


def _most_kept() -> int:
    """So many that nearly all descriptors are left to other code; each open thread takes two."""
    soft_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 64 if soft_limit == resource.RLIM_INFINITY else min(64, soft_limit // 32)


# Guards the tables of all stores; held while the process forks.
_lock = threading.Lock()


class OpenThread:
    """An open thread; ``directory`` is its descriptor, ``inode`` its number."""

    __slots__ = (
        "_device",
        "_exclusive",
        "_path",
        "directory",
        "inode",
        "is_shared",
        "log",
        "thread_id",
        "used_s",
        "users",
    )

    def __init__(self, root: str, thread_id: str) -> None:
        """Raises ThreadNotFound when there is no such directory."""
        directory = paths.open_directory(root, thread_id)
        if directory is None:
            raise ThreadNotFound(thread_id)
        try:
            with storage_errors(thread_id):
                status = os.fstat(directory)
        except BaseException:
            os.close(directory)
            raise
        self.thread_id = thread_id
        self.directory = directory
        self.inode = status.st_ino
        self._device = status.st_dev
        self._path = f"{root}/{thread_id}"
        self.log: OpenLog | None = None
        self._exclusive = threading.Lock()
        self.users = 0
        self.used_s = 0.0
        # With a forked process, which our lock would not exclude, and which would hold on to our lock.
        self.is_shared = False

    def lock(self) -> None:
        self._exclusive.acquire()
        try:
            with storage_errors(f"lock of {self.thread_id}"):
                fcntl.flock(self.directory, fcntl.LOCK_EX)
        except BaseException:
            self._exclusive.release()
            raise

    def unlock(self) -> None:
        try:
            with storage_errors(f"lock of {self.thread_id}"):
                # Explicitly: a process that was forked meanwhile may have the directory open.
                fcntl.flock(self.directory, fcntl.LOCK_UN)
        finally:
            self._exclusive.release()

    def is_current(self) -> bool:
        """Whether the directory and the log still have their names, and no sync of the log has failed."""
        if self.is_shared:
            return False
        try:
            named = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return False
        if named.st_ino != self.inode or named.st_dev != self._device:
            return False
        return self.log is None or self.log.is_current(self.directory)

    def close(self) -> None:
        for descriptor in (self.directory, *([self.log.file] if self.log is not None else [])):
            with suppress(OSError):  # All writes are synced by now.
                os.close(descriptor)


class OpenThreads:
    """The threads of a store that are being changed, or were a moment ago."""

    def __init__(self, root: str) -> None:
        self._root = root
        # Whether unused threads stay open for a moment.
        self.keeps = True
        self._most = _most_kept()
        # In the order of their last use.
        self._open: dict[str, OpenThread] = {}
        self._forks = 0
        self._is_closing_idle = False
        with _lock:
            _all.add(self)

    def take(self, thread_id: str) -> OpenThread:
        """The thread, to be given back. Raises ThreadNotFound."""
        while True:
            with _lock:
                forks = self._forks
                if (found := self._open.get(thread_id)) is not None:
                    found.users += 1
                    return found
            opened = OpenThread(self._root, thread_id)
            surplus = [opened]
            with _lock:
                if is_ours := forks == self._forks and thread_id not in self._open:
                    opened.users = 1
                    self._open[thread_id] = opened
                    surplus = self._idle()[: max(0, len(self._open) - self._most)]
                    self._drop(surplus)
            for thread in surplus:
                thread.close()
            if is_ours:
                return opened

    def give_back(self, thread: OpenThread) -> None:
        with _lock:
            thread.users -= 1
            thread.used_s = time.monotonic()
            is_kept = self._open.get(thread.thread_id) is thread
            if is_kept:
                del self._open[thread.thread_id]
                is_kept = self.keeps or thread.users > 0
            if is_kept:
                self._open[thread.thread_id] = thread
            closes = not is_kept and not thread.users
            starts = is_kept and not self._is_closing_idle
            self._is_closing_idle |= starts
        if closes:
            thread.close()
        if starts:
            self._close_soon()

    def _close_soon(self) -> None:
        try:
            # With `threading` the caller would wait until the new thread runs: a tenth of a synced change,
            # and for ever when this process is about to exit.
            _thread.start_new_thread(self._close_idle, ())
        except RuntimeError:  # There are too many threads.
            self._is_closing_idle = False
            self.close()

    def forget(self, thread: OpenThread) -> None:
        """Drops a thread that is no longer current. It is closed when all its users have given it back."""
        with _lock:
            if self._open.get(thread.thread_id) is thread:
                del self._open[thread.thread_id]

    def _idle(self, until_s: float = math.inf) -> list[OpenThread]:
        return [thread for thread in self._open.values() if not thread.users and thread.used_s <= until_s]

    def _drop(self, threads: list[OpenThread]) -> None:
        for thread in threads:
            del self._open[thread.thread_id]

    def _close_idle(self) -> None:
        pause_s: float | None = KEPT_S
        while pause_s is not None:
            time.sleep(pause_s)
            with _lock:
                now_s = time.monotonic()
                due = self._idle(now_s - KEPT_S)
                self._drop(due)
                oldest_s = min((thread.used_s for thread in self._idle()), default=now_s)
                pause_s = oldest_s + KEPT_S - now_s if self._open else None
                self._is_closing_idle = pause_s is not None
            for thread in due:
                thread.close()

    def close(self) -> None:
        """Closes unused threads."""
        with _lock:
            idle = self._idle()
            self._drop(idle)
        for thread in idle:
            thread.close()

    # ── Forking ─────────────────────────────────────────────────────────────────────────────────────

    def before_fork(self) -> None:
        """Drops all open threads, which the new process would share."""
        self._forks += 1
        for thread in self._open.values():
            thread.is_shared = True
        idle = self._idle()
        self._open = {}
        for thread in idle:
            thread.close()

    def after_fork_in_child(self) -> None:
        self._is_closing_idle = False


_all: weakref.WeakSet[OpenThreads] = weakref.WeakSet()


def _before_fork() -> None:
    _lock.acquire()
    for threads in _all:
        threads.before_fork()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    for threads in _all:
        threads.after_fork_in_child()


os.register_at_fork(
    before=_before_fork, after_in_parent=lambda: _lock.release(), after_in_child=_after_fork_in_child
)


class locked_thread:
    """A thread that is open and locked in a block.

    Raises:
        ThreadNotFound: there is no such directory.
    """

    __slots__ = ("_is_locked", "_thread", "_thread_id", "_threads")

    def __init__(self, threads: OpenThreads, thread_id: str) -> None:
        self._threads = threads
        self._thread_id = thread_id

    def __enter__(self) -> OpenThread:
        waits()
        while (thread := self._locked()) is None:
            pass  # It was deleted, and perhaps another made, while we waited.
        self._thread, self._is_locked = thread, True
        return thread

    def _locked(self) -> OpenThread | None:
        thread = self._threads.take(self._thread_id)
        is_current = False
        try:
            thread.lock()
            try:
                is_current = thread.is_current()
            finally:
                if not is_current:
                    thread.unlock()
        finally:
            if not is_current:
                self._threads.forget(thread)
                self._threads.give_back(thread)
        return thread if is_current else None

    def unlock(self) -> None:
        """Unlocks before the end of the block, for work that needs the open thread and not its lock."""
        self._is_locked = False
        self._thread.unlock()

    def __exit__(self, *error: object) -> None:
        try:
            if self._is_locked:
                self._thread.unlock()
        finally:
            self._threads.give_back(self._thread)
