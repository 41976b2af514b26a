"""When the lists of threads, and of runs by status, last changed.

Changes that the watch reports are noted as they happen. A list without a watch is compared with the one that
was read at the last request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Hashable, Iterator
from typing import Protocol

from store.api import StatusOfRun
from store.changes import Change, Part
from store.models import RunStatus

# The runs of at most so many threads are read to know whether a list has changed.
_FEW = 100


class Lists(Protocol):
    """The store whose lists are compared."""

    def list_thread_ids(self) -> list[str]: ...
    def scan(self, thread_id: str) -> Iterator[StatusOfRun]: ...


class ListTimes:
    """In nanoseconds since 1970. ``None`` stands for the list of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        now_ns = time.time_ns()
        self._changed_ns: dict[RunStatus | None, int] = {None: now_ns, **dict.fromkeys(RunStatus, now_ns)}
        self._seen: dict[RunStatus | None, int] = {}

    def of(self, status: RunStatus | None) -> int:
        return self._changed_ns[status]

    def note(self, *lists: RunStatus | None) -> None:
        """These lists changed: each gets a later time than before."""
        with self._lock:
            for status in lists:
                self._changed_ns[status] = max(time.time_ns(), self._changed_ns[status] + 1)

    def note_all(self) -> None:
        """Any list may have changed."""
        self.note(*self._changed_ns)

    def changed(self, change: Change) -> None:
        """Notes what a change may concern, as long as nobody compares."""
        if change.part in (Part.THREADS, Part.RUNS, Part.EVERYTHING) or (
            change.part is Part.DOCUMENT and change.run_id and not change.step_id
        ):
            self.note_all()

    def look(self, status: RunStatus | None, unheard: Collection[str] | None, lists: Lists) -> None:
        """Compares lists without a watch: the runs of the threads *unheard*, or with ``None`` everything."""
        if unheard is None:
            unheard = lists.list_thread_ids()
            if status is None:
                self._compare(None, unheard)
        if status is not None and 0 < len(unheard) <= _FEW:
            runs = [found[:2] for thread in unheard for found in lists.scan(thread) if found[2] is status]
            self._compare(status, runs)

    def _compare(self, status: RunStatus | None, names: Collection[Hashable]) -> None:
        """Notes a change of the list if its names are not those of the last time."""
        seen = hash(frozenset(names))
        if self._seen.get(status, seen) != seen:
            self.note(status)
        self._seen[status] = seen
