"""Unmount MNT. Returns when the mount is gone and the process that served it has ended.

A dead mount, which a killed process left, is cleared. What is no mount of threadfs is left alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess

from threadfs.commands import CommandFailed
from threadfs.commands.places import DIRECTORY, completes, not_empty

EXAMPLES = """\
examples:
  threadfs umount ~/mnt
  threadfs umount --lazy ~/mnt    out of sight at once, gone when nothing is open any more"""

_ENDS_S = 30.0


def arguments(parser: argparse.ArgumentParser) -> None:
    place = parser.add_argument("mountpoint", metavar="MNT", type=not_empty, help="where it is mounted")
    completes(place, DIRECTORY)
    parser.add_argument(
        "-z", "--lazy", action="store_true", help="also when something in it is open; do not wait for that"
    )


def run(options: argparse.Namespace) -> int:
    from threadfs.commands.list_ import state_of
    from threadfs.life_line import LifeLine
    from threadfs.mounts import on_top

    given: str = options.mountpoint
    place = os.path.realpath(os.path.expanduser(given))
    mount = on_top(place)
    if mount is None or not mount.is_threadfs:
        what = f"a mount of {mount.kind}" if mount else "not mounted"
        raise CommandFailed(f"{given} is no threadfs mount: it is {what}")
    life_line = LifeLine(mount)
    lazy = ["-z"] if options.lazy or state_of(mount) == "dead" else []
    done = subprocess.run(
        ["fusermount3", "-u", *lazy, "--", place], check=False, capture_output=True, text=True
    )
    if done.returncode:
        said = " ".join(done.stderr.split()).removeprefix("fusermount3: ")
        if "busy" in said:
            raise CommandFailed(f"{given} is busy: something in it is open (fuser -m {given} says what)")
        raise CommandFailed(f"{given}: {said}")
    if not options.lazy and not life_line.wait(_ENDS_S):
        raise CommandFailed(f"{given} is unmounted, but process {life_line.pid} has not ended yet")
    return 0
