"""Mount a store, in the background unless told otherwise.

The same form serves ``mount -t fuse.threadfs STORE MNT`` and ``/etc/fstab``, whose helper calls
``threadfs STORE MNT -o OPTS``.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from threadfs import ownership
from threadfs.commands import CommandFailed, UsedWrongly
from threadfs.commands.places import (
    DIRECTORY,
    FILE,
    add_create,
    completes,
    mistyped,
    mount_point,
    store_location,
)

if TYPE_CHECKING:
    from threadfs.mount import Settings
    from threadfs.mounts import Mount

# What mount(8), systemd and their helpers hand on that says nothing to a file system like this one.
# ("dev" and "suid" come from mount.fuse; a mount of ours never has them.)
_GENERIC = (
    "rw,defaults,auto,noauto,user,nouser,users,owner,group,nofail,_netdev,dev,nodev,suid,nosuid,exec,sync,async,"
    "dirsync,atime,noatime,diratime,nodiratime,relatime,norelatime,strictatime,nostrictatime,lazytime,nolazytime,"
    "mand,nomand,iversion,noiversion,silent,loud,default_permissions"
)
# Those of which mount(8) and its helper always hand on some. (A person says --read-only, or has a store.)
_OF_MOUNT = ("rw", "ro", "dev", "suid")
_BY_MOUNT = "mount(8)"
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
    add_create(options)
    # What mount(8) may hand to a helper.
    for flag in ("-s", "-n", "-v", "-w"):
        options.add_argument(flag, action="store_true", help=argparse.SUPPRESS)
    options.add_argument("-r", dest="read_only", action="store_true", help=argparse.SUPPRESS)


def places(parser: argparse.ArgumentParser) -> None:
    completes(parser.add_argument("store", metavar="STORE", type=store_location), DIRECTORY)
    completes(parser.add_argument("mountpoint", metavar="MNT", type=mount_point), DIRECTORY)


def _mount_options(text: str) -> dict[str, str]:
    """The options of ``-o`` that mean something here, and `_BY_MOUNT`, if they are from mount(8).

    Raises:
        argparse.ArgumentTypeError: one is unknown or has a bad value. What means nothing here is left out.
    """
    found = {}
    for option in filter(None, text.split(",")):
        name, _, value = option.partition("=")
        if option in _OF_MOUNT:
            found[_BY_MOUNT] = ""
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
    if not options.create and (said := mistyped(options.store)):
        raise UsedWrongly(f"{said}; see threadfs --help")
    location = stores.absolute(stores.resolved(options.store))
    mountpoint = os.path.abspath(os.path.expanduser(options.mountpoint))
    directory = None if stores.is_url(location) else location
    shown = stores.shown(location)
    try:
        if mount.clear_dead(mountpoint):
            print(f"cleared the dead mount that a killed process left on {mountpoint}")
        place = os.path.realpath(mountpoint)
        if _is_there(place, shown, mountpoint, settings):
            return 0
        if directory:
            mount.check_apart(directory, place)
        is_new = directory and _is_new(directory, is_unasked=_is_unasked(asked), insist=options.create)
        if _stands(directory, place, shown, mountpoint, settings):
            return 0
        if directory and is_new:
            stores.open_store(directory, create=True, insist=options.create)
            print(f"made a new store: {directory}")
        with mount.place_lock(place) as lock:
            if _stands(directory, place, shown, mountpoint, settings):
                return 0
            server = background.Server(location, place, settings, lock, options.create)
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
        CommandFailed: it is, and otherwise than was asked for.
    """
    from threadfs.mounts import on_top

    there = on_top(place)
    if there is None or not there.is_threadfs or there.source != shown:
        return False
    if lacking := _lacking(there, settings):
        what_to_do = f"unmount it first (threadfs umount {mountpoint})"
        raise CommandFailed(f"{mountpoint} is mounted already, and not {lacking}: {what_to_do}")
    is_read_only = "ro" in there.options
    print(f"already mounted{' (read-only)' if is_read_only else ''}: {shown} on {mountpoint}")
    return True


def _stands(directory: str | None, place: str, shown: str, mountpoint: str, settings: Settings) -> bool:
    """Whether the store is mounted there already; if not, that it can be.

    Somebody may be faster at any moment: two mounts of one store on one place never stack.

    Raises:
        CommandFailed, MountFailed: neither.
    """
    from threadfs import mount

    if _is_there(place, shown, mountpoint, settings):
        return True
    try:
        mount.check_place(directory, place)
    except mount.MountFailed:
        if _is_there(place, shown, mountpoint, settings):
            return True
        raise
    return False


def _lacking(there: Mount, settings: Settings) -> str:
    """What was asked for of a mount and it has not, in words."""
    asked = [
        ("read-only", settings.read_only, "ro" in there.options),
        ("with --allow-other", settings.allow_other, "allow_other" in there.shared),
        ("noexec", settings.no_exec, "noexec" in there.options),
        ("with this owner and these masks", *_owners(there, settings.ownership)),
    ]
    return ", nor ".join(words for words, is_asked, is_so in asked if is_asked and not is_so)


def _owners(there: Mount, asked: ownership.Ownership) -> tuple[bool, bool]:
    """Whether owner or masks are asked for, and whether what is mounted shows them."""
    if asked == ownership.Ownership():
        return False, True
    # Of each kind of file one; the mount answers, or the whole command would hang later.
    for shown, mode in ((there.mountpoint, 0o40755), (f"{there.mountpoint}/README.md", 0o100444)):
        found = os.stat(shown)
        if (found.st_uid, found.st_gid, found.st_mode) != (asked.uid, asked.gid, asked.shown(mode)):
            return True, False
    return True, True


def _is_unasked(asked: dict[str, str]) -> bool:
    """Whether no person has just named the store, but a line of fstab, or a unit, some day.

    A directory that is missing then is on a disk that is not mounted yet.
    """
    from threadfs.commands.progress import is_journal

    if _BY_MOUNT in asked or is_journal():
        return True
    return "NOTIFY_SOCKET" in os.environ or os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())


def _is_new(directory: str, *, is_unasked: bool, insist: bool) -> bool:
    """Whether the store is missing, and to be made.

    Raises:
        CommandFailed, CannotOpen: it is not to be, or what is there is none or cannot be read.
    """
    from threadfs.stores import NoStore, check_is_there, open_store

    if not os.path.lexists(directory):
        if is_unasked and not insist:
            raise CommandFailed(f"{directory} is not there: mount its disk, or make it (mkdir, or --create)")
        check_is_there(directory, directory, create=True, insist=insist)
        return True
    try:
        open_store(directory, insist=insist)
    except NoStore as error:
        raise CommandFailed(f"{error} (--create makes it one)") from None
    os.scandir(directory).close()
    return False


def _warn(warning: str) -> None:
    from threadfs.commands.progress import complain

    if warning:
        complain(warning)


def _welcome(shown: str, mountpoint: str, log_file: str) -> None:
    print(f"mounted {shown} on {mountpoint}")
    print(f"  try      ls {mountpoint}/runs/queued; cat {mountpoint}/README.md")
    print(f"  unmount  fusermount3 -u {mountpoint}")
    print(f"  log      {log_file}")
