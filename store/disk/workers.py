"""Workers of a store in a directory: registered, claiming runs, and showing answers while they grow."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Self, TypeVar

from store import documents, held_thread, names
from store.answering import StoredAnswer
from store.api import DocumentKey, StatusOfRun
from store.changes import Change, Part
from store.claims import Attempt, Claims, OwnWorkers
from store.disk import paths, reading, trees, worker_locks
from store.disk.held_thread import DiskHeldThread, EndedRuns
from store.disk.layout import META, RUNS, STATUS, WORKERS, answer_name
from store.disk.paths import opened, storage_errors
from store.disk.system_calls import SystemCalls
from store.disk.threads import Threads
from store.disk.worker_locks import LockFile, OwnLock
from store.errors import (
    AlreadyExists,
    Damaged,
    NotFound,
    RunLost,
    RunWaits,
    StatusChanged,
    StorageFailed,
    StoreError,
)
from store.held_thread import HeldThread
from store.models import Run, RunStep, ThreadMessage
from store.statuses import RunStatus
from store.working import GrowingAnswer, Worker, WorkerState, any_run

log = logging.getLogger("threadfs")

T = TypeVar("T")


class Workers(Threads, Claims):
    """The part of the store that `store.working.Working` describes."""

    def __init__(self, location: str, calls: SystemCalls) -> None:
        super().__init__(location, calls)
        self._ended = EndedRuns()
        self.own_workers = OwnWorkers[DiskRegistration]()
        # Whether all runs have been looked at for what dead workers left before this store was opened.
        self._has_looked = False

    def hold(self, thread_id: str, work: Callable[[HeldThread], T]) -> T:
        """The result of *work* on the thread, which is locked meanwhile. Raises ThreadNotFound."""
        with self._changing(names.checked(thread_id)) as changing:
            if not paths.exists(changing.thread.directory, META):
                raise self._gone(DocumentKey(thread_id))
            return work(DiskHeldThread(self, self._calls, changing, self._ended))

    # ── Asking ─────────────────────────────────────────────────────────────────────────────

    def ask(self, thread_id: str, message: ThreadMessage, run: Run) -> tuple[ThreadMessage, Run]:
        """See `store.working.Working.ask`."""
        message = message.model_copy(update={"thread_id": names.checked(thread_id)})
        run = run.model_copy(update={"thread_id": thread_id}).with_extra(asked=message.id)
        line, parts = documents.line(message), (thread_id, RUNS, names.checked(run.id))
        contents: trees.Contents = {STATUS: documents.pretty(run)}
        with self._changing(thread_id) as changing:
            directory = changing.thread.directory
            if not paths.exists(directory, META):
                raise self._gone(DocumentKey(thread_id))
            runs = trees.ensure_directory(self._calls, self._durable, directory, parts[:2])
            try:
                with (
                    storage_errors(f"run {run.id}"),
                    trees.made_aside(self._calls, runs, contents) as temporary,
                ):
                    if paths.exists(runs, run.id):
                        raise AlreadyExists("run", run.id)
                    self.append_in(changing, line)
                    # Also if that fails: it may be there.
                    changing.changes.append(Change(Part.RUNS, thread_id, run.id))
                    self._put_asking(runs, temporary, parts)
                    self._echoes.note(*parts, STATUS)
            finally:
                os.close(runs)
        return message, run

    def _put_asking(self, runs: int, temporary: str, parts: tuple[str, ...]) -> None:
        try:
            trees.put_in_place(self._calls, self._durable, runs, temporary, parts)
        except (OSError, AlreadyExists) as error:
            number = getattr(error, "errno", None) or errno.EEXIST
            is_there = not paths.exists(runs, temporary)
            run = "a power cut may still undo the run" if is_there else "no run was made"
            reason = f"the message is stored, but {run}: {os.strerror(number)}"
            raise StorageFailed(number, parts[0], reason) from error

    # ── Workers ─────────────────────────────────────────────────────────────────────────────────────────

    def register_worker(self, state: WorkerState) -> DiskRegistration:
        """See `store.working.Working.register_worker`."""
        registration = DiskRegistration(self, self._calls, state)
        self.own_workers.registrations.append(registration)
        return registration

    def workers(self) -> list[Worker]:
        """See `store.working.Working.workers`."""
        return [
            Worker(found.worker, found.state, len(found.answers)) for found in worker_locks.living(self.root)
        ]

    def stale_runs(self, older_than_s: float) -> Iterator[StatusOfRun]:
        """The runs that have not ended, unchanged for *older_than_s* seconds, and without a living worker."""
        for thread_id, run_id, status in super().stale_runs(older_than_s):
            with suppress(NotFound, Damaged):
                worker = self.get_run(thread_id, run_id).worker
                if worker is None or not worker_locks.lives(self.root, worker):
                    yield thread_id, run_id, status

    # ── Workers that died ───────────────────────────────────────────────────────────────────────────────

    def take_over(self) -> list[Run]:
        """See `store.working.Working.take_over`."""
        taken_over: list[Run] = []
        failures: list[StorageFailed] = []
        with worker_locks.dead(self.root, self._calls) as dead:
            for key, work in self._to_take_over(dead):
                try:
                    taken_over += filter(None, [work()])
                except StorageFailed as error:
                    failures.append(error)
                except StoreError as error:  # It would be the same the next time.
                    log.warning("%s@%s cannot be taken over: %s", key.run_id, key.thread_id, error)
            if failures:
                raise failures[0]
            self._has_looked = True
        return taken_over

    def _to_take_over(self, dead: list[LockFile]) -> Iterator[tuple[DocumentKey, Callable[[], Run | None]]]:
        """The runs that a dead program may have left, and what to do about each."""
        found = self.own_workers.left()
        for file in dead:
            found += [(DocumentKey(*answer[:2]), Attempt(file.worker)) for answer in file.answers]
        if dead or not self._has_looked:
            found += self._claimed_by_dead({file.worker for file in dead})
        for key, attempt in dict.fromkeys(found):
            yield key, partial(self._bury, key, attempt)
        for thread_id, run_id, _ in list(self.runs_by_status([RunStatus.requires_action])):
            yield DocumentKey(thread_id, run_id), partial(self._queue_with_outputs, thread_id, run_id)

    def _claimed_by_dead(self, dead: Collection[str]) -> Iterator[tuple[DocumentKey, Attempt]]:
        """The runs in progress whose worker does not live; its lock file may be lost since a power cut.

        The locks of *dead* workers are held by this program.
        """
        for thread_id, run_id, _ in self.runs_by_status([RunStatus.in_progress, RunStatus.cancelling]):
            with suppress(NotFound, Damaged):
                worker = self.get_run(thread_id, run_id).worker
                if worker is not None and (worker in dead or not worker_locks.lives(self.root, worker)):
                    yield DocumentKey(thread_id, run_id), Attempt(worker)

    def _bury(self, key: DocumentKey, attempt: Attempt) -> Run | None:
        run = None
        with suppress(NotFound, Damaged):
            run = self.hold(key.thread_id, lambda thread: held_thread.bury(thread, str(key.run_id), *attempt))
        self.own_workers.forget(key, attempt)
        return run

    def _queue_with_outputs(self, thread_id: str, run_id: str) -> Run | None:
        with suppress(NotFound, Damaged):
            return self.hold(thread_id, lambda thread: held_thread.queue_with_outputs(thread, run_id))
        return None

    # ── Answers that grow ───────────────────────────────────────────────────────────────────────────────

    def growing_answers(self, thread_id: str) -> list[GrowingAnswer]:
        """See `store.working.Working.growing_answers`."""
        names.checked(thread_id)
        growing = []
        for found in worker_locks.living(self.root):
            for answer in found.answers:
                if answer.thread_id == thread_id and (size := self._growing_bytes(found.worker, answer)):
                    growing.append(answer._replace(size_bytes=size))
        return growing

    def _growing_bytes(self, worker: str, answer: GrowingAnswer) -> int:
        """The size of the text, if the run is still that worker's."""
        with suppress(NotFound, Damaged):
            status = paths.stat_file(self.root, *_parts(answer))
            if status is not None and self.get_run(answer.thread_id, answer.run_id).worker == worker:
                return status.st_size
        return 0

    def read_answer(self, answer: GrowingAnswer, offset: int, size: int) -> bytes | None:
        """See `store.working.Working.read_answer`."""
        file = paths.open_file(self.root, *_parts(answer))
        if file is None:
            return None
        try:
            with storage_errors("/".join(_parts(answer))):
                return reading.read_at(file.descriptor, size, offset)
        finally:
            os.close(file.descriptor)


