"""The documents that were read last: their bytes are at hand while nothing changes them."""

from __future__ import annotations

from collections import deque

from threadfs.fuse.inodes import Inode
from threadfs.nodes.base import BytesReader

# What is kept of a document besides its bytes takes about as much.
_READER_BYTES = 1024


class RecentReaders:
    """As many as fit into *max_bytes*; a document that would drive many others out is not kept."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        # Oldest first. One that has been taken away from its inode counts until its turn comes.
        self._kept: deque[tuple[Inode, BytesReader]] = deque()

    def keep(self, inode: Inode, reader: BytesReader, changes_seen: int) -> None:
        """Lets *reader* serve whoever opens the file next."""
        size_bytes = self._size_bytes(reader)
        if size_bytes > self._max_bytes // 16:
            return
        inode.remember_reader(reader, changes_seen)
        if not reader.size_bytes:
            return  # Those of all control files are the same one.
        self._kept.append((inode, reader))
        self._bytes += size_bytes
        while self._bytes > self._max_bytes:
            oldest, its_reader = self._kept.popleft()
            self._bytes -= self._size_bytes(its_reader)
            if oldest.latest_reader is its_reader:
                oldest.drop_reader()

    @staticmethod
    def _size_bytes(reader: BytesReader) -> int:
        return _READER_BYTES + reader.size_bytes
