"""The life of a mount: checking the place, serving, and going away cleanly.

A mount ends when it is unmounted from outside (``fusermount3 -u``, ``umount``), or by SIGINT, SIGTERM or
SIGHUP: the first unmounts as soon as nothing is open, the second at once.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable

import pyfuse3
import trio

from store import Store
from threadfs.journal import printable
from threadfs.nodes.root import root_of
from threadfs.operations import Operations

log = logging.getLogger("threadfs")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# How often a busy mount is tried again once it was asked to go.
_RETRY_S = 0.25


class MountFailed(Exception):
    """The mount cannot be made; the text is one line for the user."""


def mounted_at(mountpoint: str) -> tuple[str, str] | None:
    """(type, source) of what is mounted on *mountpoint*, as in ``/proc/self/mountinfo``."""
    found = None
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            place, _, device = line.partition(" - ")
            if _unescaped(place.split(" ")[4]) == mountpoint:
                kind, source, *_ = device.split(" ")
                found = kind, _unescaped(source)
    return found


def _unescaped(field: str) -> str:
    """Undoes the octal escapes of blanks and backslashes."""
    raw = field.encode(errors="surrogateescape")
    out, index = bytearray(), 0
    while index < len(raw):
        if raw[index : index + 1] == b"\\" and raw[index + 1 : index + 4].isdigit():
            out.append(int(raw[index + 1 : index + 4], 8))
            index += 4
        else:
            out.append(raw[index])
            index += 1
    return os.fsdecode(bytes(out))


def clear_dead(mountpoint: str) -> bool:
    """Unmounts what a killed process left at *mountpoint*; whether there was such a thing."""
    try:
        os.statvfs(mountpoint)  # What os.stat asks for, the kernel may remember.
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            return False
    else:
        return False
    subprocess.run(["fusermount3", "-uz", "--", mountpoint], check=False, capture_output=True)
    return True


def check_place(location: str, mountpoint: str) -> None:
    """Makes a missing mount point, and refuses one that would hide something.

    Raises:
        MountFailed: with what to do instead.
    """
    if not os.path.exists("/dev/fuse"):
        raise MountFailed("there is no /dev/fuse: load the kernel's fuse module (modprobe fuse)")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise MountFailed("you may not use /dev/fuse: have its permissions set to 0666, or mount as root")
    if shutil.which("fusermount3") is None:
        raise MountFailed("fusermount3 is missing: run ./mount.sh, or install the package fuse3")
    store, place = os.path.realpath(location), os.path.realpath(mountpoint)
    if place == store or place.startswith(store.rstrip("/") + "/"):
        raise MountFailed(f"{mountpoint} is inside the store: choose a mount point outside {location}")
    if store.startswith(place.rstrip("/") + "/"):
        raise MountFailed(
            f"the mount would hide its own store: choose a mount point that does not hold {location}"
        )
    try:
        os.makedirs(mountpoint, exist_ok=True)
        if mounted := mounted_at(place):
            raise MountFailed(f"{mountpoint} is in use: {mounted[1]} ({mounted[0]}) is mounted there")
        if os.listdir(mountpoint):
            raise MountFailed(
                f"{mountpoint} is not empty: choose an empty directory, or one that is not there yet"
            )
    except FileExistsError:
        raise MountFailed(f"{mountpoint} is not a directory") from None
    except OSError as error:
        raise MountFailed(f"{mountpoint}: {error.strerror}") from None


def _options(location: str, *, read_only: bool, allow_other: bool) -> set[str]:
    source = location.replace("\\", "\\\\").replace(",", "\\,")
    options = {f"fsname={source}", "subtype=threadfs", "default_permissions", "nosuid", "nodev"}
    if read_only:
        options.add("ro")
    if allow_other:
        options.add("allow_other")
    return options


def serve(
    store: Store,
    mountpoint: str,
    *,
    read_only: bool,
    allow_other: bool,
    on_mounted: Callable[[], None],
) -> None:
    """Mounts *store* and answers the kernel until the mount is gone.

    Raises:
        MountFailed: FUSE refuses the mount.
    """
    operations = Operations(root_of(store))
    options = _options(store.location, read_only=read_only, allow_other=allow_other)
    _init(operations, mountpoint, options)
    log.info("mounted %s on %s", store.location, mountpoint)
    clean = False
    operations.kernel_cache.start()
    try:
        trio.run(_main, mountpoint, on_mounted)
        clean = True
    finally:
        operations.kernel_cache.close()
        # After a clean end the mount is gone already; after a crash it must not stay behind dead.
        pyfuse3.close(unmount=not clean)
    log.info("unmounted %s", mountpoint)


def _init(operations: Operations, mountpoint: str, options: set[str]) -> None:
    """`pyfuse3.init`, with the reason of a failure, which libfuse and fusermount3 tell stderr alone."""
    with tempfile.TemporaryFile() as said:
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            pyfuse3.init(operations, mountpoint, options)
        except RuntimeError:
            said.seek(0)
            reason = printable(" ".join(said.read(1000).decode(errors="replace").split()))
            raise MountFailed(reason or f"FUSE refuses to mount on {mountpoint}") from None
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


async def _main(mountpoint: str, on_mounted: Callable[[], None]) -> None:
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_unmount_when_asked, signals, mountpoint)
            on_mounted()
            await pyfuse3.main()
            nursery.cancel_scope.cancel()


async def _unmount_when_asked(signals: object, mountpoint: str) -> None:
    asked = trio.Event()
    at_once = trio.Event()

    async def listen() -> None:
        async for number in signals:  # type: ignore[attr-defined]
            log.info("%s: unmounting%s", signal.Signals(number).name, " at once" if asked.is_set() else "")
            (at_once if asked.is_set() else asked).set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await asked.wait()
        if not await _unmounted(mountpoint):
            log.info("%s is busy: it goes when nothing is open, or at the next signal", mountpoint)
            while not at_once.is_set() and not await _unmounted(mountpoint):
                with trio.move_on_after(_RETRY_S):
                    await at_once.wait()
            if at_once.is_set():
                await _unmounted(mountpoint, "-z")
        nursery.cancel_scope.cancel()


async def _unmounted(mountpoint: str, *options: str) -> bool:
    result = await trio.run_process(
        ["fusermount3", "-u", *options, "--", mountpoint],
        check=False,
        capture_stdout=True,
        capture_stderr=True,
    )
    return result.returncode == 0
