"""Makes the words of messages that have none yet: by one program at a time, in short transactions.

What a log has is compared with how much of it was done, so that nothing has to be told, or remembered, and
whoever comes after one that was killed goes on where it was.

``python -m store.postgres.making`` is a process of its own that does it with the lowest priority; `filling`
starts it. The database comes on its standard input, as others see what stands in a command line. When that is
at its end, the one who has started it is gone, or wants no more.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any, Final, NamedTuple

import psycopg

from store.catalogue.api import Progress
from store.catalogue.finding import text_of
from store.catalogue.folding import words_of
from store.postgres.connections import Connections, Limits, Session
from store.postgres.failures import words
from store.postgres.lexemes import vectors

# Who holds this advisory lock makes the words: any number, the same in all versions.
LOCK: Final = 7_403_215_880_192_117
# The exit status of a process that the server did not let do it.
REFUSED: Final = 3
_LOWEST: Final = 19
# Of logs, in one transaction: less than a second, for which a thread cannot be deleted.
_PIECE_BYTES: Final = 1 << 18
_PIECE_THREADS: Final = 100

_LOGS: Final = """
    SELECT thread_id, log_id, log_bytes, CASE WHEN again THEN 0 ELSE bytes END,
        CASE WHEN again THEN 0 ELSE lines END, again
    FROM (
        SELECT thread_id, log_id, log_bytes, log_modified_ns, coalesce(bytes, 0) AS bytes,
            coalesce(lines, 0) AS lines, %s::boolean OR coalesce(bytes, 0) > log_bytes AS again
        FROM threads LEFT JOIN worded_logs USING (thread_id)
    ) AS logs
    WHERE again OR bytes < log_bytes ORDER BY log_modified_ns
"""
_LINES: Final = """
    SELECT thread_id, line
    FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bigint[])
            AS wanted (thread_id, log_id, first, until)
        JOIN messages USING (thread_id, log_id)
    WHERE start >= first AND start < until ORDER BY thread_id, start
"""
_FORGET: Final = "DELETE FROM worded_logs WHERE thread_id = ANY(%s)"
# The lock keeps the thread from being deleted until its words are there too.
_ADD_LOGS: Final = """
    WITH there AS (
        SELECT thread_id, given.lines, given.bytes
        FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bigint[])
                AS given (thread_id, log_id, lines, bytes)
            JOIN threads USING (thread_id, log_id)
        ORDER BY thread_id FOR KEY SHARE OF threads
    )
    INSERT INTO worded_logs (thread_id, lines, bytes) SELECT thread_id, lines, bytes FROM there
    ON CONFLICT (thread_id) DO UPDATE SET lines = excluded.lines, bytes = excluded.bytes
    RETURNING thread_id
"""
_ADD: Final = """
    INSERT INTO words (thread_id, line, part, kind, created_at, words)
    SELECT thread_id, line, part, kind, created_at, words::tsvector
    FROM unnest(%b::text[], %b::bigint[], %b::int[], %b::smallint[], %b::bigint[], %b::text[])
        AS made (thread_id, line, part, kind, created_at, words)
"""


# The text of words in one statement, which ends in time.
_STATEMENT_BYTES: Final = 1 << 20
# What is lost in a crash is made again. Folding a long message takes a while.
_SETTINGS: Final = """
    SELECT set_config('synchronous_commit', 'off', false),
        set_config('idle_in_transaction_session_timeout', '60s', false)
