"""Connections to the server: a pool of them, each set up alike, no wait without a bound."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

import psycopg
from psycopg_pool import ConnectionPool

from store.postgres.failures import words
from store.postgres.outage import Outage
from store.postgres.urls import connection_parameters, without_password
from store.postgres.watchdog import Watchdog

__all__ = ["Connections", "Limits", "Rows", "Session", "without_password"]

Rows = list[tuple[Any, ...]]
Parameters = Sequence[Any] | Mapping[str, Any]

# The pool logs each connection that it hands out, which would be every call, and each that it cannot make,
# which `Outage` reports once. Other messages are for the log of a mount, not for the stderr of a command,
# which reports its own failure in one line.
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
logging.getLogger("psycopg").addHandler(logging.NullHandler())

# Where the tables are. A schema of its own: a database may have "threads" and "runs" of another program.
SCHEMA = "threadfs"

# One query for each new connection.
# - Answers come in time.
# - A host that is cut off does not keep rows locked: neither the session that holds them, nor, each in its
#   turn, the sessions that wait for them and would not notice that their client is gone.
# - A commit is answered when it is on disk: `off` would answer before. A server that waits for its replicas
#   still does.
# - No statement here runs as long as compiling it would take, which a search of a large table seems worth.
# - By default the server takes a page that an index leads to for four times as costly as the next one, as on
#   disks that turn. Then it reads all messages for a word that a seventh of them have.
# (The view pg_settings would have the server describe all its settings, which takes as long as connecting.)
_SET_UP = f"""
    SELECT set_config('search_path', '{SCHEMA}', false),
        set_config('statement_timeout', %(answer_ms)s, false),
        set_config('idle_in_transaction_session_timeout', %(idle_ms)s, false),
        set_config('lock_timeout', %(lock_ms)s, false),
        set_config('jit', 'off', false),
        CASE WHEN current_setting('random_page_cost') = '4'
            THEN set_config('random_page_cost', '1.1', false) END,
        CASE WHEN current_setting('client_connection_check_interval', true) IS NOT NULL
            THEN set_config('client_connection_check_interval', '1s', false) END,
        CASE WHEN current_setting('synchronous_commit') = 'off'
            THEN set_config('synchronous_commit', 'on', false) END
"""
# The watchdog's time is up so much later than the server's, so that the server's reason arrives first.
_GRACE_S = 2.0
# For how long the pool tries to connect before it begins anew: else its pauses grow, and it notices late that
# the server is back.
_RECONNECT_S = 1.0
# After so long without use all connections of the pool are closed.
_IDLE_S = 300.0


@dataclass(frozen=True, slots=True)
class Limits:
    """The longest times to wait, and how many connections there are besides the one that listens."""

    # For a new connection; whole seconds, 2 at least (libpq).
    connect_s: int = 5
    # For the answer to one statement.
    answer_s: float = 10.0
    # For the next statement of a transaction: what is done in between takes no time.
    idle_s: float = 2.0
    # For a row that another transaction has locked, at each attempt. This and `idle_s` are less than
    # `retry_s`, so that a call that waits for the lock of a dead host gets it.
    lock_s: float = 5.0
    # For all attempts of a method of the store while the server cannot be reached.
    retry_s: float = 12.0
    connections: int = 8


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose socket a watchdog may shut down."""

    line: socket.socket
    # The token of the last change whose commit was answered on this connection; see `database.py`.
    answered: tuple[str, int] | None = None

    @classmethod
    def connect(cls, conninfo: str = "", *_: Any, **parameters: Any) -> Self:
        """As psycopg's. Failures go to *on_failure*, because the pool connects in threads of its own."""
        on_failure = parameters.pop("on_failure")
        try:
            connection = super().connect(conninfo, **parameters)
        except psycopg.Error as error:
            on_failure(error)
            raise
        # A descriptor of our own: libpq may close its one while the watchdog uses it.
        connection.line = socket.socket(fileno=os.dup(connection.fileno()))
        return connection

    def close(self) -> None:
        super().close()
        self.line.close()


class Session:
    """A connection, for as long as one attempt at something takes."""

    def __init__(self, connection: Connection, watchdog: Watchdog, limits: Limits, outage: Outage) -> None:
        self.connection = connection
        self._watchdog = watchdog
        self._outage = outage
        self._guard_s = limits.answer_s + _GRACE_S

    def execute(self, query: str, parameters: Parameters = ()) -> Rows:
        """The rows that *query* gives. Raises psycopg.Error."""
        with (
            self._watchdog.guarding(self.connection.line, self._guard_s),
            self.connection.cursor(binary=True) as cursor,
        ):
            cursor.execute(query.encode(), parameters)
            self._outage.answered()
            return cursor.fetchall() if cursor.description else []

    def execute_script(self, sql: str) -> None:
        """Several statements, without parameters. Raises psycopg.Error."""
        with self._watchdog.guarding(self.connection.line, self._guard_s):
            self.connection.execute(sql.encode())


