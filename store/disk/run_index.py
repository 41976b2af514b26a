"""Every run by its status, in memory, kept current by a watch.

To find the few queued runs in a store of a million, all of them would have to be read. The index reads each
run once, in the background, and from then on only the runs that the watch reports. A request that comes
before the index is complete completes it, so the answer is right at any time.

Watches are few. A thread whose runs cannot be watched is not in the index, and is read at each request. A run
that has ended is watched only while many watches are left. Without a watch, a forced change by another
program is seen when the thread's list of runs changes, or in the run itself.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Protocol

from store.api import DocumentKey, StatusOfRun, Times
from store.changes import Announcer, Change, Part
from store.disk import thread_times
from store.disk.layout import RUNS
from store.disk.list_times import ListTimes
from store.disk.run_table import RunTable
from store.disk.watching import DiskWatch
from store.errors import Damaged, NotFound, StorageFailed
from store.models import RunStatus
from store.waiting import waits

log = logging.getLogger("threadfs")

# In the background the index is built in slices of this length, with pauses for others to work.
_SLICE_S = 0.005
_PAUSE_S = 0.01
# Once it is complete, changes are collected for so long. A request in between does not wait for that.
_SETTLES_S = 0.25
# Ended runs change only by force, and a watch costs about 400 bytes, and 1,000 in the kernel.
_MAX_ENDED = 20_000
# At most so many threads are read for a request that needs only a time.
_FEW = 100
_MAX_WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")


class Runs(Protocol):
    """The store whose runs are indexed."""

    root: str
    announcer: Announcer

    def follower(self) -> DiskWatch: ...
    def list_thread_ids(self) -> list[str]: ...
    def list_run_ids(self, thread_id: str) -> list[str]: ...
    def status_of(self, thread_id: str, run_id: str) -> RunStatus: ...
    def scan(self, thread_id: str) -> Iterator[StatusOfRun]: ...


class RunIndex:
    def __init__(self, runs: Runs, max_watches: int | None = None, lists: ListTimes | None = None) -> None:
        """By default it takes two thirds of the user's watches: other programs need some, too.

        Raises:
            OSError: the store cannot be watched.
        """
        self._runs = runs
        # Held while something is read from the disk.
        self._catching_up = threading.Lock()
        # How many reads there were.
        self._reads = 0
        self._table = RunTable()
        self._unwatched: set[str] = set()
        # Guards the sets of what has changed since it was indexed.
        self._noting = threading.Lock()
        self._threads_are_stale = True
        self._hears_of_threads = True
        self._stale_threads: dict[str, None] = {}
        self._stale_runs: dict[tuple[str, str], None] = {}
        self._came = threading.Event()
        self._closing = threading.Event()
        self._max_watches = int(_MAX_WATCHES.read_text()) * 2 // 3 if max_watches is None else max_watches
        # Ended runs that are watched, oldest first.
        self._ended: dict[tuple[str, str], None] = {}
        # The times of threads that are wholly followed; the threads with a run that is not followed; the
        # threads with a run that cannot be read, and is in no list; and how many changes were noted.
        self._times: dict[str, Times] = {}
        self._partly: set[str] = set()
        self._damaged: set[str] = set()
        self.changes_heard = 0
        self._lists = lists or ListTimes()
        self._lists.note_all()  # Earlier changes were not noted.
        # The threads that were there at first and have not been read yet; their runs are unknown.
        self._unread: set[str] | None = None
        self._watch = runs.follower()
        if error := self._watch.start():
            self._watch.close()
            raise error
        runs.announcer.first = self.changed
        self._came.set()
        self._builder = threading.Thread(target=self._build, name="index runs", daemon=True)
        self._builder.start()

    def close(self) -> None:
        self._closing.set()
        self._came.set()
        self._builder.join()
        self._runs.announcer.first = self._lists.changed
        self._watch.close()

    # ── Changes ─────────────────────────────────────────────────────────────────────────────────────

    def _may_have_changed(self, thread_id: str, run_id: str | None = None) -> None:
        if self._unread is None or self._unread:
            self._lists.note_all()  # Some earlier states are unknown.
        with self._noting:
            self._touched(thread_id)
            if run_id is None:
                self._stale_threads[thread_id] = None
            else:
                self._stale_runs[thread_id, run_id] = None
        self._came.set()

    def _touched(self, thread_id: str) -> None:
        self.changes_heard += 1
        self._times.pop(thread_id, None)

    def changed(self, change: Change) -> None:
        with self._noting:
            self._touched(change.thread_id)
        if change.part is Part.EVERYTHING:
            with self._noting:
                self._threads_are_stale = True
                self._stale_threads.update(dict.fromkeys(self._table.of_thread))
                self._times.clear()
            self._came.set()
        elif change.part is Part.THREADS:
            if change.is_own:  # It may have gone and come again before it is read.
                self._lists.note(None)
            self._may_have_changed(change.thread_id)
        elif change.part is Part.RUNS and change.run_id is None:
            self._may_have_changed(change.thread_id)
        elif change.part in (Part.RUNS, Part.DOCUMENT) and change.run_id and not change.step_id:
            self._may_have_changed(change.thread_id, change.run_id)
        elif change.part is Part.DOCUMENT and not (
            change.is_own or change.thread_id in self._table.of_thread
        ):
            self._may_have_changed(change.thread_id)  # Its document makes a directory a thread.

    # ── Catching up ─────────────────────────────────────────────────────────────────────────────────

    def _build(self) -> None:
        while not self._closing.is_set():
            try:
                is_complete = self.catch_up(_SLICE_S)
            except StorageFailed:
                is_complete = True  # As far as possible. The next request tries again, and raises it.
            except Exception:
                log.exception("the index of runs has failed: the next request tries again")
                is_complete = True
            if is_complete and not self._closing.is_set():
                self._came.wait()
            self._closing.wait(_SETTLES_S if is_complete else _PAUSE_S)

    def catch_up(self, for_s: float = float("inf")) -> bool:
        """Reads what has changed, for at most so many seconds; whether that was all."""
        ends = time.monotonic() + for_s
        with self._catching_up:
            while time.monotonic() < ends:
                if not self._read_next():
                    return True
        return False

    def _read_next(self) -> bool:
        self._reads += 1
        with self._noting:
            self._came.clear()
            threads_are_stale, self._threads_are_stale = self._threads_are_stale, False
            thread_id = next(iter(self._stale_threads), None)
            run = next(iter(self._stale_runs), None)
            if not threads_are_stale and run is not None:
                del self._stale_runs[run]
            elif not threads_are_stale and thread_id is not None:
                del self._stale_threads[thread_id]
        if threads_are_stale:
            self._read_threads()
        elif run is not None:
            before = self._listed(*run)
            self._read_run(*run)
            self._note_lists(before, self._listed(*run))
        elif thread_id is not None:
            before = self._listed(thread_id)
            self._read_thread(thread_id)
            if self._unread and thread_id in self._unread:
                self._unread.discard(thread_id)  # It is new here, not in the store.
            else:
                self._note_lists(before, self._listed(thread_id))
        else:
            return False
        return True

    def _listed(self, thread_id: str, run_id: str | None = None) -> set[tuple[str, RunStatus | None]]:
        """A thread and its runs, or one run, as entries of lists; ``None`` stands for the list of threads."""
        runs = self._table.of_thread.get(thread_id, {})
        if run_id is not None:
            return {(run_id, runs[run_id])} if run_id in runs else set()
        is_thread = thread_id in self._table.of_thread or thread_id in self._unwatched
        return {*runs.items(), ("", None)} if is_thread else set()

    def _note_lists(
        self, before: set[tuple[str, RunStatus | None]], after: set[tuple[str, RunStatus | None]]
    ) -> None:
        """Notes the lists that differ."""
        self._lists.note(*{status for _, status in before ^ after})

    def _read_threads(self) -> None:
        try:
            hears_again = not self._hears_of_threads
            self._hears_of_threads = False
            self._hears_of_threads = self._watch.follow(DocumentKey(""))
            found = self._runs.list_thread_ids()
        except StorageFailed:
            self._threads_are_stale = True
            raise
        if hears_again and self._hears_of_threads:
            self._runs.announcer.tell_others(Change(Part.EVERYTHING))  # They were not called, either.
        known = self._table.of_thread.keys() | self._unwatched
        if self._unread is None:
            self._unread = set(found)
        with self._noting:
            self._stale_threads.update(dict.fromkeys([*found, *(known - set(found))]))

    def _read_thread(self, thread_id: str) -> None:
        self._drop_thread(thread_id)
        key = DocumentKey(thread_id, "")
        try:
            if self._has_room() and self._watch.follow(key):
                self._read_all(thread_id)
                return
            self._watch.forget(key)
            self._unwatched.add(thread_id)
        except NotFound:
            self._drop_thread(thread_id)
            self._watch.forget(DocumentKey(thread_id))
            if not os.path.isdir(f"{self._runs.root}/{thread_id}"):
                self._watch.forget(key)  # Unless a directory is left that may become a thread.
        except StorageFailed:
            self._read_each_time(thread_id)

    def _read_all(self, thread_id: str) -> None:
        self._table.of_thread[thread_id] = {}
        # Its document and log are followed, too, while half of the watches are left.
        has_room = self._watch.in_use < self._max_watches // 2
        if not has_room or not self._watch.follow(DocumentKey(thread_id)):
            self._partly.add(thread_id)
        changes_heard = self.changes_heard
        for run_id in self._runs.list_run_ids(thread_id):
            self._read_run(thread_id, run_id)
        if thread_id not in self._partly:
            times = thread_times.thread_times(self._runs.root, thread_id)
            with self._noting:
                if times is not None and self.changes_heard == changes_heard:
                    self._times[thread_id] = times

    def _follow_run(self, thread_id: str, run_id: str) -> bool:
        keys = DocumentKey(thread_id, run_id), DocumentKey(thread_id, run_id, "")
        return all(self._watch.follow(key) for key in keys)

    def _forget_run(self, thread_id: str, run_id: str) -> None:
        self._watch.forget(DocumentKey(thread_id, run_id))
        self._watch.forget(DocumentKey(thread_id, run_id, ""))

    def _read_run(self, thread_id: str, run_id: str) -> None:
        if thread_id not in self._table.of_thread:
            return
        try:
            # Followed before it is read, so that no change is missed.
            may_be_ended = len(self._ended) < _MAX_ENDED and self._watch.in_use < self._max_watches
            is_watched = may_be_ended and self._follow_run(thread_id, run_id)
            status = self._status(thread_id, run_id)
            if status and not status.is_terminal and not is_watched and self._has_room():
                is_watched = self._follow_run(thread_id, run_id)
                status = self._status(thread_id, run_id)
        except StorageFailed:
            self._read_each_time(thread_id)
            return
        self._ended.pop((thread_id, run_id), None)
        if status and is_watched and status.is_terminal:
            self._ended[thread_id, run_id] = None
        if status and not is_watched:
            self._forget_run(thread_id, run_id)
            self._partly.add(thread_id)
            if not status.is_terminal:
                self._read_each_time(thread_id)
                return
        if status is None and not os.path.isdir(f"{self._runs.root}/{thread_id}/{RUNS}/{run_id}"):
            self._forget_run(thread_id, run_id)  # It went, and no directory is left that may become a run.
        self._table.set(thread_id, run_id, status)

    def _has_room(self) -> bool:
        """Whether a watch is left for a thread or for a run in progress; ended runs make room for these."""
        while self._watch.in_use >= self._max_watches and self._ended:
            ended = next(iter(self._ended))
            del self._ended[ended]
            self._forget_run(*ended)
            self._partly.add(ended[0])
            with self._noting:
                self._touched(ended[0])
            self._runs.announcer.tell_others(Change(Part.TIMES, ended[0]))  # They will not be called for it.
        return self._watch.in_use < self._max_watches

    def _status(self, thread_id: str, run_id: str) -> RunStatus | None:
        try:
            return self._runs.status_of(thread_id, run_id)
        except NotFound:
            return None
        except Damaged:
            # It is one of the thread's runs nevertheless.
            self._partly.add(thread_id)
            self._damaged.add(thread_id)
            return None

    def _read_each_time(self, thread_id: str) -> None:
        """Has a thread that cannot be watched, or cannot be read now, read at each request."""
        self._drop_thread(thread_id)
        self._unwatched.add(thread_id)

    def _drop_thread(self, thread_id: str) -> None:
        self._unwatched.discard(thread_id)
        self._partly.discard(thread_id)
        self._damaged.discard(thread_id)
        for run_id in list(self._table.of_thread.get(thread_id, ())):
            self._forget_run(thread_id, run_id)
            self._ended.pop((thread_id, run_id), None)
            self._table.set(thread_id, run_id, None)
        self._table.of_thread.pop(thread_id, None)

    def note_changes(self) -> Collection[str] | None:
        """Notes the lists that the watch reports as changed, without reading for long.

        Returns:
            The threads whose runs are not watched; ``None`` when the list of threads is not watched, either.
        """
        waits()
        self._watch.catch_up()
        if not self._threads_are_stale and len(self._stale_threads) <= _FEW:
            self.catch_up()
        return list(self._unwatched) if self._hears_of_threads else None

    # ── When a thread last changed ──────────────────────────────────────────────────────────────────────

    def follows_all_of(self, thread_id: str) -> bool:
        """Whether the watch reports each change of anything in the thread."""
        return thread_id not in self._partly and self._knows_runs_of(thread_id)

    def _knows_runs_of(self, thread_id: str) -> bool:
        is_current = not self._stale_runs and not self._threads_are_stale and not self._catching_up.locked()
        is_known = thread_id in self._table.of_thread and thread_id not in self._stale_threads
        return is_current and is_known and thread_id not in self._damaged

    def times(self, thread_id: str) -> Times | None:
        """When anything in the thread last changed, if that is known."""
        return self._times.get(thread_id)

    def remember_times(self, thread_id: str, times: Times, changes_heard: int) -> None:
        """Remembers *times*, which were read after *changes_heard* changes, unless there were more since."""
        with self._noting:
            if self.changes_heard == changes_heard and self.follows_all_of(thread_id):
                self._times[thread_id] = times

    def run_ids(self, thread_id: str, *, some_may_be_none: bool = False) -> list[str] | None:
        """The ids of a thread's runs, if they are known.

        With *some_may_be_none*, also ids of runs whose documents are not watched, and may have gone.
        """
        reads, runs = self._reads, self._table.of_thread.get(thread_id)
        is_known = self._knows_runs_of if some_may_be_none else self.follows_all_of
        if runs is None or not is_known(thread_id):
            return None
        known = list(runs)
        # While a thread is read again, some ids may be missing.
        return known if self._reads == reads and not self._catching_up.locked() else None

    # ── Requests ────────────────────────────────────────────────────────────────────────────────────

    def runs(self, statuses: Collection[RunStatus]) -> Iterator[StatusOfRun]:
        """Every run in one of *statuses*."""
        waits()
        self._watch.catch_up()
        if not self._hears_of_threads:
            self._threads_are_stale = True
        self.catch_up()
        with self._catching_up:
            unwatched = list(self._unwatched)
            found = list(self._table.find(statuses))
        yield from found
        for thread_id in unwatched:
            yield from (found for found in self._runs.scan(thread_id) if found[2] in statuses)
