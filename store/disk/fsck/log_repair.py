"""Repairing a message log in place.

Programs that take no lock go on appending meanwhile, so a log is never replaced. A line that is no message is
overwritten with blanks, which readers skip; one that is wrong is overwritten with a right one. Where that is
longer, it and all that follow are appended once more, in their order, and then blanked where they were. What
was there is kept aside before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from store import documents, lines
from store.checking import Finding, check_text, wrong_fields
from store.disk import files, paths
from store.disk.fsck.aside import Aside
from store.disk.layout import LOG
from store.disk.leftovers import ASIDE
from store.disk.log import complete_size
from store.disk.open_threads import OpenThreads, locked_thread
from store.disk.paths import storage_errors
from store.disk.system_calls import SystemCalls
from store.documents import MAX_LINE_BYTES
from store.errors import InvalidDocument
from store.messages import message_of
from store.models import ThreadMessage

_PIECE_BYTES = 1 << 16


class LogRepair:
    """Repairs a log; each method returns in words what was done, or nothing."""

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
                paths.check_regular(os.fstat(file), f"{thread_id}/{LOG}")
                yield file
            finally:
                os.close(file)

    def blank_line(self, finding: Finding) -> str:
        start, size = finding.span
        with self._log(finding.key.thread_id) as log:
            if size <= MAX_LINE_BYTES and self._message_at(log, finding):
                return "mended by somebody else meanwhile"
            self._blank(finding.key.thread_id, log, start, size)
            self._calls.sync(log)
        return f"moved to {ASIDE}"

    def _blank(self, thread_id: str, log: int, start: int, size: int) -> None:
        """Keeps a part of the log aside, and overwrites it with blanks."""
        self._aside.keep_line(thread_id, log, start, size)
        written = 0
        while written < size:
            # No line of blanks may itself be too long for a line.
            piece = b" " * min(size - written, _PIECE_BYTES - 1)
            piece += b"\n" if written + len(piece) < size else b""
            _write_at(log, piece, start + written)
            written += len(piece)

    def mend_line(self, finding: Finding) -> str:
        """Sets the thread that a message names to that of its path, and fills in what is missing."""
        thread_id = finding.key.thread_id
        start, size = finding.span
        with self._log(thread_id) as log:
            old = os.pread(log, size, start)
            if not old.strip():
                return "set right with one before it"
            if not self._message_at(log, finding):
                return "mended by somebody else meanwhile"
            line = _mended(thread_id, old)
            if line == old:
                return ""
            if len(line) > size:
                self._append_again(thread_id, log, start)
                return f"set right behind all others, with those after it; the old lines are in {ASIDE}"
            self._aside.keep_line(thread_id, log, start, size)
            _write_at(log, line + b" " * (size - len(line)), start)
            self._calls.sync(log)
        return f"set right; the old line is in {ASIDE}"

    def _append_again(self, thread_id: str, log: int, start: int) -> None:
        """Appends the lines from *start* on, set right, and blanks them where they were.

        A kill in between leaves both: twice is better than not at all, and the next check names them.
        """
        with _appending(log) as appending:
            self._end(log, appending)
            end = complete_size(log, os.fstat(log).st_size)

            def read(offset: int, size: int) -> bytes:
                return os.pread(log, min(size, end - offset), offset)

            for line, _ in lines.iter_lines(read, start):
                if line.strip():
                    files.write_all(self._calls, appending, _mended(thread_id, line) + b"\n")
            self._calls.sync(appending)
        self._blank(thread_id, log, start, end - 1 - start)
        self._calls.sync(log)

    def _message_at(self, log: int, finding: Finding) -> bool:
        start, size = finding.span
        line = os.pread(log, size, start)
        message = message_of(line, finding.key.thread_id)
        try:
            if message is not None:
                check_text(line, message)
        except InvalidDocument:
            return False
        return message is not None

    def end_line(self, finding: Finding) -> str:
        """Whether it was a message is then seen: the next look takes it for one, or for damage."""
        with self._log(finding.key.thread_id) as log, _appending(log) as appending:
            self._end(log, appending)
            self._calls.sync(appending)
        return "ended"

    def _end(self, log: int, appending: int) -> None:
        size = os.fstat(log).st_size
        if size and os.pread(log, 1, size - 1) != b"\n":
            # Appended, wherever the end is by now: after another program's newline this leaves a blank line.
            files.write_all(self._calls, appending, b"\n")


@contextmanager
def _appending(log: int) -> Iterator[int]:
    """The same file, open so that each write is at its end."""
    descriptor = os.open(f"/proc/self/fd/{log}", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_at(file: int, data: bytes, offset: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(file, data[written:], offset + written)


def _mended(thread_id: str, line: bytes) -> bytes:
    """The line with all that a message must have; one that is no message as it is."""
    try:
        fields = documents.parse(line)
        message = ThreadMessage.of({**fields, "thread_id": thread_id})
        if wrong_fields(fields, {"thread_id": thread_id}, message):
            return documents.line(message).removesuffix(b"\n")
    except InvalidDocument:
        pass
    return line