class Connections:
    """The connections of one store. Opened when they are needed, closed when long unused.

    A forked child gets new ones: two processes cannot share a connection.
    """

    def __init__(self, url: str, limits: Limits) -> None:
        self.url = url
        self.limits = limits
        self._parameters: dict[str, Any] = {
            **connection_parameters(url, limits.connect_s),
            "autocommit": True,
            "on_failure": self._failed,
        }
        self._opening = threading.Lock()
        self._watchdog = Watchdog()
        self._pool: ConnectionPool[Connection] | None = None
        # Why connecting failed, while it does.
        self.last_refusal = ""
        self.outage = Outage(self._look)
        # The latest time until which a call waits for a connection.
        self._wanted_until_s = 0.0
        self._given: weakref.WeakSet[Connection] = weakref.WeakSet()
        this = weakref.ref(self)

        def start_anew() -> None:
            if (found := this()) is not None:
                found._start_anew()

        os.register_at_fork(after_in_child=start_anew)

    def _failed(self, error: psycopg.Error) -> None:
        self.last_refusal = words(error)

    def _start_anew(self) -> None:
        # The parent's sockets are closed here without a word to the server: it may be using them.
        for connection in self._given:
            with suppress(OSError, psycopg.Error):
                os.close(connection.fileno())
            connection.line.close()
        _left_to_parents.append(self._pool)
        self._pool, self._given = None, weakref.WeakSet()
        self._watchdog, self._opening = Watchdog(), threading.Lock()
        self.outage = Outage(self._look)

    def _look(self) -> None:
        self.connect().close()

    def connect(self) -> Connection:
        """A connection outside the pool, set up like the others. Raises psycopg.Error."""
        connection = Connection.connect(**self._parameters)
        self._set_up(connection)
        return connection

    def _set_up(self, connection: Connection) -> None:
        self._given.add(connection)
        limits = self.limits
        times_s = {"answer_ms": limits.answer_s, "idle_ms": limits.idle_s, "lock_ms": limits.lock_s}
        try:
            self.session_on(connection).execute(
                _SET_UP, {name: str(int(time_s * 1000)) for name, time_s in times_s.items()}
            )
        except BaseException:
            connection.close()
            raise

    def session_on(self, connection: Connection) -> Session:
        return Session(connection, self._watchdog, self.limits, self.outage)

    @contextmanager
    def session(self, until_s: float) -> Iterator[Session]:
        """A connection of the pool, which is waited for until then (`time.monotonic`).

        Raises:
            psycopg.Error: there was none in time (PoolTimeout), there is no server (ServerAway), or what the
                block said.
        """
        pool = self._opened_pool()
        self._wanted_until_s = max(self._wanted_until_s, until_s)
        connection = pool.getconn(max(0.05, until_s - time.monotonic()))
        self.last_refusal = ""
        try:
            yield self.session_on(connection)
        except psycopg.Error:
            if connection.closed:
                # The server has probably gone, and with it the other connections that wait here.
                pool.drain()
            raise
        finally:
            pool.putconn(connection)

    def _opened_pool(self) -> ConnectionPool[Connection]:
        while True:
            self.outage.check()
            with self._opening:
                if self._pool is None:
                    self._pool = self._new_pool()
                if not self.outage.is_known:
                    return self._pool

    def gave_up(self, tried_since_s: float, error: psycopg.Error) -> None:
        """A call that began then has given up on the server, because of *error*."""
        if self.outage.begin(tried_since_s, self.last_refusal or words(error)):
            self._close_pool(wait_s=0)

    def _new_pool(self) -> ConnectionPool[Connection]:
        return ConnectionPool(
            connection_class=Connection,
            kwargs=self._parameters,
            configure=self._set_up,
            min_size=0,
            max_size=self.limits.connections,
            # After each such time the pool closes one of the connections that were not needed meanwhile.
            max_idle=_IDLE_S / (self.limits.connections + 1),
            reconnect_timeout=_RECONNECT_S,
            reconnect_failed=self._connect_anew,
            num_workers=2,
            name="threadfs",
            open=True,
        )

    def _connect_anew(self, pool: ConnectionPool[Connection]) -> None:
        """Has the pool connect again after it has given up: it does that only for a new call.

        If the calls that wait already were made anew, they would lose their places in the queue.
        """
        if time.monotonic() < self._wanted_until_s:
            with suppress(psycopg.Error):
                pool.putconn(pool.getconn(0.01))

    def close(self) -> None:
        self._close_pool(wait_s=5.0)
        self.outage.end()

    def _close_pool(self, wait_s: float) -> None:
        """Calls that wait for a connection get PoolClosed; the pool's threads have *wait_s* to end."""
        with self._opening:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close(wait_s)


# Pools of parent processes, which end them; here they must not even be collected.
_left_to_parents: list[object] = []
