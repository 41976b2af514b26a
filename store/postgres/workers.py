"""Workers of a store in a database: registered, claiming runs, and showing answers while they grow."""

from __future__ import annotations

import errno
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from functools import partial
from typing import Self, TypeVar

import psycopg

from store import documents, held_thread, names
from store.answering import StoredAnswer
from store.changes import Change, Part
from store.claims import Attempt, Claims, OwnWorkers
from store.errors import Damaged, NotFound, RunWaits, StatusChanged, StorageFailed, StoreError, ThreadNotFound
from store.held_thread import HeldThread
from store.models import Run, RunStep, ThreadMessage
from store.names import WORKERS, DocumentKey
from store.postgres.answering import PostgresAnswer, row_of
from store.postgres.connections import Connection
from store.postgres.database import Database, Transaction
from store.postgres.documents import Documents
from store.postgres.failures import storage_failed
from store.postgres.held_thread import LockedRow
from store.postgres.log import append
from store.postgres.runs import insert_run
from store.postgres.tables import DIED, LIVES
from store.working import GrowingAnswer, Worker, WorkerState, any_run

T = TypeVar("T")

_WORKERS = f"""
    SELECT worker_id, state, (SELECT count(*) FROM answers WHERE answers.worker_id = workers.worker_id)
    FROM workers WHERE {LIVES} ORDER BY worker_id
"""
_TELL = """
    INSERT INTO workers (worker_id, lock_number, state) VALUES (%s, %s, %s)
    ON CONFLICT (worker_id) DO UPDATE SET lock_number = excluded.lock_number, state = excluded.state
"""
_OF_DEAD = f"""
    SELECT thread_id, run_id, message_id, worker_id FROM answers LEFT JOIN workers USING (worker_id)
    WHERE {DIED}
"""
_GROWING = f"""
    SELECT run_id, message_id, sum(octet_length(piece))::bigint
    FROM answers JOIN workers USING (worker_id) JOIN answer_texts USING (thread_id, run_id, message_id)
    WHERE thread_id = %s AND {LIVES} GROUP BY run_id, message_id
"""
_READ = """
    SELECT start, piece FROM answers LEFT JOIN answer_texts
        ON answer_texts.thread_id = answers.thread_id AND answer_texts.run_id = answers.run_id
        AND answer_texts.message_id = answers.message_id
        AND start < %(end)s AND start + octet_length(piece) > %(offset)s
    WHERE answers.thread_id = %(thread)s AND answers.run_id = %(run)s AND answers.message_id = %(message)s
    ORDER BY start
"""


