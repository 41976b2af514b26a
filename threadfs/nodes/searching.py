"""``search/<query>/``: the threads in which something is found, as links, and ``hits.txt`` with what it is.

Any name is a query, so a lookup succeeds without searching: programs probe for names, and the kernel holds
the lock of ``search/`` meanwhile. What is found is asked for when a query is listed, or its time is wanted.
``search/`` lists the queries that were pinned in this mount, so that nothing that walks through a tree
searches for anything.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, NamedTuple

from store import InvalidQuery
from store.catalogue.api import Catalogue, Found
from store.catalogue.names import full_name
from store.catalogue.queries import Query, parsed
from store.errors import Ambiguous
from store.printing import printable
from threadfs.nodes.base import Attributes, BytesReader, Node, NoSuchName, PathNode, Reader, Refused, regular
from threadfs.nodes.lives import Life
from threadfs.nodes.views import ThreadLink, ViewDirectory, checked, time_of

# How many links and lines are shown at most, and how many queries can be pinned.
_MAX_SHOWN: Final = 1000
_MAX_PINNED: Final = 1000
HITS: Final = "hits.txt"


class _Shown(NamedTuple):
    """The links of a query, that to the thread with the newest hit first, and the time of their directory.

    *with_ids* has a name with its id for each thread, which leads to it whatever others are called.
    """

    time_ns: int
    listed: Mapping[str, str]
    with_ids: Mapping[str, str]


@dataclass(slots=True)
class Pinned:
    """The queries that are listed, and when one was last added or taken away, in nanoseconds since 1970."""

    changed_ns: int
    queries: dict[str, None] = field(default_factory=dict)

    def add(self, query: str) -> None:
        if query in self.queries:
            return
        if len(self.queries) >= _MAX_PINNED:
            raise Refused(errno.ENOSPC, f"{_MAX_PINNED} queries are pinned already: rmdir one")
        self.queries[query] = None
        self.changed_ns = time.time_ns()

    def remove(self, query: str) -> None:
        if query not in self.queries:
            raise NoSuchName(query)
        del self.queries[query]
        self.changed_ns = time.time_ns()


@dataclass(frozen=True, slots=True)
class SearchDirectory(ViewDirectory):
    """``search/``."""

    life = Life.NAME
    is_slow: ClassVar[bool] = False
    has_cheap_attributes: ClassVar[bool] = True

    pinned: Pinned = field(compare=False)

    @property
    def path(self) -> str:
        return "search"

    def time_ns(self) -> int:
        return self.pinned.changed_ns

    def lookup(self, name: str) -> Node:
        if name.startswith("."):
            raise NoSuchName(name)
        try:
            parsed(checked(name), int(time.time()))
        except NoSuchName:
            raise InvalidQuery("it is not UTF-8") from None
        return self._query(name)

    def entries(self) -> Iterable[tuple[str, Node]]:
        return [(query, self._query(query)) for query in tuple(self.pinned.queries)]

    def remove_directory(self, name: str) -> None:
        self.pinned.remove(name)

    def _query(self, text: str) -> Node:
        return QueryDirectory(self.tree, text, self.pinned)


@dataclass(frozen=True, slots=True)
class QueryDirectory(ViewDirectory):
    """What one query finds."""

    searches: ClassVar[bool] = True

    text: str
    pinned: Pinned = field(compare=False)

    @property
    def path(self) -> str:
        return f"search/{self.text}"

    def time_ns(self) -> int:
        return self._shown().time_ns

    def set_modified(self, modified_ns: int) -> None:
        """``touch`` pins the query. Its time stays that of what is found."""
        self.pinned.add(self.text)

    def lookup(self, name: str) -> Node:
        if name == HITS:
            return HitsFile(self.tree, self)
        shown = self._shown()
        if thread_id := shown.listed.get(name) or shown.with_ids.get(name):
            return ThreadLink(self.tree, self, name, thread_id)
        if called_so := [other for other in shown.with_ids if other.partition("@")[0] == name]:
            raise Refused(errno.ENOENT, str(Ambiguous(name, called_so)))
        raise NoSuchName(name)

    def entries(self) -> Iterable[tuple[str, Node]]:
        for name, thread_id in self._shown().listed.items():
            yield name, ThreadLink(self.tree, self, name, thread_id)
        yield HITS, HitsFile(self.tree, self)

    def _shown(self) -> _Shown:
        return self.tree.finding.answer(("links", self.text), self._links)

    def _links(self, catalogue: Catalogue) -> _Shown:
        links = catalogue.search(self._parsed(), _MAX_SHOWN, with_hits=False).links
        listed = {link.name: link.thread_id for link in links}
        with_ids = {
            full_name(name.partition("@")[0], thread_id): thread_id for name, thread_id in listed.items()
        }
        newest_s = links[0].newest_s if links else self.started_s
        return _Shown(time_of(newest_s, listed.items()), listed, with_ids)

    def hits(self) -> tuple[bytes, int]:
        """The text of ``hits.txt``, and its time: that of the newest hit, in nanoseconds since 1970."""
        return self.tree.finding.answer(("hits", self.text), self._hits)

    def _hits(self, catalogue: Catalogue) -> tuple[bytes, int]:
        results = catalogue.search(self._parsed(), _MAX_SHOWN, with_links=False)
        lines = [_line_of(hit) for hit in results.hits]
        if results.hits_left_out:
            threads = f", and {results.links_left_out} threads" if results.links_left_out else ""
            least = "at least " if results.is_bounded else ""
            lines.append(f"… {least}{results.hits_left_out} older hits are left out{threads}\n")
        newest_s = results.hits[0].created_at if results.hits else self.started_s
        return "".join(lines).encode(errors="replace"), time_of(newest_s, ((line, "") for line in lines))

    def _parsed(self) -> Query:
        return parsed(self.text, int(time.time()))


@dataclass(frozen=True, slots=True)
class HitsFile(PathNode):
    """``hits.txt``: a line for each hit, the newest first, made when it is read."""

    is_slow: ClassVar[bool] = True
    has_cheap_attributes: ClassVar[bool] = False
    searches: ClassVar[bool] = True

    query: QueryDirectory

    @property
    def path(self) -> str:
        return f"{self.query.path}/{HITS}"

    def attributes(self) -> Attributes:
        text, time_ns = self.query.hits()
        return regular(0o444, len(text), time_ns)

    def open_for_reading(self) -> Reader:
        text, time_ns = self.query.hits()
        return BytesReader(text, regular(0o444, len(text), time_ns))


def _line_of(hit: Found) -> str:
    place = f"threads/{printable(hit.thread_id)}/{hit.path}:{hit.line}"
    return f"{place}: {hit.role}: {hit.snippet}\n"
