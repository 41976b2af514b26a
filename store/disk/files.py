"""Documents on the disk: read as one version, replaced atomically and durably."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress

from store.api import Info
from store.disk import paths, reading
from store.disk.layout import Parts
from store.disk.paths import OpenedFile
from store.disk.system_calls import SystemCalls
from store.documents import MAX_DOCUMENT_BYTES
from store.errors import Damaged, StorageFailed

# Our own temporary files and directories; a name that starts with "." is never an id.
TEMPORARY = ".threadfs-tmp-"
DELETED = ".threadfs-deleted-"
_OURS = re.compile(rf"({re.escape(TEMPORARY)}|{re.escape(DELETED)})[0-9a-f]{{16}}")
_OF_REFERENCE = re.compile(r"\.tmp[A-Za-z0-9]{6}")

# How often a document that other programs keep replacing is read again before giving up.
_ATTEMPTS = 1000


def temporary_name(prefix: str = TEMPORARY) -> str:
    return prefix + secrets.token_hex(8)


def is_leftover(name: str, *, is_file: bool = True) -> bool:
    """Whether *name* is a temporary name of this program or, for a file, of the reference."""
    return bool(_OURS.fullmatch(name) or (is_file and _OF_REFERENCE.fullmatch(name)))


def info_of(status: os.stat_result) -> Info:
    return Info(
        status.st_size,
        status.st_mtime_ns,
        (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size),
        status.st_ctime_ns,
        status.st_ino,
    )


def stat_path(root: str, parts: Parts) -> Info | None:
    """The info of the file that *parts* lead to. Raises Damaged when it is no regular file."""
    status = paths.stat_file(root, *parts)
    return None if status is None else info_of(status)


def read_path(root: str, parts: Parts) -> tuple[bytes, Info] | None:
    """The bytes of one version of a document, and its info; ``None`` when there is none."""
    file = paths.open_file(root, *parts)
    return None if file is None else (_read(file, "/".join(parts)), info_of(file.status))


def read_file(directory: int, name: str, path: str) -> bytes | None:
    """The bytes of one version of the document *name* in an open directory; ``None`` when there is none."""
    file = paths.open_file(directory, name, path=path)
    return None if file is None else _read(file, path)


def _read(file: OpenedFile, path: str) -> bytes:
    try:
        if file.status.st_size > MAX_DOCUMENT_BYTES:
            raise Damaged(path, f"larger than {MAX_DOCUMENT_BYTES} bytes")
        with paths.storage_errors(path):
            return reading.read_whole(file.descriptor, file.status.st_size)
    finally:
        os.close(file.descriptor)


def write_all(calls: SystemCalls, descriptor: int, data: bytes) -> None:
    written = 0
    while written < len(data):
        written += calls.write(descriptor, data[written:] if written else data)


def write_new(
    calls: SystemCalls,
    directory: int,
    name: str,
    pieces: Iterable[bytes],
    replaced: os.stat_result | None = None,
    modified_ns: int | None = None,
) -> None:
    """Makes a file of *pieces*, to replace *replaced*. Syncs it, not its name. A failure leaves no file."""
    descriptor = calls.create(directory, name, replaced)
    try:
        try:
            for piece in pieces:
                write_all(calls, descriptor, piece)
            if modified_ns is not None:
                calls.set_modified(directory, name, modified_ns)
            calls.sync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        with suppress(OSError):
            calls.remove(directory, name)
        raise


def rewrite(
    calls: SystemCalls,
    directory: int,
    name: str,
    path: str,
    change: Callable[[bytes | None], bytes | None],
    on_replaced: Callable[[], None] = lambda: None,
) -> None:
    """Replaces a document by the result of *change*, in one step, durably.

    *change* gets the stored bytes (``None``: no document) and returns the new ones, or ``None`` to leave the
    document as it is. It is called again when another program, which takes no lock, has replaced the document
    between our read and our rename. *on_replaced* is called when others see it, before it is durable. The
    caller holds the thread's lock.
    """
    for _ in range(_ATTEMPTS):
        file = paths.open_file(directory, name, path=path)
        stored = None if file is None else _read(file, path)
        new = change(stored)
        if new is None:
            return
        with paths.storage_errors(path):
            if _replace(calls, directory, name, stored, new, None if file is None else file.status):
                on_replaced()
                calls.sync(directory)
                return
    raise StorageFailed(errno.EBUSY, path, "another program keeps replacing it")


def _replace(
    calls: SystemCalls,
    directory: int,
    name: str,
    stored: bytes | None,
    new: bytes,
    status: os.stat_result | None,
) -> bool:
    """Whether *stored* was still there and has been replaced by *new*."""
    temporary = temporary_name()
    write_new(calls, directory, temporary, (new,), status)
    try:
        # The last check before the rename. A change by another program in between is lost.
        if not _still_holds(directory, name, stored):
            with suppress(FileNotFoundError):  # Gone with its directory.
                calls.remove(directory, temporary)
            return False
        calls.rename(directory, temporary, directory, name)
    except BaseException:
        with suppress(OSError):
            calls.remove(directory, temporary)
        raise
    return True


def _still_holds(directory: int, name: str, stored: bytes | None) -> bool:
    """Whether the document *name* still holds *stored*; False on errors, which the next read raises."""
    try:
        file = os.open(name, paths.READING, dir_fd=directory)
    except FileNotFoundError:
        return stored is None
    except OSError:
        return False
    try:
        return stored is not None and os.pread(file, len(stored) + 1, 0) == stored
    except OSError:
        return False
    finally:
        os.close(file)
