"""Runs: made, moved from status to status, listed by status."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any

from store import documents, names
from store.api import DocumentKey
from store.changes import Change, Part
from store.errors import AlreadyExists, NotEmpty, RunInProgress, ThreadNotFound
from store.models import Run
from store.postgres.database import Transaction
from store.postgres.documents import Documents
from store.postgres.tables import ANSWER_TABLES, LIVES, NOW_NS, checked, not_found, refuse_foreign
from store.statuses import RunStatus

# Of a listing, at a time: what is in memory does not grow with the store.
_PAGE_ROWS = 5000


class Runs(Documents):
    def create_run(self, thread_id: str, run: Run) -> Run:
        """Makes a run of the thread.

        Raises:
            ThreadNotFound: no such thread.
            AlreadyExists: the thread has a run of this id.
        """
        names.checked(run.id)
        run = run.model_copy(update={"thread_id": names.checked(thread_id)})
        data = documents.pretty(run)

        self._database.write(thread_id, lambda transaction: insert_run(transaction, run, data))
        return run

    def get_run(self, thread_id: str, run_id: str) -> Run:
        return self._get(DocumentKey(thread_id, run_id), Run)

    def list_run_ids(self, thread_id: str) -> list[str]:
        """The ids of the thread's runs, in no order. Raises ThreadNotFound."""
        found = self._database.read(
            "SELECT run_id FROM threads LEFT JOIN runs USING (thread_id) WHERE thread_id = %s",
            [names.checked(thread_id)],
        )
        if not found:
            raise ThreadNotFound(thread_id)
        return [run_id for (run_id,) in found if run_id is not None]

    def delete_run(
        self,
        thread_id: str,
        run_id: str,
        *,
        force: bool = False,
        only_empty: bool = False,
        with_foreign: bool = False,
        with_damaged: bool = False,
    ) -> None:
        """Deletes a run with its steps.

        Raises:
            RunInProgress: it is in progress, and *force* is not given.
            NotEmpty: it is not queued or has steps, and *only_empty* was asked for.
            Foreign: its document is none, and *with_damaged* is not given.
        """
        key = checked(DocumentKey(thread_id, run_id))

        def work(transaction: Transaction) -> None:
            runs_changed(transaction, thread_id)
            found = transaction.execute(
                "SELECT status, document,"
                " EXISTS (SELECT FROM steps WHERE thread_id = %(t)s AND run_id = %(r)s)"
                " FROM runs WHERE thread_id = %(t)s AND run_id = %(r)s FOR UPDATE",
                {"t": thread_id, "r": run_id},
            )
            if not found:
                raise not_found(key)
            status, document, has_steps = found[0]
            if not force:
                refuse_in_progress(run_id, status)
            if only_empty and (status != RunStatus.queued or has_steps):
                raise NotEmpty(f"run {run_id!r} has been worked on")
            if not with_damaged:
                refuse_foreign(key, document)
            for table in ("runs", *ANSWER_TABLES):
                transaction.execute(
                    f"DELETE FROM {table} WHERE thread_id = %s AND run_id = %s", [thread_id, run_id]
                )
            transaction.changed(
                Change(Part.RUNS, thread_id, run_id), Change(Part.DOCUMENT, thread_id, run_id)
            )

        self._database.write(thread_id, work)

    def index_runs(self) -> None:
        """Nothing to begin: the server keeps the index."""

    def runs_by_status(
        self, statuses: Collection[RunStatus] = tuple(RunStatus)
    ) -> Iterator[tuple[str, str, RunStatus]]:
        """(thread, run, status) of every run in one of *statuses*.

        Read from an index, which is in the order of the result, some at a time. A run that changes its
        status meanwhile is given once, or, when only some *statuses* are asked for, twice or not at all.
        """
        if set(RunStatus).issubset(statuses):
            for thread_id, run_id, status in self._pages(
                "SELECT thread_id, run_id, status FROM runs WHERE (thread_id, run_id) > (%s, %s)"
                " ORDER BY thread_id, run_id LIMIT %s",
                ("", ""),
            ):
                with suppress(ValueError):  # A status of a later version.
                    yield thread_id, run_id, RunStatus(status)
            return
        for wanted in statuses:
            for thread_id, run_id in self._pages(
                "SELECT thread_id, run_id FROM runs WHERE status = %s AND (thread_id, run_id) > (%s, %s)"
                " ORDER BY thread_id, run_id LIMIT %s",
                ("", ""),
                RunStatus(wanted).value,
            ):
                yield thread_id, run_id, wanted

    def statuses_in_use(self) -> set[RunStatus]:
        """The statuses that some run is in: one look into the index for each status there is."""
        found = self._database.read(
            "SELECT status FROM unnest(%s::text[]) AS wanted (status)"
            " WHERE EXISTS (SELECT FROM runs WHERE runs.status = wanted.status)",
            [[status.value for status in RunStatus]],
        )
        return {RunStatus(status) for (status,) in found}

    def stale_runs(self, older_than_s: float) -> Iterator[tuple[str, str, RunStatus]]:
        """The runs that have not ended, unchanged for *older_than_s* seconds, and without a living worker."""
        ((latest_ns,),) = self._database.read(f"SELECT {NOW_NS} - %s::bigint", [int(older_than_s * 1e9)])
        for _, thread_id, run_id, status in self._pages(
            "SELECT modified_ns, thread_id, run_id, status FROM runs WHERE status IN"
            " ('queued', 'in_progress', 'requires_action', 'cancelling') AND modified_ns <= %s"
            f" AND NOT EXISTS (SELECT FROM answers JOIN workers USING (worker_id) WHERE {LIVES}"
            " AND answers.thread_id = runs.thread_id AND answers.run_id = runs.run_id)"
            " AND (modified_ns, thread_id, run_id) > (%s, %s, %s)"
            " ORDER BY modified_ns, thread_id, run_id LIMIT %s",
            (-(2**63), "", ""),
            latest_ns,
        ):
            yield thread_id, run_id, RunStatus(status)

    def _pages(self, query: str, after: tuple[Any, ...], *parameters: Any) -> Iterator[tuple[Any, ...]]:
        """The rows of *query*, which gives so many rows after a place; its first columns are their place."""
        while True:
            page = self._database.read(query, [*parameters, *after, _PAGE_ROWS])
            yield from page
            if len(page) < _PAGE_ROWS:
                return
            after = page[-1][: len(after)]


