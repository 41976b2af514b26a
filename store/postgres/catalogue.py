"""The catalogue of a store in a database: searches in the words of its messages, which are in the database
too, and in the messages that have no words yet. Titles, times and runs are in memory.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from heapq import merge
from itertools import islice
from typing import Any, Final, TypeVar

from store.api import LogReader
from store.catalogue import searching
from store.catalogue.api import Progress, Results, Statistics
from store.catalogue.describing import summary_of
from store.catalogue.finding import Described, Wanted, by_time, text_of, texts_of
from store.catalogue.indexed import Indexed, IndexedCatalogue
from store.catalogue.queries import Query
from store.catalogue.reading import Asked
from store.catalogue.tables import Tables
from store.catalogue.values import Hit, Kind
from store.postgres import word_hits
from store.postgres.database import Database
from store.postgres.filling import Filling
from store.postgres.known import DOCUMENTS, OF_THESE, TOGETHER, Known, Messages, batches, run_of
from store.postgres.lexemes import can_be_asked_for
from store.waiting import waits

T = TypeVar("T")

# Of threads that are searched no more bytes of messages at once, unless one thread alone has more.
_TOGETHER_BYTES: Final = 1 << 20

_RUNS_OF: Final = f"SELECT thread_id, run_id, document, modified_ns FROM runs {OF_THESE}"
_LINES: Final = """
    SELECT thread_id, line FROM threads JOIN messages USING (thread_id, log_id)
    WHERE thread_id = ANY(%s) ORDER BY thread_id, start
"""
_NUMBERED_LINES: Final = """
    WITH numbered AS (
        SELECT thread_id, log_id, start, row_number() OVER (PARTITION BY thread_id ORDER BY start) AS number
        FROM threads JOIN messages USING (thread_id, log_id) WHERE thread_id = ANY(%(threads)s::text[])
    )
    SELECT thread_id, number, line
    FROM unnest(%(threads)s::text[], %(numbers)s::bigint[]) AS wanted (thread_id, number)
        JOIN numbered USING (thread_id, number) JOIN messages USING (thread_id, log_id, start)
