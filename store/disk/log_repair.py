"""Repairing a message log in place.

Programs that take no lock go on appending meanwhile, so a log is never replaced. A line that is no message is
overwritten with blanks, which readers skip; one that is wrong is overwritten with a right one that is no
longer. What was there is kept aside before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from store import documents, lines
from store.checking import Finding, Problem, check_text, wrong_thread
from store.disk import directories, files
from store.disk.aside import Aside
from store.disk.directories import storage_errors
from store.disk.layout import LOG
from store.disk.leftovers import ASIDE
from store.disk.open_threads import OpenThreads, locked_thread
from store.disk.system_calls import SystemCalls
from store.documents import MAX_LINE_BYTES
from store.errors import InvalidDocument

_PIECE_BYTES = 1 << 16


class LogRepair:
    """Mends what is wrong with a log; each method says in words what was done, or nothing."""

    def __init__(self, threads: OpenThreads, calls: SystemCalls, aside: Aside) -> None:
        self._threads = threads
        self._calls = calls
        self._aside = aside

    @contextmanager
    def _log(self, thread_id: str) -> Iterator[int]:
        """The log of a thread, locked, open for writing in place."""
        with locked_thread(self._threads, thread_id) as thread, storage_errors(f"{thread_id}/{LOG}"):
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            file = os.open(LOG, flags, dir_fd=thread.directory)
            try:
                directories.check_regular(os.fstat(file), f"{thread_id}/{LOG}")
                yield file
            finally:
                os.close(file)

    def blank_line(self, finding: Finding) -> str:
        start, size = finding.span
        with self._log(finding.key.thread_id) as log:
            if size <= MAX_LINE_BYTES and self._message_at(log, finding):
                return "mended by somebody else meanwhile"
            self._aside.keep_line(finding.key.thread_id, log, start, size)
            written = 0
            while written < size:
                # No line of blanks may itself be too long for a line.
                piece = b" " * min(size - written, _PIECE_BYTES - 1)
                piece += b"\n" if written + len(piece) < size else b""
                _write_at(log, piece, start + written)
                written += len(piece)
            self._calls.sync(log)
        return f"moved to {ASIDE}"

    def mend_line(self, finding: Finding) -> str:
        """Sets the thread that a message names to that of its path; takes out a run that is not there."""
        thread_id = finding.key.thread_id
        start, size = finding.span
        with self._log(thread_id) as log:
            if not self._message_at(log, finding):
                return "mended by somebody else meanwhile"
            fields = documents.parse(os.pread(log, size, start))
            if finding.problem is Problem.LINE_REFERENCE:
                fields.pop("run_id", None)
            elif wrong_thread(thread_id, fields):
                fields["thread_id"] = thread_id
                if len(_compact(fields)) > size:
                    # The path says it all the same.
                    del fields["thread_id"]
            line = _compact(fields)
            if len(line) > size:
                return ""
            self._aside.keep_line(finding.key.thread_id, log, start, size)
            _write_at(log, line + b" " * (size - len(line)), start)
            self._calls.sync(log)
        return f"taken out; the old line is in {ASIDE}"

    def _message_at(self, log: int, finding: Finding) -> bool:
        start, size = finding.span
        line = os.pread(log, size, start)
        message = lines.message_of(line, finding.key.thread_id)
        try:
            if message is not None:
                check_text(line, message)
        except InvalidDocument:
            return False
        return message is not None

    def end_line(self, finding: Finding) -> str:
        """Whether it was a message is then seen: the next look takes it for one, or for damage."""
        with self._log(finding.key.thread_id) as log:
            size = os.fstat(log).st_size
            if size and os.pread(log, 1, size - 1) != b"\n":
                # Appended, wherever the end is by now: somebody else's newline leaves a blank line.
                appending = os.open(f"/proc/self/fd/{log}", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
                try:
                    files.write_all(self._calls, appending, b"\n")
                    self._calls.sync(appending)
                finally:
                    os.close(appending)
        return "ended"


def _write_at(file: int, data: bytes, offset: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(file, data[written:], offset + written)


def _compact(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
