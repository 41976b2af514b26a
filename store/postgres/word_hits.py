"""Hits of a query among the words of messages, in the database.

PostgreSQL finds the rows of a rare word by its index, and those of a frequent one by going back in time;
asked for the newest ones it takes the wrong way for many a query, and then reads everything. So it is first
asked how many hits it expects. Unless these are surely more than are counted, any hits are asked for, but not
more than are counted, and only if there are more the newest ones.

Those are looked for among the newest messages. If there are more than are wanted, in as many threads, nobody
looks further, and there are at least as many as were counted; else as many messages are looked at as should
have them, and then older ones, until as many hits are found as are counted; where no threads are wanted, as
many as these. The most relevant ones are chosen from as many as are counted, however many messages have to be
looked at. For a long message all of its parts are looked at together.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from store.catalogue import searching
from store.catalogue.queries import Query, Term
from store.catalogue.values import Hit, Kind
from store.postgres.connections import Rows
from store.postgres.database import Database
from store.postgres.lexemes import any_of, row

# Statements for hits in messages that are not long: any, the newest, those of recent messages, and the newest
# without looking at more than the recent messages if enough are there. A condition that is the same for all
# rows keeps the server from reading the older ones at all.
_ANY: Final = """
    SELECT thread_id, line, kind, created_at, {rank} AS rank FROM words WHERE part = 0 {where} LIMIT {limit}
"""
_NEWEST: Final = """
    SELECT thread_id, line, kind, created_at, {rank} AS rank FROM words WHERE part = 0 {where}
    ORDER BY created_at DESC, thread_id, line DESC LIMIT {limit}
"""
_RECENT: Final = """
    SELECT thread_id, line, kind, created_at, {rank} AS rank FROM words
    WHERE part = 0 {where} AND created_at > {before_s}
    ORDER BY created_at DESC, thread_id, line DESC LIMIT {limit}
"""
_RECENT_FIRST: Final = f"""
    WITH recent AS MATERIALIZED ({_RECENT})
    SELECT * FROM recent
    UNION ALL
    (SELECT thread_id, line, kind, created_at, {{rank}} FROM words
        WHERE part = 0 {{where}} AND created_at <= {{before_s}} AND (
            SELECT count(*) <= %(most_hits)s OR count(DISTINCT thread_id) < %(most_links)s FROM recent)
        ORDER BY created_at DESC, thread_id, line DESC LIMIT {{older}})
    LIMIT {{limit}}
"""
# The time of the newest message that is not among so many recent ones.
_BEFORE_RECENT: Final = """
    SELECT created_at FROM words WHERE part = 0 {times}
    ORDER BY created_at DESC, thread_id, line DESC OFFSET {recent} LIMIT 1
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

    *is_bounded*: there may be more hits than are counted, of which these are the newest.
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
    most = max(searching.RANKED, most_hits, most_links)
    conditions, values = _filters(query, among, but)
    # As one text, which is made in less time than a list; an id has no end of a line in it.
    values |= {"most_hits": most_hits, "most_links": most_links, "titled": "\n".join(titled)}
    is_ranked = by_relevance and bool(query.terms)

    def ask(not_long: str, **numbers: int) -> WordHits:
        statement = _statement(not_long, query, conditions, is_ranked, limit=most + 1, **numbers)
        return _hits(database.read(statement, values), most)

    def ask_for_recent(not_long: str, **numbers: int) -> WordHits:
        found = ask(not_long, **numbers)
        is_full = found.messages > most_hits and found.threads >= most_links
        return replace(found, is_bounded=found.is_bounded or is_full)

    are_many, are_recent = _are_expected(database, query, conditions, values, most)
    if not are_many:
        found = ask(_ANY)
        if not found.is_bounded:
            return found
    if is_ranked or are_recent:
        return ask(_NEWEST)
    before_s = _before_recent(database, query, values, searching.LOOKED_AT)
    if before_s is not None and most_links:
        found = ask_for_recent(_RECENT, before_s=before_s)
        if found.is_bounded:
            return found
        if looked_at := searching.further(found.messages, found.threads, most_hits, most_links):
            before_s = _before_recent(database, query, values, looked_at)
    if before_s is None:
        return ask(_NEWEST)
    older = (most if most_links else most_hits) + 1
    return ask_for_recent(_RECENT_FIRST, before_s=before_s, older=older)


