"""Reading open files: from the disk or, where waiting is refused, only from the kernel's memory.

Source: ``RWF_NOWAIT`` in https://man7.org/linux/man-pages/man2/preadv2.2.html
"""

from __future__ import annotations

import os
import threading

from store import waiting
from store.waiting import WouldWait

_MAX_KEPT_BYTES = 1 << 20
# Pythons that run on old systems too, such as those of uv and conda, have not all of preadv2(2).
_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None) if hasattr(os, "preadv") else None


class _OfThread(threading.local):
    buffer = bytearray()


_of_thread = _OfThread()


def read_at(file: int, size: int, offset: int) -> bytes:
    """At most *size* bytes of a regular file at *offset*; fewer only at its end.

    Raises:
        WouldWait: waiting is refused, and the kernel's memory does not hold all of them.
    """
    if not waiting.is_refused():
        return os.pread(file, size, offset)
    if _NOWAIT is None:
        raise WouldWait
    if size > len(_of_thread.buffer):
        # Kept for the next read: a new buffer of this size costs more than reading into it.
        _of_thread.buffer = bytearray(min(size, _MAX_KEPT_BYTES))
    kept = _of_thread.buffer if size <= _MAX_KEPT_BYTES else bytearray(size)
    buffer = memoryview(kept)[:size]
    try:
        found = os.preadv(file, [buffer], offset, _NOWAIT)
    except (OSError, NotImplementedError):
        # Not in memory, or this system cannot say. An error shows again in the read that may wait.
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
