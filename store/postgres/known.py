"""What is known of a store in a database, brought up to date before it answers: titles, times and runs in
memory, and which threads have messages without words.

What has changed is found by the versions of rows, in one statement each for threads and runs: at once for
what the store reports, for everything else at most once a second.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from store.api import DocumentKey, LogReader
from store.catalogue import schema
from store.catalogue.api import Progress
from store.catalogue.describing import summary_of, summary_of_run
from store.catalogue.tables import Tables
from store.catalogue.turns import Turns
from store.catalogue.values import RunSummary
from store.changes import Change, Part
from store.errors import Damaged, NotFound
from store.models import MessageRole, Run, ThreadMessage
from store.postgres.database import Database
from store.postgres.tables import parsed
from store.waiting import waits

T = TypeVar("T")

# How old an answer may be, of what nobody reports. A mount keeps it a little longer.
_FRESH_S = 0.8
# Of documents so many at once.
TOGETHER: Final = 200

_THREADS: Final = """
    SELECT thread_id, version, log_id, log_bytes, {worded}, greatest(threads.modified_ns,
        CASE WHEN log_bytes > 0 THEN log_modified_ns END, runs_modified_ns, of_runs.modified_ns)
    FROM threads {words} LEFT JOIN (
        SELECT thread_id, max(greatest(modified_ns, steps_modified_ns)) AS modified_ns FROM runs
        GROUP BY thread_id
    ) AS of_runs USING (thread_id)
"""
_WITHOUT_WORDS: Final = _THREADS.format(worded=-1, words="")
_WITH_WORDS: Final = _THREADS.format(
    worded="coalesce(worded_logs.bytes, 0)", words="LEFT JOIN worded_logs USING (thread_id)"
)
# Whether words may be read, and made. A role that got its privileges before there were words may do neither.
_MAY_USE_WORDS: Final = """
    SELECT bool_and(has_table_privilege(relation, privilege)) FILTER (WHERE privilege = 'SELECT'),
        bool_and(has_table_privilege(relation, privilege))
            AND NOT current_setting('transaction_read_only')::boolean
    FROM (VALUES ('words', 'SELECT'), ('worded_logs', 'SELECT'), ('words', 'INSERT'),
        ('worded_logs', 'INSERT'), ('worded_logs', 'UPDATE'), ('worded_logs', 'DELETE'),
        ('threads', 'UPDATE')) AS needed (relation, privilege)
"""
_RUNS: Final = "SELECT thread_id, run_id, version, modified_ns FROM runs"
OF_THESE: Final = " WHERE thread_id = ANY(%s)"
DOCUMENTS: Final = f"SELECT thread_id, document, modified_ns FROM threads {OF_THESE}"
_RUN_DOCUMENTS: Final = """
    SELECT thread_id, run_id, document, modified_ns FROM runs
    WHERE (thread_id, run_id) IN (SELECT * FROM unnest(%s::text[], %s::text[]))
