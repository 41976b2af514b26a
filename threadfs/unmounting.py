"""Unmounting when the process is asked to end, by SIGINT, SIGTERM or SIGHUP.

The first signal unmounts as soon as nothing is open. The second ends the process within seconds, whoever sits
in the mount: the mount goes out of sight, what is being answered is answered, so that what was being written
is on disk, and whatever else is asked is refused. With the process its connection ends, and the kernel fails
all calls of those who still have something open.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pyfuse3
import sdnotify  # type: ignore[import-untyped]
import trio

from threadfs.mounts import mounts, on_top
from threadfs.operations import Operations

log = logging.getLogger("threadfs")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# How often a busy mount is tried again once it was asked to go.
_RETRY_S = 0.25
# How long a command that unmounts may take.
_PATIENCE_S = 1.0
# How often the end looks whether nothing is under way any more, and how long after the second signal it does
# not wait for that.
_LOOKS_S, _ENDS_S = 0.005, 4.0
# How much longer it waits at a time for a change that waits for a disk, and how long in all.
_LONGER_S, _DISK_ENDS_S = 1.0, 30.0
# In which states a thread waits for a disk, or is kept from its call by a tracer.
_WAITS_FOR_DISK = ("D", "t")
_MOMENTS, _MOMENT_S = 10, 0.02


def tell_systemd(state: str) -> None:
    """Does nothing when it was not systemd that started us."""
    sdnotify.SystemdNotifier().notify(state)


async def unmount_when_asked(signals: AsyncIterator[int], operations: Operations, mountpoint: str) -> None:
    asked = trio.Event()
    at_once = trio.Event()
    mounted = on_top(mountpoint)
    device = mounted.device if mounted else ""

    async def listen() -> None:
        async for number in signals:
            log.info("%s: unmounting%s", signal.Signals(number).name, " at once" if asked.is_set() else "")
            tell_systemd("STOPPING=1")
            if asked.is_set() and not at_once.is_set():
                at_once.set()
                threading.Thread(
                    target=_end_anyway, args=(operations, device), name="end", daemon=True
                ).start()
            asked.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await asked.wait()
        is_unmounted = await _unmounted(device)
        if not is_unmounted:
            log.info("%s is busy: it goes when nothing is open, or at the next signal", mountpoint)
        while not at_once.is_set() and not is_unmounted:
            with trio.move_on_after(_RETRY_S):
                await at_once.wait()
            is_unmounted = await _unmounted(device)
        # Nor does it end by itself when it was unmounted lazily, or is mounted in another namespace.
        await at_once.wait()
        await _unmounted(device, "-z")
        operations.is_ending = True
        while operations.in_hand:
            await trio.sleep(_LOOKS_S)
        await operations.kernel_cache.end()
        pyfuse3.terminate()
        nursery.cancel_scope.cancel()


async def _unmounted(device: str, *options: str) -> bool:
    """Unmounts the file system from wherever it is mounted; whether it is nowhere any more."""
    # What is mounted in another one goes before that.
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
    """Ends the process in which something takes long; a change that waits for a slow disk is finished."""
    began_s = time.monotonic()
    time.sleep(_ENDS_S - _MOMENTS * _MOMENT_S)
    while operations.changes_in_hand and _waits_for_disk() and time.monotonic() < began_s + _DISK_ENDS_S:
        time.sleep(_LONGER_S)
    log.warning("what is under way takes too long: it is cut, and was not acknowledged")
    # A thread of ours may wait in the kernel for somebody who waits for us.
    with suppress(OSError), open(f"/sys/fs/fuse/connections/{device[2:]}/abort", "w") as abort:
        abort.write("1")
    os._exit(0)


def _waits_for_disk() -> bool:
    """Whether a thread does, in most of some moments: between two calls it does not."""
    found = 0
    for _ in range(_MOMENTS):
        time.sleep(_MOMENT_S)
        found += any(state in _WAITS_FOR_DISK for state in _states_of_threads())
    return found > _MOMENTS // 2


def _states_of_threads() -> Iterator[str]:
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError), open(f"/proc/self/task/{thread}/stat") as stat:  # It has ended.
            yield stat.read().rpartition(")")[2].split()[0]
