"""Threads that were deleted here, and of which a catalogue still has the words.

A catalogue keeps no text, and the words of a message can only be taken out with its text. So the log of a
thread that is deleted is kept open until that is done, at once and by a thread of its own: who deletes does
not wait for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from store.api import LogReader
from store.catalogue.tables import Busy
from store.errors import StorageFailed
from store.printing import printable

log = logging.getLogger("threadfs")

# Of no more threads the log is kept open.
_MAX_OPEN: Final = 200
# How long the end of the work is waited for.
_ENDS_S: Final = 1.0
# How often it is tried, and how long between, while other processes write.
_ATTEMPTS: Final = 100
_PAUSE_S: Final = 0.05


class _Deleted(NamedTuple):
    thread_id: str
    log: LogReader


class Deletions:
    """*work* calls `forget`, in a thread of its own, and may raise Busy and StorageFailed."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        # Guards what follows; nothing is waited for while it is held.
        self._lock = threading.Lock()
        self._waiting: deque[_Deleted] = deque()
        self._thread: threading.Thread | None = None
        self._ends_s = float("inf")

    def add(self, thread_id: str, log: LogReader) -> None:
        """A thread that was deleted. Beyond some, its words stay until the catalogue is made anew."""
        with self._lock:
            if len(self._waiting) >= _MAX_OPEN:
                log.close()
                return
            self._waiting.append(_Deleted(thread_id, log))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="forget", daemon=True)
                self._thread.start()

    def forget(self, forget: Callable[[str, LogReader], None]) -> None:
        """Calls *forget* with each thread that waits. To be called by one thread at a time.

        Raises:
            Busy: *forget* does; that thread goes on to wait.
        """
        while deleted := self._next():
            try:
                forget(*deleted)
            except StorageFailed as error:
                log.info("words of a deleted thread stay in the catalogue: %s", printable(str(error)))
            self._done(deleted)

    def close(self) -> None:
        """Returns when all are taken out, or a moment has passed."""
        with self._lock:
            self._ends_s = time.monotonic() + _ENDS_S
            thread = self._thread
        if thread is not None:
            thread.join(2 * _ENDS_S)

    def _run(self) -> None:
        attempts = 0
        while deleted := self._next(is_last=True):
            try:
                self._work()
                attempts = 0
            except Busy:
                attempts += 1
                if attempts < _ATTEMPTS and time.monotonic() < self._ends_s:
                    time.sleep(_PAUSE_S)
                else:
                    self._done(deleted)
            except StorageFailed:  # There is no catalogue, then.
                self._done(deleted)

    def _next(self, *, is_last: bool = False) -> _Deleted | None:
        """*is_last*: the thread ends if there is none."""
        with self._lock:
            if self._waiting:
                return self._waiting[0]
            if is_last:
                self._thread = None
            return None

    def _done(self, deleted: _Deleted) -> None:
        with self._lock:
            if not self._waiting or self._waiting[0] is not deleted:
                return
            self._waiting.popleft()
        deleted.log.close()
