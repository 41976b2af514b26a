"""Opening what is in the store without ever leaving it.

Every component below the store's root is opened by its single name in its open parent, without following
symbolic links, so neither an id nor a link planted in the store reaches anything outside.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from store.disk.system_calls import SystemCalls
from store.errors import Damaged, StorageFailed

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not a directory, or a symbolic link.
_IS_NONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turns what the disk says into `StorageFailed`."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(error.errno or errno.EIO, what) from error


@contextmanager
def opened(*parts: str) -> Iterator[int | None]:
    """The directory below ``parts[0]`` named by the other parts; ``None`` when there is none.

    ``parts[0]`` is the store's root, given by the user, who may use links there.
    """
    descriptor = None
    try:
        with storage_errors(os.path.join(*parts)):
            try:
                descriptor = os.open(parts[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                for part in parts[1:]:
                    descriptor = _descend(descriptor, part)
            except OSError as error:
                if len(parts) == 1 or error.errno not in _IS_NONE:
                    raise
                if descriptor is not None:
                    os.close(descriptor)
                descriptor = None
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _descend(parent: int, name: str) -> int:
    child = os.open(name, _DIRECTORY, dir_fd=parent)
    os.close(parent)
    return child


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
        if error.errno in (errno.ELOOP, errno.ENXIO):
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
    """All of a file that held *size* bytes a moment ago."""
    parts = []
    while part := os.read(descriptor, max(size, 1) + 1):
        parts.append(part)
        size = 65536
    return b"".join(parts)


def subdirectories(directory: int) -> list[tuple[str, int]]:
    """(name, inode number) of each directory in *directory*, in the order of the disk."""
    with os.scandir(directory) as entries:
        return [(e.name, e.inode()) for e in entries if e.is_dir(follow_symlinks=False)]


def remove_tree(calls: SystemCalls, directory: int, name: str) -> None:
    """Removes a directory and all in it, without following links; what is gone already is fine."""
    with suppress(FileNotFoundError):
        child = os.open(name, _DIRECTORY, dir_fd=directory)
        try:
            with os.scandir(child) as entries:
                found = [(e.name, e.is_dir(follow_symlinks=False)) for e in entries]
            for entry, is_directory in found:
                if is_directory:
                    remove_tree(calls, child, entry)
                else:
                    with suppress(FileNotFoundError):
                        calls.remove(child, entry)
        finally:
            os.close(child)
        calls.remove_directory(directory, name)
