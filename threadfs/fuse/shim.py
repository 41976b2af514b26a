"""Loads ``shim.c``, which gives the kernel answers that pyfuse3 cannot give.

With it the kernel keeps listings and sends no OPENDIR, and no FLUSH for a file that was opened for reading
only. It has to be loaded before pyfuse3, as the dynamic linker then binds pyfuse3 to it; so the package
``threadfs.fuse`` loads it first of all. Where it was not built (there was no compiler), or pyfuse3 was there
before, everything works without it, with more requests.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Final

log = logging.getLogger("threadfs")

_KNOWN_USERS: Final = 3
_ENDS: Final = 64
_SHARED: Final = 1 << 17


class _End(ctypes.Structure):
    _fields_ = (("inode", ctypes.c_uint64), ("cookie", ctypes.c_int64), ("is_kept", ctypes.c_int64))


class _Shared(ctypes.Structure):
    _fields_ = (("inode", ctypes.c_uint64), ("handle", ctypes.c_uint64), ("opens", ctypes.c_int64))


class _Library:
    """What is set and read in the loaded library."""

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_GLOBAL)
        self.is_on = ctypes.c_int.in_dll(library, "threadfs_shim_is_on")
        self.is_in_effect = ctypes.c_int.in_dll(library, "threadfs_shim_is_in_effect")
        self.ends_answered = ctypes.c_uint64.in_dll(library, "threadfs_shim_ends_answered")
        self.opens_answered = ctypes.c_uint64.in_dll(library, "threadfs_shim_opens_answered")
        self.keeps_no_listing = ctypes.c_int.in_dll(library, "threadfs_shim_keeps_no_listing")
        self.ends = (_End * _ENDS).in_dll(library, "threadfs_shim_ends")
        self.shared = (_Shared * _SHARED).in_dll(library, "threadfs_shim_shared")
        self.known_users = (ctypes.c_uint * _KNOWN_USERS).in_dll(library, "threadfs_shim_known_users")


_library: _Library | None = None


def load() -> None:
    """To be called once, before anything imports pyfuse3."""
    global _library
    built = find_spec("threadfs.fuse._shim")
    if built is None or built.origin is None or "pyfuse3" in sys.modules:
        return
    try:
        _library = _Library(built.origin)
    except (OSError, ValueError) as error:  # ValueError: it was built of an earlier version of the file.
        log.warning("the shim cannot be loaded, so the kernel keeps no listings: %s", error)


def switch(*, on: bool, known_users: Iterable[int]) -> None:
    """Whether the mount that comes next is served so, for *known_users* and strangers.

    Does nothing where the shim is not loaded.
    """
    if _library is not None:
        _library.is_on.value = on
        users = list(known_users)
        for place in range(_KNOWN_USERS):  # The last one again, where there are fewer.
            _library.known_users[place] = users[min(place, len(users) - 1)]


def is_in_effect() -> bool:
    """Whether the mount of this process is served so: once the kernel has sent its first request."""
    return _library is not None and bool(_library.is_in_effect.value)


def ends_answered() -> int:
    """How many requests were answered without us, each for the end of a listing."""
    return 0 if _library is None else int(_library.ends_answered.value)


def opens_answered() -> int:
    """How many opens, each with its close, were answered without us."""
    return 0 if _library is None else int(_library.opens_answered.value)


# ── Opens ───────────────────────────────────────────────────────────────────────────────────────────────


def share(inode_number: int, handle: int, opens: int) -> bool:
    """Further opens for reading of a file get *handle*, and keep its pages; *opens* of them have it already.

    Returns whether they do from now on. Not where the shim is not in effect, or another file has the place.
    """
    if not is_in_effect() or shared_in_place_of(inode_number):
        return False
    assert _library is not None
    place = _library.shared[inode_number % _SHARED]
    place.handle, place.opens = handle, opens
    place.inode = inode_number
    return True


def shared_in_place_of(inode_number: int) -> int:
    """The number of another file that is shared, and has to go first; 0 if there is none."""
    other = 0 if _library is None else int(_library.shared[inode_number % _SHARED].inode)
    return other if other != inode_number else 0


def opens_shared(inode_number: int) -> int:
    """How many opens have the handle of a file that is shared."""
    return 0 if _library is None else int(_library.shared[inode_number % _SHARED].opens)


def end_sharing(inode_number: int) -> int:
    """The next open, and the next close, are for us. Returns how many opens have the handle."""
    if _library is None:
        return 0
    place = _library.shared[inode_number % _SHARED]
    place.inode = 0
    opens, place.opens = int(place.opens), 0
    return opens


# ── Listings ────────────────────────────────────────────────────────────────────────────────────────────


def keep_no_listing() -> None:
    """The kernel shall not keep the listing whose end is the next answer, in the same step of the loop."""
    if _library is not None:
        _library.keeps_no_listing.value = 1


def tell_end(inode_number: int, cookie: int, *, is_kept: bool) -> None:
    """A listing that was just told ends after *cookie*: the next READDIR there is answered without us.

    *is_kept* says whether the kernel may keep it, unless `forget_end` is called before.
    """
    if _library is not None:
        end = _library.ends[inode_number % _ENDS]
        end.inode = 0
        end.cookie, end.is_kept = cookie, is_kept
        end.inode = inode_number


def forget_end(inode_number: int) -> None:
    """A name may have come or gone: the listing, if its end was told, is not to be kept."""
    if _library is not None:
        end = _library.ends[inode_number % _ENDS]
        if end.inode == inode_number:
            end.is_kept = 0