def _hits(rows: Rows, most: int) -> WordHits:
    """*most*: how many are counted of those that are not long."""
    hits: list[Hit] = []
    newest: list[Hit] = []
    messages = threads = titled = 0
    for which, thread_id, *numbers in rows:
        if not which:
            messages, threads, titled = numbers
        else:
            line, kind, created_at = numbers
            (hits if which == 1 else newest).append(Hit(thread_id, Kind(kind), line, created_at))
    return WordHits(hits, newest, messages, threads, titled, messages > most)


def threads_with(database: Database, terms: Sequence[Term], among: Collection[str]) -> set[str]:
    """Those of some threads that have a message with one of these terms."""
    statement = _THREADS_WITH.format(any=_tsquery(any_of(terms)))
    return {thread_id for (thread_id,) in database.read(statement, {"among": [*among]})}


def _are_expected(
    database: Database, query: Query, conditions: str, values: dict[str, Any], counted: int
) -> tuple[bool, bool]:
    """Whether the server expects surely more hits than are *counted* in messages that are not long, and
    whether already in recent ones, so that nobody has to ask which these are.

    It knows how many messages have a frequent word, but not in how many of these words stand in a row. Where
    most messages have them all, going back in time is no worse than another way.
    """
    surely = _SURELY * counted
    expected = _expected(database, _where(query) + conditions, values)
    if expected < surely:
        return False, False
    messages = _expected(database, "", {})
    if any(len(term.words) > 1 for term in (*query.terms, *query.without)):
        return expected > messages / 2, False
    return True, expected * searching.LOOKED_AT >= surely * messages


def _expected(database: Database, where: str, values: dict[str, Any]) -> int:
    ((plans,),) = database.read(_EXPECTED.format(where=where), values)
    return int(plans[0]["Plan"]["Plan Rows"])


def _where(query: Query) -> str:
    wanted = " & ".join([*map(row, query.terms), *(f"!{row(term)}" for term in query.without)])
    return f"AND words @@ {_tsquery(wanted)}" if wanted else ""


def _before_recent(database: Database, query: Query, values: dict[str, Any], recent: int) -> int | None:
    """The time of the newest message that is not among so many recent ones; ``None`` when all are."""
    statement = _BEFORE_RECENT.format(times=_times(query), recent=recent)
    return next((int(created_at) for (created_at,) in database.read(statement, values)), None)


def _statement(not_long: str, query: Query, conditions: str, is_ranked: bool, **numbers: int) -> str:
    every = (*query.terms, *query.without)
    where_part = f"AND words @@ {_tsquery(any_of(every))}" if query.terms else ""
    having = [f"bool_or(words @@ {_tsquery(row(term))})" for term in query.terms]
    having += [f"NOT bool_or(words @@ {_tsquery(row(term))})" for term in query.without]
    return _FOUND.format(
        not_long=not_long.format(
            rank=f"ts_rank(words, {_tsquery(' & '.join(map(row, query.terms)))})" if is_ranked else 0,
            where=_where(query) + conditions,
            **numbers,
        ),
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

    if query.kinds:
        kinds = {*query.kinds}
        add("kind = ANY(%(kinds)s::smallint[])", "kinds", [*kinds] if len(kinds) == 1 else [])
    if query.not_kinds:
        add("kind <> ALL(%(not_kinds)s::smallint[])", "not_kinds", [*query.not_kinds])
    if among is not None:
        add("thread_id = ANY(%(among)s::text[])", "among", [*among])
    if but:
        add("thread_id <> ALL(%(but)s::text[])", "but", [*but])
    values |= {"from_s": query.from_s, "until_s": query.until_s}
    return _times(query) + "".join(f" AND {condition}" for condition in conditions), values


def _times(query: Query) -> str:
    of_from = " AND created_at >= %(from_s)s" if query.from_s is not None else ""
    of_until = " AND created_at < %(until_s)s" if query.until_s is not None else ""
    return of_from + of_until