def _parts(answer: GrowingAnswer) -> tuple[str, ...]:
    name = answer_name(answer.message_id)
    return (names.checked(answer.thread_id), RUNS, names.checked(answer.run_id), name)


class DiskRegistration:
    """A `store.working.Registration`."""

    def __init__(self, store: Workers, calls: SystemCalls, state: WorkerState) -> None:
        self._store = store
        self._calls = calls
        self._state = state
        self._own_lock = OwnLock(store.root, calls)
        self.id = self._own_lock.worker
        # Guards all below, and the file that lists the answers.
        self._telling = threading.Lock()
        self._answers: dict[DocumentKey, GrowingAnswer] = {}
        # How many claims are under way.
        self._claims = 0
        self._is_open = True
        try:
            self.set_state(state)
        except StoreError:
            self.close()
            raise

    def set_state(self, state: WorkerState) -> None:
        with self._announcing() as changes, self._telling:
            self._state = state
            self._tell(changes)

    def _announcing(self) -> AbstractContextManager[list[Change]]:
        """To be entered before the lock is taken: subscribers are called once it is released."""
        return self._store.announcer.announcing(is_commit=False)

    def _tell(self, changes: list[Change]) -> None:
        if self._is_open:
            changes.append(Change(Part.WORKERS, WORKERS))
            self._own_lock.write(self._state, list(self._answers.values()))

    def claim(self, thread_id: str, run_id: str, *, yields_to: Callable[[Run], bool] = any_run) -> DiskAnswer:
        key = DocumentKey(names.checked(thread_id), names.checked(run_id))
        with self._telling:
            if not self._is_open:
                raise StorageFailed(errno.ESHUTDOWN, f"worker {self.id}", "it has left")
            self._claims += 1
        try:
            return self._claim(key, yields_to)
        finally:
            with self._announcing() as changes, self._telling:
                self._claims -= 1
                self._end_if_over(changes)

    def _claim(self, key: DocumentKey, yields_to: Callable[[Run], bool]) -> DiskAnswer:
        thread_id, run_id = key.thread_id, str(key.run_id)
        step = RunStep(thread_id=thread_id, run_id=run_id)

        def work(thread: HeldThread) -> Run:
            run = held_thread.claim(thread, run_id, yields_to, self.id, step.id)
            held_thread.begin_step(thread, run, step)
            return run

        try:
            run = self._store.hold(thread_id, work)
        except (NotFound, RunWaits, StatusChanged):
            raise
        except BaseException:
            # It may have been claimed nevertheless.
            self._store.own_workers.leave(key, Attempt(self.id, step.id))
            raise
        answer = DiskAnswer(self._store, self._calls, self, run, step)
        self._list(key, answer.growing)
        return answer

    def let_go(self, answer: StoredAnswer, *, has_ended: bool) -> None:
        key = DocumentKey(answer.run.thread_id, answer.run.id)
        if not has_ended:
            self._store.own_workers.leave(key, Attempt(self.id, answer.step_id))
        self._list(key, None)

    def _list(self, key: DocumentKey, answer: GrowingAnswer | None) -> None:
        # Unless it can be told, others see no text while it grows.
        with suppress(StorageFailed), self._announcing() as changes, self._telling:
            if answer is None:
                self._answers.pop(key, None)
            else:
                self._answers[key] = answer
            self._tell(changes)

    def close(self) -> None:
        with self._announcing() as changes, self._telling:
            if self._is_open:
                self._is_open = False
                with suppress(ValueError):  # It could not tell about itself when it began.
                    self._store.own_workers.registrations.remove(self)
                self._end_if_over(changes)

    def _end_if_over(self, changes: list[Change]) -> None:
        """Gives the lock up, once the worker has left and none of its claims is under way any more.

        A run that is claimed after others have looked for what the worker left would never be found.
        """
        if not self._is_open and not self._claims:
            has_left_runs = any(left.worker == self.id for _, left in self._store.own_workers.left())
            self._own_lock.close(keeps_file=bool(self._answers) or has_left_runs)
            changes.append(Change(Part.WORKERS, WORKERS))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class DiskAnswer(StoredAnswer):
    """Its text is in a file beside the run's document, which is not synced."""

    def __init__(
        self, store: Workers, calls: SystemCalls, worker: DiskRegistration, run: Run, step: RunStep
    ) -> None:
        super().__init__(worker, run, step, names.message_of_step(step.id))
        self.growing = GrowingAnswer(run.thread_id, run.id, self.message_id, 0)
        self._store = store
        self._calls = calls
        self._file: int | None = None
        self._unwritten = bytearray()

    def _hold(self, work: Callable[[HeldThread], T]) -> T:
        return self._store.hold(self.run.thread_id, work)

    def _show(self, data: bytes) -> None:
        self._unwritten += data
        if not self._unwritten:
            return
        with (
            self._store.announcer.announcing(is_commit=False) as changes,
            storage_errors("/".join(_parts(self.growing))),
        ):
            changes.append(Change(Part.ANSWER, self.run.thread_id, self.run.id))
            if self._file is None:
                self._file = self._created()
            while self._unwritten:
                written = self._calls.write(self._file, bytes(self._unwritten))
                del self._unwritten[:written]

    def _created(self) -> int:
        *parts, name = _parts(self.growing)
        with opened(self._store.root, *parts) as run:
            if run is None:
                raise RunLost(self.run.id, "it was deleted")
            return self._calls.create(run, name)

    def _hide(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
