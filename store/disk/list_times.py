"""When the lists of threads, and of runs by status, last changed.

A list is compared with what it was when it was last asked for. If it is another one, it changed when the last
change of lists was heard of, or else now.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Iterable, Iterator
from typing import Protocol

from store.api import StatusOfRun
from store.changes import Change, Part
from store.statuses import RunStatus

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
        # What each list was, and when that was; and the version of what a caller made it of.
        self._seen: dict[RunStatus | None, int] = {}
        self._seen_ns: dict[RunStatus | None, int] = {}
        self.version: dict[RunStatus, Hashable] = {}
        # When a change of any list was last heard of.
        self._heard_ns = 0

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
        if _is_of_lists(change):
            self.note_all()

    def heard(self, change: Change) -> None:
        """A change of lists that are compared when they are asked for."""
        if not _is_of_lists(change):
            return
        self._heard_ns = time.time_ns()
        if change.part is Part.THREADS:
            self.note(None)  # It may have gone and come again before that.
        elif change.part is Part.EVERYTHING:
            self.note_all()

    def look(self, status: RunStatus | None, lists: Lists) -> None:
        """Compares a list that nobody reports."""
        thread_ids = lists.list_thread_ids()
        if status is None:
            self.compare(None, thread_ids)
        elif len(thread_ids) <= _FEW:
            runs = [found[:2] for thread in thread_ids for found in lists.scan(thread) if found[2] is status]
            self.compare(status, runs)

    def compare(self, status: RunStatus | None, names: Iterable[Hashable]) -> None:
        """Notes a change of the list if its names are not those of the last time."""
        now_ns, seen = time.time_ns(), hash(frozenset(names))
        with self._lock:
            is_heard = self._heard_ns > self._seen_ns.get(status, 0)
            if self._seen[status] != seen if status in self._seen else is_heard:
                changed_ns = self._heard_ns if is_heard else now_ns
                self._changed_ns[status] = max(changed_ns, self._changed_ns[status] + 1)
            self._seen[status], self._seen_ns[status] = seen, now_ns


def _is_of_lists(change: Change) -> bool:
    return change.part in (Part.THREADS, Part.RUNS, Part.EVERYTHING) or (
        change.part is Part.DOCUMENT and change.run_id is not None and not change.step_id
    )
