"""One attempt at a run of a store in a database: its text is sent while it grows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from store.answering import InHand, StoredAnswer
from store.changes import Change, Part
from store.claims import Claims
from store.errors import StorageFailed
from store.held_thread import HeldThread
from store.models import Run, RunStep
from store.postgres.database import Database
from store.working import GrowingAnswer

T = TypeVar("T")

# The text of an answer is sent so often at most.
_PAUSE_S = 0.2

# It need not be durable: nobody waits for the server's disk.
_ADD_TEXT = """
    WITH unsynced AS (SELECT set_config('synchronous_commit', 'off', true)),
        added AS (
            INSERT INTO answer_texts (thread_id, run_id, message_id, start, piece)
            SELECT thread_id, run_id, message_id, %(start)s, %(piece)s FROM answers, unsynced
            WHERE thread_id = %(thread)s AND run_id = %(run)s AND message_id = %(message)s
            ON CONFLICT DO NOTHING
        )
    SELECT pg_notify(%(channel)s, %(change)s)
"""


def row_of(answer: GrowingAnswer) -> dict[str, Any]:
    """The parameters that name an answer in a statement."""
    return {"thread": answer.thread_id, "run": answer.run_id, "message": answer.message_id}


class PostgresAnswer(StoredAnswer):
    """Its text is sent by a thread of its own, some of it at a time."""

    def __init__(
        self,
        store: Claims,
        database: Database,
        worker: InHand,
        run: Run,
        step: RunStep,
        message_id: str,
    ) -> None:
        super().__init__(worker, run, step, message_id)
        self._store = store
        self._database = database
        self._row = row_of(GrowingAnswer(run.thread_id, run.id, message_id, 0))
        self._change = Change(Part.ANSWER, run.thread_id, run.id)
        # Guards the unsent text.
        self._came = threading.Condition()
        # Held while a statement is under way.
        self._sending = threading.Lock()
        self._unsent = bytearray()
        self._is_hidden = False
        self._thread: threading.Thread | None = None

    def _hold(self, work: Callable[[HeldThread], T]) -> T:
        return self._store.hold(self.run.thread_id, work)

    def _show(self, data: bytes) -> None:
        with self._came:
            self._unsent += data
            if self._thread is None:
                self._thread = threading.Thread(target=self._send, name="answer", daemon=True)
                self._thread.start()
            self._came.notify()

    def _send(self) -> None:
        sent = 0
        while piece := self._next_piece():
            began = time.monotonic()
            row = {**self._row, "start": sent, "piece": piece, **self._database.notification(self._change)}
            # The same piece is sent until that succeeds: it may be there although it was not answered.
            while not self._was_sent(row) and not self._is_over_after(_PAUSE_S):
                pass
            sent += len(piece)
            if self._is_over_after(began + _PAUSE_S - time.monotonic()):
                return

    def _next_piece(self) -> bytes:
        """What is to be sent next, once there is some; nothing at the end."""
        with self._came:
            self._came.wait_for(lambda: self._is_hidden or self._unsent)
            piece = b"" if self._is_hidden else bytes(self._unsent)
            self._unsent.clear()
            return piece

    def _was_sent(self, row: dict[str, Any]) -> bool:
        try:
            with self._sending:
                if self._is_hidden:
                    return False
                self._database.execute(_ADD_TEXT, row)
        except StorageFailed:
            return False
        self._database.announcer.announce(replace(self._change, is_own=True))
        return True

    def _is_over_after(self, pause_s: float) -> bool:
        """Whether showing has ended, after a pause."""
        with self._came:
            return self._came.wait_for(lambda: self._is_hidden, pause_s)

    def _hide(self) -> None:
        with self._came:
            self._is_hidden = True
            self._came.notify()
        # A piece that is on its way arrives first. Those who are then told of it are not waited for.
        with self._sending:
            pass
