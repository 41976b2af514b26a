"""The message log on the disk: one JSON document per line, append only.

Appending survives a neighbour that takes no lock and writes a line and its newline with two calls.
"""

from __future__ import annotations

import os

from store.api import Info
from store.disk import directories
from store.disk.system_calls import SystemCalls
from store.documents import MAX_LINE_BYTES
from store.lines import message_of

LOG = "messages.jsonl"


def complete_size(file: int, size: int) -> int:
    """How many of the first *size* bytes of a log are complete lines."""
    while size:
        start = max(0, size - 65536)
        newline = os.pread(file, size - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        size = start
    return 0


class DiskLogReader:
    """An open log; without a file (no message yet) it is empty."""

    def __init__(self, file: int | None, path: str, missing: Info) -> None:
        self._file = file
        self._path = path
        self._missing = missing

    def info(self) -> Info:
        if self._file is None:
            return self._missing
        with directories.storage_errors(self._path):
            status = os.fstat(self._file)
            size = complete_size(self._file, status.st_size)
        return Info(size, status.st_mtime_ns, (status.st_ino, size))

    def read(self, offset: int, size: int) -> bytes:
        if self._file is None:
            return b""
        with directories.storage_errors(self._path):
            data = os.pread(self._file, size, offset)
            # Within the file is within its complete lines, unless this reaches its end.
            if data.endswith(b"\n") and len(data) < size:
                return data
            end = complete_size(self._file, os.fstat(self._file).st_size)
        return data[: max(0, end - offset)]

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def append(calls: SystemCalls, directory: int, path: str, lines: bytes, thread_id: str) -> tuple[int, bool]:
    """Appends *lines*, which end with a newline, in one write; the caller holds the lock.

    Returns:
        The open log, not synced yet, for the caller to sync and close; whether it held nothing before.
    """
    with directories.storage_errors(path):
        try:
            file = calls.open_for_appending(directory, LOG)
        except IsADirectoryError:
            directories.check_regular(os.stat(LOG, dir_fd=directory, follow_symlinks=False), path)
            raise
    try:
        directories.check_regular(os.fstat(file), path)
        with directories.storage_errors(path):
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                _write_lines(calls, file, b"\n" + lines)
                return file, size == 0
            start = _write_lines(calls, file, lines)
            if start and os.pread(file, 1, start - 1) != b"\n":
                # A neighbour's line got in between, still without its newline, and our first is glued to it.
                first = lines[: lines.index(b"\n") + 1]
                glued = _line_before(file, start)
                repeated = glued + b"\n" if message_of(glued, thread_id) else b""
                try:
                    _write_lines(calls, file, b"\n" + repeated + first)
                except OSError:
                    _take_back(calls, file, start, len(lines))
                    raise
            return file, size == 0
    except BaseException:
        os.close(file)
        raise


def _write_lines(calls: SystemCalls, file: int, data: bytes) -> int:
    """Writes *data* with one call; returns where it begins. A piece of it is taken back."""
    before = os.fstat(file).st_size
    written = 0
    try:
        while written < len(data):
            written += calls.write(file, data[written:] if written else data)
    except OSError:
        if written:
            _take_back(calls, file, before, written)
        raise
    return os.lseek(file, 0, os.SEEK_CUR) - len(data)


def _take_back(calls: SystemCalls, file: int, start: int, size: int) -> None:
    """Removes what we wrote at *start*, unless somebody has written after it."""
    if os.fstat(file).st_size == start + size:
        calls.truncate(file, start)


def _line_before(file: int, end: int) -> bytes:
    """What stands between the last newline before *end* and *end*."""
    start = complete_size(file, end)
    return os.pread(file, min(end - start, MAX_LINE_BYTES + 1), start)
