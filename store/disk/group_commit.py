"""One sync for what several threads of this process have appended to one log."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from store.disk.system_calls import SystemCalls


@dataclass(slots=True)
class _Log:
    syncing: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    # How many appends were written, and how many of them are known to be on disk.
    written: int = 0
    synced: int = 0


class GroupCommit:
    def __init__(self, calls: SystemCalls) -> None:
        self._calls = calls
        self._lock = threading.Lock()
        self._logs: dict[int, _Log] = {}

    def sync(self, file: int, inode: int) -> None:
        """Returns when what the caller has written to *file* is on disk.

        While one thread syncs, the others write; the next of them then syncs for all. When that fails,
        each of the others tries for itself, and is told by the disk.
        """
        with self._lock:
            log = self._logs.get(inode)
            if log is None:
                log = self._logs[inode] = _Log()
            log.users += 1
            log.written += 1
            ours = log.written
        try:
            with log.syncing:
                if log.synced < ours:
                    written = log.written
                    self._calls.sync(file)
                    log.synced = written
        finally:
            with self._lock:
                log.users -= 1
                if not log.users:  # An open file keeps its inode number for itself.
                    del self._logs[inode]
