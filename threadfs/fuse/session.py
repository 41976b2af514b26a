"""The connection to the kernel, which pyfuse3 has once in a process."""

from __future__ import annotations

import os
from collections.abc import Iterable

import pyfuse3

from threadfs.fuse import shim
from threadfs.fuse.operations import Operations
from threadfs.fuse.strangers import PLACES


class FileSystemName(str):
    """A mount option with a path: any bytes, where pyfuse3 would encode ASCII."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return os.fsencode(str(self))


def mount(operations: Operations, mountpoint: str, options: Iterable[str], *, with_shim: bool) -> None:
    """Raises RuntimeError; the reason is on stderr, as libfuse and fusermount3 print it."""
    shim.switch(on=with_shim, known_users=operations.strangers.known)
    pyfuse3.init(operations, mountpoint, set(options))


async def answer() -> None:
    """Answers the kernel until the mount is gone, or `end`."""
    await pyfuse3.main(max_tasks=PLACES)


def end() -> None:
    pyfuse3.terminate()


def close(*, unmount: bool) -> None:
    pyfuse3.close(unmount=unmount)
