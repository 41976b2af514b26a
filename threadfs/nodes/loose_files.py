"""Loose files: ordinary files that end with the mount."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from store.waiting import waits
from threadfs.nodes.base import Attributes, Refused, Tree
from threadfs.nodes.loose import LooseNode
from threadfs.nodes.quota import Quota
from threadfs.nodes.temporary import Content

_PIECE_BYTES = 1 << 20


class LooseFile(LooseNode):
    """An ordinary file: it reads back what was written."""

    def __init__(
        self, tree: Tree, quota: Quota, parent: LooseNode | str, name: str, mode: int = 0o644
    ) -> None:
        super().__init__(tree, quota, parent, name, mode)
        self._content = Content(quota.space)
        self._lock = threading.Lock()
        self._is_gone = False
        self._handles = 0
        self.writers = 0

    def size(self) -> int:
        return self._content.size

    @property
    def is_open(self) -> bool:
        return self._handles > 0

    def read(self, offset: int, size: int) -> bytes:
        # The loop must wait neither for the disk nor for a writer.
        if self._content.is_on_disk or self._lock.locked():
            waits()
        with self._lock, _disk_errors():
            return self._content.read(offset, size)

    def write(self, offset: int | None, data: bytes) -> None:
        """Writes at *offset*, or at the end if ``None``. A write that fails leaves the size as it was."""
        with self._lock, _disk_errors():
            size = self._content.size
            start = size if offset is None else offset
            with self._quota.charged(max(0, start + len(data) - size)):
                self._content.write(start, data)
            self.modified()

    def truncate(self, size: int) -> None:
        if not self._content.stays_in_memory(size) or self._lock.locked():
            waits()
        with self._lock, _disk_errors():
            before = self._content.size
            with self._quota.charged(max(0, size - before)):
                self._content.resize(size)
            self._quota.charge(0, min(0, size - before))
            self.modified()

    def whole(self, limit_bytes: int) -> bytes:
        """All its bytes. Refuses with EFBIG a file larger than *limit_bytes*."""
        if self.size() > limit_bytes:
            raise Refused(errno.EFBIG, f"{self.path}: larger than {limit_bytes} bytes")
        return self.read(0, self.size())

    def lines(self, limit_bytes: int) -> Iterator[bytes]:
        """Its lines without newlines. Refuses with EFBIG a line longer than *limit_bytes*."""
        rest, offset = b"", 0
        while piece := self.read(offset, _PIECE_BYTES):
            offset += len(piece)
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
            if len(rest) > limit_bytes:
                raise Refused(errno.EFBIG, f"{self.path}: a line is longer than {limit_bytes} bytes")
        if rest:
            yield rest

    def open_for_reading(self) -> LooseHandle:
        return LooseHandle(self, append=False, writes=False)

    def open_for_writing(self, *, truncate: bool, append: bool) -> LooseHandle:
        if truncate:
            self.truncate(0)
        return LooseHandle(self, append=append, writes=True)

    def opened(self, *, writes: bool) -> None:
        if self._is_gone:  # A descriptor from open(2) with O_PATH can still lead here.
            raise Refused(errno.ENOENT, f"{self.name!r} has gone")
        self._handles += 1
        self.writers += writes

    def closed(self, *, writes: bool) -> None:
        self._handles -= 1
        self.writers -= writes
        self.used_s = time.monotonic()
        self._release()

    def removed(self) -> None:
        super().removed()
        self._release()

    def _release(self) -> None:
        if self.has_name or self.is_open or self._is_gone:
            return
        with self._lock:
            self._is_gone = True
        self._quota.charge(0, -self._content.size)
        if self._content.is_large:  # Freeing gigabytes would block the loop.
            with suppress(RuntimeError):  # No thread could be started.
                threading.Thread(target=self._content.clear, name="free").start()
                return
        self._content.clear()


class LooseHandle:
    """An open loose file, for reading and writing."""

    version: object = None
    only_buffers = False
    # Loose files are not durable, so there is nothing to commit.
    has_uncommitted = False

    def __init__(self, file: LooseFile, *, append: bool, writes: bool) -> None:
        self._file = file
        self._append = append
        self._writes = writes
        file.opened(writes=writes)

    def read(self, offset: int, size: int) -> bytes:
        return self._file.read(offset, size)

    def write(self, offset: int, data: bytes) -> None:
        self._file.write(None if self._append else offset, data)

    def truncate(self, size: int) -> None:
        self._file.truncate(size)

    def flush(self) -> None:
        """Does nothing: see `has_uncommitted`."""

    def attributes(self) -> Attributes:
        return self._file.attributes()

    def close(self) -> None:
        self._file.closed(writes=self._writes)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"the temporary directory: {error.strerror}"
        raise Refused(error.errno or errno.EIO, reason) from error
