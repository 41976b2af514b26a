"""Mount a store, in the background unless told otherwise.

The same form serves ``mount -t fuse.threadfs STORE MNT`` and ``/etc/fstab``, whose helper calls
``threadfs STORE MNT -o OPTS``.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from threadfs import ownership
from threadfs.commands import CommandFailed
from threadfs.commands.places import FILE, completes, not_empty, store_location

if TYPE_CHECKING:
    from threadfs.mount import Settings

# What mount(8), systemd and their helpers hand on that says nothing to a file system like this one.
# ("dev" and "suid" come from mount.fuse; a mount of ours never has them.)
_GENERIC = (
    "rw,defaults,auto,noauto,user,nouser,users,owner,group,nofail,_netdev,dev,nodev,suid,nosuid,exec,sync,async,"
    "dirsync,atime,noatime,diratime,nodiratime,relatime,norelatime,strictatime,nostrictatime,lazytime,nolazytime,"
    "mand,nomand,iversion,noiversion,silent,loud,default_permissions"
)
_GENERIC_PREFIXES = ("x-", "X-", "comment=", "user=", "fsname=", "subtype=")


def arguments(parser: argparse.ArgumentParser) -> None:
    options = parser.add_argument_group("options for mounting")
    options.add_argument("-f", "--foreground", action="store_true", help="do not go to the background")
    log = options.add_argument(
        "--log", metavar="FILE", help="where to log (default: the terminal or journal with -f, else a file)"
    )
    completes(log, FILE)
    options.add_argument("--read-only", action="store_true", help="refuse every change")
    options.add_argument(
        "--allow-other", action="store_true", help="let other users see the mount (default: only you)"
    )
    options.add_argument(
        "-o",
        metavar="OPTS",
        dest="mount_options",
        action="append",
        default=[],
        type=_mount_options,
        help="options as in /etc/fstab: ro, allow_other, noexec, log=FILE; whose the files are shown to "
        "be, and what nobody may: uid=, gid=, umask=, fmask=, dmask=; generic ones are accepted",
    )
    # What mount(8) may hand to a helper.
    for flag in ("-s", "-n", "-v", "-w"):
        options.add_argument(flag, action="store_true", help=argparse.SUPPRESS)
    options.add_argument("-r", dest="read_only", action="store_true", help=argparse.SUPPRESS)


def places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", type=store_location)
    parser.add_argument("mountpoint", metavar="MNT", type=not_empty)


def _mount_options(text: str) -> dict[str, str]:
    """The options of ``-o`` that mean something here.

    Raises:
        argparse.ArgumentTypeError: one is unknown or has a bad value. What means nothing here is left out.
    """
    found = {}
    for option in filter(None, text.split(",")):
        name, _, value = option.partition("=")
        if option in ("ro", "allow_other", "noexec") or (name == "log" and value):
            found[name] = value
        elif ownership.is_option(name):
            found[name] = value
            try:
                ownership.value(name, value)
            except ValueError as error:
                raise argparse.ArgumentTypeError(str(error)) from None
        elif option not in _GENERIC.split(",") and not option.startswith(_GENERIC_PREFIXES):
            raise argparse.ArgumentTypeError(f"unknown mount option {option!r}")
    return found


def run(options: argparse.Namespace) -> int:
    from threadfs import mount, stores
    from threadfs.commands import background

    asked: dict[str, str] = {}
    for some in options.mount_options:
        asked |= some
    settings = mount.Settings(
        read_only=options.read_only or "ro" in asked,
        allow_other=options.allow_other or "allow_other" in asked,
        no_exec="noexec" in asked,
        ownership=ownership.ownership_of(asked),
    )
    location = stores.absolute(options.store)
    mountpoint = os.path.abspath(os.path.expanduser(options.mountpoint))
    directory = None if stores.is_url(location) else location
    shown = stores.shown(location)
    try:
        if mount.clear_dead(mountpoint):
            print(f"cleared the dead mount that a killed process left on {mountpoint}")
        place = os.path.realpath(mountpoint)
        if _is_there(place, shown, mountpoint, settings):
            return 0
        mount.check_place(directory, place)
        if directory:
            _prepare(directory)
        with mount.place_lock(place) as lock:
            # Somebody may have been faster: two mounts of one store on one place never stack.
            if _is_there(place, shown, mountpoint, settings):
                return 0
            mount.check_place(directory, place)
            server = background.Server(location, place, settings, lock)
            if options.foreground:
                log = asked.get("log") or options.log
                background.log_to(log)
                server.serve(_warn if log else lambda warning: None)  # Else the log is there.
                return 0
            log_file = background.log_file_for(place, asked.get("log") or options.log)
            _warn(server.start(log_file))
        os.stat(place)  # Answered by the mount itself.
    except mount.MountFailed as error:
        raise CommandFailed(str(error)) from None
    _welcome(shown, mountpoint, log_file)
    return 0


def _is_there(place: str, shown: str, mountpoint: str, settings: Settings) -> bool:
    """Whether the store is mounted there already, which is said.

    Raises:
        CommandFailed: it is, and can be written, which was not to be.
    """
    from threadfs.mounts import on_top

    there = on_top(place)
    if there is None or not there.is_threadfs or there.source != shown:
        return False
    is_read_only = "ro" in there.options
    if settings.read_only and not is_read_only:
        what_to_do = f"unmount it first (threadfs umount {mountpoint})"
        raise CommandFailed(f"{mountpoint} is mounted already, and not read-only: {what_to_do}")
    print(f"already mounted{' (read-only)' if is_read_only else ''}: {shown} on {mountpoint}")
    return True


def _prepare(directory: str) -> None:
    """Makes a store that is missing, and says now if one cannot be read."""
    from threadfs.stores import open_store

    is_new = not os.path.exists(directory)
    open_store(directory, create=True)
    os.scandir(directory).close()
    if is_new:
        print(f"made a new store: {directory}")


def _warn(warning: str) -> None:
    from threadfs.commands.progress import complain

    if warning:
        complain(warning)


def _welcome(shown: str, mountpoint: str, log_file: str) -> None:
    print(f"mounted {shown} on {mountpoint}")
    print(f"  try      ls {mountpoint}/runs/queued; cat {mountpoint}/README.md")
    print(f"  unmount  fusermount3 -u {mountpoint}")
    print(f"  log      {log_file}")
