"""Giving unused memory back to the system.

glibc's malloc keeps free blocks below a block that is still in use: tens of megabytes after large documents
were parsed.
"""

from __future__ import annotations

import ctypes
import resource
from contextlib import suppress
from pathlib import Path

# For mallopt(3): larger blocks go back to the system as soon as they are freed. By default malloc raises the
# threshold to 32 MiB, and caches as much for each of up to 8 arenas per processor.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_GIVEN_BACK_BYTES, _ARENAS = 1 << 20, 2
# Giving memory back pays from this size on.
LARGE_BYTES = 1 << 20
_STATM = Path("/proc/self/statm")

_libc = ctypes.CDLL(None)


def settle() -> None:
    """Has malloc cache little; to be called before threads start. (Other C libraries cache little anyway.)"""
    with suppress(AttributeError):
        _libc.mallopt(_M_MMAP_THRESHOLD, _GIVEN_BACK_BYTES)
        _libc.mallopt(_M_ARENA_MAX, _ARENAS)


def resident_bytes() -> int:
    """The resident size of this process."""
    return int(_STATM.read_bytes().split()[1]) * resource.getpagesize()


def give_back() -> None:
    """To be called after something large has ended; takes a few milliseconds."""
    with suppress(AttributeError):
        _libc.malloc_trim(0)
