"""The life of a mount: checking the place, serving, and going away cleanly.

A mount ends when it is unmounted from outside (``fusermount3 -u``), or by signals (`unmounting`).
While its process lives it holds its `life_line`, and tells systemd, if that started it, when it is ready and
when it goes.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import logging
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pyfuse3
import trio

from store import Store
from store.printing import printable
from threadfs import life_line, memory, unmounting
from threadfs.mounts import mounts, on_top
from threadfs.nodes.root import root_of
from threadfs.operations import Operations
from threadfs.ownership import Ownership

log = logging.getLogger("threadfs")

# How long a mount whose process is not there may take to answer before that is known for sure.
_ANSWERS_S = 2.0
_MNT_FORCE = 1
# What reading from the kernel fails with when the mount is gone, or its connection was aborted.
_GONE = (errno.ECONNABORTED, errno.ENODEV)
# How long a thread that computes keeps others waiting: with Python's 5 ms, all of a request's time.
_SWITCH_S = 50e-6
# Nodes and inodes are in no cycles; a full collection of 100,000 of them would stop everything for long.
_GARBAGE = (20_000, 50, 1_000)


class MountFailed(Exception):
    """The mount cannot be made; the text is one line for the user."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a store is mounted."""

    read_only: bool = False
    allow_other: bool = False
    no_exec: bool = False
    ownership: Ownership = field(default_factory=Ownership)


def mounted_at(mountpoint: str) -> tuple[str, str] | None:
    """(type, source) of what is mounted on *mountpoint*; of several, the one on top."""
    found = [mount for mount in mounts() if mount.mountpoint == mountpoint]
    return (found[-1].kind, found[-1].source) if found else None


def clear_dead(mountpoint: str) -> bool:
    """Unmounts what a killed process left at *mountpoint*; whether there was such a thing."""
    cleared = False
    _end_what_nobody_answers(mountpoint)
    # One by one: an older version may have stacked several.
    while (mounted := on_top(os.path.realpath(mountpoint))) and mounted.is_threadfs:
        try:
            if not life_line.is_dead(mounted):
                break
        except OSError:
            break
        done = subprocess.run(
            ["fusermount3", "-uz", "--", mountpoint], check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise MountFailed(f"the dead mount on {mountpoint} cannot be cleared: {_one_line(done.stderr)}")
        cleared = True
    return cleared


def _end_what_nobody_answers(mountpoint: str) -> None:
    """Fails what waits for the answer of a killed process, where the kernel has not noticed its death.

    That can be when it was killed while a thread of it waited for a lock (`detached`).
    """
    parent, name = os.path.split(os.path.abspath(mountpoint))
    place = os.path.join(os.path.realpath(parent), name)  # Without a question to the mount itself.
    mounted = on_top(place)
    if mounted is None or not mounted.is_threadfs:
        return
    if life_line.server_of(mounted) is not None:
        return
    asking = subprocess.Popen(
        ["stat", "-f", "--", place], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        asking.wait(_ANSWERS_S)
    except subprocess.TimeoutExpired:
        log.warning("nobody answers on %s: its callers are failed", place)
        with suppress(OSError), open(f"/sys/fs/fuse/connections/{mounted.device[2:]}/abort", "w") as abort:
            abort.write("1")
        ctypes.CDLL(None).umount2(os.fsencode(place), _MNT_FORCE)
    finally:
        asking.kill()
        asking.wait()


def _one_line(said: str) -> str:
    return printable(" ".join(said.split()))


class PlaceLock:
    """Held by who is about to mount on a directory, from looking at it until the mount stands."""

    def __init__(self, place: str) -> None:
        self._directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._directory, fcntl.LOCK_EX)

    def release(self) -> None:
        if self._directory >= 0:
            # For all who share it since a fork.
            fcntl.flock(self._directory, fcntl.LOCK_UN)
            os.close(self._directory)
            self._directory = -1


@contextmanager
def place_lock(place: str) -> Iterator[PlaceLock]:
    """The lock of a mount point: of two who mount there at once, the second waits and then looks."""
    lock = PlaceLock(place)
    try:
        yield lock
    finally:
        lock.release()


def check_place(location: str | None, mountpoint: str) -> None:
    """Makes a missing mount point, and refuses one that would hide something.

    Args:
        location: the store's directory, if it is one.

    Raises:
        MountFailed: with what to do instead.
    """
    if not os.path.exists("/dev/fuse"):
        raise MountFailed("there is no /dev/fuse: load the kernel's fuse module (modprobe fuse)")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise MountFailed("you may not use /dev/fuse: have its permissions set to 0666, or mount as root")
    if shutil.which("fusermount3") is None:
        raise MountFailed("fusermount3 is missing: run ./mount.sh, or install the package fuse3")
    place = os.path.realpath(mountpoint)
    if location is not None:
        check_apart(location, mountpoint)
    try:
        os.makedirs(mountpoint, exist_ok=True)
        # An automount point is there to be mounted on.
        if (mounted := mounted_at(place)) and mounted[0] != "autofs":
            raise MountFailed(f"{mountpoint} is in use: {mounted[1]} ({mounted[0]}) is mounted there")
        if os.listdir(mountpoint):
            raise MountFailed(
                f"{mountpoint} is not empty: choose an empty directory, or one that is not there yet"
            )
    except FileExistsError:
        raise MountFailed(f"{mountpoint} is not a directory") from None
    except OSError as error:
        raise MountFailed(f"{mountpoint}: {error.strerror}") from None


def check_apart(location: str, mountpoint: str) -> None:
    """That neither of the store's directory and the mount point is in the other. Raises MountFailed."""
    store, place = os.path.realpath(location), os.path.realpath(mountpoint)
    if place == store or place.startswith(store.rstrip("/") + "/"):
        raise MountFailed(f"{mountpoint} is inside the store: choose a mount point outside {location}")
    if store.startswith(place.rstrip("/") + "/"):
        raise MountFailed(
            f"the mount would hide its own store: choose a mount point that does not hold {location}"
        )


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
            operations.device = mounted.device
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
    memory.settle()


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
