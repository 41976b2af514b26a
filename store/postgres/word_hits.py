"""Hits of a query among the words of messages, in the database.

PostgreSQL finds the rows of a rare word by its index, and those of a frequent one by going back in time;
asked for the newest ones it takes the wrong way for many a query, and then reads everything. So it is first
asked how many hits it expects. If these are surely more than are counted, the newest ones are asked for at
once. Else any hits are, but not more than are counted, and only if there are more the newest ones. For a
long message all of its parts are looked at together.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from store.catalogue.queries import Query, Term
from store.catalogue.searching import RANKED
from store.catalogue.values import Hit, Kind
from store.postgres.database import Database
from store.postgres.lexemes import any_of, row

_NEWEST: Final = """
    SELECT thread_id, line, kind, created_at, {rank} AS rank FROM words WHERE part = 0 {where}
    ORDER BY created_at DESC, thread_id, line DESC LIMIT {limit}
"""
# The condition that is the same for all rows keeps the server from reading the other branch at all.
_ANY_OR_NEWEST: Final = f"""
    WITH any_hits AS MATERIALIZED (
        SELECT thread_id, line, kind, created_at, {{rank}} AS rank FROM words WHERE part = 0 {{where}}
        LIMIT {{limit}}
    )
    SELECT * FROM any_hits WHERE (SELECT count(*) FROM any_hits) < {{limit}}
    UNION ALL
    SELECT * FROM ({_NEWEST}) AS newest WHERE (SELECT count(*) FROM any_hits) >= {{limit}}
"""
# Hits in messages that are not long, and all of long ones.
_FOUND: Final = """
    WITH found AS MATERIALIZED (
        ({not_long})
        UNION ALL
        SELECT thread_id, line, min(kind), min(created_at), max({rank_of_part}) FROM words
            WHERE part > 0 {where_part} GROUP BY thread_id, line {having}
    ), of_threads AS MATERIALIZED (
        SELECT thread_id, max(created_at) AS created_at FROM found GROUP BY thread_id
    )
    SELECT 0, '', (SELECT count(*) FROM found), count(*),
        count(*) FILTER (WHERE thread_id = ANY(string_to_array(%(titled)s::text, chr(10)))) FROM of_threads
    UNION ALL
    (SELECT 1, thread_id, line, kind, created_at FROM found
        ORDER BY {best_first}created_at DESC, thread_id, line DESC LIMIT %(most_hits)s)
    UNION ALL
    (SELECT 2, thread_id, 0, 0, created_at FROM of_threads
        ORDER BY created_at DESC, thread_id LIMIT %(most_links)s)
"""
_EXPECTED: Final = "EXPLAIN (FORMAT JSON) SELECT FROM words WHERE part = 0 {where}"
# So many times what is counted have to be expected, as the server may be wrong.
_SURELY: Final = 1.25
_THREADS_WITH: Final = """
    SELECT thread_id FROM words WHERE part = 0 AND words @@ {any} AND thread_id = ANY(%(among)s::text[])
    UNION
    SELECT thread_id FROM words WHERE part > 0 AND words @@ {any} AND thread_id = ANY(%(among)s::text[])
