"""Claims: which runs could be claimed now, and why others have to wait."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection

import trio

from store import Change, NotFound, Part, RunStatus, StatusChanged, StorageFailed, Store, StoreError, Watch
from store.errors import RunWaits
from store.working import Answer, Registration
from threadfs.work.queue import Queue, QueuedRun
from threadfs.work.settings import Settings

log = logging.getLogger("threadfs")

# How often another run of a thread may turn out to go first, while others claim runs as well.
_MAX_TURNS = 10


class Claims:
    """The queue of a store, as one worker sees it."""

    def __init__(self, store: Store, settings: Settings, default_model: Callable[[], str]) -> None:
        self._store = store
        self._queue = Queue(store, settings, default_model)
        # Why the next run of a thread has to wait, until something changes in the thread.
        self._waiting: dict[str, str] = {}
        # What was told last: how many old runs are left, and why the store refuses.
        self._old = 0
        self._refusal = ""
        # Whether the store refused something since the last look, and since when it does.
        self.is_refused = False
        self._refused_since_s = 0.0

    def heard(self, change: Change) -> None:
        """Something has changed: what had to wait may be claimed."""
        if change.run_id:
            self._queue.changed(change.thread_id, change.run_id)
        if change.part is Part.EVERYTHING:
            self._waiting.clear()
        self._waiting.pop(change.thread_id, None)

    def try_all_again(self) -> None:
        """What had to wait may be claimed, although nothing was heard."""
        self._waiting.clear()

    def notes(self) -> list[str]:
        """The runs that nobody will end for whom others wait, for people."""
        return sorted(filter(None, self._waiting.values()))

    @property
    def refused_for_s(self) -> float:
        """How long the store has refused, if it does."""
        return trio.current_time() - self._refused_since_s if self.is_refused else 0.0

    async def look(self, watch: Watch) -> bool:
        """Looks at the queue. Whether each change of it will be reported."""
        self.is_refused = False
        try:
            is_reported = await trio.to_thread.run_sync(self._store.follow_all_runs, watch)
            await trio.to_thread.run_sync(self._queue.look)
        except StorageFailed as error:
            self._refused(error)
            return False
        if (old := self._queue.old()) > self._old:
            log.warning("runs that were queued over a day ago, and are left: %d (see --backlog)", old)
        self._old = old
        return is_reported

    def _refused(self, error: StoreError) -> None:
        if str(error) != self._refusal:
            log.warning("%s", error)
            self._refused_since_s = trio.current_time()
        self._refusal = str(error)
        self.is_refused = True

    def next(self, busy: Collection[str]) -> list[QueuedRun]:
        """The runs whose turn it may be, but for those of *busy* threads; the oldest first."""
        return [
            run
            for run in self._queue.next_of_each_thread()
            if run.thread_id not in busy and run.thread_id not in self._waiting
        ]

    async def claim(self, registration: Registration, run: QueuedRun) -> Answer | None:
        """Claims a run, or the one in its thread that goes first, if it is still there and its turn."""
        thread_id = run.thread_id
        # Noted before, so that a change in the meantime is not missed.
        self._waiting[thread_id] = ""
        is_stopping = threading.Event()

        def claim(run_id: str) -> Answer:
            answer = registration.claim(
                thread_id, run_id, yields_to=lambda other: self._queue.wants(thread_id, other)
            )
            if is_stopping.is_set():
                with answer:
                    pass  # It is handed back.
            return answer

        next_id = run.run_id
        for _ in range(_MAX_TURNS):
            try:
                # The disk may take long, but not a worker that stops.
                answer = await trio.to_thread.run_sync(claim, next_id, abandon_on_cancel=True)
            except trio.Cancelled:
                is_stopping.set()
                raise
            except RunWaits as error:
                if error.status == RunStatus.queued:
                    next_id = error.other_id  # The store knows better which one is older.
                    continue
                if thread_id in self._waiting:
                    self._waiting[thread_id] = _why(error)
            except (StatusChanged, NotFound):
                pass  # Somebody was faster.
            except StoreError as error:
                self._waiting.pop(thread_id, None)  # No change in the thread would tell that it may be tried.
                self._refused(error)
            else:
                self._waiting.pop(thread_id, None)
                self._refusal = ""
                return answer
            return None
        return None


def _why(waits: RunWaits) -> str:
    """Why a run waits, if that is not because of a worker that will end it."""
    if waits.status == RunStatus.requires_action:
        return f"{waits.run_id} waits for {waits.other_id}, which waits for the output of a tool"
    if waits.worker is None and waits.status != RunStatus.queued:
        return f"{waits.run_id} waits for {waits.other_id}, another program's: threadfs expire"
    return ""