def insert_run(transaction: Transaction, run: Run, data: bytes) -> None:
    """Makes a run. Raises ThreadNotFound, AlreadyExists."""
    # First: the order of the runs of a thread is that in which its lock was taken.
    if not runs_changed(transaction, run.thread_id):
        raise ThreadNotFound(run.thread_id)
    if not transaction.execute(
        "INSERT INTO runs (thread_id, run_id, status, document, modified_ns, version)"
        f" VALUES (%s, %s, %s, %s, {NOW_NS}, %s) ON CONFLICT DO NOTHING RETURNING 1",
        [run.thread_id, run.id, run.status.value, data, transaction.version],
    ):
        raise AlreadyExists("run", run.id)
    transaction.changed(
        Change(Part.RUNS, run.thread_id, run.id), Change(Part.DOCUMENT, run.thread_id, run.id)
    )


def runs_changed(transaction: Transaction, thread_id: str) -> bool:
    """Locks the thread, in which a run comes or goes; False when there is no such thread."""
    return bool(
        transaction.execute(
            f"UPDATE threads SET runs_modified_ns = {NOW_NS} WHERE thread_id = %s RETURNING 1", [thread_id]
        )
    )


def refuse_in_progress(run_id: str, status: str) -> None:
    with suppress(ValueError):
        if RunStatus(status).is_in_progress:
            raise RunInProgress(run_id, status)
