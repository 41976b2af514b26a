"""A catalogue that knows no words, and reads the logs for them. Each backend's is derived from it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from itertools import islice
from typing import NamedTuple, TypeVar

from store.api import LogReader
from store.catalogue.api import Listed, Named, Progress, Results
from store.catalogue.finding import (
    Described,
    Wanted,
    by_time,
    lines_of,
    of_pattern,
    of_query,
    results,
    text_of,
    texts_of,
)
from store.catalogue.queries import Query
from store.catalogue.tables import Tables
from store.catalogue.values import Hit, Kind
from store.errors import NotFound
from store.lines import iter_lines

T = TypeVar("T")


class Asked(NamedTuple):
    """What of all that is found is wanted: the first *most_hits*, by relevance or by time, and *most_links*.

    What is beyond *limit* is counted as left out, also of that which is not wanted.
    """

    limit: int
    most_hits: int
    most_links: int
    by_relevance: bool


class ReadingCatalogue(ABC):
    """See `store.catalogue.api.Catalogue`."""

    # ── What a backend does ──────────────────────────────────────────────────────────────────────────

    @abstractmethod
    def _ask(self, work: Callable[[Tables], T], progress: Progress | None = None) -> T:
        """The result of *work* with tables that have the titles, times and runs of this moment."""

    def _ask_for_names(self, work: Callable[[Tables], T]) -> T:
        """As `_ask`, for what nothing about runs that have ended is in."""
        return self._ask(work)

    @abstractmethod
    def _described(self, thread_id: str) -> Described | None:
        """A thread as it is now; ``None`` if there is none."""

    @abstractmethod
    def _open_log(self, thread_id: str) -> LogReader:
        """Raises ThreadNotFound."""

    # ── Lists ────────────────────────────────────────────────────────────────────────────────────────

    def titles(self) -> list[Named]:
        return self._ask_for_names(Tables.titles)

    def thread_called(self, name: str, day_s: int | None = None) -> str:
        return self._ask_for_names(lambda tables: tables.thread_called(name, day_s))

    def days(self) -> list[int]:
        return self._ask_for_names(Tables.days)

    def created_on(self, day_s: int) -> list[Named]:
        return self._ask_for_names(lambda tables: tables.created_on(day_s))

    def threads(self) -> list[Listed]:
        return self._ask(Tables.list_threads)

    def runs(self) -> list[Listed]:
        return self._ask(Tables.list_runs)

    def changed_ns(self, thread_id: str) -> int:
        return self._ask(lambda tables: tables.changed_ns(thread_id))

    # ── Searching ────────────────────────────────────────────────────────────────────────────────────

    def search(
        self,
        query: Query,
        limit: int = 1000,
        *,
        by_relevance: bool = False,
        with_hits: bool = True,
        with_links: bool = True,
    ) -> Results:
        most_hits, most_links = limit if with_hits else 0, limit if with_links else 0
        return self._found(query, Asked(limit, most_hits, most_links, by_relevance and with_hits))

    def _found(self, query: Query, asked: Asked) -> Results:
        """Here the newest are taken for the most relevant."""
        titles = self._ask(Tables.titles_of_all)
        if query.thread_ids:
            titles = {one: titles[one] for one in query.thread_ids[:1] if one in titles}
        return self._read_results(titles, of_query(query), asked)

    def grep(self, pattern: re.Pattern[str], limit: int = 1000) -> Results:
        asked = Asked(limit, limit, limit, by_relevance=False)
        return self._read_results(self._ask(Tables.titles_of_all), of_pattern(pattern), asked)

    def _read_results(self, titles: Mapping[str, str], wanted: Wanted, asked: Asked) -> Results:
        names: dict[str, str] = {}
        candidates = self._candidates(titles, wanted)
        found = sorted(self._read_hits(candidates, names, wanted), key=by_time)
        newest = {hit.thread_id: hit for hit in reversed(found)}
        by_newest = sorted(newest.values(), key=by_time)[: asked.most_links]
        shown = found[: asked.most_hits]
        texts = self._texts(shown)
        left_out = max(0, len(found) - asked.limit), max(0, len(newest) - asked.limit)
        still = [(hit, texts[hit]) for hit in shown if hit in texts and wanted.is_in(hit, texts[hit])]
        return results(still, by_newest, names, left_out, wanted.show)

    def _candidates(self, titles: Mapping[str, str], wanted: Wanted) -> Iterator[str]:
        """The threads, of some by their titles, that may have a hit."""
        for thread_id, title in titles.items():
            with suppress(NotFound):
                if not wanted.may_be_in(title.encode()):
                    with closing(self._open_log(thread_id)) as log:
                        if not any(map(wanted.may_be_in, lines_of(log))):
                            continue
                yield thread_id

    def _read_hits(self, thread_ids: Iterable[str], names: dict[str, str], wanted: Wanted) -> list[Hit]:
        """The hits in some threads, in no order; *names* gets what these are called."""
        found = []
        for thread_id in thread_ids:
            with suppress(NotFound):
                if (one := self._described(thread_id)) is None:
                    continue
                with closing(self._open_log(thread_id)) as log:
                    texts = wanted.look(one, texts_of(lines_of(log), thread_id, wanted.may_be_in))
                    hits = [Hit(thread_id, text.kind, text.line, text.created_at) for text in texts]
                if hits:
                    names[thread_id] = one.name
                    found += hits
        return found

    def _texts(self, hits: Iterable[Hit]) -> dict[Hit, str]:
        """The texts of hits, but of those that are not there any more."""
        by_thread: dict[str, dict[int, Hit]] = defaultdict(dict)
        titles = []
        for hit in hits:
            if hit.kind is Kind.TITLE:
                titles.append(hit)
            else:
                by_thread[hit.thread_id][hit.line] = hit
        found = {}
        for hit in titles:
            if one := self._described(hit.thread_id):
                found[hit] = one.title.text
        for thread_id, by_line in by_thread.items():
            with suppress(NotFound), closing(self._open_log(thread_id)) as log:
                for number, (line, _) in enumerate(islice(iter_lines(log.read), max(by_line)), 1):
                    if hit_there := by_line.get(number):
                        text = text_of(line, number, thread_id)
                        if text and text.created_at == hit_there.created_at:
                            found[hit_there] = text.text
        return found
