"""The message log on the disk: one JSON document per line, append only.

Appending survives a neighbour that takes no lock and writes a line and its newline with two calls.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from store.api import Info
from store.disk import directories
from store.disk.directories import storage_errors
from store.disk.layout import LOG
from store.disk.system_calls import SystemCalls
from store.documents import MAX_LINE_BYTES
from store.errors import Damaged, ThreadNotFound
from store.lines import message_of


def complete_size(file: int, size: int, start: int = 0) -> int:
    """How many of the first *size* bytes of a log are complete lines, of which those to *start* are known."""
    if size > start and directories.read_at(file, 1, size - 1) == b"\n":
        return size
    while size > start:
        begin = max(start, size - 65536)
        newline = directories.read_at(file, size - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        size = begin
    return start


class DiskLogReader:
    """An open log. While there is no file, as there is no message yet, it is empty."""

    def __init__(self, root: str, thread_id: str) -> None:
        """Raises ThreadNotFound when there is no such directory."""
        self._path = f"{thread_id}/{LOG}"
        found = directories.open_path(root, (thread_id, LOG), directories.READING)
        self._file = found.descriptor if found else None
        # Where the log may yet appear.
        self._directory: int | None = None
        if self._file is None:
            self._directory = directories.open_directory(root, thread_id)
            if self._directory is None:
                raise ThreadNotFound(thread_id)
        # When the thread's document last changed, which is the time of a log without a message.
        self.created_ns = 0
        # The size of the file when it was last looked at, and that of its complete lines then.
        self._looked_at = (0, 0)

    def _opened(self) -> int | None:
        if self._file is None and self._directory is not None:
            found = directories.open_file(self._directory, LOG, self._path)
            self._file = found.descriptor if found else None
        return self._file

    def _complete(self, file: int, size: int) -> int:
        size_before, complete = self._looked_at
        if size > size_before:  # A torn line may be long: what was searched is not searched again.
            found = complete_size(file, size, size_before)
            complete = found if found > size_before else complete
        elif size < size_before:
            complete = complete_size(file, size)
        self._looked_at = size, complete
        return complete

    def info(self) -> Info:
        file = self._opened()
        if file is None:
            return Info(0, self.created_ns, ())
        with storage_errors(self._path):
            status = os.fstat(file)
            size = self._complete(file, status.st_size)
        return Info(size, status.st_mtime_ns, (status.st_ino, size, status.st_mtime_ns))

    def read(self, offset: int, size: int) -> bytes:
        file = self._opened()
        if file is None:
            return b""
        with storage_errors(self._path):
            data = directories.read_at(file, size, offset)
            # Within the file is within its complete lines, unless this reaches its end.
            if data.endswith(b"\n") and len(data) < size:
                return data
            end = self._complete(file, os.fstat(file).st_size)
        return data[: max(0, end - offset)]

    def close(self) -> None:
        for descriptor in (self._file, self._directory):
            if descriptor is not None:
                os.close(descriptor)
        self._file = self._directory = None


@dataclass(frozen=True, slots=True)
class Appended:
    """An open log, written to and not synced yet; ``is_first``: it held nothing before."""

    file: int
    inode: int
    is_first: bool


def append(calls: SystemCalls, directory: int, path: str, lines: Iterable[bytes], thread_id: str) -> Appended:
    """Appends *lines*, each of which ends with a newline, with a write each.

    The caller holds the lock, and syncs and closes the log.
    """
    with storage_errors(path):
        try:
            file = calls.open_for_appending(directory, LOG)
        except OSError as error:
            if error.errno in directories.NO_FILE:
                raise Damaged(path, "not a regular file") from None
            raise
        try:
            status = os.fstat(file)
            directories.check_regular(status, path)
            _append_to(_End(calls, file, status.st_size), lines, thread_id)
            return Appended(file, status.st_ino, status.st_size == 0)
        except BaseException:
            os.close(file)
            raise


class _End:
    """The end of a log that is appended to."""

    def __init__(self, calls: SystemCalls, file: int, size: int) -> None:
        self._calls = calls
        self.file = file
        self.size = size
        # From here on everything is ours.
        self._ours = size

    def write(self, data: bytes) -> int:
        """Where *data* begins: not where the log ended, if somebody else was faster."""
        written = 0
        try:
            while written < len(data):
                written += self._calls.write(self.file, data[written:] if written else data)
        finally:
            if written:
                end = os.lseek(self.file, 0, os.SEEK_CUR)
                if end - written != self.size:
                    self._ours = end - written
                self.size = end
        return self.size - len(data)

    def take_back(self) -> None:
        """Removes what we wrote last, unless somebody has written after it."""
        if self.size > self._ours and os.fstat(self.file).st_size == self.size:
            self._calls.truncate(self.file, self._ours)

    def is_torn(self, at: int) -> bool:
        """Whether a line has not ended before *at*."""
        return at > 0 and os.pread(self.file, 1, at - 1) != b"\n"


def _append_to(end: _End, lines: Iterable[bytes], thread_id: str) -> None:
    newline = b"\n" if end.is_torn(end.size) else b""
    try:
        for line in lines:
            expected = end.size
            start = end.write(newline + line)
            if start != expected and not newline and end.is_torn(start):
                # A neighbour's line got in between, still without its newline, and ours is glued to it.
                glued = _line_before(end.file, start)
                repeated = glued + b"\n" if message_of(glued, thread_id) else b""
                end.write(b"\n" + repeated + line)
            newline = b""
    except OSError:
        end.take_back()
        raise


def _line_before(file: int, end: int) -> bytes:
    """What stands between the last newline before *end* and *end*."""
    start = complete_size(file, end)
    return os.pread(file, min(end - start, MAX_LINE_BYTES + 1), start)
