"""Reading and changing the database: bounded, tried again where that is safe, and never applied twice.

A statement or transaction whose connection is lost before the ``COMMIT`` is sent has done nothing and is
run again. When the answer to the ``COMMIT`` is lost, the client cannot know whether it was done. So each
transaction also inserts a random token into ``commits``, and the client that lost the answer inserts it once
more: the unique index has this insert wait for the first transaction to end, and then tells whether it
committed. This holds after a crash of the server and on a replica that took over as well, because the token
was written, or lost, together with the change.

The isolation level is PostgreSQL's default, READ COMMITTED. It suffices because no change rests on
rows that were read without a lock. Rows to be changed are read ``FOR NO KEY UPDATE``, which waits for another
transaction that changes them, and then reads the newest version. Rows that must not exist are inserted under
a unique index. Several tables are read in one statement, which sees one moment. Locks are taken in the order
thread, run, step, so that two writers cannot wait for each other.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import psycopg

from store.changes import Announcer, Change, Part
from store.postgres.connections import Connections, Limits, Parameters, Rows, Session
from store.postgres.failures import ServerAway, is_absence, is_passing, storage_failed
from store.postgres.list_times import ListTimes

CHANNEL = "threadfs"

# The end of a transaction in one statement: its token comes in, the token of the connection's last
# transaction (which has been answered) goes out, and its changes are sent to all watches when it commits.
_SEAL = f"""
    WITH answered AS (DELETE FROM commits WHERE thread_id = %(old_thread)s AND token = %(old_token)s),
        sealed AS (INSERT INTO commits (thread_id, token) VALUES (%(thread)s, %(token)s))
    SELECT pg_notify('{CHANNEL}', %(changes)s)
