"""Reading the message log on the disk: one JSON document per line, append only."""

from __future__ import annotations

import os

from store.api import Info
from store.disk import paths, reading
from store.disk.layout import LOG
from store.disk.paths import storage_errors
from store.errors import ThreadNotFound

_SMALL_BYTES = 1 << 16


def complete_size(file: int, size: int, start: int = 0) -> int:
    """How many of the first *size* bytes of a log are complete lines; the first *start* bytes surely are."""
    if size > start and reading.read_at(file, 1, size - 1) == b"\n":
        return size
    while size > start:
        begin = max(start, size - 65536)
        newline = reading.read_at(file, size - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        size = begin
    return start


class DiskLogReader:
    """An open log. While there is no file, as there is no message yet, it is empty."""

    def __init__(self, root: str, thread_id: str) -> None:
        """Raises ThreadNotFound when there is no such directory."""
        self._path = f"{thread_id}/{LOG}"
        found = paths.open_file(root, thread_id, LOG)
        self._file = found.descriptor if found else None
        # The directory in which the log may yet appear.
        self._directory: int | None = None
        if self._file is None:
            self._directory = paths.open_directory(root, thread_id)
            if self._directory is None:
                raise ThreadNotFound(thread_id)
        # The thread's document gives its times to a log without a message.
        self.document = Info(0, 0, (), 0, 0)
        # The size of the file when it was last looked at, and the size of its complete lines then.
        self._looked_at = (0, 0)
        try:
            self._opened()  # A thread may have come just now, with messages, and may go before they are read.
        except BaseException:
            self.close()
            raise

    def _opened(self) -> int | None:
        if self._file is None and self._directory is not None:
            found = paths.open_file(self._directory, LOG, path=self._path)
            self._file = found.descriptor if found else None
        return self._file

    def _complete(self, file: int, size: int) -> int:
        size_before, complete = self._looked_at
        if size > size_before:  # A torn line may be long: no byte of it is searched twice.
            found = complete_size(file, size, size_before)
            complete = found if found > size_before else complete
        elif size < size_before:
            complete = complete_size(file, size)
        self._looked_at = size, complete
        return complete

    def info(self) -> Info:
        file = self._opened()
        if file is None:
            return Info(0, self.document.modified_ns, (), self.document.changed_ns, 0)
        with storage_errors(self._path):
            status = os.fstat(file)
            size = self._complete(file, status.st_size)
        version = (status.st_ino, size, status.st_mtime_ns)
        return Info(size, status.st_mtime_ns, version, status.st_ctime_ns, status.st_ino)

    def read(self, offset: int, size: int) -> bytes:
        file = self._opened()
        if file is None:
            return b""
        with storage_errors(self._path):
            if size > _SMALL_BYTES:  # Else room for so much is made, which costs more than a short log.
                size = min(size, max(os.fstat(file).st_size - offset, 0) + 1)
            data = reading.read_at(file, size, offset)
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
