"""Opening and looking at what is in the store, without ever leaving it.

No component of a path is followed where it is a symbolic link, so neither an id nor a link planted in the
store reaches anything outside. One system call does this: openat2(2). Python does not offer it, hence the
call by number, which is the same on all of Linux's processors but Alpha. Where the kernel does not know it
(before 5.6) or a sandbox refuses it, the path is walked name by name.

Where waiting is refused (`store.waiting`) the kernel is asked for what its memory holds (``RESOLVE_CACHED``,
since 5.12). It fails with EAGAIN when it would have to ask the disk.

A path has a *start*, which is the store's root (as a path without links: the store has resolved them once) or
the descriptor of an open directory, and *parts*, the names that lead on from there.

Source: https://man7.org/linux/man-pages/man2/openat2.2.html
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Sequence
from typing import NamedTuple

from store import waiting
from store.errors import Damaged, StorageFailed
from store.waiting import WouldWait

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A file, without waiting for the other end of a FIFO.
READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# A file that is only looked at: its permissions do not matter.
_STATUS = os.O_PATH | os.O_CLOEXEC

# The errors of opening a directory, a symbolic link, and a FIFO or socket as a file.
NO_FILE = (errno.EISDIR, errno.ELOOP, errno.ENXIO)
# The errors of opening what is missing, no directory, or a symbolic link.
MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

_NOT_REGULAR = "not a regular file"

_OPENAT2 = 437
_AT_FDCWD = -100
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_CACHED = 0x20
_HOW = struct.Struct("QQQ")  # flags, mode, resolve
# The errors of a kernel that lacks the call or one of its flags, and of a sandbox that refuses it.
_UNAVAILABLE = (errno.ENOSYS, errno.EPERM, errno.EINVAL)

# The first gives up the GIL meanwhile, which costs more than a look into the kernel's memory takes.
_libraries = {False: ctypes.CDLL(None, use_errno=True), True: ctypes.PyDLL(None, use_errno=True)}
_calls = {is_cached: library.syscall for is_cached, library in _libraries.items()}
for _call in _calls.values():
    _call.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
    _call.restype = ctypes.c_long
_hows: dict[tuple[int, bool], bytes] = {}


class storage_errors:
    """Turns each `OSError` in a block into `StorageFailed`."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            raise StorageFailed(error.errno or errno.EIO, self._what) from error


# ── The one way to open ─────────────────────────────────────────────────────────────────────────────────


def _openat2(directory: int, path: str, flags: int, *, is_cached: bool) -> int:
    how = _hows.get((flags, is_cached))
    if how is None:
        resolve = _RESOLVE_NO_SYMLINKS | (_RESOLVE_CACHED if is_cached else 0)
        how = _hows[flags, is_cached] = _HOW.pack(flags, 0, resolve)
    name = os.fsencode(path)
    while (descriptor := _calls[is_cached](_OPENAT2, directory, name, how, _HOW.size)) < 0:
        if (code := ctypes.get_errno()) != errno.EINTR:
            raise OSError(code, os.strerror(code), path)
    return int(descriptor)


def _is_available(*, is_cached: bool) -> bool:
    try:
        os.close(_openat2(_AT_FDCWD, "/", os.O_PATH | os.O_CLOEXEC, is_cached=is_cached))
    except OSError as error:
        return error.errno not in _UNAVAILABLE
    return True


_available = {is_cached: _is_available(is_cached=is_cached) for is_cached in (False, True)}


def _open(start: str | int, parts: Sequence[str], flags: int) -> int:
    """A descriptor of what *parts* lead to from *start*, through no link.

    Raises:
        WouldWait: waiting is refused, and the kernel's memory does not have the answer.
    """
    is_cached, is_root = waiting.is_refused(), isinstance(start, str)
    # Of a single name in an open directory, openat(2) follows no link either, and Python offers that.
    if _available[is_cached] and (is_root or is_cached or len(parts) > 1):
        directory, names = (_AT_FDCWD, (start, *parts)) if isinstance(start, str) else (start, parts)
        try:
            return _openat2(directory, "/".join(names), flags | os.O_NOFOLLOW, is_cached=is_cached)
        except BlockingIOError:
            if is_cached:
                raise WouldWait from None
            raise
    waiting.waits()
    return _walk(start, parts, flags)


