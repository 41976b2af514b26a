"""Serves a mount until it is gone.

A mount ends when a program unmounts it (``fusermount3 -u``), or by signals (`unmounting`). The process holds
its `life_line` until it ends. If systemd has started it, it reports when it is ready and when it stops.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from store import Store, StoreError, memory
from store.printing import printable
from threadfs.fuse import session
from threadfs.fuse.operations import Operations
from threadfs.fuse.ownership import Ownership
from threadfs.mounting import life_line, unmounting
from threadfs.mounting.mount_table import on_top
from threadfs.mounting.place import MountFailed, clear_dead
from threadfs.nodes.root import root_of

log = logging.getLogger("threadfs")

# Reading from the kernel fails with these when the mount is gone, or its connection was aborted.
_GONE = (errno.ECONNABORTED, errno.ENODEV)
# How long a thread that computes may keep others waiting. Python's 5 ms are longer than most requests take.
_SWITCH_S = 50e-6
# Nodes and inodes are in no cycles; a full collection of 100,000 of them would stop everything for long.
_GARBAGE = (20_000, 50, 1_000)


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of a mount."""

    read_only: bool = False
    allow_other: bool = False
    no_exec: bool = False
    # No words of messages are kept for later searches.
    no_words: bool = False
    # Without the answers that pyfuse3 cannot give (`fuse.shim`).
    no_shim: bool = False
    # Programs that watch the mount hear of changes by others. (Not on one that is read-only, where the kernel
    # refuses the calls.)
    wakes: bool = True
    ownership: Ownership = field(default_factory=Ownership)


def _options(location: str, settings: Settings) -> set[str]:
    source = location.replace("\\", "\\\\").replace(",", "\\,")
    options = {session.FileSystemName(f"fsname={source}"), "subtype=threadfs", "nosuid", "nodev"}
    if settings.read_only:
        options.add("ro")
    if settings.allow_other:
        # Not for a mount of one user, who may do everything anyway: to check permissions, the kernel would
        # ask for the attributes of each directory on a path, after each change in it.
        options |= {"allow_other", "default_permissions"}
    if settings.no_exec:
        options.add("noexec")
    return options


def serve(store: Store, mountpoint: str, settings: Settings, *, on_mounted: Callable[[str], None]) -> None:
    """Mounts *store* and answers the kernel until the mount is gone.

    Args:
        on_mounted: called when the mount answers, with a warning for the user, most often "".

    Raises:
        MountFailed: FUSE refuses the mount.
    """
    _settle()
    if settings.no_words:
        store.catalogue(keeps_words=False)  # Before anybody asks.
    operations = Operations(root_of(store), settings.ownership)
    operations.tree.journal.options["nowords"] = int(settings.no_words)
    _mount(operations, mountpoint, _options(store.location, settings), with_shim=not settings.no_shim)
    log.info("mounted %s on %s", store.location, mountpoint)
    clean = False
    try:
        _favour_the_loop()
        operations.kernel_cache.start()
        operations.teller.start()
        store.index_runs()
        if mounted := on_top(mountpoint):
            operations.files.device = mounted.device
        life_line.hold(mountpoint)
        if settings.wakes and not settings.read_only:
            operations.waker.start(mountpoint)
        trio.run(_main, operations, mountpoint, lambda: _ready(operations, mountpoint, on_mounted))
        clean = True
    finally:
        unmounting.tell_systemd("STOPPING=1")
        operations.waker.close()
        operations.teller.close()
        operations.kernel_cache.close()
        store.close()
        # After a clean end the mount is gone already; after an error it must not stay behind dead.
        session.close(unmount=not clean)
    # libfuse takes an aborted connection for an unmount, but the mount is still there, dead.
    clear_dead(mountpoint)
    log.info("unmounted %s", mountpoint)


def _favour_the_loop() -> None:
    """Lets the loop, which answers the kernel, wait little for computing threads and the collector."""
    sys.setswitchinterval(_SWITCH_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE)


def _settle() -> None:
    """Allows as many descriptors as possible, returns unused memory, and logs no answer that nobody needs."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    memory.settle()
    logging.getLogger("pyfuse3").addFilter(_was_awaited)


def _was_awaited(record: logging.LogRecord) -> bool:
    """Not if an answer failed as its request had gone: with a killed program, or the mount's last close."""
    return os.strerror(errno.ENOENT) not in (record.args or ())


def _ready(operations: Operations, mountpoint: str, on_mounted: Callable[[str], None]) -> None:
    location = operations.tree.store.location
    unmounting.tell_systemd(f"READY=1\nSTATUS=Serving {printable(location)} on {printable(mountpoint)}")
    on_mounted(operations.kernel_cache.following.lack)


def _mount(operations: Operations, mountpoint: str, options: set[str], *, with_shim: bool) -> None:
    """Mounts, with the reason of a failure, which libfuse and fusermount3 only print to stderr."""
    # A pipe and not a file: mounting must work on a full disk.
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    stderr = os.dup(2)
    os.dup2(writing, 2)
    try:
        session.mount(operations, mountpoint, options, with_shim=with_shim)
    except RuntimeError:
        output = b""
        with suppress(BlockingIOError):  # Nothing was printed.
            output = os.read(reading, 1000)
        reason = printable(" ".join(output.decode(errors="replace").split()))
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
            nursery.start_soon(_build_catalogue, operations.tree.store)
            try:
                await session.answer()
            except BaseExceptionGroup as errors:
                if errors.split(_is_gone)[1] is not None:
                    raise
                log.info("the kernel has ended the connection")
            nursery.cancel_scope.cancel()


async def _build_catalogue(store: Store) -> None:
    """Begins to find out what is in the store, before anybody asks."""

    def begin() -> None:
        with suppress(StoreError):  # Who asks is told.
            store.catalogue().build_ahead()

    await trio.to_thread.run_sync(begin, abandon_on_cancel=True)


def _is_gone(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in _GONE
