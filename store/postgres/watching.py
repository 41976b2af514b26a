"""Changes made on any host, by ``LISTEN``: one connection that waits, and asks nothing while nothing happens.

Notifications come in the order of the commits, and only for what was committed. Those sent while there is no
connection are lost; hence `Part.EVERYTHING` once there is one again, or for the first time.
"""

from __future__ import annotations

import json
import logging
import os
import random
import select
import threading
import time
from collections import Counter
from dataclasses import replace

import psycopg

from store.api import DocumentKey
from store.changes import Change, Part, Subscriber, Watch
from store.postgres.connections import Connection
from store.postgres.database import CHANNEL, Database
from store.postgres.failures import words

log = logging.getLogger("threadfs")

# The runs of all threads, as a key to be followed.
ALL_RUNS = DocumentKey("", "")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
# A standby cannot be listened to until it is promoted, which it may never be.
_LONGEST_STANDBY_PAUSE_S = 30.0
_READ_ONLY = "25006"


class PostgresWatch(Watch):
    """Announces, from a thread of its own, the changes of all but the sender of this *database*.

    A server that cannot be listened to is tried again: a standby, or one that gives no more connections.
    """

    def __init__(self, database: Database, on_change: Subscriber) -> None:
        super().__init__(database.announcer, on_change)
        self._database = database
        self._connections = database.connections
        # In how many ways something of a thread is followed.
        self._threads: Counter[str] = Counter()
        self._connection: Connection | None = None
        try:
            self._connection = self._listening()
        except psycopg.Error as error:
            log.info("changes by others are not heard of yet (%s)", words(error))
        self._closing = os.eventfd(0)
        self._is_closing = threading.Event()
        # Set when the watch closes, and when the server is back: both end a pause.
        self._wake = threading.Event()
        self._connections.outage.wakes(self._wake)
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def _begin(self, key: DocumentKey) -> bool:
        """False while there is no connection: changes made meanwhile are missed."""
        return self._connection is not None

    def _add(self, key: DocumentKey) -> None:
        self._threads[key.thread_id] += key not in self._held
        super()._add(key)

    def _remove(self, key: DocumentKey) -> bool:
        if was_held := super()._remove(key):
            self._threads[key.thread_id] -= 1
            if not self._threads[key.thread_id]:
                del self._threads[key.thread_id]
        return was_held

    def close(self) -> None:
        super().close()
        if self._is_closing.is_set():
            return
        # First this: once the thread sees that it is to end, it closes the descriptor.
        os.eventfd_write(self._closing, 1)
        self._is_closing.set()
        self._wake.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _listening(self) -> Connection:
        connection = self._connections.connect()
        try:
            self._connections.session_on(connection).execute(f"LISTEN {CHANNEL}")
        except BaseException:
            connection.close()
            raise
        self._database.listening[self] = time.monotonic()
        return connection

    def _run(self) -> None:
        try:
            while not self._is_closing.is_set():
                if self._connection is None:
                    self._reconnect()
                    continue
                try:
                    self._pass_on()
                except (psycopg.Error, OSError) as error:
                    log.info("changes by others are not heard of (%s): connecting again", words(error))
                    self._connection.close()
                    self._connection = None
                    self._database.listening.pop(self, None)
                    self.lose()
        finally:
            self._database.listening.pop(self, None)
            if self._connection is not None:
                self._connection.close()
            os.close(self._closing)

    def _pass_on(self) -> None:
        connection = self._connection
        assert connection is not None
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        poll.register(self._closing, select.POLLIN)
        while True:
            # Notifications that came before, or together with the answer to LISTEN, are here already.
            for notification in connection.notifies(timeout=0):
                self._report(notification.payload)
            if any(descriptor == self._closing for descriptor, _ in poll.poll()):
                return

    def _reconnect(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._is_closing.is_set():
            try:
                self._connection = self._listening()
            except psycopg.Error as error:
                log.info("still no connection to listen on (%s)", words(error))
                # So that not all mounts connect at the same moment.
                self._wake.wait(pause_s * random.uniform(0.5, 1))
                self._wake.clear()
                is_standby = error.sqlstate == _READ_ONLY
                pause_s = min(_LONGEST_STANDBY_PAUSE_S if is_standby else _LONGEST_PAUSE_S, pause_s * 2)
            else:
                log.info("listening")
                self._announcer.announce(Change(Part.EVERYTHING))
                return

    def _report(self, payload: str) -> None:
        try:
            sender, *told = json.loads(payload)
            changes = [Change(Part[part], *ids) for part, *ids in told]
        except (ValueError, KeyError, TypeError):
            log.warning("a notification that no threadfs sent: %.200r", payload)
            return
        if sender == self._database.sender:
            return
        parts = {change.part for change in changes}
        for change in changes:
            if change.part is Part.TIMES:
                continue  # It says what the others are.
            if self._is_followed(change):
                grew = change.part is Part.LOG and Part.THREADS not in parts
                self._announcer.announce(replace(change, grew=grew, only_times=Part.TIMES in parts))
            else:
                self._announcer.first(change)

    def _is_followed(self, change: Change) -> bool:
        """Whether to report a change. In a thread with anything followed, all changes are reported."""
        with self._lock:
            is_listed = change.part is Part.THREADS and DocumentKey("") in self._held
            is_run = change.run_id is not None and ALL_RUNS in self._held
            return is_listed or is_run or change.thread_id in self._threads
