"""A lock that goes to who has waited longest, so that one who works in slices keeps nobody waiting."""

from __future__ import annotations

import threading
from collections import deque


class Turns:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Who has it, and then who waits for it.
        self._queue: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        self.take()

    def __exit__(self, *error: object) -> None:
        self.give_back()

    def take(self, within_s: float | None = None) -> bool:
        """False if others had it all the time."""
        mine = threading.Event()
        with self._lock:
            self._queue.append(mine)
            if len(self._queue) == 1:
                return True
        if mine.wait(within_s):
            return True
        with self._lock:
            if mine is not self._queue[0]:
                self._queue.remove(mine)
                return False
        return True  # It came just now.

    def give_back(self) -> None:
        with self._lock:
            self._queue.popleft()
            if self._queue:
                self._queue[0].set()
