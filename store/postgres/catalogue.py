"""The catalogue of a store in a database: titles, times and runs in memory, and no words.

What has changed is found by the versions of rows, in one statement each for threads and runs: at once for
what the store reports, for everything else at most once a second. A search reads all messages.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from store.api import DocumentKey, LogReader
from store.catalogue import schema
from store.catalogue.api import Progress, Statistics
from store.catalogue.describing import summary_of, summary_of_run
from store.catalogue.finding import Described, Wanted, texts_of
from store.catalogue.reading import ReadingCatalogue
from store.catalogue.tables import Tables
from store.catalogue.turns import Turns
from store.catalogue.values import Hit, RunSummary
from store.changes import Change, Part
from store.errors import Damaged, NotFound
from store.models import Run, ThreadMessage
from store.postgres.database import Database
from store.postgres.tables import parsed
from store.waiting import waits

T = TypeVar("T")

# How old an answer may be, of what nobody reports.
_FRESH_S: Final = 1.0
# Of documents, and of threads that are searched, so many at once, and no more bytes of messages than these
# unless one thread alone has more.
_TOGETHER: Final = 200
_TOGETHER_BYTES: Final = 1 << 20

_THREADS: Final = """
    SELECT thread_id, version, log_id, log_bytes, greatest(threads.modified_ns,
        CASE WHEN log_bytes > 0 THEN log_modified_ns END, runs_modified_ns, of_runs.modified_ns)
    FROM threads LEFT JOIN (
        SELECT thread_id, max(greatest(modified_ns, steps_modified_ns)) AS modified_ns FROM runs
        GROUP BY thread_id
    ) AS of_runs USING (thread_id)
"""
_RUNS: Final = "SELECT thread_id, run_id, version, modified_ns FROM runs"
_OF_THESE: Final = " WHERE thread_id = ANY(%s)"
_DOCUMENTS: Final = f"SELECT thread_id, document, modified_ns FROM threads {_OF_THESE}"
_RUN_DOCUMENTS: Final = """
    SELECT thread_id, run_id, document, modified_ns FROM runs
    WHERE (thread_id, run_id) IN (SELECT * FROM unnest(%s::text[], %s::text[]))
"""
_RUNS_OF: Final = f"SELECT thread_id, run_id, document, modified_ns FROM runs {_OF_THESE}"
_LINES: Final = """
    SELECT thread_id, line FROM threads JOIN messages USING (thread_id, log_id)
    WHERE thread_id = ANY(%s) ORDER BY thread_id, start
