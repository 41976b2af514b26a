"""Threads that are changed: their directories, locked for each change, and the logs that are appended to.

The lock is an exclusive ``flock`` on the directory. It works between processes, leaves no file, and dies with
its holder. Threads of this process share an open directory, and wait for one another at a lock of their own.
Readers take none.

What is open stays so for a moment, since the next change is often one to the same thread, and to look whether
it still has its name costs less than to open it. No longer: an open file keeps its disk from being unmounted,
and keeps the space of a deleted one.
"""

from __future__ import annotations

import fcntl
import os
import resource
import threading
import time
import weakref

from store.disk import directories
from store.disk.appending import OpenLog
from store.disk.directories import storage_errors
from store.errors import ThreadNotFound
from store.waiting import waits

KEPT_S = 0.3


def _most_kept() -> int:
    """As many as leave nearly all descriptors to others; each takes two."""
    soft_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 64 if soft_limit == resource.RLIM_INFINITY else min(64, soft_limit // 32)


class OpenThread:
    """An open thread; ``directory`` is its descriptor, ``inode`` its number."""

    __slots__ = ("_device", "_path", "directory", "exclusive", "inode", "log", "thread_id", "used_s", "users")

    def __init__(self, root: str, thread_id: str) -> None:
        """Raises ThreadNotFound when there is no such directory."""
        directory = directories.open_directory(root, thread_id)
        if directory is None:
            raise ThreadNotFound(thread_id)
        status = os.fstat(directory)
        self.thread_id = thread_id
        self.directory = directory
        self.inode = status.st_ino
        self._device = status.st_dev
        self._path = f"{root}/{thread_id}"
        self.log: OpenLog | None = None
        self.exclusive = threading.Lock()
        self.users = 0
        self.used_s = 0.0

    def lock(self) -> None:
        self.exclusive.acquire()
        try:
            with storage_errors(f"lock of {self.thread_id}"):
                fcntl.flock(self.directory, fcntl.LOCK_EX)
        except BaseException:
            self.exclusive.release()
            raise

    def unlock(self) -> None:
        # Explicitly: a process that was forked meanwhile may still have the directory open.
        fcntl.flock(self.directory, fcntl.LOCK_UN)
        self.exclusive.release()

    def is_still_there(self) -> bool:
        """Whether what is open still has its name, and nothing else has it."""
        try:
            named = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return False
        if named.st_ino != self.inode or named.st_dev != self._device:
            return False
        return self.log is None or self.log.is_in(self.directory)

    def close(self) -> None:
        if self.log is not None:
            self.log.close()
        os.close(self.directory)


class OpenThreads:
    """The threads of a store that are being changed, or were a moment ago."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._most = _most_kept()
        self._lock = threading.Lock()
        self._open: dict[str, OpenThread] = {}
        self._is_closing_idle = False
        _all.add(self)

    def take(self, thread_id: str) -> OpenThread:
        """The thread, to be given back. Raises ThreadNotFound."""
        with self._lock:
            found = self._open.get(thread_id)
            if found is not None:
                found.users += 1
                return found
        opened = OpenThread(self._root, thread_id)
        with self._lock:
            found = self._open.setdefault(thread_id, opened)
            found.users += 1
            surplus = self._take_idle(at_most=max(0, len(self._open) - self._most))
        if found is not opened:
            surplus.append(opened)
        for thread in surplus:
            thread.close()
        return found

    def give_back(self, thread: OpenThread) -> None:
        with self._lock:
            thread.users -= 1
            thread.used_s = time.monotonic()
            is_kept = self._open.get(thread.thread_id) is thread
            starts = is_kept and not self._is_closing_idle
            self._is_closing_idle |= starts
        if not is_kept and not thread.users:
            thread.close()
        if starts:
            try:
                threading.Thread(target=self._close_idle, name="idle threads", daemon=True).start()
            except RuntimeError:  # Too many, or the program is ending: the next one tries again.
                self._is_closing_idle = False

    def forget(self, thread: OpenThread) -> None:
        """It has gone, or what is known of it may be wrong. Closed when all its users have given it back."""
        with self._lock:
            if self._open.get(thread.thread_id) is thread:
                del self._open[thread.thread_id]

    def _take_idle(self, idle_s: float = 0.0, at_most: int | None = None) -> list[OpenThread]:
        """Those that nobody has used for *idle_s* seconds, for the caller to close."""
        latest_s = time.monotonic() - idle_s
        idle = [thread for thread in self._open.values() if not thread.users and thread.used_s <= latest_s]
        for thread in idle[:at_most]:
            del self._open[thread.thread_id]
        return idle[:at_most]

    def _close_idle(self) -> None:
        is_needed = True
        while is_needed:
            time.sleep(KEPT_S)
            with self._lock:
                idle = self._take_idle(KEPT_S)
                is_needed = self._is_closing_idle = bool(self._open)
            for thread in idle:
                thread.close()

    def close(self) -> None:
        """Closes what nobody is using."""
        with self._lock:
            idle = self._take_idle()
        for thread in idle:
            thread.close()

    def after_fork(self) -> None:
        """Lets the parent have what it has open: who shares an open directory is not kept out by its lock."""
        self._lock = threading.Lock()
        self._is_closing_idle = False
        idle = self._take_idle()
        self._open = {}
        for thread in idle:
            thread.close()


_all: weakref.WeakSet[OpenThreads] = weakref.WeakSet()


def _after_fork() -> None:
    for threads in _all:
        threads.after_fork()


os.register_at_fork(after_in_child=_after_fork)


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
        while True:
            thread = self._threads.take(self._thread_id)
            try:
                thread.lock()
                # It may have been deleted, and another made, while we waited.
                if thread.is_still_there():
                    self._thread, self._is_locked = thread, True
                    return thread
                thread.unlock()
            except BaseException:
                self._threads.give_back(thread)
                raise
            self._threads.forget(thread)
            self._threads.give_back(thread)

    def unlock(self) -> None:
        """Before the end of the block, for what needs the open thread and not its lock."""
        self._is_locked = False
        self._thread.unlock()

    def __exit__(self, kind: object, *error: object) -> None:
        if self._is_locked:
            self._thread.unlock()
        if kind is not None:
            self._threads.forget(self._thread)
        self._threads.give_back(self._thread)
