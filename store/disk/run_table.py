"""Runs and their statuses in memory, found by thread or by status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from store.api import StatusOfRun
from store.models import RunStatus


class RunTable:
    """The statuses of runs. ``of_thread`` has, by thread, those of its runs."""

    def __init__(self) -> None:
        self.of_thread: dict[str, dict[str, RunStatus]] = {}
        self._not_ended: dict[tuple[str, str], RunStatus] = {}
        self._counts: Counter[RunStatus] = Counter()

    def set(self, thread_id: str, run_id: str, status: RunStatus | None) -> None:
        """Changes a run of a thread that is in the table; with ``None`` it goes."""
        runs = self.of_thread.get(thread_id)
        if runs is None:
            return
        if before := runs.pop(run_id, None):
            self._counts[before] -= 1
            self._not_ended.pop((thread_id, run_id), None)
        if status is not None:
            runs[run_id] = status
            self._counts[status] += 1
            if not status.is_terminal:
                self._not_ended[thread_id, run_id] = status

    def find(self, statuses: Collection[RunStatus]) -> Iterator[StatusOfRun]:
        """The runs in one of *statuses*. A search for runs that have not ended passes over no others."""
        in_use = {status for status in statuses if self._counts[status]}
        if not any(status.is_terminal for status in in_use):
            for (thread_id, run_id), status in self._not_ended.items():
                if status in in_use:
                    yield thread_id, run_id, status
            return
        for thread_id, runs in self.of_thread.items():
            for run_id, status in runs.items():
                if status in in_use:
                    yield thread_id, run_id, status
