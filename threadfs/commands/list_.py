"""List the mounts of threadfs: which store is where, and which of them a killed process left dead."""

from __future__ import annotations

import argparse
import errno
import threading
from typing import TYPE_CHECKING

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
    from threadfs.journal import printable
    from threadfs.mounts import mounts

    for mount in mounts():
        if mount.is_threadfs:
            notes = [state_of(mount)]
            if "ro" in mount.options:
                notes.append("read-only")
            said = ", ".join(filter(None, notes))
            line = f"{mount.source} on {mount.mountpoint}" + (f" ({said})" if said else "")
            print(printable(line))
    return 0


def state_of(mount: Mount) -> str:
    """What is wrong with a mount; nothing when it answers."""
    from threadfs import life_line

    state = ["does not answer"]

    def ask() -> None:
        try:
            if life_line.is_dead(mount):
                state[0] = "dead"
            else:
                state[0] = "of another user" if life_line.is_kept_out(mount) else ""
        except OSError as error:
            is_refused = error.errno in (errno.EACCES, errno.EPERM)
            state[0] = "of another user" if is_refused else str(error.strerror)

    # In a thread: a process that hangs would have us hang too.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_ANSWERS_S)
    return state[0]
