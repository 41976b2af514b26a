"""The limit for loose files."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadfs.nodes.refusals import Refused
from threadfs.nodes.temporary import TemporarySpace


class Quota:
    """A limit for the number of loose files and for their total size, and the space for their contents."""

    def __init__(self, files: int, size_bytes: int) -> None:
        self.space = TemporarySpace()
        self._lock = threading.Lock()
        self._free_files = files
        self._free_bytes = size_bytes

    def charge(self, files: int, size_bytes: int) -> None:
        """Takes from the quota; negative numbers give back. Refuses with ENOSPC."""
        with self._lock:
            if files > self._free_files or size_bytes > max(0, self._free_bytes):
                raise Refused(errno.ENOSPC, "no more room for files that are not part of a thread")
            self._free_files -= files
            self._free_bytes -= size_bytes

    @contextmanager
    def charged(self, size_bytes: int) -> Iterator[None]:
        """Takes from the quota, and gives back if the block fails."""
        self.charge(0, size_bytes)
        try:
            yield
        except BaseException:
            self.charge(0, -size_bytes)
            raise
