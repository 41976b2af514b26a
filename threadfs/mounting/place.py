"""The place of a mount: checks that a store can be mounted there, and clears dead mounts."""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from store.printing import printable
from threadfs.mounting import asking, life_line
from threadfs.mounting.mount_table import Mount, on_top, place_of

log = logging.getLogger("threadfs")

_MNT_FORCE = 1


class MountFailed(Exception):
    """The store could not be mounted; the text is one line for the user."""


def clear_dead(mountpoint: str) -> bool:
    """Unmounts a mount of a killed process at *mountpoint*, and returns whether there was one."""
    cleared = False
    place = place_of(mountpoint)
    # One by one: an older version may have stacked several.
    while (mounted := on_top(place)) and mounted.is_threadfs:
        _wait_for_an_answer(mounted)
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


def _wait_for_an_answer(mounted: Mount) -> None:
    """Returns when a mount has answered, or has failed; a process that serves it may take its time.

    That process is named after a while, in a warning.

    Calls that wait for a process that has been killed are failed, if the kernel has not noticed its death: it
    was killed while one of its threads waited for a lock (`detached`).
    """
    probe = subprocess.Popen(
        ["stat", "-f", "--", mounted.mountpoint], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    is_told = False
    waited_s = 0.0
    try:
        while True:
            try:
                probe.wait(asking.LOOKS_S)
                return
            except subprocess.TimeoutExpired:
                waited_s += asking.LOOKS_S
            pid = life_line.server_of(mounted)
            is_overdue = waited_s >= asking.ANSWERS_S
            if pid is None and is_overdue:
                fail_callers(mounted)
                return
            if pid is not None and not is_told and (is_overdue or asking.is_stopped(pid)):
                log.warning("%s", asking.what_is_waited_for(mounted, pid))
                is_told = True
    finally:
        probe.kill()
        probe.wait()


def fail_callers(mounted: Mount) -> None:
    """Has the kernel take a mount for dead, whose process it does not know to have ended."""
    log.warning("nobody answers on %s: its callers are failed", mounted.mountpoint)
    with suppress(OSError), open(f"/sys/fs/fuse/connections/{mounted.device[2:]}/abort", "w") as abort:
        abort.write("1")
    ctypes.CDLL(None).umount2(os.fsencode(mounted.mountpoint), _MNT_FORCE)


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


class PlaceLock:
    """The lock of a mount point, from the first look at the directory until the mount answers."""

    def __init__(self, place: str) -> None:
        self._directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._directory, fcntl.LOCK_EX)

    def release(self) -> None:
        if self._directory >= 0:
            # Explicitly, as a forked process shares the descriptor.
            fcntl.flock(self._directory, fcntl.LOCK_UN)
            os.close(self._directory)
            self._directory = -1


@contextmanager
def place_lock(place: str) -> Iterator[PlaceLock]:
    """Holds the lock of a mount point: if two commands mount there at once, the second waits, then looks."""
    lock = PlaceLock(place)
    try:
        yield lock
    finally:
        lock.release()


def check_place(location: str | None, mountpoint: str) -> None:
    """Makes a missing mount point, and refuses one whose mount would hide something.

    Args:
        location: the store's directory; ``None`` if it is a database.

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
        if (mounted := on_top(place)) and mounted.kind != "autofs":
            raise MountFailed(f"{mountpoint} is in use: {mounted.source} ({mounted.kind}) is mounted there")
        if os.listdir(mountpoint):
            raise MountFailed(
                f"{mountpoint} is not empty: choose an empty directory, or one that is not there yet"
            )
    except FileExistsError:
        raise MountFailed(f"{mountpoint} is not a directory") from None
    except OSError as error:
        raise MountFailed(f"{mountpoint}: {error.strerror}") from None


def check_apart(location: str, mountpoint: str) -> None:
    """Checks that the store's directory and the mount point are not inside each other. Raises MountFailed."""
    store, place = os.path.realpath(location), os.path.realpath(mountpoint)
    if place == store or place.startswith(store.rstrip("/") + "/"):
        raise MountFailed(f"{mountpoint} is inside the store: choose a mount point outside {location}")
    if store.startswith(place.rstrip("/") + "/"):
        raise MountFailed(
            f"the mount would hide its own store: choose a mount point that does not hold {location}"
        )
