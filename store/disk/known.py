"""What a catalogue of a store on a disk knows, brought up to date before it is asked.

What the store reports as changed is only noted, and compared before the next answer. Everything else is
compared by its signatures before an answer, at most once a second, but for what the store follows in full.

Another process may be writing when something is to be taken over. That is not waited for: threads that
differ stay pending, and are read as they are until they have been taken over.

A program that has other things to do has a process of its own take over what is much (`builder`). Lists wait
for that; a search reads the threads whose words are not there yet.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from store.api import LogReader
from store.catalogue import place, schema
from store.catalogue.api import Progress
from store.catalogue.place import NoPlace, Opened
from store.catalogue.tables import Busy, Tables
from store.catalogue.turns import Turns
from store.changes import Announcer
from store.disk.cataloguing import Cataloguing, Source
from store.disk.deletions import Deletions
from store.disk.unseen import Needed, Unseen
from store.disk.unseen import Reporting as ReportingThreads
from store.errors import StorageFailed
from store.printing import printable
from store.waiting import waits

if TYPE_CHECKING:
    from store.disk.builder import Builder

log = logging.getLogger("threadfs")

T = TypeVar("T")

# How old an answer may be, of what nobody reports.
_FRESH_S = 1.0
# For how long nothing is tried after another process was writing.
_PAUSE_S: Final = 0.1
# How often words are taken over that came while others were.
_ROUNDS: Final = 3
# How often it is looked for words of messages that are gone; how old a catalogue with any gets; and how many
# of its messages, of so many, may be gone before that.
_CLEANS_S: Final = 3600.0
_DEAD_S: Final = 86400.0
_MAX_DEAD: Final = 4
# How long it is waited for until the file is closed.
_CLOSES_S: Final = 0.1
# How long it is waited for the tables by who can do without.
_SOON_S: Final = 0.02
# If more threads than these differ, a process of its own takes them over, where one may be started.
_MANY: Final = 300
# If more threads than these cannot be read, it is the disk.
_MAX_UNREADABLE: Final = 100
# After so many failures in one answer there is no file any more.
_MAX_FAILURES: Final = 3


class Reporting(Source, ReportingThreads, Protocol):
    """The store that is catalogued, and that tells of changes."""

    announcer: Announcer
    on_deleted: Callable[[str, LogReader], None] | None

    def hear(self) -> None: ...


class _Many(Exception):
    """A process of its own is to take over what differs."""


class TakenOver(NamedTuple):
    """The threads whose words were just taken over into the tables of that *opening*."""

    opening: int = 0
    thread_ids: frozenset[str] = frozenset()

    def in_tables(self, opening: int) -> frozenset[str]:
        """Other tables have none of it."""
        return self.thread_ids if opening == self.opening else frozenset()


class Known:
    """Where no file can be, it is in memory, without the words."""

    def __init__(self, source: Reporting, *, keeps_words: bool) -> None:
        self.source = source
        self._keeps_words = keeps_words
        self._builder: Builder | None = None
        # Held while the tables are used, which one thread at a time may do.
        self._turns = Turns()
        self._opened: Opened | None = None
        self._tables: Tables | None = None
        # How often there were other tables.
        self.openings = 0
        self._is_in_memory = self._is_closing = self._is_closed = False
        # Whether a process was started since the file was deleted, to make another one.
        self._is_replaced = False
        # Threads that differ from what is in the tables, and could not be taken over yet.
        self.pending: dict[str, None] = {}
        # The threads whose words are behind, and what the tables were then.
        self._behind: list[str] = []
        self._behind_as_of = (0, 0)
        # When it was last looked whether there are words of messages that are gone.
        self._cleaned_at_s = float("-inf")
        # Another process writes: until then, nothing is taken over.
        self._busy_until_s = 0.0
        # The threads that could not be read when that was tried last, and those that were told of; guarded.
        self._skipping = threading.Lock()
        self._unreadable: set[str] = set()
        self._told_of: set[str] = set()
        self._unseen = Unseen(source)
        self._deletions = Deletions(self._forget)
        source.on_deleted = self._deletions.add
        # Before the kernel forgets what it knew, and asks anew.
        source.announcer.subscribe_first(self._unseen.changed)

    def close(self) -> None:
        self._is_closing = True
        self.source.announcer.unsubscribe(self._unseen.changed)
        self.source.on_deleted = None
        if self._builder:
            self._builder.close()
        self._deletions.close()
        # SQLite syncs when it closes a file, and a mount ends within seconds whatever the disk does. One that
        # was not closed is whole nevertheless.
        closing = threading.Thread(target=self._end, name="close", daemon=True)
        closing.start()
        closing.join(_CLOSES_S)

    def _end(self) -> None:
        with self._turns, suppress(sqlite3.Error):
            self._is_closed = True
            self._close()

    def taking(self, tables: Tables) -> Cataloguing:
        return Cataloguing(self.source, tables, self.skip)

    def unread(self) -> frozenset[str]:
        """The threads that could not be read, of which it says nothing, or what was so before."""
        with self._skipping:
            return frozenset(self._unreadable)

    def skip(self, thread_id: str, error: StorageFailed) -> None:
        """Tells, once, of a thread that cannot be read, and is not in any answer. Raises if they are many."""
        with self._skipping:
            is_new = thread_id not in self._told_of
            self._told_of.add(thread_id)
            self._unreadable.add(thread_id)
            are_many = len(self._unreadable) > _MAX_UNREADABLE
        if are_many:
            raise error
        if is_new:
            log.warning("%s: it is left out where things are found", printable(str(error)))

    # ── Changes ──────────────────────────────────────────────────────────────────────────────────────

    def note(self, thread_ids: Iterable[str]) -> None:
        """Has these compared before the next answer."""
        self._unseen.note(thread_ids)

    def were_compared(self, thread_ids: Iterable[str]) -> None:
        """These were compared after that was reported which is reported of them now."""
        self._unseen.were_compared(thread_ids)

    def expire(self) -> None:
        """Has all compared before the next answer of which not everything is told."""
        self._unseen.expire()

    def _compare(
        self,
        tables: Tables,
        progress: Progress | None,
        asked_s: float,
        needed: Needed,
        *,
        has_waited: bool,
    ) -> None:
        """Takes over the titles, times and runs of all threads that may have changed, for a question.

        Raises:
            _Many: there are more than this process should, unless it *has_waited* for another one.
        """
        # For a large store that takes longer than an answer is fresh: once is enough for one question.
        after_s = min(time.monotonic() - _FRESH_S, asked_s)
        look = self._unseen.look(after_s, needed)
        self.pending.update(look.noted)
        taking = self.taking(tables)
        differing = look.differing(taking)
        if not has_waited and self._is_for_builder(len(differing) + len(self.pending)):
            raise _Many
        self.pending.update(dict.fromkeys(differing))
        look.begin(self.pending)
        if time.monotonic() < self._busy_until_s:
            return  # They are pending, and it is due again.
        try:
            self._deletions.forget(taking.forget)
            with self._skipping:  # Those that still cannot be read are skipped again.
                self._unreadable.difference_update([*self._unreadable] if look.is_due else self.pending)
            _run(taking.compare_these([*self.pending]), len(self.pending), progress)
        except Busy:
            self._busy_until_s = time.monotonic() + _PAUSE_S
            return
        gone = tables.not_here(self.pending)
        self.pending.clear()
        look.end(gone, self.unread())

    def take_over_words(
        self, asked_s: float, progress: Progress | None = None, needed: Needed = Needed.ALL
    ) -> TakenOver:
        """Takes over the words of all threads, as far as no other process writes; of which it just did.

        *asked_s* and *needed*: as of `beside_lists`.
        """
        taken_over = TakenOver()
        for _ in range(_ROUNDS):
            if time.monotonic() < self._busy_until_s:
                break
            opening, found = self.beside_lists(
                lambda tables: (self.openings, self.behind(tables)), None, needed, asked_s
            )
            behind = [thread_id for thread_id in found if thread_id not in taken_over.in_tables(opening)]
            if not behind:
                break
            if self._builder and self._is_for_builder(len(behind)):
                self._builder.start()
                break
            try:
                if self._index(behind, opening, progress):
                    taken_over = TakenOver(opening, taken_over.in_tables(opening).union(behind))
            except Busy:
                self._busy_until_s = time.monotonic() + _PAUSE_S
                break
        return taken_over

    def behind(self, tables: Tables) -> list[str]:
        """The threads in the tables whose words may not be there, or not all, or be others."""
        if not tables.has_words:
            return []
        # What others have changed, and what this connection has.
        (others,) = tables.connection.execute("PRAGMA data_version").fetchone()
        as_of = others, tables.connection.total_changes
        if as_of != self._behind_as_of:
            self._behind_as_of, self._behind = as_of, self.taking(tables).behind()
        return self._behind

    def _index(self, thread_ids: list[str], opening: int, progress: Progress | None) -> bool:
        """One slice after the other, so that who has another question need not wait for all.

        False if there are other tables meanwhile, since these have failed: of theirs nothing was taken over.
        """
        steps: list[Iterator[int]] = []
        done = 0

        def step(tables: Tables) -> int | None:
            if self.openings != opening:
                return None
            if not steps:
                steps.append(self.taking(tables).index_these(thread_ids))
            return next(steps[0], None)

        while (more := self.use(step)) is not None:
            done += more
            if progress:
                progress(done, len(thread_ids))
        return self.openings == opening

    def _forget(self) -> None:
        """Takes out what was deleted here. Raises Busy, StorageFailed."""
        self.use(lambda tables: self._deletions.forget(self.taking(tables).forget))

    # ── Questions ────────────────────────────────────────────────────────────────────────────────────

    def lists(
        self,
        work: Callable[[Tables], T],
        progress: Progress | None = None,
        needed: Needed = Needed.ALL,
        asked_s: float | None = None,
    ) -> T:
        """The result of *work* with the titles, times and runs of this moment, perhaps without the words.

        *needed* and *asked_s*: as of `beside_lists`.
        """

        def with_pending(tables: Tables) -> T:
            if not self.pending:
                return work(tables)
            copy = tables.copied()
            try:
                _run(self.taking(copy).compare_these([*self.pending]))
                return work(copy)
            finally:
                copy.connection.close()

        return self.beside_lists(with_pending, progress, needed, asked_s)

    def beside_lists(
        self,
        work: Callable[[Tables], T],
        progress: Progress | None = None,
        needed: Needed = Needed.ALL,
        asked_s: float | None = None,
    ) -> T:
        """As `lists`, with the tables as they are, which say nothing true of the threads that are pending.

        *needed*: what the answer is made of, and so what is brought up to date for it.
        *asked_s*: when the question of which this is a part was asked, by the monotonic clock; or now.
        """
        waits()
        asked_at_s = time.monotonic() if asked_s is None else asked_s
        self.source.hear()
        has_waited = False

        def compared(tables: Tables) -> T:
            self._compare(tables, progress, asked_at_s, needed, has_waited=has_waited)
            return work(tables)

        while True:
            try:
                return self.use(compared)
            except _Many:
                assert self._builder is not None
                self._builder.start()
                self._builder.wait_for_lists()
                has_waited = True

    def use(self, work: Callable[[Tables], T]) -> T:
        """The result of *work* with the tables as they are. Tables that fail are made anew.

        Raises:
            Busy: *work* does.
            StorageFailed: it is closed, or there can be no tables.
        """
        with self._turns:
            return self._use(work)

    def use_soon(self, work: Callable[[Tables], T]) -> T | None:
        """As `use`; ``None`` if that would take long, as they are not open yet, or others use them."""
        if self._tables is None or not self._turns.take(_SOON_S):
            return None
        try:
            return self._use(work)
        finally:
            self._turns.give_back()

    def _use(self, work: Callable[[Tables], T]) -> T:
        failures = 0
        while True:
            try:
                self._go_over_to_another_file()
                return work(self._without_dead_words(self._open()))
            except sqlite3.Error as error:
                if self._is_in_memory:
                    raise StorageFailed(errno.EIO, "the catalogue", str(error)) from None
                failures += 1
                self._put_away(error, failures)

    def shrink(self) -> None:
        """Gives back what of the file is in memory, 2 MB at most, after much was asked for."""
        with suppress(StorageFailed):
            self.use(lambda tables: tables.connection.execute("PRAGMA shrink_memory"))

    # ── A process of its own ─────────────────────────────────────────────────────────────────────────

    def build_ahead(self) -> None:
        """See `store.catalogue.api.Catalogue`."""
        from store.disk.builder import Builder  # It needs subprocess, which no command does.

        self._builder = Builder(self.source.root, keeps_words=self._keeps_words)
        if not self._is_closing:  # Else `close` may have come before there was anything to end.
            self._builder.start(self._lacks_many)

    @property
    def is_being_built(self) -> bool:
        """Whether a process of its own is at the titles, times and runs."""
        return self._builder is not None and not self._builder.has_lists

    def _lacks_many(self) -> bool:
        """Whether so many threads, or the words of so many, are not known, without a look at any."""

        def work(tables: Tables) -> int:
            with os.scandir(self.source.root) as entries:
                there = sum(1 for entry in entries if not entry.name.startswith("."))
            return max(there - tables.count(), len(self.behind(tables)))

        return self._is_for_builder(self.use(work))

    def _is_for_builder(self, number: int) -> bool:
        """Whether a process of its own should take over so many threads."""
        if self._builder is None or self._is_in_memory or not self._builder.is_of_use:
            return False
        return number > _MANY

    # ── The file ─────────────────────────────────────────────────────────────────────────────────────

    @property
    def size_bytes(self) -> int:
        """Of the file, when one is open."""
        if self._opened is None:
            return 0
        pages, page_bytes = (
            self._opened.connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "page_size")
        )
        return int(pages * page_bytes)

    def rebuild(self) -> None:
        with self._turns:
            self._open()
            if self._opened:
                place.delete(self._opened.directory)
            self._close()

    def _open(self) -> Tables:
        if self._is_closed:  # What is under way in the background would open the file again.
            raise StorageFailed(errno.EBADF, "the catalogue", "the store is closed")
        if self._tables is None:
            if not self._is_in_memory:
                try:
                    caches = place.base(os.environ)
                    identity = place.identity_of(self.source.root, with_words=self._keeps_words)
                    self._opened = place.open_catalogue(caches, identity, with_words=self._keeps_words)
                    place.remove_unseen(caches)
                except (NoPlace, OSError) as error:
                    log.info("the catalogue is in memory: %s", printable(str(error)))
                    self._is_in_memory = True
            if self._opened and self._opened.why_new:
                log.warning("the catalogue is made anew: %s", printable(self._opened.why_new))
            has_words = self._opened is not None and self._keeps_words
            connection = self._opened.connection if self._opened else schema.in_memory()
            self._tables = Tables(connection, has_words=has_words)
            self.openings += 1
            self._unseen.lose()
        return self._tables

    def _go_over_to_another_file(self) -> None:
        """If somebody has deleted the file, a process makes another one, and this one answers until then."""
        if self._opened is None or self._builder is None or not self._builder.is_of_use:
            return
        if self._opened.is_there():
            self._is_replaced = False
        elif not self._builder.is_at_work:
            if self._is_replaced:
                self._close()
            else:
                log.info("the file of the catalogue was deleted: another one is made")
                self._builder.start()
            self._is_replaced = not self._is_replaced

    def _without_dead_words(self, tables: Tables) -> Tables:
        """The tables, made anew once a day if they have words of messages that are gone."""
        now_s = time.monotonic()
        if self._opened is None or now_s - self._cleaned_at_s < _CLEANS_S:
            return tables
        self._cleaned_at_s = now_s
        if not (dead := tables.texts_dead()):
            return tables
        if dead * _MAX_DEAD < tables.counts().texts and place.age_s(self._opened.directory) < _DEAD_S:
            return tables
        try:
            place.delete(self._opened.directory)
        except OSError:  # It is tried again as often as it is looked for them.
            return tables
        log.info("the catalogue is made anew, without the words of messages that are gone")
        self._close()
        return self._open()

    def _put_away(self, error: sqlite3.Error, failures: int) -> None:
        """After the first failure it is checked when it is opened, then it is deleted, then in memory."""
        if failures == 1:  # Most often, the others are for the same reason.
            log.warning("the catalogue has failed: %s", printable(str(error)))
        if failures > 1 and self._opened and not schema.is_busy(error):
            with suppress(OSError):  # If it cannot be, memory comes next.
                place.delete(self._opened.directory)
        self._is_in_memory = failures >= _MAX_FAILURES
        self._close(is_whole=False)

    def _close(self, *, is_whole: bool = True) -> None:
        if self._opened:
            self._opened.close(is_whole=is_whole)
        elif self._tables:
            self._tables.connection.close()
        self._opened = self._tables = None
        self._behind_as_of = (0, 0)


def _run(steps: Iterable[int], total: int = 0, progress: Progress | None = None) -> None:
    done = 0
    for more in steps:
        done += more
        if progress and total:
            progress(done, total)
