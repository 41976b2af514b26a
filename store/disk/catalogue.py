"""The catalogue of a store on a disk: searches in the words it has, and in the logs that are ahead of them.

A thread that has just been compared, and looks as it did when its words were taken over, has them still; any
other is read. What is shown of a hit is read, too: no hit is shown that is not in its log.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial
from heapq import merge
from itertools import islice
from typing import NamedTuple, TypeVar

from store.api import LogReader
from store.catalogue import searching
from store.catalogue.api import Progress, Results, Statistics
from store.catalogue.finding import Described, by_time, of_query, results
from store.catalogue.queries import Query
from store.catalogue.reading import ReadingCatalogue
from store.catalogue.tables import Tables
from store.catalogue.values import Hit
from store.disk.describing import described
from store.disk.known import Known, Reporting
from store.disk.signatures import is_log
from store.errors import StorageFailed, ThreadNotFound
from store.waiting import waits

T = TypeVar("T")


class _Indexed(NamedTuple):
    """What the words say: the first *hits*, the *newest* one of each thread, what these are called, and how
    many hits and threads there are; beside the threads that are *behind*, of which it says nothing."""

    hits: list[Hit]
    newest: list[Hit]
    names: dict[str, str]
    # Of threads with hits, the ctime, size and inode of the log that has them.
    logs: dict[str, tuple[int, int, int]]
    totals: tuple[int, int]
    behind: set[str]


class DiskCatalogue(ReadingCatalogue):
    """See `store.catalogue.api.Catalogue`."""

    def __init__(self, source: Reporting, *, is_kept: bool = True) -> None:
        self._known = Known(source, is_kept=is_kept)
        self._source = source

    def close(self) -> None:
        self._known.close()

    def statistics(self) -> Statistics:
        waits()

        def work(tables: Tables) -> Statistics:
            behind = self._known.behind(tables) if tables.has_words else tables.thread_ids()
            return Statistics(tables.counts().threads, len(behind), self._known.size_bytes)

        return self._known.use(work)

    def unread(self) -> frozenset[str]:
        return frozenset(self._known.left_out())

    def messages(self) -> int:
        waits()
        return self._known.use(lambda tables: tables.messages() if tables.has_words else 0)

    def refresh(self, *, words: bool, progress: Progress | None = None) -> None:
        self._ask(lambda _: None, progress)
        if words:
            self._known.take_over_words(progress)

    def rebuild(self) -> None:
        waits()
        self._known.rebuild()

    def search(
        self, query: Query, limit: int = 1000, *, by_relevance: bool = False, with_hits: bool = True
    ) -> Results:
        just_read = self._known.take_over_words()
        wanted = of_query(query)
        read = _Read(partial(self._read_hits, wanted=wanted))
        while True:
            found = self._known.beside_lists(
                self._indexed(query, limit, by_relevance, read.hits.keys(), just_read)
            )
            if found is None:
                return super().search(query, limit, by_relevance=by_relevance, with_hits=with_hits)
            read.add(found.behind)
            both = [*read.all(), *found.hits] if by_relevance else merge(read.all(), found.hits, key=by_time)
            shown = list(islice(both, limit)) if with_hits else []
            newest = list(islice(merge(read.newest(), found.newest, key=by_time), limit))
            texts = self._texts(shown)
            there = {hit for hit, text in texts.items() if wanted.is_in(hit, text)}
            # What the words say and no log has: the log has just changed, or the catalogue is damaged.
            ahead = {hit.thread_id for hit in shown if hit not in there} - read.hits.keys()
            # What nobody has read of them, links go by.
            ahead |= {one for one, log in found.logs.items() if not is_log(self._source.root, one, *log)}
            if not ahead:
                hits, threads = len(read.all()) + found.totals[0], len(read.newest()) + found.totals[1]
                left_out = max(0, hits - limit), max(0, threads - limit)
                still = [(hit, texts[hit]) for hit in shown if hit in there]
                return results(still, newest, {**found.names, **read.names}, left_out, wanted.show)
            read.add(ahead)

    def _indexed(
        self, query: Query, limit: int, by_relevance: bool, but: Collection[str], just_read: set[str]
    ) -> Callable[[Tables], _Indexed | None]:
        """``None`` from tables without words."""

        def work(tables: Tables) -> _Indexed | None:
            if not tables.has_words:
                return None
            with tables.reading():
                # One whose words were taken over soon after it changed seems to be behind, too.
                behind = {*self._known.behind(tables)} - just_read | {*self._known.pending}
                without = behind.union(but)
                totals = searching.number_of(tables.connection, query, without)
                first: list[Hit] = []
                newest: dict[str, Hit] = {}
                for hit in searching.hits(tables.connection, query, without):
                    if len(first) < limit:
                        first.append(hit)
                    newest.setdefault(hit.thread_id, hit)
                    if len(first) >= min(limit, totals[0]) and len(newest) >= min(limit, totals[1]):
                        break
                if by_relevance:
                    first = searching.relevant(tables.connection, query, limit, without)
                names = tables.thread_names(newest)
                logs = tables.logs(newest)
            if query.thread_ids:
                behind &= {*query.thread_ids}
            return _Indexed(first, list(newest.values()), names, logs, totals, behind)

        return work

    # ── What is read ─────────────────────────────────────────────────────────────────────────────────

    def _ask(self, work: Callable[[Tables], T], progress: Progress | None = None) -> T:
        return self._known.lists(work, progress)

    def _described(self, thread_id: str) -> Described | None:
        try:
            return described(self._source, thread_id)
        except StorageFailed as error:
            self._known.skip(thread_id, error)
            return None

    def _open_log(self, thread_id: str) -> LogReader:
        try:
            return self._source.open_log(thread_id)
        except StorageFailed as error:
            self._known.skip(thread_id, error)
            raise ThreadNotFound(thread_id) from None


class _Read:
    """Threads that are read beside the words: the hits in each, newest first, and what it is called."""

    def __init__(self, read: Callable[[list[str], dict[str, str]], list[Hit]]) -> None:
        self._read = read
        self.hits: dict[str, list[Hit]] = {}
        self.names: dict[str, str] = {}

    def add(self, thread_ids: Iterable[str]) -> None:
        for thread_id in thread_ids:
            if thread_id not in self.hits:
                self.hits[thread_id] = sorted(self._read([thread_id], self.names), key=by_time)

    def all(self) -> list[Hit]:
        return sorted((hit for hits in self.hits.values() for hit in hits), key=by_time)

    def newest(self) -> list[Hit]:
        return sorted((hits[0] for hits in self.hits.values() if hits), key=by_time)
