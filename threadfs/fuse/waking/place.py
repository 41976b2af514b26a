"""The root by which the waker enters its own mount.

A path that is used keeps its mount busy, so that it could not be unmounted in that moment. A clone of the
mount (open_tree(2)), which has no place in the tree of files, does not. It needs CAP_SYS_ADMIN. Without, the
root is open for no longer than a few calls take.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

# The number is the same for all processors.
_OPEN_TREE: Final = 428
_OPEN_TREE_CLONE: Final = 1
_AT_FDCWD: Final = -100
_libc = ctypes.CDLL(None, use_errno=True)


def open_root(mountpoint: str) -> int:
    """A descriptor of what is mounted at *mountpoint*, which may be another file system by now.

    Raises OSError.
    """
    root = _clone(mountpoint)
    if root >= 0:
        return root
    return os.open(mountpoint, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _clone(mountpoint: str) -> int:
    return int(
        _libc.syscall(
            ctypes.c_long(_OPEN_TREE),
            ctypes.c_int(_AT_FDCWD),
            ctypes.c_char_p(os.fsencode(mountpoint)),
            ctypes.c_uint(_OPEN_TREE_CLONE | os.O_CLOEXEC),
        )
    )