class Workers(Documents, Claims):
    """The part of the store that `store.working.Working` describes."""

    def __init__(self) -> None:
        self.own_workers = OwnWorkers[PostgresRegistration]()

    def hold(self, thread_id: str, work: Callable[[HeldThread], T]) -> T:
        """The result of *work* on the thread, in one transaction. Raises ThreadNotFound."""
        return self.hold_row(thread_id, work)

    def hold_row(self, thread_id: str, work: Callable[[LockedRow], T]) -> T:
        names.checked(thread_id)
        return self._database.write(thread_id, lambda transaction: work(LockedRow(transaction, thread_id)))

    def ask(self, thread_id: str, message: ThreadMessage, run: Run) -> tuple[ThreadMessage, Run]:
        """See `store.working.Working.ask`."""
        message = message.model_copy(update={"thread_id": names.checked(thread_id)})
        names.checked(run.id)
        run = run.model_copy(update={"thread_id": thread_id}).with_extra(asked=message.id)
        line, data = documents.line(message), documents.pretty(run)

        def work(transaction: Transaction) -> None:
            if not append(transaction, thread_id, [line]):
                raise ThreadNotFound(thread_id)
            transaction.changed(Change(Part.LOG, thread_id))
            insert_run(transaction, run, data)

        self._database.write(thread_id, work)
        return message, run

    # ── Workers ─────────────────────────────────────────────────────────────────────────────────────────

    def register_worker(self, state: WorkerState) -> PostgresRegistration:
        """See `store.working.Working.register_worker`."""
        registration = PostgresRegistration(self, self._database, state)
        self.own_workers.registrations.append(registration)
        return registration

    def workers(self) -> list[Worker]:
        """See `store.working.Working.workers`."""
        return [
            Worker(worker, _state(told), in_use) for worker, told, in_use in self._database.read(_WORKERS)
        ]

    def take_over(self) -> list[Run]:
        """See `store.working.Working.take_over`."""
        for registration in list(self.own_workers.registrations):
            registration.stay_alive()
        taken_over: list[Run] = []
        failures: list[StorageFailed] = []
        for key, bury in self._to_take_over():
            try:
                taken_over += filter(None, [bury()])
            except StorageFailed as error:
                failures.append(error)
            except StoreError as error:
                what = f"{key.run_id}@{key.thread_id} cannot be taken over"
                failures.append(StorageFailed(errno.EINVAL, what, str(error)))
        self._database.execute(f"DELETE FROM workers WHERE NOT {LIVES}")
        if failures:
            raise failures[0]
        return taken_over

    def _to_take_over(self) -> Iterator[tuple[DocumentKey, Callable[[], Run | None]]]:
        """The runs in which an attempt was left, and what to do about each."""
        for key, attempt in self.own_workers.left():
            yield key, partial(self._bury_left, key, attempt)
        for thread_id, run_id, message_id, worker in self._database.read(_OF_DEAD):
            answer = GrowingAnswer(thread_id, run_id, message_id, 0)
            yield DocumentKey(thread_id, run_id), partial(self._bury_dead, answer, worker)

    def _bury_left(self, key: DocumentKey, attempt: Attempt) -> Run | None:
        run_id = str(key.run_id)

        def work(thread: LockedRow) -> Run | None:
            run = held_thread.bury(thread, run_id, *attempt)
            if run is None and thread.run(run_id).worker is None:
                thread.drop_growing(run_id)  # No later attempt has begun.
            return run

        run = None
        with suppress(NotFound, Damaged):
            run = self.hold_row(key.thread_id, work)
        self.own_workers.forget(key, attempt)
        return run

    def _bury_dead(self, answer: GrowingAnswer, worker: str) -> Run | None:
        def work(thread: LockedRow) -> Run | None:
            # The worker may be back by now, and another attempt may have begun.
            if not thread.is_left(answer):
                return None
            run = None
            with suppress(NotFound, Damaged):
                run = held_thread.bury(thread, answer.run_id, worker)
            if run is None:
                thread.drop_growing(answer.run_id)
            return run

        with suppress(NotFound):
            return self.hold_row(answer.thread_id, work)
        return None

    # ── Answers that grow ───────────────────────────────────────────────────────────────────────────────

    def growing_answers(self, thread_id: str) -> list[GrowingAnswer]:
        """See `store.working.Working.growing_answers`."""
        found = self._database.read(_GROWING, [names.checked(thread_id)])
        return [GrowingAnswer(thread_id, run_id, message_id, size) for run_id, message_id, size in found]

    def read_answer(self, answer: GrowingAnswer, offset: int, size: int) -> bytes | None:
        """See `store.working.Working.read_answer`."""
        row = {**row_of(answer), "offset": offset, "end": min(offset + size, 2**63 - 1)}
        found = self._database.read(_READ, row)
        if not found:
            return None
        pieces = [piece[max(0, offset - start) :] for start, piece in found if piece is not None]
        return b"".join(pieces)[:size]


def _state(told: str) -> WorkerState:
    state = json.loads(told)
    return WorkerState(state["endpoint"], state["jobs"], state["state"], tuple(state["notes"]))