"""


class _Log(NamedTuple):
    """A log, and how much of it has words. *is_again*: it has some that are to be made anew."""

    thread_id: str
    log_id: int
    log_bytes: int
    bytes: int
    lines: int
    is_again: bool


class _Row(NamedTuple):
    """Of the table ``words``."""

    thread_id: str
    line: int
    part: int
    kind: int
    created_at: int
    words: str


def make(
    connections: Connections,
    go_on: Callable[[], None],
    progress: Progress | None = None,
    *,
    anew: bool = False,
) -> bool:
    """Returns when nothing is left to do; at once, and false, while another program does it.

    Args:
        go_on: is called before each statement, and may raise.
        anew: also of logs that have words.

    Raises:
        psycopg.Error: the server fails, or refuses. What was done by then stays.
    """
    with closing(connections.connect()) as connection:
        session = connections.session_on(connection)
        if session.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]) != [(True,)]:
            return False
        session.execute(_SETTINGS)
        _fill(session, go_on, progress, anew=anew)
        # Or the next one might come before the server notices that the session has ended.
        session.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
        return True


def database_line(connections: Connections) -> bytes:
    """What a process of its own has to be given."""
    return json.dumps([connections.url, asdict(connections.limits)]).encode() + b"\n"


def main() -> int:
    url, limits = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_heed_starter, daemon=True).start()
    os.nice(_LOWEST)
    try:
        make(Connections(url, Limits(**limits)), lambda: None)
    except psycopg.Error as error:
        print(words(error), flush=True)
        return REFUSED
    return 0


def _heed_starter() -> None:
    while os.read(0, 1):
        pass
    os._exit(0)


def _fill(session: Session, go_on: Callable[[], None], progress: Progress | None, *, anew: bool) -> None:
    before: list[_Log] = []
    # Until all that came meanwhile is done. What cannot be done would come again and again.
    while (logs := [_Log(*row) for row in session.execute(_LOGS, [anew])]) != before:
        done = 0
        for some in _pieces(logs):
            again = [one.thread_id for one in some if one.is_again]
            session.execute("BEGIN")
            session.execute(_FORGET, [again])
            rest = some
            while rest:
                go_on()
                rest = _add(session, rest, go_on)
                if rest and not again:  # Else whoever searches meanwhile finds what was there before.
                    session.execute("COMMIT")
                    session.execute("BEGIN")
            session.execute("COMMIT")
            done += len(some)
            if progress:
                progress(done, len(logs))
        before, anew = logs, False


def _pieces(logs: Iterable[_Log]) -> Iterator[list[_Log]]:
    some: list[_Log] = []
    size_bytes = 0
    for one in logs:
        some.append(one)
        size_bytes += one.log_bytes - one.bytes
        if len(some) == _PIECE_THREADS or size_bytes >= _PIECE_BYTES:
            yield some
            some, size_bytes = [], 0
    if some:
        yield some


def _add(session: Session, logs: list[_Log], go_on: Callable[[], None]) -> list[_Log]:
    """Makes words of the next lines of these logs. Those that have further ones."""
    wanted = [
        (one.thread_id, one.log_id, one.bytes, min(one.log_bytes, one.bytes + _PIECE_BYTES)) for one in logs
    ]
    lines: dict[str, list[bytes]] = defaultdict(list)
    for thread_id, line in session.execute(_LINES, _columns(wanted, 4)):
        lines[thread_id].append(line)
    done = [
        one._replace(
            bytes=one.bytes + sum(map(len, lines[one.thread_id])), lines=one.lines + len(lines[one.thread_id])
        )
        for one in logs
        if one.thread_id in lines
    ]
    rows = [row for one in done for row in _rows(one.thread_id, lines[one.thread_id], one.lines)]
    counts = [(one.thread_id, one.log_id, one.lines, one.bytes) for one in done]
    there = {*session.execute(_ADD_LOGS, _columns(counts, 4))}
    for some in _limited(row for row in rows if (row.thread_id,) in there):
        go_on()
        session.execute(_ADD, _columns(some, len(_Row._fields)))
    return [one for one in done if one.bytes < one.log_bytes]


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [[row[number] for row in rows] for number in range(width)]


def _limited(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    some: list[_Row] = []
    size_bytes = 0
    for row in rows:
        some.append(row)
        size_bytes += len(row.words)
        if size_bytes >= _STATEMENT_BYTES:
            yield some
            some, size_bytes = [], 0
    if some:
        yield some


def _rows(thread_id: str, lines: Sequence[bytes], last: int) -> Iterator[_Row]:
    """Of lines, the last one of which has this number."""
    for number, line in enumerate(lines, last - len(lines) + 1):
        if text := text_of(line.removesuffix(b"\n"), number, thread_id):
            parts = vectors(words_of(text.text))
            for part, words in enumerate(parts, 0 if len(parts) == 1 else 1):
                yield _Row(thread_id, number, part, text.kind, text.created_at, words)


if __name__ == "__main__":
    sys.exit(main())
