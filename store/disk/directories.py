"""Opening what is in the store without ever leaving it.

No component of a path is followed where it is a symbolic link (`opening`), so neither an id nor a link
planted in the store reaches anything outside.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Sequence
from typing import NamedTuple

from store import waiting
from store.disk import opening
from store.disk.layout import Parts
from store.errors import Damaged, StorageFailed
from store.waiting import WouldWait

FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A file, without waiting for the other end of a FIFO.
READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# What opening a file says of a directory, a symbolic link, and a FIFO or socket.
NO_FILE = (errno.EISDIR, errno.ELOOP, errno.ENXIO)
_NOT_REGULAR = "not a regular file"
# Not a directory, or a symbolic link.
IS_NONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


_MAX_KEPT_BYTES = 1 << 20
# Pythons that run on old systems too, such as those of uv and conda, have not all of preadv2(2).
_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None) if hasattr(os, "preadv") else None


class _OfThread(threading.local):
    buffer = bytearray()


_of_thread = _OfThread()


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


class OpenedFile(NamedTuple):
    """A regular file, for the caller to close, and what it was when it was opened."""

    descriptor: int
    status: os.stat_result


class opened:
    """The directory below *root* that *parts* lead to, open in a block; ``None`` when there is none.

    There are no links in the path of the root either: the store has resolved them once.
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
        return opening.open_below(root, parts, FLAGS)
    except OSError as error:
        _check_is_none(root, parts, error)
        return None


def open_below(directory: int, parts: Sequence[str]) -> int | None:
    """The directory that *parts* lead to from an open one, for the caller to close; ``None``: none."""
    try:
        return opening.open_at(directory, parts, FLAGS)
    except OSError as error:
        if error.errno in IS_NONE:
            return None
        raise StorageFailed(error.errno or errno.EIO, "/".join(parts)) from error


def open_path(root: str, parts: Parts, flags: int) -> OpenedFile | None:
    """The regular file that *parts* lead to below *root*; ``None`` when there is none.

    Raises:
        Damaged: something that is no regular file stands there.
        StorageFailed: it cannot be opened.
    """
    try:
        descriptor = opening.open_below(root, parts, flags)
    except OSError as error:
        if error.errno in NO_FILE and (above := open_directory(root, *parts[:-1])) is not None:
            os.close(above)
            raise Damaged("/".join(parts), _NOT_REGULAR) from None
        _check_is_none(root, parts, error)
        return None
    return _checked(descriptor, "/".join(parts))


def stat_path(root: str, parts: Parts) -> os.stat_result | None:
    """Of the regular file that *parts* lead to; as `open_path`."""
    found = open_path(root, parts, os.O_PATH | os.O_CLOEXEC)
    if found is None:
        return None
    os.close(found.descriptor)
    return found.status


def _check_is_none(root: str, parts: Sequence[str], error: OSError) -> None:
    """That *parts* lead to nothing is what *error* says. Raises StorageFailed otherwise."""
    if not parts or error.errno not in IS_NONE:
        raise StorageFailed(error.errno or errno.EIO, "/".join((root, *parts))) from error
    _check_root(root)  # What is in it has not gone, as far as anybody knows.


def _check_root(root: str) -> None:
    try:
        os.close(opening.open_below(root, (), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError:
        raise StorageFailed(errno.EIO, f"the store {root}", "it is not there") from None


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


def open_file(directory: int, name: str, path: str) -> OpenedFile | None:
    """The regular file *name*, open for reading; ``None`` when there is none.

    Raises:
        Damaged: something that is no regular file stands there.
        StorageFailed: it cannot be opened.
    """
    try:
        descriptor = opening.open_at(directory, (name,), READING)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in NO_FILE:
            raise Damaged(path, _NOT_REGULAR) from None
        raise StorageFailed(error.errno or errno.EIO, path) from error
    return _checked(descriptor, path)


def _checked(descriptor: int, path: str) -> OpenedFile:
    try:
        with storage_errors(path):
            status = os.fstat(descriptor)
        check_regular(status, path)
    except BaseException:
        os.close(descriptor)
        raise
    return OpenedFile(descriptor, status)


def check_regular(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Damaged(path, _NOT_REGULAR)


def read_at(file: int, size: int, offset: int) -> bytes:
    """At most *size* bytes of a regular file at *offset*; fewer at its end alone."""
    if not waiting.is_refused():
        return os.pread(file, size, offset)
    if _NOWAIT is None:
        raise WouldWait
    if size > len(_of_thread.buffer):
        # Kept for the next one: making one of this size costs more than reading into it.
        _of_thread.buffer = bytearray(min(size, _MAX_KEPT_BYTES))
    kept = _of_thread.buffer if size <= _MAX_KEPT_BYTES else bytearray(size)
    buffer = memoryview(kept)[:size]
    try:
        found = os.preadv(file, [buffer], offset, _NOWAIT)
    except (OSError, NotImplementedError):
        # Not in memory, or not to be known here. If anything is wrong, who may wait is told.
        raise WouldWait from None
    if found < size and offset + found < os.fstat(file).st_size:
        raise WouldWait
    return bytes(buffer[:found])


def read_whole(file: int, size: int) -> bytes:
    """All of a regular file that held *size* bytes a moment ago."""
    parts, offset = [], 0
    while True:
        wanted = size + 1
        part = read_at(file, wanted, offset)
        parts.append(part)
        if len(part) < wanted:  # The end, as this is no pipe.
            return b"".join(parts)
        offset += wanted
        size = 65536


def subdirectories(directory: int) -> list[tuple[str, int]]:
    """(name, inode number) of each directory in *directory*, in the order of the disk."""
    with os.scandir(directory) as entries:
        return [(e.name, e.inode()) for e in entries if e.is_dir(follow_symlinks=False)]
