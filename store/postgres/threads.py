"""Threads: made, listed, timed, deleted with all that they hold."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from contextlib import suppress

from store import documents, names
from store.api import DocumentKey, Times
from store.changes import Change, Part
from store.errors import AlreadyExists, ModifiedSince, NotEmpty, StorageFailed, ThreadNotFound
from store.models import Thread
from store.postgres.connections import Rows
from store.postgres.database import Transaction
from store.postgres.documents import Documents
from store.postgres.runs import refuse_in_progress
from store.postgres.tables import ANSWER_TABLES, CHANGED_NS, NOW_NS, refuse_foreign, stored_time

# A list of runs or steps has only one time. Setting it back counts as a change of the thread.
_TIMES = """
    SELECT greatest(threads.modified_ns, CASE WHEN log_bytes > 0 THEN log_modified_ns END, runs_modified_ns,
            of_runs.modified_ns),
        greatest(threads.changed_ns, CASE WHEN log_bytes > 0 THEN log_changed_ns END, runs_modified_ns,
            of_runs.changed_ns),
        threads.thread_id
    FROM threads, LATERAL (
        SELECT max(greatest(runs.modified_ns, steps_modified_ns)) AS modified_ns,
            max(greatest(runs.changed_ns, steps_modified_ns)) AS changed_ns
        FROM runs WHERE runs.thread_id = threads.thread_id
    ) AS of_runs WHERE threads.thread_id
"""
_TIMES_OF_ONE = f"{_TIMES} = %s"
_TIMES_OF_MANY = f"{_TIMES} = ANY(%s)"
# The later of that and of when it was imported.
_TOUCHED = f"""
    SELECT greatest(times.modified_ns, imported_ns)
    FROM threads, LATERAL ({_TIMES_OF_ONE}) AS times (modified_ns)
    WHERE threads.thread_id = %s
