"""The lines of the events of a mount: the last ones are kept, and who reads on misses none."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from typing import Final

# At least so many lines are kept, and at most about twice as many.
KEPT_LINES: Final = 10_000


class KeptLines:
    """Lines that are added at the end. A place in them is the number of bytes before, since the beginning.

    Old lines are dropped many at a time. An *edition* begins with the oldest line that is kept then: whoever
    has opened one goes on with it, and its places stay what they are.
    """

    def __init__(self, kept_lines: int = KEPT_LINES) -> None:
        self._kept_lines = kept_lines
        self._lock = threading.Lock()
        # Where each line that is kept begins, oldest first.
        self._begins: list[int] = []
        self._lines: list[bytes] = []
        # How many lines there were, and when the last one came, in nanoseconds since 1970.
        self.count = 0
        self.end = 0
        self.changed_ns = time.time_ns()

    @property
    def beginning(self) -> int:
        """Where the edition begins that is opened now."""
        with self._lock:
            return self._begins[0] if self._begins else self.end

    def add(self, line: bytes) -> None:
        """Adds a line, which ends with a newline."""
        with self._lock:
            if len(self._lines) >= 2 * self._kept_lines:
                del self._lines[: self._kept_lines], self._begins[: self._kept_lines]
            self._begins.append(self.end)
            self._lines.append(line)
            self.end += len(line)
            self.count += 1
            self.changed_ns = time.time_ns()

    def read(self, place: int, size: int) -> bytes:
        """At most *size* bytes; lines that are not kept any more read as empty ones."""
        with self._lock:
            size = min(size, self.end - place)
            if size <= 0:
                return b""
            first = self._begins[0]
            if place < first:
                return b"\n" * min(size, first - place)
            number = bisect_right(self._begins, place) - 1
            skipped = place - self._begins[number]
            pieces, missing = [], skipped + size
            while missing > 0:
                pieces.append(self._lines[number][:missing])
                missing -= len(pieces[-1])
                number += 1
            return b"".join(pieces)[skipped:]
