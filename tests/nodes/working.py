"""A worker that answers the runs of a store on a disk, for tests of what is shown meanwhile."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from store import RunStatus, ThreadStore
from store.disk.system_calls import SystemCalls
from store.errors import RunLost
from store.working import Answer, Outcome, Registration, WorkerState


class WithoutSyncs(SystemCalls):
    """For tests in which no power is cut."""

    def sync(self, file_or_directory: int) -> None:
        pass


class Answering:
    """A store, and a worker that answers in it, as in another process."""

    def __init__(self, directory: Path) -> None:
        self.store = ThreadStore(directory, calls=WithoutSyncs())
        self.worker: Registration = self.store.register_worker(
            WorkerState(endpoint="localhost:11434", jobs=2)
        )

    def claim(self, thread_id: str = "T") -> Answer:
        """The oldest queued run of a thread, claimed."""
        queued = [found for found in self.store.runs_by_status({RunStatus.queued}) if found[0] == thread_id]
        runs = [self.store.get_run(*found[:2]) for found in queued]
        run = min(runs, key=lambda run: (run.created_at, run.id))
        return self.worker.claim(thread_id, run.id)

    def answer(self, *pieces: str, thread_id: str = "T") -> None:
        answer = self.claim(thread_id)
        for piece in pieces:
            answer.append(piece)
        finish(answer)

    def close(self) -> None:
        self.worker.close()
        self.store.close()


def finish(answer: Answer, status: RunStatus = RunStatus.completed) -> None:
    cut = {RunStatus.cancelled: "run_cancelled", RunStatus.incomplete: "max_tokens"}.get(status)
    run_is_cut = "max_completion_tokens" if status is RunStatus.incomplete else None
    with suppress(RunLost):
        answer.finish(Outcome(status, message_is_cut=cut, run_is_cut=run_is_cut))