"""


class Threads(Documents):
    def create_thread(self, thread: Thread) -> Thread:
        """Makes a thread with no messages and no runs.

        Raises:
            AlreadyExists: the id is taken.
        """
        names.checked(thread.id)
        data = documents.pretty(thread)
        self._database.write(thread.id, lambda transaction: insert_thread(transaction, thread.id, data))
        return thread

    def get_thread(self, thread_id: str) -> Thread:
        return self._get(DocumentKey(thread_id), Thread)

    def list_thread_ids(self) -> list[str]:
        """The ids of all threads, in no order."""
        return [thread_id for (thread_id,) in self._database.read("SELECT thread_id FROM threads")]

    def check_writable(self, thread_id: str) -> None:
        """Does nothing: the server refuses the change itself."""

    def thread_modified_ns(self, thread_id: str) -> int:
        """When anything in the thread last changed, in nanoseconds since 1970."""
        return self.thread_times(thread_id).modified_ns

    def thread_times(self, thread_id: str) -> Times:
        """The latest times of anything in the thread."""
        found = self._database.read(_TIMES_OF_ONE, [names.checked(thread_id)])
        if not found:
            raise ThreadNotFound(thread_id)
        return Times(*found[0][:2])

    def times_of_threads(self, thread_ids: Collection[str]) -> dict[str, Times]:
        """As `thread_times`, of many, in one round trip; without those that are not there, and of none when
        the server does not answer."""
        found: Rows = []
        with suppress(StorageFailed):
            found = self._database.read(_TIMES_OF_MANY, [list(filter(names.is_id, thread_ids))])
        return {thread_id: Times(*times) for *times, thread_id in found}

    def thread_touched_ns(self, thread_id: str) -> int:
        """The later of `thread_modified_ns` and of when it was imported."""
        found = self._database.read(_TOUCHED, [names.checked(thread_id)] * 2)
        if not found:
            raise ThreadNotFound(thread_id)
        return int(found[0][0])

    def set_thread_modified(self, thread_id: str, modified_ns: int) -> None:
        """Sets the times of the lists of runs and steps back, where they are later; documents keep theirs."""
        row = [stored_time(modified_ns, "a thread"), names.checked(thread_id)]

        def work(transaction: Transaction) -> None:
            if not transaction.execute(
                "UPDATE threads SET runs_modified_ns = least(runs_modified_ns, %s::bigint),"
                f" changed_ns = {CHANGED_NS} WHERE thread_id = %s RETURNING 1",
                row,
            ):
                raise ThreadNotFound(thread_id)
            transaction.execute(
                "UPDATE runs SET steps_modified_ns = %s WHERE thread_id = %s AND steps_modified_ns > %s",
                [*row, row[0]],
            )
            transaction.changed(Change(Part.RUNS, thread_id))

        self._database.write(thread_id, work, is_commit=False)

    def delete_thread(
        self,
        thread_id: str,
        *,
        force: bool = False,
        only_empty: bool = False,
        unmodified_since_ns: int | None = None,
        with_foreign: bool = False,
        with_damaged: bool = False,
    ) -> None:
        """Deletes a thread with all its contents; readers see all of it or nothing.

        Its messages are kept for a while, where only readers that have the log open find them.

        Raises:
            RunInProgress: a run is in progress, and *force* is not given.
            NotEmpty: it holds messages or runs, and *only_empty* was asked for.
            ModifiedSince: it has changed, or come, after *unmodified_since_ns*, in nanoseconds since 1970.
            Foreign: its document is none, and *with_damaged* is not given.
        """
        names.checked(thread_id)

        def work(transaction: Transaction) -> None:
            found = transaction.execute(
                "SELECT log_id, log_bytes, document FROM threads WHERE thread_id = %s FOR UPDATE", [thread_id]
            )
            if not found:
                raise ThreadNotFound(thread_id)
            log_id, log_bytes, document = found[0]
            # No run can come: that takes the lock on the thread. None can be claimed: they are locked here.
            runs = transaction.execute(
                "SELECT run_id, status FROM runs WHERE thread_id = %s ORDER BY run_id FOR UPDATE", [thread_id]
            )
            if not force:
                for run_id, status in runs:
                    refuse_in_progress(run_id, status)
            if only_empty and (runs or log_bytes):
                raise NotEmpty(f"thread {thread_id!r} holds messages or runs")
            if unmodified_since_ns is not None:
                ((touched_ns,),) = transaction.execute(_TOUCHED, [thread_id] * 2)
                if touched_ns > unmodified_since_ns:
                    raise ModifiedSince(thread_id)
            if not with_damaged:
                refuse_foreign(DocumentKey(thread_id), document)
            if log_bytes:
                transaction.execute(
                    "INSERT INTO deleted_logs (thread_id, log_id) VALUES (%s, %s)", [thread_id, log_id]
                )
            for table in ("threads", *ANSWER_TABLES):
                transaction.execute(f"DELETE FROM {table} WHERE thread_id = %s", [thread_id])
            transaction.changed(*whole_thread(thread_id))

        self._database.write(thread_id, work)
        self._leftovers.clear_later()


def insert_thread(transaction: Transaction, thread_id: str, document: bytes) -> int:
    """Makes a thread; the number of its log. Raises AlreadyExists."""
    log_id = secrets.randbits(63)
    if not transaction.execute(
        "INSERT INTO threads (thread_id, document, modified_ns, version, log_id, log_modified_ns)"
        f" VALUES (%s, %s, {NOW_NS}, %s, %s, {NOW_NS}) ON CONFLICT DO NOTHING RETURNING 1",
        [thread_id, document, transaction.version, log_id],
    ):
        raise AlreadyExists("thread", thread_id)
    transaction.changed(*whole_thread(thread_id))
    return log_id


def whole_thread(thread_id: str) -> list[Change]:
    """The changes when a thread comes or goes; an earlier one of its name may still be remembered."""
    return [Change(part, thread_id) for part in (Part.THREADS, Part.DOCUMENT, Part.LOG)]
