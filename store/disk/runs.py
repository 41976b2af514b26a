"""Runs: made, listed by thread or by status, deleted with their steps."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from functools import partial

from store import documents, names
from store.api import DocumentKey, StatusOfRun
from store.changes import Change, Part
from store.disk import foreign, paths, trees
from store.disk.layout import META, RUNS, STATUS
from store.disk.open_threads import locked_thread
from store.disk.paths import opened
from store.disk.steps import Steps
from store.errors import Damaged, NotEmpty, NotFound, RunInProgress, StorageFailed, StoreError
from store.models import Run
from store.statuses import RunStatus


class Runs(Steps):
    def create_run(self, thread_id: str, run: Run) -> Run:
        """Makes a run of the thread.

        Raises:
            ThreadNotFound: no such thread.
            AlreadyExists: the thread has a run of this id.
        """
        names.checked(run.id)
        run = run.model_copy(update={"thread_id": names.checked(thread_id)})
        data = documents.pretty(run)
        with self.announcer.announcing() as changes, self._held((thread_id,)) as thread:
            if thread is None or not paths.exists(thread, META):
                raise self._gone(DocumentKey(thread_id))
            runs = trees.ensure_directory(self._calls, self._durable, thread, (thread_id, RUNS))
            try:
                trees.create(self._calls, self._durable, runs, (thread_id, RUNS, run.id), {STATUS: data})
            finally:
                os.close(runs)
            self._echoes.note(thread_id, RUNS, run.id, STATUS)
            changes.append(Change(Part.RUNS, thread_id, run.id))
        return run

    def get_run(self, thread_id: str, run_id: str) -> Run:
        return self._get(DocumentKey(thread_id, run_id), Run)

    def list_run_ids(self, thread_id: str) -> list[str]:
        """The ids of the thread's runs, in no order. Raises ThreadNotFound."""
        parts = (names.checked(thread_id), RUNS)
        if (followed := self._followed) and (known := followed.run_ids(thread_id)) is not None:
            return known
        return self._while_there(DocumentKey(thread_id), lambda: self._listing.ids(parts, STATUS))

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
            Foreign: see `check_ours`, also for *with_foreign* and *with_damaged*.
        """
        key = DocumentKey(thread_id, run_id)
        self.document_info(key)
        with (
            self.announcer.announcing() as changes,
            locked_thread(self.open_threads, thread_id),
            opened(self.root, thread_id, RUNS) as runs,
        ):
            if runs is None:
                raise self._gone(key)
            if not force:
                self._refuse_in_progress(thread_id, run_id)
            if only_empty and (
                self.get_run(thread_id, run_id).status is not RunStatus.queued
                or self._step_ids(key)  # Another program may have added one that was not seen yet.
            ):
                raise NotEmpty(f"run {run_id!r} has been worked on")
            if not with_damaged:
                self._check_is_thread(thread_id)
            foreign.check(runs, run_id, key, with_foreign=with_foreign, with_damaged=with_damaged)
            check_again = None if with_foreign else partial(foreign.check_contents, key=key)
            trees.delete(self._calls, runs, run_id, f"{thread_id}/{RUNS}/{run_id}", check_again)
            self._listing.forget((thread_id, RUNS, run_id))
            self._echoes.forget(thread_id, RUNS, run_id, STATUS)
            changes.append(Change(Part.RUNS, thread_id, run_id))

    def _refuse_in_progress(self, thread_id: str, run_id: str) -> None:
        with suppress(NotFound, Damaged):
            status = self.get_run(thread_id, run_id).status
            if status.is_in_progress:
                raise RunInProgress(run_id, status)

    def runs_by_status(self, statuses: Collection[RunStatus] = tuple(RunStatus)) -> Iterator[StatusOfRun]:
        """(thread, run, status) of every run that can be read and is in one of *statuses*."""
        yield from self._listed(statuses, time.monotonic())

    def _listed(self, statuses: Collection[RunStatus], asked_s: float) -> Iterator[StatusOfRun]:
        """As `runs_by_status`, for a question that was asked then, by the monotonic clock."""
        if (followed := self._followed) is None:
            yield from self._scan_all(statuses)
            return
        try:
            found = [*followed.run_lists().runs(statuses, asked_s)]
        except StorageFailed:  # Some threads cannot be read, or the disk cannot, which raises it again.
            found = [*self._scan_all(statuses)]
        if len(statuses) == 1:
            self._lists.compare(next(iter(statuses)), (run[:2] for run in found))
        yield from found

    def _scan_all(self, statuses: Collection[RunStatus]) -> Iterator[StatusOfRun]:
        for thread_id in self._listing.ids((), META):
            yield from (found for found in self.scan(thread_id) if found[2] in statuses)

    def scan(self, thread_id: str, run_ids: Iterable[str] | None = None) -> Iterator[StatusOfRun]:
        """(thread, run, status) of each run of the thread, or of some of its runs, that can be read."""
        with suppress(StoreError):
            for run_id in self.list_run_ids(thread_id) if run_ids is None else run_ids:
                with suppress(StoreError):
                    yield thread_id, run_id, self.status_of(thread_id, run_id)

    def status_of(self, thread_id: str, run_id: str) -> RunStatus:
        return self.get_run(thread_id, run_id).status

    def _unended_runs(self, latest_ns: int) -> Iterator[StatusOfRun]:
        """The runs that have not ended, and may not have changed after *latest_ns*."""
        return self.runs_by_status([status for status in RunStatus if not status.is_terminal])

    def stale_runs(self, older_than_s: float) -> Iterator[StatusOfRun]:
        """The runs that have not ended, with a status unchanged for *older_than_s* seconds."""
        latest_ns = time.time_ns() - int(older_than_s * 1e9)
        for found in self._unended_runs(latest_ns):
            with suppress(NotFound, Damaged):
                if self.document_info(DocumentKey(found[0], found[1])).modified_ns <= latest_ns:
                    yield found
