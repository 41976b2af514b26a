"""Has words made of messages that have none yet, in the background.

Who appends a message writes no words, so that it waits for nothing, and so that programs of all versions are
alike. They are made when a mount begins, and after a search that had to read messages. Much is left to a
process of its own (`making`), so that no thread of a mount keeps its loop from running.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from contextlib import suppress
from typing import Final

import psycopg

from store import processes
from store.catalogue.api import Progress
from store.errors import StorageFailed
from store.postgres.database import Database
from store.postgres.making import REFUSED, database_line, make
from store.printing import printable

log = logging.getLogger("threadfs")

# Of logs: what takes less than starting a process does.
_LITTLE_BYTES: Final = 1 << 19
# How long the end of the process is waited for, when nobody wants it any more.
_ENDS_S: Final = 1.0

# Of logs, how much has no words.
_BEHIND: Final = """
    SELECT coalesce(sum(abs(log_bytes - coalesce(bytes, 0))), 0)::bigint
    FROM threads LEFT JOIN worded_logs USING (thread_id)
"""


class _Closed(Exception):
    """The store is closed while words are made."""


class Filling:
    """Has words made when it is asked to, until nothing is left to do; otherwise it is idle."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Guards the thread, and the process.
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        # Held by who makes words.
        self._making = threading.Lock()
        self._has_failed = False
        self._is_closed = False

    def start(self) -> None:
        """In the background, unless it is under way."""
        with self._starting:
            if not self._is_closed and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name="words", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Waits for the statement that is under way, if it is one of this process."""
        with self._starting:
            self._is_closed = True
            thread, process = self._thread, self._process
            if process is not None:
                processes.close(process)
        if thread is not None:
            thread.join(None if process is None else _ENDS_S)

    def fill(self, progress: Progress | None = None, *, anew: bool = False) -> bool:
        """Does it here. Nothing while another program does it; what cannot be done is left to the next time.
        Whether it was done.

        Args:
            anew: also of logs that have words.
        """
        try:
            with self._making:
                return make(self._database.connections, self._go_on, progress, anew=anew)
        except (psycopg.Error, _Closed) as error:
            log.debug("words are made later: %s", error)
        return False

    def _go_on(self) -> None:
        if self._is_closed:
            raise _Closed("the store is closed")

    def _run(self) -> None:
        with suppress(StorageFailed):  # The next search tries again.
            ((behind_bytes,),) = self._database.read(_BEHIND)
            is_much = behind_bytes > _LITTLE_BYTES
            if behind_bytes and not (is_much and self._is_left_to_a_process()):
                self.fill()

    def _is_left_to_a_process(self) -> bool:
        """Returns when the process has ended; false, and from then on, where there can be none."""
        if self._has_failed:
            return False
        try:
            status, said = self._follow()
        except OSError as error:
            status, said = 1, str(error)
        if status == REFUSED:
            log.debug("words are made later: %s", said)
        elif status and not self._is_closed:
            self._has_failed = True
            log.warning("the process that makes words has ended: %s", processes.why(status, said))
        return not self._has_failed

    def _follow(self) -> tuple[int, str]:
        """Starts a process; its exit status when it has ended, and the last line that it said."""
        with self._starting:
            if self._is_closed:
                return 0, ""
            process = self._process = processes.started("store.postgres.making", directory=os.getcwd())
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError, ValueError):  # It has ended, or is closed.
            process.stdin.write(database_line(self._database.connections))
        said = ""
        with process.stdout:
            for line in process.stdout:
                said = line.decode(errors="replace").strip()
        status = process.wait()
        with self._starting:
            processes.close(process)
            self._process = None
        return status, printable(said)
