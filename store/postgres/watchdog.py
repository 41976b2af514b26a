"""A bound on how long an answer may take that holds when the network is silent.

The server's ``statement_timeout`` ends a slow statement, and TCP notices a peer that is gone. Neither helps
against something in between that takes what is sent and passes nothing on. When the time is up the
connection's socket is shut down here, and libpq reports the connection as lost.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg


class NoAnswer(psycopg.OperationalError):
    """The time for an answer is up."""


class Watchdog:
    """Shuts down sockets that are guarded for too long. Sleeps while none is."""

    def __init__(self) -> None:
        self._wake = threading.Condition()
        self._due_s: dict[socket.socket, float] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def guarding(self, line: socket.socket, for_s: float) -> Iterator[None]:
        """Shuts *line* down when the block takes longer than *for_s*.

        Raises:
            NoAnswer: the block failed because its line was shut down.
        """
        with self._wake:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()
            # A thread that sleeps until another line is due looks at this one then: all get the same time.
            if not self._due_s:
                self._wake.notify()
            self._due_s[line] = time.monotonic() + for_s
        try:
            yield
        except Exception as error:
            if not self._released(line):
                raise NoAnswer(f"no answer within {for_s:g} s") from error
            raise
        self._released(line)

    def _released(self, line: socket.socket) -> bool:
        """False when it has been shut down."""
        with self._wake:
            return self._due_s.pop(line, None) is not None

    def _run(self) -> None:
        # The time of the last look is kept, so that a busy connection does not wake this thread each time.
        while True:
            with self._wake:
                while not self._due_s:
                    self._wake.wait()
                now_s = time.monotonic()
                for line in [line for line, due_s in self._due_s.items() if due_s <= now_s]:
                    del self._due_s[line]
                    with suppress(OSError):
                        line.shutdown(socket.SHUT_RDWR)
                next_s = min(self._due_s.values(), default=now_s)
            # Without the lock and without being woken: lines that come meanwhile are due later.
            if next_s > now_s:
                time.sleep(next_s - now_s)
