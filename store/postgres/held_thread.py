"""A thread whose row is locked for a worker: `store.held_thread.HeldThread`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from store import documents
from store.changes import Change, Part
from store.errors import Damaged, RunNotFound, ThreadNotFound
from store.messages import message_of
from store.models import Run, RunStep, ThreadMessage
from store.names import DocumentKey
from store.postgres.database import Transaction
from store.postgres.documents import rewrite, update
from store.postgres.log import append
from store.postgres.tables import ANSWER_TABLES, DIED, parsed
from store.statuses import RunStatus
from store.working import GrowingAnswer

_IN_PROGRESS = [status.value for status in RunStatus if status.is_in_progress]
_QUEUED_BEFORE = """
    SELECT older.run_id, older.document FROM runs, runs AS older
    WHERE runs.thread_id = %s AND runs.run_id = %s AND older.thread_id = runs.thread_id
        AND older.status = 'queued'
        AND (older.made, older.modified_ns, older.run_id) < (runs.made, runs.modified_ns, runs.run_id)
    ORDER BY older.made, older.modified_ns, older.run_id
"""
_LINES_WITH = """
    SELECT line FROM messages JOIN threads USING (thread_id, log_id)
    WHERE thread_id = %s AND position(%s::bytea IN line) > 0 ORDER BY start
"""


class LockedRow:
    """All that is done with it is one transaction, with the thread's row locked."""

    def __init__(self, transaction: Transaction, thread_id: str) -> None:
        """Raises ThreadNotFound."""
        self._transaction = transaction
        self._id = thread_id
        if not transaction.execute(
            "SELECT 1 FROM threads WHERE thread_id = %s FOR NO KEY UPDATE", [thread_id]
        ):
            raise ThreadNotFound(thread_id)

    def _key(self, run_id: str, step_id: str | None = None) -> DocumentKey:
        return DocumentKey(self._id, run_id, step_id)

    # ── Runs ────────────────────────────────────────────────────────────────────────────────────────

    def run(self, run_id: str) -> Run:
        # Locked, because other programs that change a run do not lock its thread.
        found = self._transaction.execute(
            "SELECT document FROM runs WHERE thread_id = %s AND run_id = %s FOR NO KEY UPDATE",
            [self._id, run_id],
        )
        if not found:
            raise RunNotFound(run_id)
        return parsed(self._key(run_id), found[0][0], Run)

    def queued_before(self, run: Run) -> list[Run]:
        return self._runs(self._transaction.execute(_QUEUED_BEFORE, [self._id, run.id]))

    def in_progress(self) -> list[Run]:
        return self._runs(
            self._transaction.execute(
                "SELECT run_id, document FROM runs WHERE thread_id = %s AND status = ANY(%s)",
                [self._id, _IN_PROGRESS],
            )
        )

    def _runs(self, rows: Iterable[tuple[str, bytes]]) -> list[Run]:
        found = []
        for run_id, document in rows:
            with suppress(Damaged):
                found.append(parsed(self._key(run_id), document, Run))
        return found

    def change_run(self, run_id: str, change: Callable[[Run], Run]) -> Run:
        return update(self._transaction, self._key(run_id), Run, change)

    # ── Steps ───────────────────────────────────────────────────────────────────────────────────────

    def steps(self, run_id: str) -> list[RunStep]:
        found = []
        for step_id, document in self._transaction.execute(
            "SELECT step_id, document FROM steps WHERE thread_id = %s AND run_id = %s", [self._id, run_id]
        ):
            with suppress(Damaged):
                found.append(parsed(self._key(run_id, step_id), document, RunStep))
        return sorted(found, key=lambda step: (step.created_at, step.id))

    def change_step(self, run_id: str, step: RunStep, change: Callable[[RunStep], RunStep]) -> RunStep:
        key = self._key(run_id, step.id)
        result: list[RunStep] = []

        def changed(stored: bytes | None) -> bytes | None:
            result.append(change(step if stored is None else parsed(key, stored, RunStep)))
            new = documents.pretty(result[0])
            return None if new == stored else new

        rewrite(self._transaction, key, changed, may_add=True)
        return result[0]

    # ── Messages and the text of answers ────────────────────────────────────────────────────────────────

    def append(self, message: ThreadMessage) -> None:
        append(self._transaction, self._id, [documents.line(message)])
        self._transaction.changed(Change(Part.LOG, self._id))

    def messages_of(self, run_id: str) -> list[ThreadMessage]:
        found = self._transaction.execute(_LINES_WITH, [self._id, documents.in_line(run_id)])
        messages = [message_of(line, self._id) for (line,) in found]
        return [message for message in messages if message is not None and message.run_id == run_id]

    def growing_text(self, run_id: str) -> str:
        found = self._transaction.execute(
            "SELECT piece FROM answer_texts JOIN answers USING (thread_id, run_id, message_id)"
            " WHERE thread_id = %s AND run_id = %s ORDER BY start",
            [self._id, run_id],
        )
        return b"".join(piece for (piece,) in found).decode(errors="ignore")

    def drop_growing(self, run_id: str) -> None:
        for table in ANSWER_TABLES:
            self._transaction.execute(
                f"DELETE FROM {table} WHERE thread_id = %s AND run_id = %s", [self._id, run_id]
            )
        self._transaction.changed(Change(Part.ANSWER, self._id, run_id))

    def begin_answer(self, run_id: str, worker: str, message_id: str) -> None:
        """Notes which worker answers a run that it has just claimed."""
        self.drop_growing(run_id)
        self._transaction.execute(
            "INSERT INTO answers (thread_id, run_id, worker_id, message_id) VALUES (%s, %s, %s, %s)",
            [self._id, run_id, worker, message_id],
        )

    def is_left(self, answer: GrowingAnswer) -> bool:
        """Whether the run is still in the attempt with this *answer*, and the worker is dead."""
        return bool(
            self._transaction.execute(
                "SELECT 1 FROM answers LEFT JOIN workers USING (worker_id)"
                f" WHERE thread_id = %s AND run_id = %s AND message_id = %s AND {DIED}",
                [self._id, answer.run_id, answer.message_id],
            )
        )
