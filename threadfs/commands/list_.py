"""List the mounts of threadfs: which store is where, and which of them a killed process left dead."""

from __future__ import annotations

import argparse
import errno
import threading
import time
from typing import TYPE_CHECKING

from threadfs.commands import progress

if TYPE_CHECKING:
    from threadfs.mounts import Mount

EXAMPLES = """\
examples:
  threadfs list
  threadfs umount MNT     also clears a dead one"""

_ANSWERS_S = 3.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(options: argparse.Namespace) -> int:
    from threadfs.mounts import mounts

    found = [mount for mount in mounts() if mount.is_threadfs]
    for mount, state in zip(found, states_of(found), strict=True):
        notes = [state]
        if "ro" in mount.options:
            notes.append("read-only")
        said = ", ".join(filter(None, notes))
        line = f"{mount.source} on {mount.mountpoint}" + (f" ({said})" if said else "")
        progress.say(line)
    return 0


def state_of(mount: Mount) -> str:
    return states_of([mount])[0]


def states_of(mounts: list[Mount]) -> list[str]:
    """What is wrong with each mount; nothing when it answers."""
    from threadfs import life_line

    states = ["does not answer" for _ in mounts]

    def ask(index: int) -> None:
        try:
            if life_line.is_dead(mounts[index]):
                states[index] = "dead"
            else:
                states[index] = "of another user" if life_line.is_kept_out(mounts[index]) else ""
        except OSError as error:
            is_refused = error.errno in (errno.EACCES, errno.EPERM)
            states[index] = "of another user" if is_refused else str(error.strerror)

    # All at once, in threads: a process that hangs would have us hang too.
    asking = [threading.Thread(target=ask, args=(index,), daemon=True) for index in range(len(mounts))]
    for thread in asking:
        thread.start()
    until_s = time.monotonic() + _ANSWERS_S
    for thread in asking:
        thread.join(max(0.0, until_s - time.monotonic()))
    return states
