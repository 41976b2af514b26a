"""Opening a path below a directory with one system call that follows no link: openat2(2).

Python does not offer it, hence the call by number, which is the same on all of Linux's processors but Alpha.
Where the kernel does not know it (before 5.6) or a sandbox refuses it, the path is walked name by name.

Where waiting is refused (`store.waiting`) the kernel is asked for what its memory holds (``RESOLVE_CACHED``,
since 5.12), and says so when it would have to ask the disk.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Sequence

from store import waiting
from store.waiting import WouldWait

_OPENAT2 = 437
_AT_FDCWD = -100
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_CACHED = 0x20
_HOW = struct.Struct("QQQ")  # flags, mode, resolve
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What a kernel says that does not know the call or one of its flags, and a sandbox that does not.
_UNAVAILABLE = (errno.ENOSYS, errno.EPERM, errno.EINVAL)

# The first gives up the GIL meanwhile, which costs more than what is in memory takes.
_libraries = {False: ctypes.CDLL(None, use_errno=True), True: ctypes.PyDLL(None, use_errno=True)}
_calls = {is_cached: library.syscall for is_cached, library in _libraries.items()}
for _call in _calls.values():
    _call.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
    _call.restype = ctypes.c_long
_hows: dict[tuple[int, bool], bytes] = {}


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


def open_below(root: str, parts: Sequence[str], flags: int) -> int:
    """What *parts* lead to below the directory *root*, none of which is a link (of *root*, none either).

    Raises:
        WouldWait: waiting is refused, and the kernel's memory does not know.
    """
    if _available[is_cached := waiting.is_refused()]:
        return _opened(_AT_FDCWD, "/".join((root, *parts)), flags, is_cached=is_cached)
    waiting.waits()
    if not parts:
        return os.open(root, flags)
    if len(parts) == 1:
        return os.open(f"{root}/{parts[0]}", flags | os.O_NOFOLLOW)
    directory = os.open(f"{root}/{parts[0]}", _DIRECTORY)
    try:
        return open_at(directory, parts[1:], flags)
    finally:
        os.close(directory)


def open_at(directory: int, parts: Sequence[str], flags: int) -> int:
    """As `open_below`, from an open directory."""
    is_cached = waiting.is_refused()
    if _available[is_cached] and (is_cached or len(parts) > 1):
        return _opened(directory, "/".join(parts), flags, is_cached=is_cached)
    waiting.waits()
    *above, name = parts
    if not above:
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=directory)
    stack: list[int] = []
    try:
        for part in above:
            stack.append(os.open(part, _DIRECTORY, dir_fd=stack[-1] if stack else directory))
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=stack[-1] if stack else directory)
    finally:
        for descriptor in stack:
            os.close(descriptor)


def _opened(directory: int, path: str, flags: int, *, is_cached: bool) -> int:
    try:
        return _openat2(directory, path, flags | os.O_NOFOLLOW, is_cached=is_cached)
    except BlockingIOError:
        if is_cached:
            raise WouldWait from None
        raise
