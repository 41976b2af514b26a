"""Rows that deletions and killed programs leave behind, and clearing them."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress

from store.errors import StorageFailed
from store.postgres.database import Database

log = logging.getLogger("threadfs")

# For so long the messages of a deleted thread can be read by readers that have its log open.
KEPT_S = 600
# The next change on a connection removes the token of the last one. Programs that ended leave theirs behind.
# No method looks for a token for longer than it waits.
_TOKENS_KEPT_S = 86400

_OLD_LOGS = "SELECT thread_id, log_id FROM deleted_logs WHERE deleted_at < now() - make_interval(secs => %s)"
# So many lines go in one statement, which then ends in time, however long the log is.
_LINES_AT_ONCE = 10_000
_SOME_LINES = """
    WITH gone AS (
        DELETE FROM messages WHERE thread_id = %s AND log_id = %s AND start IN (
            SELECT start FROM messages WHERE thread_id = %s AND log_id = %s LIMIT %s
        ) RETURNING 1
    ) SELECT count(*) FROM gone
"""
_OLD_TOKENS = "DELETE FROM commits WHERE committed_at < now() - make_interval(secs => %s)"

# Of a worker that was writing when another took it for dead.
_LOST_TEXTS = """
    DELETE FROM answer_texts WHERE NOT EXISTS (
        SELECT FROM answers WHERE answers.thread_id = answer_texts.thread_id
            AND answers.run_id = answer_texts.run_id AND answers.message_id = answer_texts.message_id)
"""


class Leftovers:
    """Clears when a store is opened, and a while after it has deleted a thread; otherwise it is idle."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def clear(self, kept_s: float = KEPT_S) -> None:
        """Clears now. Rows that cannot be cleared (on a standby, say) are left to the next time."""
        try:
            for thread_id, log_id in self._database.read(_OLD_LOGS, [kept_s]):
                self._clear_log(thread_id, log_id)
            self._database.execute(_OLD_TOKENS, [_TOKENS_KEPT_S])
            self._database.execute(_LOST_TEXTS)
        except StorageFailed as error:
            log.debug("leftovers stay: %s", error)

    def _clear_log(self, thread_id: str, log_id: int) -> None:
        row = [thread_id, log_id]
        while self._database.execute(_SOME_LINES, [*row, *row, _LINES_AT_ONCE]) != [(0,)]:
            pass
        self._database.execute("DELETE FROM deleted_logs WHERE thread_id = %s AND log_id = %s", row)

    def clear_later(self) -> None:
        with self._lock:
            if self._timer is None:
                self._timer = threading.Timer(KEPT_S + 1, self._timer_is_up)
                self._timer.daemon = True
                self._timer.start()

    def _timer_is_up(self) -> None:
        with self._lock:
            self._timer = None
        with suppress(Exception):  # The process may be ending.
            self.clear()

    def close(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