def _walk(start: str | int, parts: Sequence[str], flags: int) -> int:
    """As `_open`, with one call for each name."""
    directory = None if isinstance(start, str) else start
    *above, name = parts if directory is not None else ("/".join((str(start), *parts[:1])), *parts[1:])
    opened_above: list[int] = []
    try:
        for part in above:
            directory = os.open(part, DIRECTORY, dir_fd=directory)
            opened_above.append(directory)
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=directory)
    finally:
        for descriptor in opened_above:
            os.close(descriptor)


def _check_missing(start: str | int, parts: Sequence[str], path: str, error: OSError) -> None:
    """Returns if *error* means that *parts* lead to nothing. Raises StorageFailed otherwise."""
    if not parts or error.errno not in MISSING:
        raise StorageFailed(error.errno or errno.EIO, path) from error
    if isinstance(start, str):
        try:
            os.close(_open(start, (), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError:
            # The disk is away, which does not mean that the contents of the store have gone.
            raise StorageFailed(errno.EIO, f"the store {start}", "it is not there") from None


# ── Directories ─────────────────────────────────────────────────────────────────────────────────────────


class opened:
    """As `open_directory`, closed at the end of a block."""

    __slots__ = ("_descriptor", "_parts", "_start")

    def __init__(self, start: str | int, *parts: str) -> None:
        self._start = start
        self._parts = parts

    def __enter__(self) -> int | None:
        self._descriptor: int | None = open_directory(self._start, *self._parts)
        return self._descriptor

    def __exit__(self, *error: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


def open_directory(start: str | int, *parts: str) -> int | None:
    """The directory that *parts* lead to, for the caller to close; ``None`` when there is none.

    Raises:
        StorageFailed: it cannot be opened.
    """
    try:
        return _open(start, parts, DIRECTORY)
    except OSError as error:
        _check_missing(start, parts, _full_path(start, parts), error)
        return None


def subdirectories(directory: int) -> list[tuple[str, int]]:
    """(name, inode number) of each directory in *directory*, in the order of the disk."""
    with os.scandir(directory) as entries:
        return [(e.name, e.inode()) for e in entries if e.is_dir(follow_symlinks=False)]


def is_at(directory: int, path: str) -> bool:
    """Whether an open directory still has its name, and nothing else has it."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(directory))
    except OSError:
        return False


# ── Files ───────────────────────────────────────────────────────────────────────────────────────────────


class OpenedFile(NamedTuple):
    """A regular file, for the caller to close, and its status when it was opened."""

    descriptor: int
    status: os.stat_result


def open_file(
    start: str | int, *parts: str, path: str | None = None, flags: int = READING
) -> OpenedFile | None:
    """The regular file that *parts* lead to; ``None`` when there is none. Errors name it by *path*.

    Raises:
        Damaged: something that is no regular file has the name.
        StorageFailed: it cannot be opened.
    """
    try:
        descriptor = _open(start, parts, flags)
    except OSError as error:
        if error.errno in NO_FILE and _is_directory(start, parts[:-1]):
            raise Damaged(path or "/".join(parts), _NOT_REGULAR) from None
        _check_missing(start, parts, path or _full_path(start, parts), error)
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Damaged(path or "/".join(parts), _NOT_REGULAR)
    except OSError as error:
        os.close(descriptor)
        raise StorageFailed(error.errno or errno.EIO, path or "/".join(parts)) from error
    except BaseException:
        os.close(descriptor)
        raise
    return OpenedFile(descriptor, status)


def stat_file(start: str | int, *parts: str) -> os.stat_result | None:
    """The status of the regular file that *parts* lead to; as `open_file`."""
    found = open_file(start, *parts, flags=_STATUS)
    if found is None:
        return None
    os.close(found.descriptor)
    return found.status


def exists(directory: int, name: str) -> bool:
    """Whether anything has this name: a link, a FIFO or a directory too, which count as damaged."""
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StorageFailed(error.errno or errno.EIO, name) from error
    return True


def check_regular(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Damaged(path, _NOT_REGULAR)


def _is_directory(start: str | int, parts: Sequence[str]) -> bool:
    if not parts and isinstance(start, int):
        return True
    with opened(start, *parts) as directory:
        return directory is not None


def _full_path(start: str | int, parts: Sequence[str]) -> str:
    return "/".join((start, *parts) if isinstance(start, str) else parts)