"""
_MESSAGES: Final = "SELECT count(*) FROM threads JOIN messages USING (thread_id, log_id)"


# What a query says of threads; of each it may also say what is not to be.
_OF_THREADS: Final = ("titles", "models", "statuses", "thread_ids")
_NOTHING: Final = Query()
# What it says of messages, when it says nothing of them.
_NOTHING_OF_MESSAGES: Final[dict[str, Any]] = {
    name: getattr(_NOTHING, name) for name in ("terms", "without", "kinds", "not_kinds", "from_s", "until_s")
}


@dataclass(frozen=True, slots=True)
class _ByTitles:
    """What is known without the words of messages: the hits in titles, the *first* ones by relevance, what
    their threads are called, *among* which threads messages are to be found, if not all, *but* which, and
    which are *behind*."""

    titles: list[Hit]
    first: list[Hit]
    names: dict[str, str]
    among: set[str] | None
    but: set[str]
    behind: set[str]


class PostgresCatalogue(IndexedCatalogue):
    """See `store.catalogue.api.Catalogue`. Without *uses_words* none are made or looked at."""

    def __init__(self, database: Database, store: Messages, *, uses_words: bool = True) -> None:
        self._database = database
        self._store = store
        self._known = Known(database, store, uses_words=uses_words)
        self._filling = Filling(database)
        self._is_anew = False

    def close(self) -> None:
        self._filling.close()
        self._known.close()

    def statistics(self) -> Statistics:
        waits()
        return Statistics(*self._known.counts(), 0)

    def unread(self) -> frozenset[str]:
        return frozenset()

    def messages(self) -> int:
        ((number,),) = self._database.read(_MESSAGES)
        return int(number)

    def refresh(self, *, words: bool, progress: Progress | None = None) -> None:
        self._ask(lambda _: None, progress)
        if words and self._known.may_make_words and (self._known.behind or self._is_anew):
            if self._filling.fill(progress, anew=self._is_anew):
                self._is_anew = False
            self._known.look_again()

    def build_ahead(self) -> None:
        """Has words made in the database. What is in memory is read when somebody asks."""
        waits()
        if self._known.learns_that_words_may_be_made():
            self._filling.start()

    def rebuild(self) -> None:
        self._known.forget()
        self._is_anew = True

    # ── Searching ────────────────────────────────────────────────────────────────────────────────────

    def _found(self, query: Query, asked: Asked) -> Results:
        found = self._search(partial(self._indexed, query, asked), query, asked)
        if self._known.may_make_words and self._known.behind:
            self._filling.start()
        return found

    def _indexed(self, query: Query, asked: Asked, but: Collection[str]) -> Indexed | None:
        if not can_be_asked_for(query):
            return None
        known = self._known.ask(partial(self._by_titles, query, asked, but), words=True)
        if known is None:
            return None
        if not query.is_about_messages:
            return self._threads_alone(query, known)
        titled = {hit.thread_id for hit in known.titles}
        found = word_hits.find(
            self._database,
            query,
            asked.most_hits,
            asked.most_links,
            by_relevance=asked.by_relevance,
            among=known.among,
            but=known.behind.union(known.but, but),
            titled=titled,
        )
        # A thread that came just now is not known yet.
        is_ranked = asked.by_relevance and query.terms
        names = known.names | self._known.names({hit.thread_id for hit in (*found.hits, *found.newest)})
        hits = [hit for hit in found.hits if hit.thread_id in names]
        newest: dict[str, Hit] = {}
        for hit in merge(known.titles, found.newest, key=by_time):
            if hit.thread_id in names:
                newest.setdefault(hit.thread_id, hit)
        return Indexed(
            [*known.first, *hits] if is_ranked else list(merge(known.titles, hits, key=by_time)),
            [*newest.values()],
            names,
            (len(known.titles) + found.messages, len(titled) + found.threads - found.titled),
            known.behind,
            is_bounded=found.is_bounded or len(known.titles) > searching.RANKED,
        )

    def _by_titles(
        self, query: Query, asked: Asked, but: Collection[str], tables: Tables
    ) -> _ByTitles | None:
        if not self._known.has_words:
            return None
        behind = {*self._known.behind}
        without = behind.union(but)
        connection = tables.connection
        among, excluded = None, set()
        if query.is_about_messages and query.is_about_threads:
            among = _threads_of(connection, replace(query, **_NOTHING_OF_MESSAGES), without)
        elif query.is_about_messages:
            # Mostly few of all threads.
            for name in _OF_THREADS:
                for value in getattr(query, f"not_{name}"):
                    wanted: dict[str, Any] = {name: (value,)}
                    excluded |= _threads_of(connection, replace(_NOTHING, **wanted), without)
        most = searching.RANKED + 1 if query.is_about_messages else None
        titles = list(islice(searching.hits(connection, query, without), most))
        first: list[Hit] = []
        if asked.by_relevance:
            first = searching.relevant(connection, query, asked.most_hits, without)
        if query.thread_ids:
            behind &= {*query.thread_ids}
        names = tables.thread_names({hit.thread_id for hit in titles})
        return _ByTitles(titles, first, names, among, excluded, behind)

    def _threads_alone(self, query: Query, known: _ByTitles) -> Indexed:
        hits = known.titles
        if query.without:
            without = word_hits.threads_with(self._database, query.without, [hit.thread_id for hit in hits])
            hits = [hit for hit in hits if hit.thread_id not in without]
        return Indexed(hits, hits, known.names, (len(hits), len(hits)), known.behind)

    # ── What is read ─────────────────────────────────────────────────────────────────────────────────

    def _ask(self, work: Callable[[Tables], T], progress: Progress | None = None) -> T:
        return self._known.ask(work, progress)

    def _read_ahead(self, thread_ids: Collection[str], names: dict[str, str], wanted: Wanted) -> list[Hit]:
        likely: Iterable[str] = thread_ids
        if len(thread_ids) > TOGETHER:
            titles = self._ask(Tables.titles_of_all)
            likely = self._candidates({one: titles[one] for one in thread_ids if one in titles}, wanted)
        return self._read_hits(likely, names, wanted)

    def _described(self, thread_id: str) -> Described | None:
        return next(iter(self._describe([thread_id])), None)

    def _describe(self, thread_ids: Sequence[str]) -> list[Described]:
        ids = list(thread_ids)
        runs = defaultdict(list)
        for thread_id, *row in self._database.read(_RUNS_OF, [ids]):
            if run := run_of(thread_id, *row):
                runs[thread_id].append(run)
        return [
            Described(
                summary_of(one, document, partial(self._known.said, one), modified_ns, modified_ns),
                runs[one],
            )
            for one, document, modified_ns in self._database.read(DOCUMENTS, [ids])
        ]

    def _open_log(self, thread_id: str) -> LogReader:
        return self._store.open_log(thread_id)

    def _candidates(self, titles: Mapping[str, str], wanted: Wanted) -> Iterator[str]:
        for some in self._batches_of_logs(titles):
            may_have_one = {one for one in some if wanted.may_be_in(titles[one].encode())}
            for thread_id, lines in self._lines_of([one for one in some if one not in may_have_one]).items():
                if any(map(wanted.may_be_in, lines)):
                    may_have_one.add(thread_id)
            yield from may_have_one

    def _read_hits(self, thread_ids: Iterable[str], names: dict[str, str], wanted: Wanted) -> list[Hit]:
        found: list[Hit] = []
        for some in self._batches_of_logs(thread_ids):
            lines = self._lines_of(some)
            for one in self._describe(some):
                messages = texts_of(lines.get(one.thread.id, []), one.thread.id, wanted.may_be_in)
                texts = wanted.look(one, messages)
                hits = [Hit(one.thread.id, text.kind, text.line, text.created_at) for text in texts]
                if hits:
                    names[one.thread.id] = one.name
                    found += hits
        return found

    def _lines_of(self, thread_ids: Sequence[str]) -> dict[str, list[bytes]]:
        lines: dict[str, list[bytes]] = defaultdict(list)
        for thread_id, line in self._database.read(_LINES, [list(thread_ids)]):
            lines[thread_id].append(line.removesuffix(b"\n"))
        return lines

    def _batches_of_logs(self, thread_ids: Iterable[str]) -> Iterator[list[str]]:
        rest = iter(thread_ids)
        while some := [*islice(rest, TOGETHER)]:
            sizes = self._known.log_bytes(some)
            together: list[str] = []
            size_bytes = 0
            for thread_id in some:
                log_bytes = sizes.get(thread_id, 0)
                if together and size_bytes + log_bytes > _TOGETHER_BYTES:
                    yield together
                    together, size_bytes = [], 0
                together.append(thread_id)
                size_bytes += log_bytes
            yield together

    def _texts(self, hits: Iterable[Hit]) -> dict[Hit, str]:
        titles: dict[str, Hit] = {}
        messages: dict[tuple[str, int], Hit] = {}
        for hit in hits:
            if hit.kind is Kind.TITLE:
                titles[hit.thread_id] = hit
            else:
                messages[hit.thread_id, hit.line] = hit
        found: dict[Hit, str] = {}
        for _, thread_ids in batches([*titles]):
            found |= {titles[one.thread.id]: one.title.text for one in self._describe(thread_ids)}
        for _, places in batches([*messages]):
            row = dict(zip(("threads", "numbers"), map(list, zip(*places, strict=True)), strict=True))
            for thread_id, number, line in self._database.read(_NUMBERED_LINES, row):
                hit = messages[thread_id, number]
                text = text_of(line.removesuffix(b"\n"), number, thread_id)
                if text and text.created_at == hit.created_at:
                    found[hit] = text.text
        return found


def _threads_of(connection: sqlite3.Connection, query: Query, but: Collection[str]) -> set[str]:
    """Those that a query finds which says nothing of messages."""
    return {hit.thread_id for hit in searching.hits(connection, query, but)}
