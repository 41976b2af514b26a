"""Unmount MNT. Returns when the mount is gone and the process that served it has ended.

Files in drafts/ are lost with the mount. While there are any, the mount stays and some of them are named,
unless --force is given.

A dead mount of a killed process is cleared. Other mounts are left alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from threadfs.commands import CommandFailed
from threadfs.commands.places import DIRECTORY, completes, mount_point

if TYPE_CHECKING:
    from threadfs.mounting.mount_table import Mount

EXAMPLES = """\
examples:
  threadfs umount ~/mnt
  threadfs umount --lazy ~/mnt    out of sight at once, gone when nothing is open any more"""

_ENDS_S = 30.0
# How long a mount may be busy by itself, with a call that wakes who watches, and how often it is tried again.
_PATIENCE_S, _RETRY_S = 0.3, 0.02
# How long a mount may take to list its drafts, and how many of them are named.
_ANSWERS_S = 3.0
_NAMED = 5


def arguments(parser: argparse.ArgumentParser) -> None:
    place = parser.add_argument("mountpoint", metavar="MNT", type=mount_point, help="where it is mounted")
    completes(place, DIRECTORY)
    parser.add_argument(
        "-z", "--lazy", action="store_true", help="also when something in it is open; do not wait for that"
    )
    parser.add_argument("--force", action="store_true", help="also when files in drafts/ are lost with it")


def run(options: argparse.Namespace) -> int:
    from threadfs.commands.list_ import DEAD, NO_ANSWER, state_of
    from threadfs.mounting.life_line import LifeLine
    from threadfs.mounting.mount_table import on_top, place_of
    from threadfs.mounting.place import fail_callers

    given: str = options.mountpoint
    place = place_of(given)
    mount = on_top(place)
    if mount is None or not mount.is_threadfs:
        what = f"a mount of {mount.kind}" if mount else "not mounted"
        raise CommandFailed(f"{given} is no threadfs mount: it is {what}")
    life_line = LifeLine(mount)
    state = state_of(mount)
    if state == NO_ANSWER and life_line.pid is None:
        fail_callers(mount)
        state = DEAD
    answers = state in ("", "of another user")
    if not options.force and answers and (lost := _drafts_of(mount)):
        raise CommandFailed(
            f"{given} has files in drafts/, which would be lost: {_some_of(lost)};"
            " move them on, or give --force"
        )
    lazy = ["-z"] if options.lazy or state == DEAD else []
    busy_until_s = time.monotonic() + _PATIENCE_S
    while True:
        done = subprocess.run(
            ["fusermount3", "-u", *lazy, "--", place], check=False, capture_output=True, text=True
        )
        if not done.returncode or "busy" not in done.stderr or time.monotonic() > busy_until_s:
            break
        time.sleep(_RETRY_S)
    if done.returncode:
        reason = " ".join(done.stderr.split()).removeprefix("fusermount3: ")
        if "busy" in reason and state == NO_ANSWER:
            raise CommandFailed(f"{given} does not answer, and programs wait for it: --lazy does not wait")
        if "busy" in reason:
            raise CommandFailed(f"{given} is busy: something in it is open (fuser -m {given} says what)")
        raise CommandFailed(f"{given}: {reason}")
    if not options.lazy and not life_line.wait(_ENDS_S):
        raise CommandFailed(f"{given} is unmounted, but process {life_line.pid} has not ended yet")
    return 0


def _drafts_of(mount: Mount) -> list[str]:
    """The entries of ``drafts/`` of a mount that are or hold a file; none if it does not answer in time.

    A separate process lists them, as a process that waits for a mount cannot end before it answers. It runs
    as the user who mounted, as the mount may refuse all others.
    """
    drafts = f"{mount.mountpoint}/drafts/"
    user, group = mount.owner if os.geteuid() == 0 else (None, None)
    listing = subprocess.Popen(
        ["find", drafts, "-mindepth", "1", "!", "-type", "d", "-print0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        user=user,
        group=group,
    )
    output = b""
    try:
        output, _ = listing.communicate(timeout=_ANSWERS_S)
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
        listing.kill()
        with suppress(subprocess.TimeoutExpired):
            listing.wait(_ANSWERS_S / 10)
    paths = [path.removeprefix(drafts) for path in os.fsdecode(output).split("\0")[:-1]]
    return list(dict.fromkeys(path.partition("/")[0] for path in paths))


def _some_of(names: list[str]) -> str:
    from store.printing import printable

    shown = ", ".join(printable(name) for name in names[:_NAMED])
    return shown + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
