"""The contents of loose files: small ones in memory, larger ones in the system's temporary directory.

Files there have no name, so nothing is left when the process has ended, even when it was killed. Contents of
up to 1 MiB have a *slot* each in one shared file, so that thousands of them take one descriptor. Larger
contents have a file each. Both kinds of file are sparse: ranges that were never written take no room.
"""

from __future__ import annotations

import errno
import os
import resource
import tempfile
import threading
from contextlib import suppress
from heapq import heappop, heappush
from io import FileIO

# The largest content in memory, and the limit for all of them together. Others go to the disk.
IN_MEMORY_BYTES = 64 << 10
ALL_IN_MEMORY_BYTES = 8 << 20
SLOT_BYTES = 1 << 20
_MANY = 1 << 16


class TemporarySpace:
    """Memory and disk for the contents of loose files."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free_memory_bytes = ALL_IN_MEMORY_BYTES
        # At most a quarter: the store needs descriptors too.
        soft_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._free_files = _MANY if soft_limit == resource.RLIM_INFINITY else soft_limit // 4
        self._shared: FileIO | None = None
        self._free_slots: list[int] = []
        self._slots = 0
        # Python chooses the directory now, and not when it may be full. Small files do not need one.
        with suppress(OSError):
            tempfile.gettempdir()

    def takes_memory(self, size_bytes: int) -> bool:
        """Takes memory if enough is left, and returns whether it was; a negative size gives back."""
        with self._lock:
            if size_bytes > max(0, self._free_memory_bytes):
                return False
            self._free_memory_bytes -= size_bytes
            return True

    def place(self, size_bytes: int) -> Place:
        """Room on the disk for *size_bytes*. Raises OSError."""
        with self._lock:
            if size_bytes > SLOT_BYTES:
                if self._free_files <= 0:
                    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
                file = _unnamed_file()
                self._free_files -= 1
                return Place(self, file, 0, is_slot=False)
            if self._shared is None:
                self._shared = _unnamed_file()
            if self._free_slots:
                slot = heappop(self._free_slots)
            else:
                slot, self._slots = self._slots, self._slots + 1
            return Place(self, self._shared, slot * SLOT_BYTES, is_slot=True)

    def give_back(self, start: int, *, is_slot: bool) -> None:
        with self._lock:
            if not is_slot:
                self._free_files += 1
                return
            heappush(self._free_slots, start // SLOT_BYTES)
            if len(self._free_slots) == self._slots:
                # No slot is in use: closing the file frees its disk space.
                self._shared, self._free_slots, self._slots = None, [], 0


def _unnamed_file() -> FileIO:
    try:
        return tempfile.TemporaryFile(buffering=0)
    except FileNotFoundError as error:
        # No directory takes a file, most often because all of them are full.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error


class Place:
    """A temporary file, or one slot of it. Its first bytes are undefined: write before you read."""

    __slots__ = ("_file", "_is_slot", "_space", "_start")

    def __init__(self, space: TemporarySpace, file: FileIO, start: int, *, is_slot: bool) -> None:
        self._space = space
        self._file = file
        self._start = start
        self._is_slot = is_slot

    def holds(self, size_bytes: int) -> bool:
        return not self._is_slot or size_bytes <= SLOT_BYTES

    def read(self, offset: int, size: int) -> bytes:
        """*size* bytes, all of which have been written or are in a hole."""
        descriptor, pieces = self._file.fileno(), []
        while size > 0 and (piece := os.pread(descriptor, size, self._start + offset)):
            pieces.append(piece)
            offset, size = offset + len(piece), size - len(piece)
        return b"".join(pieces) + bytes(size)

    def write(self, offset: int, data: bytes | bytearray) -> None:
        descriptor, rest = self._file.fileno(), memoryview(data)
        while rest:
            written = os.pwrite(descriptor, rest, self._start + offset)
            offset, rest = offset + written, rest[written:]

    def resize(self, before: int, size: int) -> None:
        """Cuts, or stretches with zeros."""
        if not self._is_slot:
            os.ftruncate(self._file.fileno(), size)
        elif size > before:
            self.write(before, bytes(size - before))

    def close(self) -> None:
        if not self._is_slot:
            self._file.close()
        self._space.give_back(self._start, is_slot=self._is_slot)


class Content:
    """The bytes of a loose file, as on any disk. The caller makes one call at a time.

    A method that raises OSError has changed neither the size nor the room taken.
    """

    __slots__ = ("_memory", "_place", "_space", "size")

    def __init__(self, space: TemporarySpace) -> None:
        self._space = space
        # The content is in memory, or in a place on the disk; never in both.
        self._memory = bytearray()
        self._place: Place | None = None
        self.size = 0

    @property
    def is_on_disk(self) -> bool:
        return self._place is not None

    @property
    def is_large(self) -> bool:
        """Whether freeing it takes a while."""
        return self.size > SLOT_BYTES

    def stays_in_memory(self, size: int) -> bool:
        """Whether it is in memory and small enough to stay there with *size* bytes."""
        return self._place is None and size <= IN_MEMORY_BYTES

    def read(self, offset: int, size: int) -> bytes:
        size = min(size, max(0, self.size - offset))
        if self._place is not None:
            return self._place.read(offset, size)
        return bytes(self._memory[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        end = max(self.size, offset + len(data))
        place = self._place_for(end)
        if place is None:
            self._memory += bytes(max(0, offset - self.size))
            self._memory[offset : offset + len(data)] = data
        else:
            try:
                if offset > self.size:
                    place.resize(self.size, offset)
                place.write(offset, data)
            except OSError:
                with suppress(OSError):
                    place.resize(end, self.size)
                raise
        self.size = end

    def resize(self, size: int) -> None:
        """Cuts, or stretches with zeros."""
        if size == 0:
            return self.clear()
        place = self._place_for(size)
        if place is not None:
            place.resize(self.size, size)
        else:
            del self._memory[size:]
            self._memory += bytes(size - len(self._memory))
        self.size = size
        return None

    def clear(self) -> None:
        """Cuts to nothing, and frees all room."""
        if self._place is not None:
            self._place.close()
            self._place = None
        else:
            self._space.takes_memory(-self.size)
        self._memory = bytearray()
        self.size = 0

    def _place_for(self, size: int) -> Place | None:
        """A place on the disk with room for *size* bytes; ``None`` if they fit in memory."""
        if self._place is None and size <= IN_MEMORY_BYTES and self._space.takes_memory(size - self.size):
            return None
        if self._place is not None and self._place.holds(size):
            return self._place
        place = self._space.place(size)
        try:
            place.write(0, self.read(0, self.size))
        except OSError:
            place.close()
            raise
        before, size_before = self._place, self.size
        if before is not None:
            before.close()
        else:
            self._space.takes_memory(-size_before)
            self._memory = bytearray()
        self._place = place
        return place
