"""A stand-in for the kernel: sends requests to the operations, and notes what it is told to forget."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyfuse3
import pytest
import trio

from store import ThreadStore
from tests.mount.conftest import wait_until
from threadfs.fuse.operations import Operations
from threadfs.nodes.root import root_of

T = TypeVar("T")


@dataclass
class Caller:
    """As `pyfuse3.RequestContext`."""

    uid: int = field(default_factory=os.getuid)
    gid: int = field(default_factory=os.getgid)
    pid: int = 0
    umask: int = 0o022


class Token:
    """Takes entries of a listing until it is full."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.entries: list[tuple[bytes, Any, int]] = []


class Kernel:
    def __init__(self, store: ThreadStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.operations = Operations(root_of(store))
        # (inode number, attributes only) and (number of the directory, name), in the order of the calls.
        self.forgotten: list[tuple[int, bool]] = []
        self.forgotten_names: list[tuple[int, bytes]] = []
        # The sizes that listings told, by inode number.
        self.sizes: dict[int, int] = {}
        # Inodes that the kernel does not know: it answers that it cannot forget them.
        self.unknown: set[int] = set()
        monkeypatch.setattr(pyfuse3, "invalidate_inode", self._invalidate_inode)
        monkeypatch.setattr(pyfuse3, "invalidate_entry", lambda *name: self.forgotten_names.append(name))
        monkeypatch.setattr(pyfuse3, "readdir_reply", self._readdir_reply)

    def _invalidate_inode(self, number: int, attributes_only: bool) -> None:
        if number in self.unknown:
            raise FileNotFoundError
        self.forgotten.append((number, attributes_only))

    def _readdir_reply(self, token: Token, name: bytes, entry: Any, next_id: int) -> bool:
        if len(token.entries) == token.room:
            return False
        # One entry serves for many, so what it says now is noted.
        self.sizes[entry.st_ino] = entry.st_size
        token.entries.append((name, (entry.st_ino, entry.attr_timeout, entry.entry_timeout), next_id))
        return True

    def call(self, handler: Callable[..., Awaitable[T]], *arguments: Any, **named: Any) -> T:
        """The answer to one request. Raises FUSEError."""

        async def request() -> T:
            return await handler(*arguments, **named)

        return trio.run(request)

    def lookup(self, path: str) -> Any:
        """The entry of *path*, looked up name by name."""
        entry, number = None, pyfuse3.ROOT_INODE
        for name in path.split("/"):
            entry = self.call(self.operations.lookup, number, os.fsencode(name), Caller())
            number = entry.st_ino
        return entry

    def number(self, path: str) -> int:
        return int(self.lookup(path).st_ino)

    def attributes(self, number: int) -> Any:
        return self.call(self.operations.getattr, number, Caller())

    def open(self, number: int, flags: int = os.O_RDONLY) -> int:
        return int(self.call(self.operations.open, number, flags, Caller()).fh)

    def read(self, handle: int) -> bytes:
        return self.call(self.operations.read, handle, 0, 1 << 20)

    def entries(self, handle: int, start: int = 0, room: int = 1000) -> list[tuple[bytes, Any, int]]:
        token = Token(room)
        self.call(self.operations.readdir, handle, start, token)
        return token.entries

    def names(self, handle: int, start: int = 0, room: int = 1000) -> list[bytes]:
        return [name for name, _, _ in self.entries(handle, start, room) if name not in (b".", b"..")]

    def waits_for_name(self, number: int, name: str) -> None:
        wait_until(lambda: (number, name.encode()) in self.forgotten_names, 5)


@contextmanager
def kernel_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """A kernel that has mounted the store in *place*."""
    store = ThreadStore(place)
    kernel = Kernel(store, monkeypatch)
    kernel.operations.kernel_cache.start()
    try:
        yield kernel
    finally:
        kernel.operations.kernel_cache.close()
        store.close()
