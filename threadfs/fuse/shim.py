"""Loads ``shim.c``, which gives the kernel two answers that pyfuse3 cannot give.

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
from importlib.util import find_spec

log = logging.getLogger("threadfs")

_library: ctypes.CDLL | None = None


def load() -> None:
    """To be called once, before anything imports pyfuse3."""
    global _library
    built = find_spec("threadfs.fuse._shim")
    if built is None or built.origin is None or "pyfuse3" in sys.modules:
        return
    try:
        _library = ctypes.CDLL(built.origin, mode=os.RTLD_NOW | os.RTLD_GLOBAL)
    except OSError as error:
        log.warning("the shim cannot be loaded, so listings are not kept by the kernel: %s", error)


def switch(*, on: bool) -> None:
    """Whether the mount that comes next is served so. Does nothing where the shim is not loaded."""
    if _library is not None:
        ctypes.c_int.in_dll(_library, "threadfs_shim_is_on").value = on


def is_in_effect() -> bool:
    """Whether the mount of this process is served so."""
    return _library is not None and bool(ctypes.c_int.in_dll(_library, "threadfs_shim_is_in_effect").value)
