"""When the lists of threads and of runs by status last changed, as far as changes are reported."""

from __future__ import annotations

import threading
import time

from store.changes import Change, Part


class ListTimes:
    """A change of a run tells neither the status that it had nor the one that it has: it counts for each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.threads_ns = self.runs_ns = time.time_ns()

    def changed(self, change: Change) -> None:
        is_of_run = change.part is Part.DOCUMENT and change.run_id is not None and change.step_id is None
        with self._lock:
            if change.part in (Part.THREADS, Part.EVERYTHING):
                self.threads_ns = max(time.time_ns(), self.threads_ns + 1)
            if is_of_run or change.part in (Part.THREADS, Part.RUNS, Part.EVERYTHING):
                self.runs_ns = max(time.time_ns(), self.runs_ns + 1)
