"""Which threads may have changed unseen since they were last compared.

What the store tells of is noted, and looked at before the next answer. Of what it does not tell, everything
is looked at before an answer, at most once in a while. In between are threads of which it tells everything
but what is forced on a run that has ended: who asks for other runs need not look at these.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from enum import IntEnum
from typing import Protocol

from store.changes import Change, Part
from store.disk.cataloguing import AllBut, Cataloguing
from store.disk.reported import Reported


class Needed(IntEnum):
    """What an answer is made of; each is all of the ones before, and more."""

    UNENDED = 0  # Runs that have not ended. What is forced on others need not be in it.
    BUT_ENDED = 1  # All but runs that have ended, and the times of threads.
    ALL = 2


class Reporting(Protocol):
    @property
    def reports_threads(self) -> bool: ...
    def reported_of(self, thread_id: str) -> Reported: ...
    def reported_among(self, thread_ids: Iterable[str]) -> dict[str, Reported]: ...


class Unseen:
    def __init__(self, store: Reporting) -> None:
        self.store = store
        # Guards all below, for no longer than noting takes.
        self.lock = threading.Lock()
        # Of these something was told since the last look began.
        self.noted: dict[str, None] = {}
        # Those of which not everything is told, or was since they were last looked at. Not in it are those
        # of which all is told but what is forced on a run that has ended. ``None``: any may be one, since
        # not even that a thread comes is told.
        self.unreported: set[str] | None = None
        self.but_ended: set[str] = set()
        # A hash of the threads that were listed then: a directory may become a thread untold.
        self.listed: int | None = None
        # When all these were last looked at, for each kind of answer.
        self.looked_at_s = dict.fromkeys(Needed, float("-inf"))
        # How often that came to count no longer, and how often anything may have changed.
        self.expiries = self.losses = 0

    def changed(self, change: Change) -> None:
        """Only notes it: who has made the change waits for this."""
        if change.part in (Part.ANSWER, Part.WORKERS):
            return
        if change.part is Part.EVERYTHING:
            self.lose()
        else:
            self.note([change.thread_id])

    def note(self, thread_ids: Iterable[str]) -> None:
        """Each of these is looked at before the next answer."""
        with self.lock:
            for thread_id in thread_ids:
                self.noted[thread_id] = None
                self.but_ended.discard(thread_id)
                if self.unreported is not None:
                    self.unreported.add(thread_id)

    def were_compared(self, thread_ids: Iterable[str]) -> None:
        """These were compared after that was reported which is reported of them now."""
        with self.lock:
            if self.unreported is None:
                return
            for thread_id in thread_ids:
                reported = self.store.reported_of(thread_id)
                if thread_id not in self.noted and reported is not Reported.NOTHING:
                    self._is_reported(thread_id, reported)

    def _is_reported(self, thread_id: str, reported: Reported) -> None:
        """A thread was compared; called with the lock held."""
        assert self.unreported is not None
        self.unreported.discard(thread_id)
        self.but_ended.discard(thread_id)
        if reported is Reported.NOTHING:
            self.unreported.add(thread_id)
        elif reported is Reported.BUT_ENDED:
            self.but_ended.add(thread_id)

    def expire(self) -> None:
        """What is not told is looked at before the next answer, as more is told from now on."""
        with self.lock:
            self.expiries += 1
            self.looked_at_s = dict.fromkeys(Needed, float("-inf"))

    def lose(self) -> None:
        """Anything may have changed."""
        self.expire()
        with self.lock:
            self.losses += 1
            self.unreported = None
            self.but_ended.clear()

    def look(self, after_s: float, needed: Needed) -> Look:
        """For an answer of at least that time."""
        return Look(self, after_s, needed)


class Look:
    """What is to be compared for one answer."""

    def __init__(self, unseen: Unseen, after_s: float, needed: Needed) -> None:
        self._unseen = unseen
        self._needed = needed
        self._began_s = time.monotonic()
        with unseen.lock:
            self.noted, unseen.noted = unseen.noted, {}
            self._expiries, self._losses = unseen.expiries, unseen.losses
            self.is_due = unseen.looked_at_s[needed] <= after_s
            self._unreported: set[str] | None = None
            self._but_ended: set[str] = set()
            if self.is_due and unseen.unreported is not None:
                self._unreported = {*unseen.unreported}
                if needed is Needed.ALL:
                    self._but_ended = {*unseen.but_ended}
        # What was told of threads, and of some, before they were looked at; nothing of all other threads.
        self._reports_threads = unseen.store.reports_threads
        self._reported: dict[str, Reported] = {}
        self._listed: int | None = None

    def differing(self, taking: Cataloguing) -> list[str]:
        """The threads that differ from what is known, of those that nobody has told of."""
        if not self.is_due:
            return []
        if self._unreported is None and not self._reports_threads:
            return taking.differing(None, self._by_lists_alone())  # All are looked at again.
        there = taking.source.list_thread_ids()
        self._listed = hash(frozenset(there))
        # All are looked at, or all that were looked at before and of which nothing was told.
        are_all = self._unreported is None
        if self._unreported is None:
            # They are kept, with the same texts as in the list, which is kept, too.
            self._unreported = {*there}
        elif self._listed != self._unseen.listed:
            self._unreported |= {*there}.symmetric_difference(taking.tables.thread_ids())
        self._reported = self._unseen.store.reported_among(self._unreported)
        if are_all:
            return taking.differing(there, self._by_lists_alone())
        self.begin(self._but_ended)
        return taking.differing_among(self._unreported | self._but_ended, self._by_lists_alone())

    def _by_lists_alone(self) -> AllBut | None:
        """Of which nothing is told is looked at for a list of runs alone, and again for any other answer."""
        if self._needed is not Needed.UNENDED:
            return None
        return AllBut({one for one, found in self._reported.items() if found is not Reported.NOTHING})

    def begin(self, thread_ids: Iterable[str]) -> None:
        """To be called before threads are compared."""
        for thread_id in thread_ids:
            if thread_id not in self._reported:
                self._reported[thread_id] = self._unseen.store.reported_of(thread_id)

    def end(self, gone: Iterable[str], unreadable: Iterable[str]) -> None:
        """All was compared; these threads are gone, and these could not be."""
        unseen = self._unseen
        self._reported.update(dict.fromkeys(gone, Reported.ALL))  # When they come again, that is told.
        self._reported.update(dict.fromkeys(unreadable, Reported.NOTHING))
        with unseen.lock:
            if self.is_due and self._expiries == unseen.expiries:
                for needed in Needed:
                    if needed <= self._needed:
                        unseen.looked_at_s[needed] = self._began_s
            if self._losses != unseen.losses:
                return
            if self.is_due:
                unseen.listed = self._listed
            if self._unreported is not None:
                # These, and what was told of meanwhile. A set that has held more takes more room.
                self._unreported.update(unseen.noted)
                unseen.unreported = self._unreported
            if unseen.unreported is None:
                return
            for thread_id, reported in self._reported.items():
                if thread_id not in unseen.noted:  # Else it may have changed since it was looked at.
                    unseen._is_reported(thread_id, reported)
