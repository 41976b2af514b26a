"""The counters of a mount, and its last refusals in words."""

from __future__ import annotations

import errno
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from store.printing import printable

log = logging.getLogger("threadfs")

MAX_ERRORS = 1000


class Journal:
    """Counters and errors of one mount."""

    def __init__(self, commits: Callable[[], int] = lambda: 0) -> None:
        """*commits* tells how many changes have reached the store."""
        self._commits = commits
        self.started_ns = time.time_ns()
        self.changed_ns = self.started_ns
        self._started_s = time.monotonic()
        self.counters: Counter[str] = Counter()
        # More lines of ``stats``: numbers of things that exist now.
        self.gauges: Callable[[], dict[str, int]] = dict
        # And of options of the mount that no other program can see: 1 for one that was given.
        self.options: dict[str, int] = {}
        self._errors: deque[bytes] = deque(maxlen=MAX_ERRORS)
        self._cancelled: set[tuple[str, str]] = set()

    def refused(self, path: str, code: int, reason: str) -> None:
        """Notes a refused or failed operation, for ``.threadfs/errors`` and the log."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        name = errno.errorcode.get(code, str(code))
        line = "\t".join((now, printable(path), name, printable(reason)))
        self._errors.append(line.encode(errors="replace") + b"\n")
        self.changed_ns = time.time_ns()
        self.counters["refusals"] += 1
        log.info("%s: %s: %s", printable(path), name, printable(reason))

    def cancelled(self, thread_id: str, run_id: str) -> None:
        """Notes a run that this mount has cancelled, to notice if another program overwrites that."""
        self._cancelled.add((thread_id, run_id))

    def forget_thread(self, thread_id: str, run_id: str | None = None) -> None:
        """A thread, or a run of it, was removed or replaced."""
        gone = {key for key in self._cancelled if key[0] == thread_id and run_id in (None, key[1])}
        self._cancelled -= gone

    def was_cancelled(self, thread_id: str, run_id: str) -> bool:
        return (thread_id, run_id) in self._cancelled

    def saw_status(self, thread_id: str, run_id: str, status: str) -> None:
        """Reports once if a run that was cancelled here has another status. It does not cancel it again."""
        if status != "cancelled" and self.was_cancelled(thread_id, run_id):
            self._cancelled.discard((thread_id, run_id))
            reason = f"another program overwrote the cancel: the run is {status}"
            self.refused(f"threads/{thread_id}/runs/{run_id}/cancel", errno.ECANCELED, reason)

    def errors(self) -> bytes:
        return b"".join(self._errors)

    def stats(self, more: Mapping[str, int]) -> bytes:
        """The lines of ``stats``, with *more* numbers."""
        names = ("operations", "refusals", "commits", "cache_hits", "read_bytes", "written_bytes")
        counted = {**self.counters, "commits": self._commits()}
        lines = [f"{name} {counted.get(name, 0)}" for name in names]
        lines += [f"{name} {value}" for name, value in {**self.options, **self.gauges(), **more}.items()]
        lines.append(f"uptime_seconds {int(time.monotonic() - self._started_s)}")
        return ("\n".join(lines) + "\n").encode()
