"""Threads that tell the kernel something, and that do not keep a killed process half alive.

Having the kernel forget a name or pages may wait there, for a lock whose holder waits for our answer. A
process that is killed in that moment would never end: the waiting thread keeps its descriptors open, among
them ``/dev/fuse``, so the kernel goes on believing that somebody will answer, and whoever uses the mount
hangs, the next `mount.sh` included. Hence such a thread has a table of descriptors of its own, with nothing
in it but a clone of the connection. When the process is killed its own connection closes, what was asked
through it fails, the locks are released, and the thread ends.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

log = logging.getLogger("threadfs")

_CLONE_FILES = 0x400
_FUSE_DEVICE = "/dev/fuse"
_FUSE_DEV_IOC_CLONE = 0x8004E500
_STANDARD = 3
# How often a caller that waits looks whether the thread still makes calls.
_CLOSES_S = 1.0


def start(name: str, work: Callable[[], None], *, keeps_connection: bool = True) -> threading.Thread:
    """Calls *work*, which uses no files of others, in a detached thread.

    Without the connection, it makes calls that others answer, and tells the kernel nothing itself.
    """

    def detached() -> None:
        try:
            _detach(keeps_connection=keeps_connection)
        except OSError as error:
            log.info("%s: its thread shares the connection: %s", name, error.strerror)
        work()

    thread = threading.Thread(target=detached, name=name, daemon=True)
    thread.start()
    return thread


def _connection() -> int | None:
    """The descriptor through which this process serves its mount, as libfuse has opened it."""
    for entry in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{entry}") == _FUSE_DEVICE:
                return int(entry)
        except OSError:
            continue  # The one that read the listing, or closed since.
    return None


def _detach(*, keeps_connection: bool) -> None:
    connection = _connection()
    if connection is None:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_FILES):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    # From here on the numbers mean something in this thread alone. libfuse knows the connection by its own.
    if not keeps_connection:
        _close_all_but(-1)
        return
    try:
        clone = os.open(_FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(clone, _FUSE_DEV_IOC_CLONE, struct.pack("I", connection))
            os.dup2(clone, connection, inheritable=False)
        finally:
            os.close(clone)
    finally:
        _close_all_but(connection)


def _close_all_but(connection: int) -> None:
    for entry in os.listdir("/proc/thread-self/fd"):
        if int(entry) >= _STANDARD and int(entry) != connection:
            with suppress(OSError):  # The one that read the listing.
                os.close(int(entry))


class Caller:
    """A detached thread that makes calls for other threads, which wait for the result."""

    def __init__(self, name: str, *, keeps_connection: bool = True) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], None], threading.Event] | None] = SimpleQueue()
        self._is_closed = False
        self.thread = start(name, self._work, keeps_connection=keeps_connection)

    def call(self, function: Callable[[], None]) -> None:
        """Returns when *function*, which raises nothing, has returned, or when no call is made any more."""
        done = threading.Event()
        self._calls.put((function, done))
        while not done.wait(_CLOSES_S) and not self._is_closed:
            pass

    def close(self) -> None:
        self._is_closed = True
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            function, done = call
            function()
            done.set()