"""
_MESSAGES: Final = "SELECT count(*) FROM threads JOIN messages USING (thread_id, log_id)"


class Messages(Protocol):
    """The store that is catalogued."""

    def iter_messages(self, thread_id: str) -> Iterator[ThreadMessage]: ...
    def open_log(self, thread_id: str) -> LogReader: ...


class PostgresCatalogue(ReadingCatalogue):
    """See `store.catalogue.api.Catalogue`."""

    def __init__(self, database: Database, store: Messages) -> None:
        self._database = database
        self._store = store
        # Held while what follows is used.
        self._turns = Turns()
        self._tables = Tables(schema.in_memory(), has_words=False)
        # Of each thread and run that is in the tables, what it was when it was taken over.
        self._threads: dict[str, tuple[int, int, int]] = {}
        self._runs: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
        self._looked_at_s = float("-inf")
        # Guards what was reported since, for no longer than noting takes.
        self._noting = threading.Lock()
        self._noted: set[str] = set()
        self._has_lost = False
        database.announcer.subscribe_first(self._changed)

    def close(self) -> None:
        self._database.announcer.unsubscribe(self._changed)
        with self._turns:
            self._tables.connection.close()

    def statistics(self) -> Statistics:
        waits()
        with self._turns:
            threads = self._tables.counts().threads
        return Statistics(threads, threads, 0)

    def unread(self) -> frozenset[str]:
        return frozenset()

    def messages(self) -> int:
        ((number,),) = self._database.read(_MESSAGES)
        return int(number)

    def refresh(self, *, words: bool, progress: Progress | None = None) -> None:
        self._ask(lambda _: None, progress)

    def rebuild(self) -> None:
        with self._turns:
            self._tables.connection.close()
            self._tables = Tables(schema.in_memory(), has_words=False)
            self._threads.clear()
            self._runs.clear()
            self._looked_at_s = float("-inf")

    # ── Changes ──────────────────────────────────────────────────────────────────────────────────────

    def _changed(self, change: Change) -> None:
        if change.part not in (Part.ANSWER, Part.WORKERS):
            with self._noting:
                self._has_lost |= change.part is Part.EVERYTHING
                self._noted.add(change.thread_id)

    def _ask(self, work: Callable[[Tables], T], progress: Progress | None = None) -> T:
        waits()
        with self._turns:
            began_s = time.monotonic()
            with self._noting:
                noted, self._noted = self._noted, set()
                has_lost, self._has_lost = self._has_lost, False
            try:
                if has_lost or began_s - self._looked_at_s >= _FRESH_S:
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
        where, row = ("", []) if noted is None else (_OF_THESE, [noted])
        found = {row[0]: row[1:] for row in self._database.read(_THREADS + where, row)}
        runs: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
        for thread_id, run_id, *stamp in self._database.read(_RUNS + where, row):
            runs[thread_id][run_id] = tuple(stamp)
        known = [*self._threads] if noted is None else noted
        changed = [one for one, (*stamp, _) in found.items() if self._threads.get(one) != tuple(stamp)]
        for done, some in _batches(changed):
            self._take_over_threads(some, found)
            if progress:
                progress(done, len(changed))
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
        rows = self._database.read(_DOCUMENTS, [list(thread_ids)])
        summaries = [
            summary_of(one, document, partial(self._messages, one), modified_ns, found[one][-1])
            for one, document, modified_ns in rows
        ]
        with self._tables.changing():
            for summary in summaries:
                self._tables.put_thread(summary)
                self._threads[summary.id] = tuple(found[summary.id][:-1])

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
        for _, some in _batches(changed):
            rows = self._database.read(_RUN_DOCUMENTS, [list(ids) for ids in zip(*some, strict=True)])
            with self._tables.changing():
                for thread_id, run_id, document, modified_ns in rows:
                    if run := _run(thread_id, run_id, document, modified_ns):
                        self._tables.put_run(thread_id, run)
                    else:
                        self._tables.remove_run(thread_id, run_id)
                    self._runs[thread_id][run_id] = found[thread_id][run_id]
        with self._tables.changing():
            for thread_id, run_id in gone:
                self._tables.remove_run(thread_id, run_id)
                del self._runs[thread_id][run_id]

    # ── What is read ─────────────────────────────────────────────────────────────────────────────────

    def _described(self, thread_id: str) -> Described | None:
        return next(iter(self._describe([thread_id])), None)

    def _describe(self, thread_ids: Sequence[str]) -> list[Described]:
        ids = list(thread_ids)
        runs = defaultdict(list)
        for thread_id, *row in self._database.read(_RUNS_OF, [ids]):
            if run := _run(thread_id, *row):
                runs[thread_id].append(run)
        return [
            Described(
                summary_of(one, document, partial(self._messages, one), modified_ns, modified_ns),
                runs[one],
            )
            for one, document, modified_ns in self._database.read(_DOCUMENTS, [ids])
        ]

    def _messages(self, thread_id: str) -> Iterator[ThreadMessage]:
        with suppress(NotFound):
            yield from self._store.iter_messages(thread_id)

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
        some: list[str] = []
        size_bytes = 0
        for thread_id in thread_ids:
            log_bytes = self._threads.get(thread_id, (0, 0, 0))[2]
            if some and (len(some) == _TOGETHER or size_bytes + log_bytes > _TOGETHER_BYTES):
                yield some
                some, size_bytes = [], 0
            some.append(thread_id)
            size_bytes += log_bytes
        if some:
            yield some


def _run(thread_id: str, run_id: str, document: bytes, modified_ns: int) -> RunSummary | None:
    """``None`` for one whose document is damaged."""
    try:
        return summary_of_run(parsed(DocumentKey(thread_id, run_id), document, Run), modified_ns)
    except Damaged:
        return None


def _batches(items: Sequence[T]) -> Iterator[tuple[int, Sequence[T]]]:
    """So many items at once, and how many there were by then."""
    for begin in range(0, len(items), _TOGETHER):
        some = items[begin : begin + _TOGETHER]
        yield begin + len(some), some
