"""Searches in words that are kept, and in the threads that are ahead of them; what is shown is read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from heapq import merge
from itertools import islice
from typing import TypeAlias

from store.catalogue.api import Results
from store.catalogue.finding import Wanted, by_time, of_query, results
from store.catalogue.queries import Query
from store.catalogue.reading import Asked, ReadingCatalogue
from store.catalogue.values import Hit


@dataclass(frozen=True, slots=True)
class Indexed:
    """What the words say: the first *hits*, the *newest* one of each thread, what these are called, and how
    many hits and threads there are; beside the threads that are *behind*, of which it says nothing.

    *changed* are threads with hits whose log is not the one whose words are known any more.
    *is_bounded*: there may be more hits than are counted, of which these are the newest.
    """

    hits: list[Hit]
    newest: list[Hit]
    names: dict[str, str]
    totals: tuple[int, int]
    behind: Collection[str]
    changed: Collection[str] = ()
    is_bounded: bool = False


# What the words say of a query, but nothing of some threads; ``None`` when there are no words.
Look: TypeAlias = Callable[[Collection[str]], Indexed | None]


class IndexedCatalogue(ReadingCatalogue):
    def _read_ahead(self, thread_ids: Collection[str], names: dict[str, str], wanted: Wanted) -> list[Hit]:
        """As `_read_hits`, of threads that may have no hit."""
        return self._read_hits(thread_ids, names, wanted)

    def _search(self, look: Look, query: Query, asked: Asked) -> Results:
        wanted = of_query(query)
        read = _Read(lambda thread_ids, names: self._read_ahead(thread_ids, names, wanted))
        while found := look(read.hits.keys()):
            read.add(found.behind)
            by_newest = merge(read.all(), found.hits, key=by_time)
            both = [*read.all(), *found.hits] if asked.by_relevance else by_newest
            shown = list(islice(both, asked.most_hits))
            newest = list(islice(merge(read.newest(), found.newest, key=by_time), asked.most_links))
            texts = self._texts(shown)
            there = {hit for hit, text in texts.items() if wanted.is_in(hit, text)}
            # What the words say and no log has: the log has just changed, or they are damaged.
            ahead = {hit.thread_id for hit in shown if hit not in there} - read.hits.keys()
            # What nobody has read of them, links go by.
            ahead.update(found.changed)
            if not ahead:
                hits, threads = len(read.all()) + found.totals[0], len(read.newest()) + found.totals[1]
                left_out = max(0, hits - asked.limit), max(0, threads - asked.limit)
                still = [(hit, texts[hit]) for hit in shown if hit in there]
                given = results(still, newest, {**found.names, **read.names}, left_out, wanted.show)
                return replace(given, is_bounded=found.is_bounded)
            read.add(ahead)
        return super()._found(query, asked)


class _Read:
    """Threads that are read beside the words: the hits in each, newest first, and what it is called."""

    def __init__(self, read: Callable[[list[str], dict[str, str]], list[Hit]]) -> None:
        self._read = read
        self.hits: dict[str, list[Hit]] = {}
        self.names: dict[str, str] = {}

    def add(self, thread_ids: Iterable[str]) -> None:
        new = [thread_id for thread_id in thread_ids if thread_id not in self.hits]
        found = defaultdict(list)
        for hit in sorted(self._read(new, self.names), key=by_time) if new else []:
            found[hit.thread_id].append(hit)
        self.hits |= {thread_id: found[thread_id] for thread_id in new}

    def all(self) -> list[Hit]:
        return sorted((hit for hits in self.hits.values() for hit in hits), key=by_time)

    def newest(self) -> list[Hit]:
        return sorted((hits[0] for hits in self.hits.values() if hits), key=by_time)
