"""What of a store in a directory is followed, so that the changes of others in it are reported.

Watches are few. Each thread takes two, for itself and for the list of its runs, and each run that has not
ended two more: with these every change of a list is reported, but for what is forced on a run that has ended.
Runs that have ended are followed, too, while watches are left. The threads that changed last come first.

It is set up in the background. Until then, and for what is beyond the watches, who asks compares (`known`).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from itertools import islice
from struct import Struct
from struct import error as CannotBePacked
from typing import Final, Protocol

from store import memory
from store.api import DocumentKey, Times
from store.catalogue.tables import Busy
from store.changes import Announcer, Change, Part
from store.disk.list_times import ListTimes
from store.disk.reported import Reported
from store.disk.run_lists import RunLists
from store.disk.seen import Seen, SeenInThread
from store.disk.watch_budget import WatchBudget
from store.disk.watching import DiskWatch
from store.errors import StorageFailed
from store.statuses import RunStatus

log = logging.getLogger("threadfs")

# In the background it is set up in slices of this length, with pauses for others to work.
_SLICE_S: Final = 0.005
_PAUSE_S: Final = 0.01
# While somebody looks at many threads that are not followed yet, the pauses are so long: two threads that ask
# the disk for little at a time cost each other more than they do.
_YIELDS_S: Final = 0.05
# Once all is followed, changes are collected for so long.
_SETTLES_S: Final = 0.25
# How long it is waited for until nothing is set up any more.
_CLOSES_S: Final = 0.1
# As many threads are compared at once, and runs that have ended forgotten.
_AT_ONCE: Final = 20
_FREED_AT_ONCE: Final = 500
_AND_OTHERS: Final = ("",)
# Of the thread and of the list of its runs.
_WATCHES_OF_THREAD: Final = 2
# The times of 100,000s of threads are kept in less than half the room that their objects take.
_TIMES: Final = Struct("=qq")


class Source(Protocol):
    root: str
    announcer: Announcer

    def follower(self) -> DiskWatch: ...
    def list_thread_ids(self) -> list[str]: ...


class Followed:
    def __init__(
        self,
        source: Source,
        run_lists: Callable[[], RunLists],
        lists: ListTimes,
        max_watches: int | None = None,
    ) -> None:
        """*run_lists* gives what is compared; it is first called by another thread. *lists* gets all changes.

        *max_watches*: as of `WatchBudget`.

        Raises:
            OSError: the store cannot be watched.
        """
        self._source = source
        self._get_run_lists = run_lists
        self._run_lists: RunLists | None = None
        self._lists = lists
        # Held while something is set up.
        self._setting_up = threading.Lock()
        # The threads that were there at first and are not followed yet.
        self._unfollowed: deque[str] = deque()
        # Whether somebody has asked for the times of threads that are not followed.
        self._is_asked = False
        # Guards all below, for no longer than noting takes.
        self._noting = threading.Lock()
        self._threads_are_stale = True
        # Threads that are to be followed again, since a run, or the thread itself, came or went.
        self._stale: dict[str, None] = {}
        # Those that are followed unless they are stale, with the runs in them that are; the last one is "" if
        # there are others.
        self._runs: dict[str, tuple[str, ...]] = {}
        # Those being followed, and those of which nothing surely is.
        self._under_way: tuple[str, ...] = ()
        self._beyond: set[str] = set()
        # Whether a run that is followed may have ended.
        self._some_may_have_ended = False
        # The times of threads that are wholly followed, and how many changes there were.
        self._times: dict[str, bytes] = {}
        self._seen = Seen()
        self.changes_heard = 0
        self._came = threading.Event()
        self._closing = threading.Event()
        self._watch = source.follower()
        try:
            self._budget = WatchBudget(self._watch, max_watches, self._free)
            if error := self._watch.start():
                raise error
        except OSError:
            self._watch.close()
            raise
        source.announcer.first = self.changed
        with suppress(StorageFailed):
            self._watch.follow(DocumentKey(""))
        self._came.set()
        self._thread = threading.Thread(target=self._set_up, name="follow", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._came.set()
        # It may be waiting for a disk, and a mount ends within seconds whatever the disk does.
        self._thread.join(_CLOSES_S)
        self._budget.close()
        self._source.announcer.first = self._lists.changed
        self._watch.close()

    # ── Changes ─────────────────────────────────────────────────────────────────────────────────────

    def changed(self, change: Change) -> None:
        """To be called before all others: they may ask what is followed."""
        self._lists.heard(change)
        if change.part in (Part.ANSWER, Part.WORKERS):
            return  # These are in no list, and have no time.
        with self._noting:
            self._forget_seen(change.thread_id)
            if change.part is Part.EVERYTHING:
                self._times.clear()
                self._seen.clear()
                self._stale.update(dict.fromkeys((*self._runs, *self._under_way)))
                self._beyond.clear()
                self._threads_are_stale = True
            elif self._concerns_what_is_followed(change):
                self._stale[change.thread_id] = None
            else:
                self._some_may_have_ended |= change.run_id is not None
                return
        self._came.set()

    def _concerns_what_is_followed(self, change: Change) -> bool:
        if change.part in (Part.THREADS, Part.RUNS):
            return True
        if change.part is not Part.DOCUMENT or change.step_id:
            return False
        if change.run_id:  # It may have been forced to go on.
            return change.run_id not in self._runs.get(change.thread_id, ())
        # Its document makes a directory a thread.
        return not change.is_own and change.thread_id not in self._runs

    def hear(self) -> None:
        """Returns when all have been told what others have changed so far, in what is followed."""
        self._watch.catch_up()
        self._follow_list()
        if self._stale or self._threads_are_stale:
            self._came.set()  # If something failed, it is tried again.

    def _follow_list(self) -> None:
        if not self.reports_threads and self._watch.follow(DocumentKey("")):
            self._source.announcer.announce(Change(Part.EVERYTHING))  # Nobody was told of it.

    # ── What is followed ────────────────────────────────────────────────────────────────────────────

    @property
    def reports_threads(self) -> bool:
        """Whether each thread that comes or goes is reported."""
        return DocumentKey("") in self._watch.covered

    def reported_of(self, thread_id: str) -> Reported:
        if thread_id in self._stale or (runs := self._runs.get(thread_id)) is None:
            return Reported.NOTHING
        return Reported.BUT_ENDED if runs[-1:] == _AND_OTHERS else Reported.ALL

    def reports_all_of(self, thread_id: str) -> bool:
        return self.reported_of(thread_id) is Reported.ALL

    def reported_among(self, thread_ids: Iterable[str]) -> dict[str, Reported]:
        """As `reported_of`, of some threads; at least of those of which anything is reported."""
        return {one: self.reported_of(one) for one in thread_ids if one in self._runs}

    def follows_all_runs(self) -> bool:
        """Whether each change of a run that has not ended is reported, and each new run; sets it up first.

        What is asked of the store afterwards is as recent as what is reported.
        """
        try:
            self.catch_up()
        except Busy:
            return False
        if self._beyond or self._stale or self._threads_are_stale or not self.reports_threads:
            return False
        self.run_lists().known.expire()
        return True

    def times(self, thread_id: str) -> Times | None:
        """When anything in the thread last changed, if that is known."""
        packed = self._times.get(thread_id)
        return None if packed is None else Times(*_TIMES.unpack(packed))

    def without_times(self, thread_ids: Iterable[str]) -> list[str]:
        """Of many threads, those whose times are not known: who asks is going to look at these."""
        unknown = [thread_id for thread_id in thread_ids if thread_id not in self._times]
        self._is_asked |= bool(unknown)
        return unknown

    def remember_times(self, thread_id: str, times: Times, changes_heard: int) -> None:
        """Remembers *times*, which were read after *changes_heard* changes, unless there were more since."""
        try:
            packed = _TIMES.pack(*times)
        except CannotBePacked:  # After the year 2262. They are read each time.
            return
        with self._noting:
            if self.changes_heard == changes_heard and self.reports_all_of(thread_id):
                self._times[thread_id] = packed

    def seen_in(self, thread_id: str) -> SeenInThread | None:
        """What was seen in it since its last change, and the place for more; none if one may be missed."""
        if (seen := self._seen.get(thread_id)) is not None:
            return seen
        with self._noting:
            return self._seen.made(thread_id) if self.reports_all_of(thread_id) else None

    def _forget_seen(self, thread_id: str) -> None:
        """Something has changed in the thread, or will be reported no longer."""
        self.changes_heard += 1
        self._times.pop(thread_id, None)
        self._seen.forget(thread_id)

    def run_ids(self, thread_id: str) -> list[str] | None:
        """The ids of a thread's runs, if they are known."""
        with self._noting:
            return [*self._runs[thread_id]] if self.reports_all_of(thread_id) else None

    def run_lists(self) -> RunLists:
        """What is compared. Those of a catalogue that is closed with the store, even where this goes on."""
        if self._run_lists is None:
            self._run_lists = self._get_run_lists()
        return self._run_lists

    # ── Setting it up ───────────────────────────────────────────────────────────────────────────────

    def _set_up(self) -> None:
        # Who asks at once is answered first, and what a process of its own reads is not read here.
        while not self._closing.wait(_SETTLES_S) and self.run_lists().known.is_being_built:
            pass
        while not self._closing.is_set():
            try:
                is_complete = self.catch_up(_SLICE_S)
            except StorageFailed:
                is_complete = True  # As far as possible. The next request tries again.
            except Busy:
                is_complete = False
                self._closing.wait(_SETTLES_S)
            except Exception:
                log.exception("what is followed could not be set up: everything is compared")
                is_complete = True
            if is_complete and not self._closing.is_set():
                self._came.wait()
            was_asked, self._is_asked = self._is_asked, False
            self._closing.wait(_SETTLES_S if is_complete else _YIELDS_S if was_asked else _PAUSE_S)

    def catch_up(self, for_s: float = float("inf")) -> bool:
        """Follows what is to be followed, for at most so many seconds; whether that was all.

        Raises:
            StorageFailed: the store cannot be read.
            Busy: another process keeps writing the catalogue.
        """
        ends_s = time.monotonic() + for_s
        with self._setting_up:
            while time.monotonic() < ends_s and not self._closing.is_set():
                if not self._set_up_next():
                    return True
        return False

    def _set_up_next(self) -> bool:
        with self._noting:
            self._came.clear()
            threads_are_stale, self._threads_are_stale = self._threads_are_stale, False
            # One after the other where watches run out, so that the first ones get all they need.
            at_once = 1 if self._budget.is_scarce else _AT_ONCE
            stale = [] if threads_are_stale else [*islice(self._stale, at_once)]
            # Nothing is told of them until they are followed again.
            before = {thread_id: tuple(filter(None, self._runs.pop(thread_id, ()))) for thread_id in stale}
            self._under_way = tuple(stale)
            for thread_id in stale:
                del self._stale[thread_id]
        if threads_are_stale:
            self._read_threads()
        elif stale:
            self._follow(before)
            self.run_lists().known.note(stale)
        elif self._unfollowed:
            some = [self._unfollowed.popleft() for _ in range(min(at_once, len(self._unfollowed)))]
            self._budget.promised = _WATCHES_OF_THREAD * len(self._unfollowed)
            self._follow({thread_id: () for thread_id in some if thread_id not in self._runs})
            if not self._unfollowed:
                self.run_lists().known.expire()
                self.run_lists().known.shrink()
                memory.give_back()
        else:
            return False
        return True

    def _read_threads(self) -> None:
        try:
            self._follow_list()
            # The same texts for all that is remembered of a thread.
            there = {thread_id: thread_id for thread_id in self._source.list_thread_ids()}
            # With too few watches it matters which ones come first.
            are_many = len(there) * 2 > self._budget.max_watches
            old = self.run_lists().newest_first(there, looks=are_many)
        except BaseException:
            self._threads_are_stale = True
            raise
        new = there.keys() - {*old}
        self._unfollowed = deque(thread_id for thread_id in (*new, *old) if thread_id not in self._runs)
        with self._noting:
            self._stale.update(dict.fromkeys(self._runs.keys() - there.keys()))

    def _follow(self, before: dict[str, tuple[str, ...]]) -> None:
        """Follows threads, of which some runs were followed *before*."""
        self._under_way = tuple(before)
        try:
            changes_heard = self.changes_heard
            followed = [thread_id for thread_id in before if self._budget.follow_thread(thread_id)]
            # Compared after they are followed, so that no change is missed.
            found = self.run_lists().of_threads(followed) if followed else {}
            for thread_id in before:
                there = found.get(thread_id)
                if there and self._follow_runs(thread_id, there.statuses, before[thread_id]):
                    self.remember_times(thread_id, there.times, changes_heard)
                else:
                    self._leave(thread_id, before[thread_id], is_gone=thread_id in found and there is None)
            # Where a run is followed, it may have changed before that was.
            whole = [one for one in before if self._runs.get(one) in ((), _AND_OTHERS)]
            self.run_lists().known.were_compared(whole)
        except BaseException:
            with self._noting:
                for thread_id in before.keys() - self._runs.keys():
                    self._runs[thread_id] = before[thread_id]
                    self._stale[thread_id] = None
            raise

    def _follow_runs(self, thread_id: str, runs: dict[str, str | None], before: Collection[str]) -> bool:
        """Follows the runs of a thread, which is followed; false if not all that have not ended can be."""
        followed: list[str] = []
        is_whole = True
        # Those that have ended come first, as they may give watches back.
        for run_id, status in sorted(runs.items(), key=lambda run: not _has_ended(run[1])):
            has_ended = _has_ended(status)
            if self._budget.follow_run(thread_id, run_id, has_ended=has_ended):
                followed.append(run_id)
                self._some_may_have_ended |= has_ended
            elif not has_ended:
                self._budget.forget_runs(thread_id, followed)
                return False
            # One that cannot be read is in no list, and one of the thread's runs nevertheless.
            is_whole &= status is not None and followed[-1:] == [run_id]
        self._budget.forget_runs(thread_id, {*before}.difference(followed))
        with self._noting:
            self._beyond.discard(thread_id)
            self._runs[thread_id] = tuple(followed) + (() if is_whole else _AND_OTHERS)
        return True

    def _leave(self, thread_id: str, runs: Iterable[str], *, is_gone: bool) -> None:
        """A thread is followed no longer."""
        self._budget.forget_runs(thread_id, runs)
        is_there = os.path.isdir(f"{self._source.root}/{thread_id}")
        # A directory that is left may become a thread.
        self._budget.forget_thread(thread_id, but_itself=is_gone and is_there)
        with self._noting:
            (self._beyond.add if is_there and not is_gone else self._beyond.discard)(thread_id)

    def _free(self) -> bool:
        """Forgets some runs that have ended; whether there were any."""
        if not self._some_may_have_ended:
            return False
        freed = 0
        threads = iter([thread_id for thread_id, runs in self._runs.items() if any(runs)])
        while some := [*islice(threads, _AT_ONCE)]:
            for thread_id, there in self.run_lists().of_threads(some).items():
                statuses = there.statuses if there else {}
                ended = [run_id for run_id in self._runs[thread_id] if _has_ended(statuses.get(run_id))]
                if ended:
                    freed += len(ended)
                    self._free_runs(thread_id, ended)
            if freed >= _FREED_AT_ONCE:
                return True
        self._some_may_have_ended = False
        return freed > 0

    def _free_runs(self, thread_id: str, ended: list[str]) -> None:
        with self._noting:
            self._forget_seen(thread_id)
            left = (run_id for run_id in self._runs[thread_id] if run_id and run_id not in ended)
            self._runs[thread_id] = (*left, *_AND_OTHERS)
        self._budget.forget_runs(thread_id, ended)
        self._source.announcer.tell_others(Change(Part.TIMES, thread_id))  # They will not be called for it.


def _has_ended(status: str | None) -> bool:
    """False for a run that cannot be read."""
    return status is not None and RunStatus(status).is_terminal
