"""The catalogue of a store on a disk: searches in the words it has, and in the logs that are ahead of them.

A thread that has just been compared, and looks as it did when its words were taken over, has them still; any
other is read. What is shown of a hit is read, too: no hit is shown that is not in its log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from itertools import islice
from typing import TypeVar

from store.api import Info, LogReader
from store.catalogue import searching
from store.catalogue.api import Progress, Results, Statistics
from store.catalogue.finding import Described, Wanted
from store.catalogue.indexed import Indexed, IndexedCatalogue
from store.catalogue.queries import Query
from store.catalogue.reading import Asked
from store.catalogue.tables import Tables
from store.catalogue.values import Hit
from store.disk.describing import described
from store.disk.known import Known, Reporting, TakenOver
from store.disk.signatures import is_log
from store.disk.unseen import Needed
from store.errors import Damaged, StorageFailed, ThreadNotFound
from store.waiting import waits

T = TypeVar("T")


class _NoLog:
    """Of a thread where something that is no file is in place of the log: its title is found all the same."""

    def __init__(self, error: Damaged) -> None:
        self._error = error

    def info(self) -> Info:
        raise self._error

    def read(self, offset: int, size: int) -> bytes:
        return b""

    def close(self) -> None:
        pass


class DiskCatalogue(IndexedCatalogue):
    """See `store.catalogue.api.Catalogue`."""

    def __init__(self, source: Reporting, *, keeps_words: bool = True) -> None:
        self.known = Known(source, keeps_words=keeps_words)
        self._source = source

    def close(self) -> None:
        self.known.close()

    def statistics(self) -> Statistics:
        waits()

        def work(tables: Tables) -> Statistics:
            behind = self.known.behind(tables) if tables.has_words else tables.thread_ids()
            return Statistics(tables.counts().threads, len(behind), self.known.size_bytes)

        return self.known.use(work)

    def unread(self) -> frozenset[str]:
        return self.known.unread()

    def messages(self) -> int | None:
        waits()
        self.known.take_over_words(time.monotonic())
        return self.known.use(lambda tables: tables.messages() if tables.has_words else None)

    def refresh(self, *, words: bool, progress: Progress | None = None) -> None:
        asked_s = time.monotonic()
        self.known.lists(lambda _: None, progress, Needed.ALL, asked_s)
        if words:
            self.known.take_over_words(asked_s, progress)

    def build_ahead(self) -> None:
        self.known.build_ahead()

    def rebuild(self) -> None:
        waits()
        self.known.rebuild()

    def _found(self, query: Query, asked: Asked) -> Results:
        asked_s = time.monotonic()
        is_of_runs = query.models or query.statuses or query.not_models or query.not_statuses
        needed = Needed.ALL if is_of_runs else Needed.BUT_ENDED
        just_read = self.known.take_over_words(asked_s, needed=needed)

        def look(but: Collection[str]) -> Indexed | None:
            work = self._indexed(query, asked, but, just_read)
            return self.known.beside_lists(work, None, needed, asked_s)

        return self._search(look, query, asked)

    def _indexed(
        self, query: Query, asked: Asked, but: Collection[str], just_read: TakenOver
    ) -> Callable[[Tables], Indexed | None]:
        """``None`` from tables without words."""

        def work(tables: Tables) -> Indexed | None:
            if not tables.has_words:
                return None
            with tables.reading():
                # One whose words were taken over soon after it changed seems to be behind, too.
                read = just_read.in_tables(self.known.openings)
                behind = {*self.known.behind(tables)} - read | {*self.known.pending}
                without = behind.union(but)
                connection, most_hits = tables.connection, asked.most_hits
                counted = searching.counted(connection, query, most_hits, asked.most_links, without)
                if asked.by_relevance:
                    hits = searching.relevant(connection, query, most_hits, without)
                else:
                    hits = list(islice(searching.hits(connection, query, without), most_hits))
                names = tables.thread_names(hit.thread_id for hit in counted.newest)
                logs = tables.logs(names)
            if query.thread_ids:
                behind &= {*query.thread_ids}
            changed = {one for one, log in logs.items() if not is_log(self._source.root, one, *log)}
            totals = counted.hits, counted.threads
            return Indexed(hits, counted.newest, names, totals, behind, changed, counted.is_bounded)

        return work

    # ── What is read ─────────────────────────────────────────────────────────────────────────────────

    def _ask(self, work: Callable[[Tables], T], progress: Progress | None = None) -> T:
        return self.known.lists(work, progress)

    def _ask_for_names(self, work: Callable[[Tables], T]) -> T:
        return self.known.lists(work, None, Needed.BUT_ENDED)

    def _described(self, thread_id: str) -> Described | None:
        try:
            return described(self._source, thread_id)
        except StorageFailed as error:
            self.known.skip(thread_id, error)
            return None

    def _open_log(self, thread_id: str) -> LogReader:
        try:
            return self._source.open_log(thread_id)
        except StorageFailed as error:
            self.known.skip(thread_id, error)
            raise ThreadNotFound(thread_id) from None
        except Damaged as error:
            return _NoLog(error)

    def _read_ahead(self, thread_ids: Collection[str], names: dict[str, str], wanted: Wanted) -> list[Hit]:
        """Where its title is known, and by this and its log, most have no hit at all."""
        titles = self.known.use(lambda tables: tables.titles_of({*thread_ids} - self.known.pending.keys()))
        unknown = [thread_id for thread_id in thread_ids if thread_id not in titles]
        return self._read_hits([*unknown, *self._candidates(titles, wanted)], names, wanted)
