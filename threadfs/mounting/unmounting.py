"""Unmounts when the process gets SIGINT, SIGTERM or SIGHUP.

The first signal unmounts as soon as nothing is open. The second ends the process within seconds, even if
programs use the mount: it unmounts lazily, finishes the requests in hand, so that their changes are on disk,
and refuses all others. The connection ends with the process, and the kernel fails later calls on open files.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import sdnotify  # type: ignore[import-untyped]
import trio

from threadfs.fuse import session
from threadfs.fuse.operations import Operations
from threadfs.mounting.mount_table import mounts, on_top

log = logging.getLogger("threadfs")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# How often to try again to unmount a busy mount.
_RETRY_S = 0.25
# How long the command that unmounts may take.
_PATIENCE_S = 1.0
# After the second signal: how often to look whether all requests are finished, and when to end without them.
_LOOKS_S, _ENDS_S = 0.005, 4.0
# For a change that waits for a disk: how much longer to wait at a time, and how long in all.
_LONGER_S, _DISK_ENDS_S = 1.0, 30.0
# States (proc(5)) of a thread that waits for a disk, or that a tracer has stopped.
_WAITS_FOR_DISK = ("D", "t")
# How often to look at the states, and how long to wait in between.
_MOMENTS, _MOMENT_S = 10, 0.02


def tell_systemd(state: str) -> None:
    """Reports a state to systemd; does nothing if systemd has not started this process."""
    sdnotify.SystemdNotifier().notify(state)


async def unmount_when_asked(signals: AsyncIterator[int], operations: Operations, mountpoint: str) -> None:
    first_signal = trio.Event()
    at_once = trio.Event()
    mounted = on_top(mountpoint)
    device = mounted.device if mounted else ""

    async def listen() -> None:
        async for number in signals:
            is_first = not first_signal.is_set()
            log.info("%s: unmounting%s", signal.Signals(number).name, "" if is_first else " at once")
            tell_systemd("STOPPING=1")
            if not is_first and not at_once.is_set():
                at_once.set()
                threading.Thread(
                    target=_end_anyway, args=(operations, device), name="end", daemon=True
                ).start()
            first_signal.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await first_signal.wait()
        is_unmounted = await _unmounted(device)
        if not is_unmounted:
            log.info("%s is busy: it goes when nothing is open, or at the next signal", mountpoint)
        while not at_once.is_set() and not is_unmounted:
            with trio.move_on_after(_RETRY_S):
                await at_once.wait()
            is_unmounted = await _unmounted(device)
        # A mount that was unmounted lazily, or is mounted in another namespace, does not end by itself.
        await at_once.wait()
        await _unmounted(device, "-z")
        operations.is_ending = True
        while operations.in_hand:
            await trio.sleep(_LOOKS_S)
        await operations.waker.end()
        await operations.kernel_cache.end()
        session.end()
        nursery.cancel_scope.cancel()


async def _unmounted(device: str, *options: str) -> bool:
    """Unmounts the file system from all its places, and returns whether it is gone from all of them."""
    # In reverse order: a mount inside another one goes first.
    places = [mount.mountpoint for mount in mounts() if mount.device == device]
    return all([await _unmounted_from(place, *options) for place in reversed(places)])


async def _unmounted_from(place: str, *options: str) -> bool:
    with trio.move_on_after(_PATIENCE_S):
        result = await trio.run_process(
            ["fusermount3", "-u", *options, "--", place],
            check=False,
            capture_stdout=True,
            capture_stderr=True,
        )
        return result.returncode == 0
    return False


def _end_anyway(operations: Operations, device: str) -> None:
    """Ends the process even if a request takes too long; one that waits for a slow disk gets more time."""
    began_s = time.monotonic()
    time.sleep(_ENDS_S - _MOMENTS * _MOMENT_S)
    while operations.changes_in_hand and _waits_for_disk() and time.monotonic() < began_s + _DISK_ENDS_S:
        time.sleep(_LONGER_S)
    if operations.in_hand:  # If not, only closing takes long, as a disk does not answer.
        log.warning("what is under way takes too long: it is cut, and was not acknowledged")
    # One of our threads may wait in the kernel for a lock of a caller that waits for our answer.
    with suppress(OSError), open(f"/sys/fs/fuse/connections/{device[2:]}/abort", "w") as abort:
        abort.write("1")
    os._exit(0)


def _waits_for_disk() -> bool:
    """Whether a thread waits for a disk most of the time: between two calls it does not."""
    found = 0
    for _ in range(_MOMENTS):
        time.sleep(_MOMENT_S)
        found += any(state in _WAITS_FOR_DISK for state in _states_of_threads())
    return found > _MOMENTS // 2


def _states_of_threads() -> Iterator[str]:
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError), open(f"/proc/self/task/{thread}/stat") as stat:  # A thread may have ended.
            yield stat.read().rpartition(")")[2].split()[0]
