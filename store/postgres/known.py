"""What is known of a store in a database, brought up to date before it answers: titles, times and runs, and
which threads have messages without words.

What has changed is found by the versions of rows. While the store hears of all changes that programs make,
only the threads that are told of are compared, and all of them now and then; else all at most once a second.
What is known is in tables of SQLite in a temporary file without a name, as a hundred thousand threads would
take much memory.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, Protocol, TypeVar

from store.api import DocumentKey, LogReader
from store.catalogue import schema
from store.catalogue.api import Progress
from store.catalogue.describing import summary_of, summary_of_run
from store.catalogue.tables import Tables
from store.catalogue.turns import Turns
from store.catalogue.values import RunSummary, Signature, ThreadSummary
from store.changes import Change, Part
from store.errors import Damaged, NotFound, StorageFailed
from store.models import MessageRole, Run, ThreadMessage
from store.postgres.connections import Rows
from store.postgres.database import Database
from store.postgres.tables import parsed
from store.waiting import waits

log = logging.getLogger("threadfs")

T = TypeVar("T")

# How old an answer may be, of what nobody reports. A mount keeps it a little longer.
_FRESH_S = 0.8
# After how long all is compared though all that programs change is reported: changes made with SQL are not.
_SELDOM_S: Final = 30.0
# Of documents, and of threads that are compared, so many at once.
TOGETHER: Final = 200
_PAGE_THREADS: Final = 2000
# SQLite makes a file when there is much, in its directory for such, which is gone when this process is.
_TEMPORARY: Final = ""
# The path of a thread itself among the ids of its runs.
_THREAD: Final = ""

_THREADS: Final = """
    SELECT thread_id, version, log_id, log_bytes, {worded}, greatest(threads.modified_ns,
        CASE WHEN log_bytes > 0 THEN log_modified_ns END, runs_modified_ns, (
            SELECT max(greatest(modified_ns, steps_modified_ns)) FROM runs
            WHERE runs.thread_id = threads.thread_id
        ))
    FROM threads {words}
"""
_WITHOUT_WORDS: Final = _THREADS.format(worded="log_bytes", words="")
_WITH_WORDS: Final = _THREADS.format(
    worded="coalesce(worded_logs.bytes, 0)", words="LEFT JOIN worded_logs USING (thread_id)"
)
_PAGE: Final = " WHERE thread_id > %s ORDER BY thread_id LIMIT %s"
_BEHIND: Final = """
    SELECT thread_id FROM threads LEFT JOIN worded_logs USING (thread_id)
    WHERE log_bytes <> coalesce(bytes, 0)