"""
_ASK = "INSERT INTO commits (thread_id, token) VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING 1"

T = TypeVar("T")


class Transaction:
    """One attempt at a change. *version* is a number that no other change has."""

    def __init__(self, session: Session, version: int) -> None:
        self.execute = session.execute
        self.version = version
        self.changes: list[Change] = []

    def changed(self, *changes: Change) -> None:
        """Notes the *changes* to report. A transaction without any is rolled back."""
        self.changes += changes


class Database:
    """The server, for the rest of the store."""

    def __init__(self, url: str, limits: Limits) -> None:
        self.connections = Connections(url, limits)
        # Goes with each change: a watch leaves out our own ones, which have been announced.
        self.sender = secrets.token_hex(8)
        self._limits = limits
        self.lists = ListTimes()
        # Told of all changes that are heard of, also of those that are not announced, before all others.
        self.hearing: list[Callable[[Change], None]] = [self.lists.changed]
        self.announcer = Announcer(first=self._heard)
        # Each watch that hears of all changes, and since when, by `time.monotonic`.
        self.listening: dict[object, float] = {}

    def _heard(self, change: Change) -> None:
        for hears in self.hearing:
            hears(change)

    def heard_since_s(self) -> float | None:
        """Since when all changes by programs are heard of without a gap (`time.monotonic`), if they are."""
        return min([*self.listening.values()], default=None)

    def read(self, query: str, parameters: Parameters = ()) -> Rows:
        """The rows that one statement reads: one moment of the database.

        Raises:
            StorageFailed: the server did not answer in time, or with a reason.
        """
        return self.execute(query, parameters)

    def execute(self, statement: str, parameters: Parameters = ()) -> Rows:
        """One statement, in a transaction of its own, that may take place twice. Raises as `read`."""
        attempts = _Attempts(self.connections, self._limits)
        return attempts.run(lambda session: session.execute(statement, parameters))

    def write(self, thread_id: str, work: Callable[[Transaction], T], *, is_commit: bool = True) -> T:
        """The result of *work*, once its changes are on the server's disk, all or none, and applied once.

        *work* may be called several times. Its changes are announced before this returns, or raises an error
        of which it is not known whether they are stored. Without *is_commit* they are times alone.

        Raises:
            StorageFailed: as `read`; when it says so, it is not known whether the change is stored.
        """
        with self.announcer.announcing(is_commit=is_commit) as announced:
            return self.write_unannounced(thread_id, work, announced)

    def write_unannounced(
        self, thread_id: str, work: Callable[[Transaction], T], announced: list[Change]
    ) -> T:
        """As `write`, for a caller that holds a lock: it announces what is put into *announced* later."""
        token = secrets.randbits(63)
        attempts = _Attempts(self.connections, self._limits)
        unanswered: list[T] = []
        sent: list[Change] = []

        def attempt(session: Session) -> T:
            if unanswered and _was_committed(session, thread_id, token):
                return unanswered[0]
            unanswered.clear()
            session.execute("BEGIN")
            try:
                transaction = Transaction(session, token)
                result = work(transaction)
                if not transaction.changes:
                    session.execute("ROLLBACK")
                    return result
                changes = transaction.changes
                self._seal(session, thread_id, token, changes)
            except BaseException:
                with suppress(psycopg.Error):
                    session.execute("ROLLBACK")
                raise
            unanswered.append(result)
            sent[:] = changes
            try:
                session.execute("COMMIT")
            except psycopg.Error:
                if session.connection.closed:
                    attempts.leave_time()
                else:
                    unanswered.clear()  # This is an answer: it was not done.
                    sent.clear()
                raise
            session.connection.answered = (thread_id, token)
            return result

        try:
            return attempts.run(attempt, lambda: bool(unanswered))
        finally:
            announced += sent

    def _seal(self, session: Session, thread_id: str, token: int, changes: list[Change]) -> None:
        old_thread, old_token = session.connection.answered or ("", 0)
        session.execute(
            _SEAL,
            {
                "old_thread": old_thread,
                "old_token": old_token,
                "thread": thread_id,
                "token": token,
                "changes": _payload(self.sender, changes),
            },
        )

    def notification(self, *changes: Change) -> dict[str, str]:
        """The parameters ``channel`` and ``change`` with which a statement tells all watches."""
        return {"channel": CHANNEL, "change": _payload(self.sender, list(changes))}

    def close(self) -> None:
        self.connections.close()


class _Attempts:
    """Runs something until it is done, or fails for good, or the time is up."""

    def __init__(self, connections: Connections, limits: Limits) -> None:
        self._connections = connections
        self._retry_s = limits.retry_s
        self._until_s = 0.0
        self.leave_time()

    def leave_time(self) -> None:
        """Starts the time anew, to find out whether a commit was done."""
        self._until_s = time.monotonic() + self._retry_s

    def run(self, attempt: Callable[[Session], T], is_unanswered: Callable[[], bool] = lambda: False) -> T:
        pause_s = 0.0
        while True:
            try:
                with self._connections.session(self._until_s) as session:
                    return attempt(session)
            except ServerAway as error:
                # A call that has to find out whether its commit was done waits for the server nevertheless.
                if not (is_unanswered() and self._connections.outage.is_over_by(self._until_s)):
                    raise storage_failed(error, is_unanswered=is_unanswered()) from error
            except psycopg.Error as error:
                time_is_up = time.monotonic() + pause_s >= self._until_s
                if time_is_up and is_absence(error):
                    self._connections.gave_up(self._until_s - self._retry_s, error)
                if time_is_up or not is_passing(error):
                    refusal = self._connections.last_refusal
                    raise storage_failed(error, refusal, is_unanswered=is_unanswered()) from error
            time.sleep(pause_s)
            pause_s = min(1.0, pause_s * 2 or 0.02)


def _was_committed(session: Session, thread_id: str, token: int) -> bool:
    """Whether a transaction whose ``COMMIT`` was not answered took place; waits for its end."""
    session.execute("BEGIN")
    try:
        return not session.execute(_ASK, (thread_id, token))
    finally:
        with suppress(psycopg.Error):
            session.execute("ROLLBACK")


def _payload(sender: str, changes: list[Change]) -> str:
    """Below PostgreSQL's 8000 bytes: ten changes of three ids of 127 bytes, which JSON at worst doubles.

    Seven are the most that one transaction makes: at the end of an attempt that has text and calls tools.
    """
    told = [[change.part.name, change.thread_id, change.run_id, change.step_id] for change in changes]
    # Not in the change itself, whose reader may be an earlier threadfs.
    told += [[Part.TIMES.name, change.thread_id] for change in changes if change.only_times]
    return json.dumps([sender, *told], ensure_ascii=False, separators=(",", ":"))
