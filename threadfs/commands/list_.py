"""List the mounts of threadfs: the store and the place of each, and whether its process was killed (dead)."""

from __future__ import annotations

import argparse
import errno
import threading
import time
from typing import TYPE_CHECKING

from threadfs.commands import progress

if TYPE_CHECKING:
    from threadfs.mounting.mount_table import Mount

EXAMPLES = """\
examples:
  threadfs list
  threadfs umount MNT     also clears a dead one"""

_ANSWERS_S = 3.0
DEAD = "dead"
NO_ANSWER = "does not answer"


def arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(options: argparse.Namespace) -> int:
    from threadfs.mounting.mount_table import mounts

    found = [mount for mount in mounts() if mount.is_threadfs]
    for mount, state in zip(found, states_of(found), strict=True):
        notes = [state]
        if "ro" in mount.options:
            notes.append("read-only")
        note = ", ".join(filter(None, notes))
        progress.say(f"{mount.source} on {mount.mountpoint}" + (f" ({note})" if note else ""))
    return 0


def state_of(mount: Mount) -> str:
    return states_of([mount])[0]


def states_of(mounts: list[Mount]) -> list[str]:
    """The problem with each mount; empty if it answers."""
    from threadfs.mounting import life_line

    states = [NO_ANSWER for _ in mounts]

    def check(index: int) -> None:
        try:
            if life_line.is_dead(mounts[index]):
                states[index] = DEAD
            else:
                states[index] = "of another user" if life_line.is_kept_out(mounts[index]) else ""
        except OSError as error:
            is_refused = error.errno in (errno.EACCES, errno.EPERM)
            states[index] = "of another user" if is_refused else str(error.strerror)

    # All at once, in threads, as a call to a mount that hangs does not return.
    checking = [threading.Thread(target=check, args=(index,), daemon=True) for index in range(len(mounts))]
    for thread in checking:
        thread.start()
    until_s = time.monotonic() + _ANSWERS_S
    for thread in checking:
        thread.join(max(0.0, until_s - time.monotonic()))
    return states
