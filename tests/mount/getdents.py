"""A directory read piece by piece, as getdents(2) gives it, without the buffer of readdir(3)."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass, field
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
# Of an entry: inode number, cookie, length of the entry, type; then its name.
_COOKIE, _LENGTH, _NAME = slice(8, 16), slice(16, 18), 19


@dataclass
class OpenDirectory:
    path: Path
    # The names that were read since the beginning, each with the cookie after it.
    read: list[tuple[str, int]] = field(default_factory=list)
    is_at_end: bool = False

    def __post_init__(self) -> None:
        self.descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.read if name not in (".", "..")]

    def read_on(self, size_bytes: int) -> None:
        """Takes as many entries as fit into *size_bytes*."""
        buffer = ctypes.create_string_buffer(size_bytes)
        taken = _libc.getdents64(self.descriptor, buffer, size_bytes)
        if taken < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), os.fspath(self.path))
        self.is_at_end = taken == 0
        rest = buffer.raw[:taken]
        while rest:
            length = int.from_bytes(rest[_LENGTH], "little")
            name = os.fsdecode(rest[_NAME:length].partition(b"\0")[0])
            self.read.append((name, int.from_bytes(rest[_COOKIE], "little")))
            rest = rest[length:]

    def read_all(self, size_bytes: int = 32768) -> list[str]:
        while not self.is_at_end:
            self.read_on(size_bytes)
        return self.names

    def rewind(self) -> None:
        self.seek(0)

    def seek(self, count: int) -> None:
        """As seekdir(3) to where *count* entries had been read, ``.`` and ``..`` among them."""
        os.lseek(self.descriptor, self.read[count - 1][1] if count else 0, os.SEEK_SET)
        del self.read[count:]
        self.is_at_end = False

    def lose_pages(self) -> None:
        """What memory pressure does: the kernel drops the pages of the listing."""
        os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        os.close(self.descriptor)