class PostgresRegistration:
    """A `store.working.Registration`: a session that holds an advisory lock, and nothing else."""

    def __init__(self, store: Workers, database: Database, state: WorkerState) -> None:
        self.id = names.new_worker_id()
        self._store = store
        self._database = database
        self._state = state
        # Guards the session and the state.
        self._telling = threading.Lock()
        self._connection: Connection | None = None
        self._number = 0
        self._is_open = True
        self.stay_alive()

    def set_state(self, state: WorkerState) -> None:
        with self._announcing() as changes, self._telling:
            self._state = state
            if self._is_open and not self._take_lock(changes):
                self._tell(self._number, changes)

    def stay_alive(self) -> None:
        """Takes the lock again if its session was lost. Others may have taken over the runs by then."""
        with self._announcing() as changes, self._telling:
            if self._is_open:
                self._take_lock(changes)

    def _announcing(self) -> AbstractContextManager[list[Change]]:
        """To be entered before the lock is taken: subscribers are called once it is released."""
        return self._database.announcer.announcing(is_commit=False)

    def _take_lock(self, changes: list[Change]) -> bool:
        """Takes the lock and tells which it is, unless it is held. Whether it had to."""
        if self._is_locked():
            return False
        connections = self._database.connections
        try:
            connection = connections.connect()
            try:
                # Another number, because the server may not have noticed yet that the session is lost.
                number = secrets.randbits(62)
                connections.session_on(connection).execute("SELECT pg_advisory_lock(%s)", [number])
                # Only what was told counts: others take a worker for dead that holds another lock.
                self._tell(number, changes)
            except BaseException:
                connection.close()
                raise
        except psycopg.Error as error:
            raise storage_failed(error, is_connecting=True) from error
        self._connection, self._number = connection, number
        return True

    def _is_locked(self) -> bool:
        if self._connection is None:
            return False
        try:
            self._database.connections.session_on(self._connection).execute("SELECT 1")
        except psycopg.Error:
            self._connection.close()
            self._connection = None
        return self._connection is not None

    def _tell(self, number: int, changes: list[Change]) -> None:
        told = json.dumps(asdict(self._state), ensure_ascii=False)

        def work(transaction: Transaction) -> None:
            transaction.execute(_TELL, [self.id, number, told])
            transaction.changed(Change(Part.WORKERS, WORKERS.thread_id))

        self._database.write_unannounced(WORKERS.thread_id, work, changes)

    def claim(
        self, thread_id: str, run_id: str, *, yields_to: Callable[[Run], bool] = any_run
    ) -> PostgresAnswer:
        key = DocumentKey(names.checked(thread_id), names.checked(run_id))
        step = RunStep(thread_id=thread_id, run_id=run_id)
        message_id = names.message_of_step(step.id)

        def work(thread: LockedRow) -> Run:
            run = held_thread.claim(thread, run_id, yields_to, self.id, step.id)
            held_thread.begin_step(thread, run, step)
            thread.begin_answer(run_id, self.id, message_id)
            return run

        if not self._is_open:
            raise StorageFailed(errno.ESHUTDOWN, f"worker {self.id}", "it has left")
        self.stay_alive()
        try:
            run = self._store.hold_row(thread_id, work)
        except (NotFound, RunWaits, StatusChanged):
            raise
        except BaseException:
            # It may have been claimed nevertheless.
            self._store.own_workers.leave(key, Attempt(self.id, step.id))
            raise
        return PostgresAnswer(self._store, self._database, self, run, step, message_id)

    def let_go(self, answer: StoredAnswer, *, has_ended: bool) -> None:
        if not has_ended:
            key = DocumentKey(answer.run.thread_id, answer.run.id)
            self._store.own_workers.leave(key, Attempt(self.id, answer.step_id))

    def close(self) -> None:
        with self._announcing() as changes, self._telling:
            if self._is_open:
                self._is_open = False
                with suppress(StorageFailed):
                    self._database.write_unannounced(WORKERS.thread_id, self._leave, changes)
                if self._connection is not None:
                    self._connection.close()
                self._store.own_workers.registrations.remove(self)

    def _leave(self, transaction: Transaction) -> None:
        transaction.execute("DELETE FROM workers WHERE worker_id = %s", [self.id])
        transaction.changed(Change(Part.WORKERS, WORKERS.thread_id))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
