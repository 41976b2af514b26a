"""The queued runs that a worker may claim, in the order in which it claims them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import time

from store import DocumentKey, Run, RunStatus, Store, StoreError
from store.documents import parse
from threadfs.work.settings import Settings


@dataclass(frozen=True, slots=True)
class QueuedRun:
    """``since``: when it was made, in seconds, and when it was queued, in nanoseconds since 1970."""

    thread_id: str
    run_id: str
    model: str
    since: tuple[int, int]
    # It was queued so long ago that nobody may want an answer.
    is_old: bool


class Queue:
    """The queue of a store, as of the last `look`. Each run is read once; the store says which are queued."""

    def __init__(self, store: Store, settings: Settings, default_model: Callable[[], str]) -> None:
        self._store = store
        self._default_model = default_model
        self._settings = settings
        self._known: dict[tuple[str, str], QueuedRun] = {}
        # Runs whose documents may have changed since they were read.
        self._changed: set[tuple[str, str]] = set()

    def look(self) -> None:
        """Reads what has changed. Raises StorageFailed."""
        changed, self._changed = self._changed, set()
        queued = {(thread, run) for thread, run, _ in self._store.runs_by_status({RunStatus.queued})}
        kept = {key: run for key, run in self._known.items() if key in queued and key not in changed}
        read = {key: run for key in queued - kept.keys() if (run := self._read(*key))}
        self._known = {**kept, **read}

    def _read(self, thread_id: str, run_id: str) -> QueuedRun | None:
        """``None`` for a run that is gone by now, or cannot be read."""
        try:
            document, info = self._store.read_document(DocumentKey(thread_id, run_id))
            run = Run.of(parse(document))
        except StoreError:
            return None
        is_old = not self._settings.backlog and time() - info.modified_ns / 1e9 > self._settings.old_s
        return QueuedRun(thread_id, run_id, run.model, (run.created_at, info.modified_ns), is_old)

    def changed(self, thread_id: str, run_id: str) -> None:
        """A document may be another one."""
        self._changed.add((thread_id, run_id))

    def wants(self, thread_id: str, run: Run) -> bool:
        """Whether this worker would claim a queued run."""
        known = self._known.get((thread_id, run.id))
        return self._wants_model(run.model) and not (known and known.is_old)

    def _wants_model(self, model: str) -> bool:
        return self._settings.wants(model or self._default_model())

    def old(self) -> int:
        """How many runs are left as they were queued too long ago."""
        return sum(run.is_old and self._wants_model(run.model) for run in self._known.values())

    def next_of_each_thread(self) -> Iterator[QueuedRun]:
        """The runs whose turn it is: of each thread the oldest, the oldest of all first."""
        threads: set[str] = set()
        for run in sorted(self._known.values(), key=lambda run: run.since):
            if self._wants_model(run.model) and not run.is_old and run.thread_id not in threads:
                threads.add(run.thread_id)
                yield run