"""


class Messages(Protocol):
    """The store that is catalogued."""

    def iter_messages(self, thread_id: str) -> Iterator[ThreadMessage]: ...
    def open_log(self, thread_id: str) -> LogReader: ...


class Known:
    """Of one store. *uses_words*: of a role that may."""

    def __init__(self, database: Database, store: Messages, *, uses_words: bool) -> None:
        self._database = database
        self._store = store
        self._uses_words = uses_words
        # Held while what follows is used.
        self._turns = Turns()
        self._tables = _new_tables(with_words=uses_words)
        # Of each thread and run that is in the tables, what it was when it was taken over.
        self._threads: dict[str, tuple[int, int, int]] = {}
        self._runs: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
        self._looked_at_s = float("-inf")
        self._may_read_words = False
        # Whether this role may make words.
        self.may_make_words = False
        # Threads whose words are those of another log, or not of all of it.
        self.behind: set[str] = set()
        # Guards what was reported since, for no longer than noting takes.
        self._noting = threading.Lock()
        self._noted: set[str] = set()
        self._has_lost = False
        database.hearing.append(self._changed)

    def close(self) -> None:
        self._database.hearing.remove(self._changed)
        with self._turns:
            self._tables.connection.close()

    def forget(self) -> None:
        with self._turns:
            self._tables.connection.close()
            self._tables = _new_tables(with_words=self._uses_words)
            self._threads.clear()
            self._runs.clear()
            self.behind.clear()
            self._looked_at_s = float("-inf")

    def counts(self) -> tuple[int, int]:
        """How many threads there are, and how many have messages without words, by what is known."""
        with self._turns:
            threads = self._tables.counts().threads
            return threads, len(self.behind) if self.has_words else threads

    @property
    def has_words(self) -> bool:
        """Whether the words say all of the threads that are not behind, and there are those of titles."""
        return self._may_read_words and self._tables.has_words

    def look_again(self) -> None:
        """At everything, before the next answer."""
        with self._turns:
            self._looked_at_s = float("-inf")

    def names(self, thread_ids: Collection[str]) -> dict[str, str]:
        """What threads are called, by what is known."""
        with self._turns:
            return self._tables.thread_names(thread_ids)

    def log_bytes(self, thread_id: str) -> int:
        """As it was when it was taken over; 0 of a thread that is not known."""
        return self._threads.get(thread_id, (0, 0, 0))[2]

    # ── Changes ──────────────────────────────────────────────────────────────────────────────────────

    def _changed(self, change: Change) -> None:
        if change.part not in (Part.ANSWER, Part.WORKERS):
            with self._noting:
                self._has_lost |= change.part is Part.EVERYTHING
                self._noted.add(change.thread_id)

    def ask(self, work: Callable[[Tables], T], progress: Progress | None = None) -> T:
        """The result of *work* with tables that have the titles, times and runs of this moment."""
        waits()
        with self._turns:
            began_s = time.monotonic()
            with self._noting:
                noted, self._noted = self._noted, set()
                has_lost, self._has_lost = self._has_lost, False
            try:
                if has_lost or began_s - self._looked_at_s >= _FRESH_S:
                    if self._uses_words:
                        ((self._may_read_words, self.may_make_words),) = self._database.read(_MAY_USE_WORDS)
                    self._take_over(None, progress)
                    self._looked_at_s = began_s
                elif noted:
                    self._take_over([*noted], progress)
            except BaseException:
                self._looked_at_s = float("-inf")
                raise
            return work(self._tables)

    def _take_over(self, noted: list[str] | None, progress: Progress | None) -> None:
        """What has changed in some threads, or in all."""
        where, row = ("", []) if noted is None else (OF_THESE, [noted])
        has_words = self.has_words
        threads = _WITH_WORDS if has_words else _WITHOUT_WORDS
        found = {row[0]: row[1:] for row in self._database.read(threads + where, row)}
        runs: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
        for thread_id, run_id, *stamp in self._database.read(_RUNS + where, row):
            runs[thread_id][run_id] = tuple(stamp)
        known = [*self._threads] if noted is None else noted
        changed = [one for one, stamp in found.items() if self._threads.get(one) != stamp[:3]]
        for done, some in batches(changed):
            self._take_over_threads(some, found)
            if progress:
                progress(done, len(changed))
        self.behind.difference_update(known, found)
        if has_words:
            self.behind.update(one for one, (_, _, log, worded, _) in found.items() if log != worded)
        gone = [thread_id for thread_id in known if thread_id not in found]
        with self._tables.changing():
            for thread_id in gone:
                self._tables.remove_thread(thread_id)
                self._threads.pop(thread_id, None)
                self._runs.pop(thread_id, None)
            for thread_id, (*_, changed_ns) in found.items():
                self._tables.set_changed(thread_id, changed_ns)
        self._take_over_runs({one: runs.get(one, {}) for one in found if one in self._threads})

    def _take_over_threads(self, thread_ids: Sequence[str], found: dict[str, Any]) -> None:
        rows = self._database.read(DOCUMENTS, [list(thread_ids)])
        summaries = [
            summary_of(one, document, partial(self.said, one), modified_ns, found[one][-1])
            for one, document, modified_ns in rows
        ]
        with self._tables.changing():
            for summary in summaries:
                self._tables.put_thread(summary)
                self._threads[summary.id] = found[summary.id][:3]

    def _take_over_runs(self, found: dict[str, dict[str, tuple[int, int]]]) -> None:
        changed = [
            (thread_id, run_id)
            for thread_id, runs in found.items()
            for run_id, stamp in runs.items()
            if self._runs[thread_id].get(run_id) != stamp
        ]
        gone = [
            (thread_id, run_id)
            for thread_id, runs in found.items()
            for run_id in self._runs[thread_id].keys() - runs.keys()
        ]
        for _, some in batches(changed):
            rows = self._database.read(_RUN_DOCUMENTS, [list(ids) for ids in zip(*some, strict=True)])
            with self._tables.changing():
                for thread_id, run_id, document, modified_ns in rows:
                    if run := run_of(thread_id, run_id, document, modified_ns):
                        self._tables.put_run(thread_id, run)
                    else:
                        self._tables.remove_run(thread_id, run_id)
                    self._runs[thread_id][run_id] = found[thread_id][run_id]
        with self._tables.changing():
            for thread_id, run_id in gone:
                self._tables.remove_run(thread_id, run_id)
                del self._runs[thread_id][run_id]

    def said(self, thread_id: str) -> Iterator[str]:
        """The texts of the user's messages."""
        with suppress(NotFound):
            for message in self._store.iter_messages(thread_id):
                if message.role is MessageRole.user:
                    yield message.text


def _new_tables(*, with_words: bool) -> Tables:
    """In memory. With the words of titles, if this SQLite can have any."""
    if with_words:
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        schema.prepare(connection)
        try:
            schema.create(connection, {})
        except sqlite3.OperationalError:  # It has no FTS5.
            connection.close()
        else:
            return Tables(connection)
    return Tables(schema.in_memory(), has_words=False)


def run_of(thread_id: str, run_id: str, document: bytes, modified_ns: int) -> RunSummary | None:
    """``None`` for one whose document is damaged."""
    try:
        return summary_of_run(parsed(DocumentKey(thread_id, run_id), document, Run), modified_ns)
    except Damaged:
        return None


def batches(items: Sequence[T]) -> Iterator[tuple[int, Sequence[T]]]:
    """So many items at once, and how many there were by then."""
    for begin in range(0, len(items), TOGETHER):
        some = items[begin : begin + TOGETHER]
        yield begin + len(some), some
