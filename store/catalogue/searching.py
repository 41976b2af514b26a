"""Queries over the tables of a catalogue.

Hits come newest first: by the time of the message, then the last line of a log first. Numbers of texts sort
by day, so that SQLite reads the newest hits first and no more than are taken; within a day they are sorted
here.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, NamedTuple

from store.catalogue import schema
from store.catalogue.queries import Query, Term
from store.catalogue.values import Hit, Kind

# Among how many of the newest hits the most relevant ones are looked for: all of a common word take seconds.
RANKED: Final = 20_000
# Of how many of the newest messages all hits are counted. Older ones are looked at when these have not more
# hits than are wanted, in as many threads as are: a million take a second.
LOOKED_AT: Final = 50_000
# So many times the messages that should have enough are looked at, as older ones may have fewer.
_SURELY: Final = 1.25
# If that is more than so many times the first ones, all are looked at: to find where these begin takes long.
_MOST_TIMES: Final = 5

_HIT = "threads.id, texts.kind, texts.line, texts.created_at, texts.number"
_ONE_OF_A_THREAD = f"threads.id, {Kind.TITLE:d}, coalesce(texts.line, 1), threads.created_at, threads.number"

_Row = tuple[str, int, int, int, int]


class Counted(NamedTuple):
    """How many *hits* there are, and *threads* with one, and when the *newest* one was said in each of some.

    *is_bounded*: there may be more.
    """

    hits: int
    threads: int
    newest: list[Hit]
    is_bounded: bool


@dataclass(slots=True)
class _Where:
    """Conditions, all of which hold, with their values."""

    conditions: list[str] = field(default_factory=list)
    values: list[str | int] = field(default_factory=list)

    def add(self, condition: str, *values: str | int) -> None:
        self.conditions.append(condition)
        self.values += values

    def __str__(self) -> str:
        return " AND ".join(self.conditions) or "1"


def hits(connection: sqlite3.Connection, query: Query, but: Collection[str] = ()) -> Iterator[Hit]:
    """Everything that is found, *but* nothing of these threads, newest first; no more is read than taken."""
    if not query.is_about_messages:
        rows = iter(sorted(_threads(connection, query, but), key=_by_time))
        return map(_hit, rows)
    return map(_hit, _newest(_texts(connection, query, but)))


def relevant(
    connection: sqlite3.Connection, query: Query, limit: int, but: Collection[str] = ()
) -> list[Hit]:
    """The most relevant first, by BM25, among the newest; of a query without a word, the newest."""
    if not query.terms:
        found = hits(connection, query, but)
        return [hit for hit, _ in zip(found, range(limit), strict=False)]
    oldest = connection.execute(
        "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rowid DESC LIMIT 1 OFFSET ?",
        (_expression(query), RANKED - 1),
    ).fetchone()
    where = _where_texts(query, but)
    if oldest:
        where.add("words.rowid >= ?", oldest[0])
    rows = connection.execute(
        f"SELECT {_HIT} FROM {_tables(query)} WHERE {where} ORDER BY bm25(words), words.rowid DESC LIMIT ?",
        (*where.values, limit),
    )
    return [_hit(row) for row in rows]


def counted(
    connection: sqlite3.Connection, query: Query, most_hits: int, most_links: int, but: Collection[str] = ()
) -> Counted:
    """Counts the hits, and finds the newest one of each thread, of at most *most_links* threads.

    The newest `LOOKED_AT` messages are looked at, with all of their first day. Unless these have more than
    *most_hits*, in at least *most_links* threads, so are as many as should have them, and then all.
    """
    if not query.is_about_messages:
        found = list(hits(connection, query, but))
        return Counted(len(found), len(found), found[:most_links], is_bounded=False)
    rows: dict[str, _Row] = {}
    first, looked_at = None, LOOKED_AT
    while True:
        until, first = first, _first_of_newest(connection, query, looked_at)
        for row in _newest_of_threads(connection, query, but, first, until):
            newer = rows.get(row[0])
            rows[row[0]] = (*newer[:-1], newer[-1] + row[-1]) if newer else row
        number = sum(row[-1] for row in rows.values())
        is_full = number > most_hits and len(rows) >= most_links
        if is_full or not first:
            break
        looked_at = further(number, len(rows), most_hits, most_links) if until is None else 0
    newest = [_hit(row) for row in sorted(rows.values(), key=_by_time)[:most_links]]
    return Counted(number, len(rows), newest, is_bounded=bool(first))


def further(hits: int, threads: int, most_hits: int, most_links: int) -> int:
    """How many of the newest messages should have enough hits and threads, if `LOOKED_AT` have these.

    0: so many that all are to be looked at.
    """
    if not hits:
        return 0
    times = _SURELY * max(most_hits / hits, most_links / threads)
    return int(times * LOOKED_AT) if times <= _MOST_TIMES else 0


def _first_of_newest(connection: sqlite3.Connection, query: Query, looked_at: int) -> int:
    """The number from which on texts are so many of the newest ones, with all of the first day.

    0: all texts are, or are wanted.
    """
    if not looked_at:
        return 0
    where = _Where()
    _add_times(where, query, "texts.number")
    found = connection.execute(
        f"SELECT number FROM texts WHERE {where} ORDER BY number DESC LIMIT 1 OFFSET ?",
        (*where.values, looked_at),
    ).fetchone()
    return schema.first_of_day(found[0]) if found else 0


def _newest_of_threads(
    connection: sqlite3.Connection, query: Query, but: Collection[str], first: int, until: int | None
) -> list[_Row]:
    """Of each thread with a hit in these numbers the time of its newest one, and how many it has."""
    where = _where_texts(query, but)
    if first:
        where.add(f"{_number(query)} >= ?", first)
    if until is not None:
        where.add(f"{_number(query)} < ?", until)
    return connection.execute(
        f"SELECT threads.id, {Kind.USER:d}, 0, max(texts.created_at), count(*)"
        f" FROM {_tables(query)} WHERE {where} GROUP BY texts.thread",
        where.values,
    ).fetchall()


def _hit(row: _Row) -> Hit:
    thread_id, kind, line, created_at, _ = row
    return Hit(thread_id, Kind(kind), line, created_at)


def _by_time(row: _Row) -> tuple[int, str, int]:
    thread_id, _, line, created_at, _ = row
    return -created_at, thread_id, -line


def _newest(rows: Iterable[_Row]) -> Iterator[_Row]:
    """Rows by number, the last one first, as hits by time."""
    for _, of_day in groupby(rows, key=lambda row: schema.day_of(row[4])):
        yield from sorted(of_day, key=_by_time)


def _texts(connection: sqlite3.Connection, query: Query, but: Collection[str]) -> Iterator[_Row]:
    where = _where_texts(query, but)
    return connection.execute(
        f"SELECT {_HIT} FROM {_tables(query)} WHERE {where} ORDER BY {_number(query)} DESC", where.values
    )


def _number(query: Query) -> str:
    return "words.rowid" if query.terms else "texts.number"


def _tables(query: Query) -> str:
    # CROSS JOIN: the planner takes the tables in this order. In any other it looks for each thread's words.
    first = "words CROSS JOIN texts ON texts.number = words.rowid" if query.terms else "texts"
    return f"{first} CROSS JOIN threads ON threads.number = texts.thread"


def _where_texts(query: Query, but: Collection[str]) -> _Where:
    where = _Where()
    if query.terms:
        where.add("words MATCH ?", _expression(query))
    elif query.without:
        where.add("texts.number NOT IN (SELECT rowid FROM words WHERE words MATCH ?)", _any_of(query.without))
    _add_times(where, query, _number(query))
    for kind in query.kinds:
        where.add("texts.kind = ?", kind)
    for kind in query.not_kinds:
        where.add("texts.kind != ?", kind)
    _add_of_threads(where, query, but)
    return where


def _add_times(where: _Where, query: Query, number: str) -> None:
    if query.from_s is not None:
        where.add(f"{number} >= ? AND texts.created_at >= ?", schema.first_number(query.from_s), query.from_s)
    if query.until_s is not None:
        last = schema.after_day(schema.first_number(query.until_s))
        where.add(f"{number} < ? AND texts.created_at < ?", last, query.until_s)


def _threads(connection: sqlite3.Connection, query: Query, but: Collection[str]) -> Iterator[_Row]:
    """Threads, for a query that says nothing of messages but what none of them may hold."""
    where = _Where()
    _add_of_threads(where, query, but)
    if query.without:
        where.add(
            "threads.number NOT IN (SELECT thread FROM words CROSS JOIN texts ON number = words.rowid"
            " WHERE words MATCH ?)",
            _any_of(query.without),
        )
    return connection.execute(
        f"SELECT {_ONE_OF_A_THREAD} FROM threads"
        f" LEFT JOIN texts ON texts.thread = threads.number AND texts.kind = {Kind.TITLE:d} WHERE {where}",
        where.values,
    )


def _add_of_threads(where: _Where, query: Query, but: Collection[str]) -> None:
    if but:
        where.add("threads.id NOT IN (SELECT value FROM json_each(?))", json.dumps([*but]))
    of_titles = (
        "(SELECT thread FROM words CROSS JOIN texts ON number = words.rowid"
        f" WHERE words MATCH ? AND kind = {Kind.TITLE:d})"
    )
    if query.titles:
        where.add(f"threads.number IN {of_titles}", _all_of(query.titles))
    if query.not_titles:
        where.add(f"threads.number NOT IN {of_titles}", _any_of(query.not_titles))
    for thread_id in query.thread_ids:
        where.add("threads.id = ?", thread_id)
    for thread_id in query.not_thread_ids:
        where.add("threads.id != ?", thread_id)
    if query.models or query.statuses:
        is_so = " AND ".join(["model = ?"] * len(query.models) + ["status = ?"] * len(query.statuses))
        where.add(
            f"threads.number IN (SELECT thread FROM runs WHERE {is_so})", *query.models, *query.statuses
        )
    for name, values in (("model", query.not_models), ("status", query.not_statuses)):
        for value in values:
            where.add(f"threads.number NOT IN (SELECT thread FROM runs WHERE {name} = ?)", value)


def _expression(query: Query) -> str:
    """The words of a query for FTS5: in quotes, so that nothing in them is its syntax."""
    wanted = _all_of(query.terms)
    return f"({wanted}) NOT ({_any_of(query.without)})" if query.without else wanted


def _all_of(terms: Iterable[Term]) -> str:
    return " AND ".join(map(_row, terms))


def _any_of(terms: Iterable[Term]) -> str:
    return " OR ".join(map(_row, terms))


def _row(term: Term) -> str:
    return f'"{" ".join(term.words)}"{" *" if term.is_prefix else ""}'
