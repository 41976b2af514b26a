"""Opening what is in the store without ever leaving it.

Every component below the store's root is opened by its single name in its open parent, without following
symbolic links, so neither an id nor a link planted in the store reaches anything outside.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from store.errors import Damaged, StorageFailed

_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What opening a file says of a directory, a symbolic link, and a FIFO or socket.
NO_FILE = (errno.EISDIR, errno.ELOOP, errno.ENXIO)
# Not a directory, or a symbolic link.
_IS_NONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class storage_errors:
    """Turns what the disk says in a block into `StorageFailed`."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            raise StorageFailed(error.errno or errno.EIO, self._what) from error


class opened:
    """The directory below *root* that *parts* lead to, open in a block; ``None`` when there is none.

    The root is given by the user, who may use links there.
    """

    __slots__ = ("_descriptor", "_parts", "_root")

    def __init__(self, root: str, *parts: str) -> None:
        self._root = root
        self._parts = parts

    def __enter__(self) -> int | None:
        self._descriptor: int | None = open_directory(self._root, *self._parts)
        return self._descriptor

    def __exit__(self, *error: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


def open_directory(root: str, *parts: str) -> int | None:
    """As `opened`, for the caller to close."""
    try:
        # Of a path no more than the last name is kept from being a link, hence one name at a time.
        first = os.open(f"{root}/{parts[0]}", FLAGS) if parts else os.open(root, _ROOT)
    except OSError as error:
        if parts and error.errno in _IS_NONE:
            if not os.path.isdir(root):  # What is in it has not gone, as far as anybody knows.
                raise StorageFailed(errno.EIO, f"the store {root} is not there") from None
            return None
        raise StorageFailed(error.errno or errno.EIO, "/".join((root, *parts))) from error
    if len(parts) < 2:
        return first
    try:
        return open_below(first, parts[1:])
    finally:
        os.close(first)


def open_below(directory: int, parts: Sequence[str]) -> int | None:
    """The directory that *parts* lead to from an open one, for the caller to close; ``None``: none."""
    below = directory
    try:
        for part in parts:
            child = os.open(part, FLAGS, dir_fd=below)
            if below != directory:
                os.close(below)
            below = child
    except OSError as error:
        if below != directory:
            os.close(below)
        if error.errno in _IS_NONE:
            return None
        raise StorageFailed(error.errno or errno.EIO, "/".join(parts)) from error
    return below


def is_at(directory: int, path: str) -> bool:
    """Whether an open directory still has its name, and nothing else has it."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(directory))
    except OSError:
        return False


def stands(directory: int, name: str) -> bool:
    """Something stands under *name*: a link, a FIFO or a directory too, which count as damaged."""
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StorageFailed(error.errno or errno.EIO, name) from error
    return True


def modified_ns(directory: int | None) -> int:
    """When entries of *directory* last came or went, in nanoseconds since 1970; 0 when there is none."""
    return 0 if directory is None else os.fstat(directory).st_mtime_ns


def open_file(directory: int, name: str, path: str) -> int | None:
    """The regular file *name*, open for reading; ``None`` when there is none.

    Raises:
        Damaged: something that is no regular file stands there.
        StorageFailed: it cannot be opened.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in NO_FILE:
            raise Damaged(path, "not a regular file") from None
        raise StorageFailed(error.errno or errno.EIO, path) from error
    try:
        check_regular(os.fstat(descriptor), path)
    except Damaged:
        os.close(descriptor)
        raise
    return descriptor


def check_regular(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Damaged(path, "not a regular file")


def read_whole(descriptor: int, size: int) -> bytes:
    """All of a regular file that held *size* bytes a moment ago."""
    parts = []
    while True:
        wanted = size + 1
        part = os.read(descriptor, wanted)
        parts.append(part)
        if len(part) < wanted:  # The end, as this is no pipe.
            return b"".join(parts)
        size = 65536


def subdirectories(directory: int) -> list[tuple[str, int]]:
    """(name, inode number) of each directory in *directory*, in the order of the disk."""
    with os.scandir(directory) as entries:
        return [(e.name, e.inode()) for e in entries if e.is_dir(follow_symlinks=False)]