"""
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
        self._is_in_memory = False
        self._looked_at_s = float("-inf")
        self._counted_s = float("-inf")
        self._may_read_words = False
        # Whether this role may make words.
        self.may_make_words = False
        # Threads whose words are those of another log, or not of all of it; perhaps more, until it is asked.
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
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._tables.connection.close()
        self._tables = _new_tables(with_words=self._uses_words, in_memory=self._is_in_memory)
        self.behind.clear()
        self._looked_at_s = float("-inf")

    def counts(self) -> tuple[int, int]:
        """How many threads there are, and how many have messages without words, by what is known."""
        threads = self._use(lambda tables: tables.count())
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
        return self._use(lambda tables: tables.thread_names(thread_ids))

    def log_bytes(self, thread_ids: Collection[str]) -> dict[str, int]:
        """How long logs are, by what is known; nothing of threads that are not."""
        found = self._use(lambda tables: tables.signatures_of(thread_ids))
        return {thread_id: seen[_THREAD].size_bytes for thread_id, seen in found.items()}

    def _use(self, work: Callable[[Tables], T]) -> T:
        with self._turns, suppress(sqlite3.Error):  # They are made anew by `ask`.
            return work(self._tables)
        return self.ask(work)

    def learns_that_words_may_be_made(self) -> bool:
        """By this role, on this server."""
        with self._turns:
            self._learn_privileges()
            return self.may_make_words

    def _learn_privileges(self) -> None:
        if self._uses_words:
            before = self._may_read_words
            ((self._may_read_words, self.may_make_words),) = self._database.read(_MAY_USE_WORDS)
            if self._may_read_words != before:
                self._looked_at_s = float("-inf")  # It is not known which threads are behind.

    # ── Changes ──────────────────────────────────────────────────────────────────────────────────────

    def _changed(self, change: Change) -> None:
        if change.part not in (Part.ANSWER, Part.WORKERS):
            with self._noting:
                self._has_lost |= change.part is Part.EVERYTHING
                self._noted.add(change.thread_id)

    def ask(self, work: Callable[[Tables], T], progress: Progress | None = None, *, words: bool = False) -> T:
        """The result of *work* with tables that have the titles, times and runs of this moment.

        Args:
            words: it also needs to know which threads are behind; else more of them may be taken to be.
        """
        waits()
        with self._turns:
            try:
                return self._ask(work, progress, words=words)
            except sqlite3.Error as error:  # The disk is full, or fails.
                if self._is_in_memory:
                    raise StorageFailed(errno.EIO, "the catalogue", str(error)) from None
                log.warning("the catalogue is kept in memory: %s", error)
                self._is_in_memory = True
                self._begin_anew()
                return self._ask(work, progress, words=words)

    def _ask(self, work: Callable[[Tables], T], progress: Progress | None, *, words: bool) -> T:
        began_s = time.monotonic()
        with self._noting:
            noted, self._noted = self._noted, set()
            has_lost, self._has_lost = self._has_lost, False
        try:
            if has_lost or began_s - self._looked_at_s >= self._fresh_s():
                self._learn_privileges()
                self._take_over_all(progress)
                self._looked_at_s = self._counted_s = began_s
            elif noted:
                rows = self._database.read(self._statement + OF_THESE, [[*noted]])
                self._take_over(rows, noted)
            # Nobody reports that words were made.
            if words and self.behind and began_s - self._counted_s >= _FRESH_S:
                self.behind &= {thread_id for (thread_id,) in self._database.read(_BEHIND)}
                self._counted_s = began_s
        except BaseException:
            self._looked_at_s = float("-inf")
            raise
        return work(self._tables)

    def _fresh_s(self) -> float:
        """For how long what was looked at is right, but for what was noted."""
        since_s = self._database.heard_since_s()
        is_heard = since_s is not None and since_s < self._looked_at_s
        return _SELDOM_S if is_heard else _FRESH_S

    @property
    def _statement(self) -> str:
        return _WITH_WORDS if self.has_words else _WITHOUT_WORDS

    def _take_over_all(self, progress: Progress | None) -> None:
        ((threads,),) = self._database.read("SELECT count(*) FROM threads")
        after, done = "", 0
        while True:
            rows = self._database.read(self._statement + _PAGE, [after, _PAGE_THREADS])
            last = rows[-1][0] if len(rows) == _PAGE_THREADS else None
            self._take_over(rows, self._tables.ids_between(after, last))
            done += len(rows)
            if progress:
                progress(done, max(done, threads))
            if last is None:
                return
            after = last

    def _take_over(self, rows: Rows, known_ids: Collection[str]) -> None:
        """What has changed in some threads: those of the *rows*, and no others of those that are known."""
        found: dict[str, dict[str, Signature]] = {}
        behind = set()
        for thread_id, version, log_id, log_bytes, worded_bytes, changed_ns in rows:
            found[thread_id] = {_THREAD: Signature(version, log_bytes, log_id, changed_ns, True)}
            if worded_bytes != log_bytes:
                behind.add(thread_id)
        for thread_id, run_id, version, modified_ns in self._database.read(_RUNS + OF_THESE, [[*found]]):
            found[thread_id][run_id] = Signature(version, 0, 0, modified_ns, True)
        known = self._tables.signatures_of(found)
        for _, some in batches([one for one, seen in found.items() if known.get(one) != seen]):
            self._take_over_these({one: found[one] for one in some}, known)
        if gone := [one for one in known_ids if one not in found]:
            with self._tables.changing():
                for thread_id in gone:
                    self._tables.remove_thread(thread_id)
        self.behind.difference_update(known_ids, found)
        self.behind |= behind

    def _take_over_these(
        self, found: dict[str, dict[str, Signature]], known: dict[str, dict[str, Signature]]
    ) -> None:
        """Threads, with what they and their runs look like, which is not what is known."""
        changed = {
            one: {path: seen for path, seen in paths.items() if known.get(one, {}).get(path) != seen}
            for one, paths in found.items()
        }
        threads = [
            one
            for one, paths in changed.items()
            if _THREAD in paths and (one not in known or paths[_THREAD][:3] != known[one][_THREAD][:3])
        ]
        runs = [(one, run_id) for one, paths in changed.items() for run_id in paths if run_id != _THREAD]
        summaries = self._summaries(threads, found)
        documents = self._run_documents(runs)
        # What has gone meanwhile goes the next time.
        there = found.keys() - (set(threads) - {summary.id for summary in summaries})
        with self._tables.changing():
            for summary in summaries:
                self._tables.put_thread(summary)
            for thread_id in there:
                self._tables.set_changed(thread_id, found[thread_id][_THREAD].modified_ns)
                for run_id in known.get(thread_id, {}).keys() - found[thread_id].keys():
                    self._tables.remove_run(thread_id, run_id)
                self._tables.put_signatures(thread_id, found[thread_id], 0, None)
            for thread_id, run_id, document, modified_ns in documents:
                if thread_id not in there:
                    continue
                if run := run_of(thread_id, run_id, document, modified_ns):
                    self._tables.put_run(thread_id, run)
                else:
                    self._tables.remove_run(thread_id, run_id)

    def _summaries(
        self, thread_ids: Sequence[str], found: dict[str, dict[str, Signature]]
    ) -> list[ThreadSummary]:
        if not thread_ids:
            return []
        return [
            summary_of(one, document, partial(self.said, one), modified_ns, found[one][_THREAD].modified_ns)
            for one, document, modified_ns in self._database.read(DOCUMENTS, [list(thread_ids)])
        ]

    def _run_documents(self, runs: Sequence[tuple[str, str]]) -> Rows:
        if not runs:
            return []
        return self._database.read(_RUN_DOCUMENTS, [list(ids) for ids in zip(*runs, strict=True)])

    def said(self, thread_id: str) -> Iterator[str]:
        """The texts of the user's messages."""
        with suppress(NotFound):
            for message in self._store.iter_messages(thread_id):
                if message.role is MessageRole.user:
                    yield message.text


def _new_tables(*, with_words: bool, in_memory: bool = False) -> Tables:
    """With the words of titles, if this SQLite can have any."""
    connection = sqlite3.connect(":memory:" if in_memory else _TEMPORARY, check_same_thread=False)
    schema.prepare(connection)
    connection.execute("PRAGMA journal_mode = MEMORY")
    if with_words:
        try:
            schema.create(connection, {})
            return Tables(connection)
        except sqlite3.OperationalError:  # It has no FTS5.
            pass
    schema.create(connection, {}, with_words=False)
    return Tables(connection, has_words=False)


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