"""


@dataclass(frozen=True, slots=True)
class WordHits:
    """The first *hits*, and the time of the *newest* one of each thread, as many as were asked for; how many
    *messages* and *threads* there are, and how many of the *titled* threads that were named.

    *is_bounded*: there are more hits than are counted, of which these are the newest.
    """

    hits: list[Hit]
    newest: list[Hit]
    messages: int
    threads: int
    titled: int
    is_bounded: bool


def find(
    database: Database,
    query: Query,
    most_hits: int,
    most_links: int,
    *,
    by_relevance: bool,
    among: Collection[str] | None,
    but: Collection[str],
    titled: Collection[str],
) -> WordHits:
    """Of messages; what the query asks for threads is not looked at.

    Args:
        query: one of which the words say all: see `lexemes.can_be_asked_for`.
        among: the threads of which messages count, if not all, *but* these.
        titled: threads to count among those with a hit.
    """
    most = max(RANKED, most_hits, most_links)
    conditions, values = _filters(query, among, but)
    # As one text, which is made in less time than a list; an id has no end of a line in it.
    values |= {"most_hits": most_hits, "most_links": most_links, "titled": "\n".join(titled)}
    hits: list[Hit] = []
    newest: list[Hit] = []
    messages = threads = titled_threads = 0
    are_many = _are_many(database, query, conditions, values, most)
    statement = _statement(query, conditions, by_relevance, most + 1, are_many=are_many)
    for which, thread_id, *numbers in database.read(statement, values):
        if not which:
            messages, threads, titled_threads = numbers
        else:
            line, kind, created_at = numbers
            (hits if which == 1 else newest).append(Hit(thread_id, Kind(kind), line, created_at))
    return WordHits(hits, newest, messages, threads, titled_threads, messages > most)


def threads_with(database: Database, terms: Sequence[Term], among: Collection[str]) -> set[str]:
    """Those of some threads that have a message with one of these terms."""
    statement = _THREADS_WITH.format(any=_tsquery(any_of(terms)))
    return {thread_id for (thread_id,) in database.read(statement, {"among": [*among]})}


def _are_many(
    database: Database, query: Query, conditions: str, values: dict[str, Any], counted: int
) -> bool:
    """Whether the server expects surely more hits than are *counted* in messages that are not long.

    It knows how many messages have a frequent word, but not in how many of these words stand in a row. Where
    most messages have them all, going back in time is no worse than another way.
    """
    expected = _expected(database, _where(query) + conditions, values)
    if expected < _SURELY * counted:
        return False
    is_row = any(len(term.words) > 1 for term in (*query.terms, *query.without))
    return not is_row or expected > _expected(database, "", {}) / 2


def _expected(database: Database, where: str, values: dict[str, Any]) -> int:
    ((plans,),) = database.read(_EXPECTED.format(where=where), values)
    return int(plans[0]["Plan"]["Plan Rows"])


def _where(query: Query) -> str:
    wanted = " & ".join([*map(row, query.terms), *(f"!{row(term)}" for term in query.without)])
    return f"AND words @@ {_tsquery(wanted)}" if wanted else ""


def _statement(query: Query, conditions: str, by_relevance: bool, most: int, *, are_many: bool) -> str:
    every = (*query.terms, *query.without)
    where_part = f"AND words @@ {_tsquery(any_of(every))}" if query.terms else ""
    having = [f"bool_or(words @@ {_tsquery(row(term))})" for term in query.terms]
    having += [f"NOT bool_or(words @@ {_tsquery(row(term))})" for term in query.without]
    is_ranked = by_relevance and query.terms
    not_long = (_NEWEST if are_many else _ANY_OR_NEWEST).format(
        rank=f"ts_rank(words, {_tsquery(' & '.join(map(row, query.terms)))})" if is_ranked else 0,
        where=_where(query) + conditions,
        limit=most,
    )
    return _FOUND.format(
        not_long=not_long,
        best_first="rank DESC, " if is_ranked else "",
        rank_of_part=f"ts_rank(words, {_tsquery(any_of(query.terms))})" if is_ranked else 0,
        where_part=where_part + conditions,
        having=f"HAVING {' AND '.join(having)}" if having else "",
    )


def _tsquery(text: str) -> str:
    """In the statement, and no parameter of it: the server plans each by the frequency of its words. There is
    nothing in words that has to be escaped."""
    doubled = text.replace("'", "''")
    return f"'{doubled}'::tsquery"


def _filters(query: Query, among: Collection[str] | None, but: Collection[str]) -> tuple[str, dict[str, Any]]:
    conditions = []
    values: dict[str, Any] = {}

    def add(condition: str, name: str, value: object) -> None:
        conditions.append(condition)
        values[name] = value

    if query.from_s is not None:
        add("created_at >= %(from_s)s", "from_s", query.from_s)
    if query.until_s is not None:
        add("created_at < %(until_s)s", "until_s", query.until_s)
    if query.kinds:
        kinds = {*query.kinds}
        add("kind = ANY(%(kinds)s::smallint[])", "kinds", [*kinds] if len(kinds) == 1 else [])
    if query.not_kinds:
        add("kind <> ALL(%(not_kinds)s::smallint[])", "not_kinds", [*query.not_kinds])
    if among is not None:
        add("thread_id = ANY(%(among)s::text[])", "among", [*among])
    if but:
        add("thread_id <> ALL(%(but)s::text[])", "but", [*but])
    return "".join(f" AND {condition}" for condition in conditions), values
