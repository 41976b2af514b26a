"""Serving a mount, from the moment in which it stands until it is gone.

A mount ends when it is unmounted from outside (``fusermount3 -u``), or by signals (`unmounting`).
While its process lives it holds its `life_line`, and tells systemd, if that started it, when it is ready and
when it goes.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import logging
import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pyfuse3
import trio

from store import Store
from store.printing import printable
from threadfs.fuse.operations import Operations
from threadfs.fuse.ownership import Ownership
from threadfs.mounting import life_line, unmounting
from threadfs.mounting.mount_table import on_top
from threadfs.mounting.place import MountFailed, clear_dead
from threadfs.nodes.root import root_of

log = logging.getLogger("threadfs")

# What reading from the kernel fails with when the mount is gone, or its connection was aborted.
_GONE = (errno.ECONNABORTED, errno.ENODEV)
# How long a thread that computes keeps others waiting: with Python's 5 ms, all of a request's time.
_SWITCH_S = 50e-6
# Nodes and inodes are in no cycles; a full collection of 100,000 of them would stop everything for long.
_GARBAGE = (20_000, 50, 1_000)
# Of glibc's malloc (mallopt(3)): what is larger than this goes back to the system as soon as it is freed. By
# itself malloc raises that to 32 MiB, and keeps as much for each of 8 threads a processor.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_GIVEN_BACK_BYTES, _ARENAS = 1 << 20, 2


@dataclass(frozen=True, slots=True)
class Settings:
    """How a store is mounted."""

    read_only: bool = False
    allow_other: bool = False
    no_exec: bool = False
    ownership: Ownership = field(default_factory=Ownership)


class _FileSystemName(str):
    """An option that holds a path: bytes of any kind, and not the ASCII that pyfuse3 asks for."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return os.fsencode(str(self))


def _options(location: str, settings: Settings) -> set[str]:
    source = location.replace("\\", "\\\\").replace(",", "\\,")
    options = {_FileSystemName(f"fsname={source}"), "subtype=threadfs", "nosuid", "nodev"}
    if settings.read_only:
        options.add("ro")
    if settings.allow_other:
        # Where only one user comes in, the kernel would ask for the attributes of each directory on the way
        # to what is written, after each change in it, to check what is always permitted.
        options |= {"allow_other", "default_permissions"}
    if settings.no_exec:
        options.add("noexec")
    return options


def serve(store: Store, mountpoint: str, settings: Settings, *, on_mounted: Callable[[str], None]) -> None:
    """Mounts *store* and answers the kernel until the mount is gone.

    Args:
        on_mounted: called when the mount answers, with what the user should know; most often nothing.

    Raises:
        MountFailed: FUSE refuses the mount.
    """
    _settle()
    operations = Operations(root_of(store), settings.ownership)
    _init(operations, mountpoint, _options(store.location, settings))
    log.info("mounted %s on %s", store.location, mountpoint)
    clean = False
    try:
        _favour_the_loop()
        operations.kernel_cache.start()
        store.index_runs()
        if mounted := on_top(mountpoint):
            operations.files.device = mounted.device
        life_line.hold(mountpoint)
        trio.run(_main, operations, mountpoint, lambda: _ready(operations, mountpoint, on_mounted))
        clean = True
    finally:
        unmounting.tell_systemd("STOPPING=1")
        operations.kernel_cache.close()
        store.close()
        # After a clean end the mount is gone already; after a crash it must not stay behind dead.
        pyfuse3.close(unmount=not clean)
    # Nor after its connection was aborted, which libfuse takes for an unmounting.
    clear_dead(mountpoint)
    log.info("unmounted %s", mountpoint)


def _favour_the_loop() -> None:
    """What answers the kernel shall wait neither for a thread that computes nor for the garbage collector."""
    sys.setswitchinterval(_SWITCH_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE)


def _settle() -> None:
    """As many descriptors as there may be, and no memory kept that is not in use."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    libc = ctypes.CDLL(None)
    with suppress(AttributeError):  # Another C library keeps less.
        libc.mallopt(_M_MMAP_THRESHOLD, _GIVEN_BACK_BYTES)
        libc.mallopt(_M_ARENA_MAX, _ARENAS)


def _ready(operations: Operations, mountpoint: str, on_mounted: Callable[[str], None]) -> None:
    location = operations.tree.store.location
    unmounting.tell_systemd(f"READY=1\nSTATUS=Serving {printable(location)} on {printable(mountpoint)}")
    on_mounted(operations.kernel_cache.following.lack)


def _init(operations: Operations, mountpoint: str, options: set[str]) -> None:
    """`pyfuse3.init`, with the reason of a failure, which libfuse and fusermount3 tell stderr alone."""
    # No file: when the disk is full, people want to mount and see.
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    stderr = os.dup(2)
    os.dup2(writing, 2)
    try:
        pyfuse3.init(operations, mountpoint, options)
    except RuntimeError:
        said = b""
        with suppress(BlockingIOError):  # Nothing was said.
            said = os.read(reading, 1000)
        reason = printable(" ".join(said.decode(errors="replace").split()))
        raise MountFailed(reason or f"FUSE refuses to mount on {mountpoint}") from None
    finally:
        os.dup2(stderr, 2)
        for descriptor in (stderr, reading, writing):
            os.close(descriptor)


async def _main(operations: Operations, mountpoint: str, on_mounted: Callable[[], None]) -> None:
    with trio.open_signal_receiver(*unmounting.SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(unmounting.unmount_when_asked, signals, operations, mountpoint)
            nursery.start_soon(life_line.keep_lines)
            nursery.start_soon(operations.kernel_cache.following.keep_trying)
            on_mounted()
            try:
                await pyfuse3.main()
            except BaseExceptionGroup as errors:
                if errors.split(_says_gone)[1] is not None:
                    raise
                log.info("the kernel has ended the connection")
            nursery.cancel_scope.cancel()


def _says_gone(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in _GONE
