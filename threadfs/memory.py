"""Memory that is in use no longer, which goes back to the system.

glibc's malloc keeps what lies below a piece that is still in use: after large documents were parsed, tens of
megabytes, of which nothing would be seen but that the process is so large.
"""

from __future__ import annotations

import ctypes
import resource
from contextlib import suppress
from pathlib import Path

# Of mallopt(3): what is larger than this goes back as soon as it is freed. By itself malloc raises that to
# 32 MiB, and keeps as much for each of 8 threads a processor.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_GIVEN_BACK_BYTES, _ARENAS = 1 << 20, 2
# From what size on it is worth the while.
LARGE_BYTES = 1 << 20
_STATM = Path("/proc/self/statm")

_libc = ctypes.CDLL(None)


def settle() -> None:
    """To be called before threads are started: has malloc keep little. (Other C libraries do that anyway.)"""
    with suppress(AttributeError):
        _libc.mallopt(_M_MMAP_THRESHOLD, _GIVEN_BACK_BYTES)
        _libc.mallopt(_M_ARENA_MAX, _ARENAS)


def resident_bytes() -> int:
    """How much of this process is in memory."""
    return int(_STATM.read_bytes().split()[1]) * resource.getpagesize()


def give_back() -> None:
    """For when something large has ended; takes a few milliseconds."""
    with suppress(AttributeError):
        _libc.malloc_trim(0)
