"""Mount a store, in the background unless told otherwise.

``mount -t fuse.threadfs STORE MNT`` and ``/etc/fstab`` use the same form: their helper runs
``threadfs STORE MNT -o OPTS``.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

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
from threadfs.fuse import ownership

if TYPE_CHECKING:
    from threadfs.mounting.mount_table import Mount
    from threadfs.mounting.serving import Settings

# Options that mount(8), systemd and their helpers pass on, and that mean nothing here.
# ("dev" and "suid" come from mount.fuse; our mounts never have them.)
_GENERIC = (
    "rw,defaults,auto,noauto,user,nouser,users,owner,group,nofail,_netdev,dev,nodev,suid,nosuid,exec,sync,async,"
    "dirsync,atime,noatime,diratime,nodiratime,relatime,norelatime,strictatime,nostrictatime,lazytime,nolazytime,"
    "mand,nomand,iversion,noiversion,silent,loud,default_permissions"
)
# mount(8) and its helper always pass on some of these. (A person gives --read-only instead.)
_OF_MOUNT = ("rw", "ro", "dev", "suid")
_BY_MOUNT = "mount(8)"
_SWITCHES = ("ro", "allow_other", "noexec", "nowords", "noshim", "nowake")
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
        help="options as in /etc/fstab: ro, allow_other, noexec, nowords, noshim, nowake (inotify "
        "hears of no changes by others), log=FILE; the owner and the permissions to show: uid=, gid=, "
        "umask=, fmask=, dmask=; generic ones are accepted",
    )
    add_create(options)
    # Options that mount(8) may pass to a helper.
    for flag in ("-s", "-n", "-v", "-w"):
        options.add_argument(flag, action="store_true", help=argparse.SUPPRESS)
    options.add_argument("-r", dest="read_only", action="store_true", help=argparse.SUPPRESS)


def places(parser: argparse.ArgumentParser) -> None:
    completes(parser.add_argument("store", metavar="STORE", type=store_location), DIRECTORY)
    completes(parser.add_argument("mountpoint", metavar="MNT", type=mount_point), DIRECTORY)


def _mount_options(text: str) -> dict[str, str]:
    """The options of ``-o`` that mean something here, and `_BY_MOUNT` if they come from mount(8).

    Raises:
        argparse.ArgumentTypeError: one is unknown or has a bad value.
    """
    found = {}
    for option in filter(None, text.split(",")):
        name, _, value = option.partition("=")
        if option in _OF_MOUNT:
            found[_BY_MOUNT] = ""
        if option in _SWITCHES or (name == "log" and value):
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
    from threadfs import stores
    from threadfs.commands import background, logs, progress
    from threadfs.commands.local_endpoints import how_to_get_answers
    from threadfs.mounting.place import MountFailed, check_apart, clear_dead, place_lock
    from threadfs.mounting.serving import Settings

    mount_options: dict[str, str] = {}
    for some in options.mount_options:
        mount_options |= some
    settings = Settings(
        read_only=options.read_only or "ro" in mount_options,
        allow_other=options.allow_other or "allow_other" in mount_options,
        no_exec="noexec" in mount_options,
        no_words="nowords" in mount_options,
        no_shim="noshim" in mount_options,
        wakes="nowake" not in mount_options,
        ownership=ownership.ownership_of(mount_options),
    )
    if not options.create and (mistake := mistyped(options.store)):
        raise UsedWrongly(f"{mistake}; see threadfs --help")
    location = stores.absolute(stores.resolved(options.store))
    mountpoint = os.path.abspath(os.path.expanduser(options.mountpoint))
    directory = None if stores.is_url(location) else location
    shown = stores.shown(location)
    try:
        if clear_dead(mountpoint):
            print(f"cleared the dead mount that a killed process left on {mountpoint}")
        place = os.path.realpath(mountpoint)
        if _is_mounted(place, shown, mountpoint, settings):
            return 0
        if directory:
            check_apart(directory, place)
        is_new = directory and _is_new(
            directory, is_unattended=_is_unattended(mount_options), insist=options.create
        )
        if _is_mounted_or_free(directory, place, shown, mountpoint, settings):
            return 0
        if directory and is_new:
            stores.open_store(directory, create=True, insist=options.create)
            print(f"made a new store: {directory}")
        with place_lock(place) as lock:
            if _is_mounted_or_free(directory, place, shown, mountpoint, settings):
                return 0
            server = background.Server(location, place, settings, lock, options.create)
            log = mount_options.get("log") or options.log
            if options.foreground:
                logs.log_to(log)
                server.serve(_warn if log else lambda warning: None)  # A log on stderr has the warning.
                return 0
            log_file = background.log_file_for(place, log)
            _warn(server.start(log_file))
        os.stat(place)  # The mount itself answers this.
    except MountFailed as error:
        raise CommandFailed(str(error)) from None
    _welcome(shown, mountpoint, log_file)
    if not settings.read_only and not _is_unattended(mount_options):
        progress.say(f"  answers  {how_to_get_answers(mountpoint)}")
    return 0


def _is_mounted(place: str, shown: str, mountpoint: str, settings: Settings) -> bool:
    """Whether the store is mounted there already; prints so.

    Raises:
        CommandFailed: it is, but with other settings.
    """
    from threadfs.mounting.mount_table import on_top

    there = on_top(place)
    if there is None or not there.is_threadfs or there.source != shown:
        return False
    if missing := _missing_settings(there, settings):
        what_to_do = f"unmount it first (threadfs umount {mountpoint})"
        raise CommandFailed(f"{mountpoint} is mounted already, and not {missing}: {what_to_do}")
    is_read_only = "ro" in there.options
    print(f"already mounted{' (read-only)' if is_read_only else ''}: {shown} on {mountpoint}")
    return True


def _is_mounted_or_free(
    directory: str | None, place: str, shown: str, mountpoint: str, settings: Settings
) -> bool:
    """Whether the store is mounted there already; if not, checks that it can be.

    Another command may be faster at any moment: two mounts of one store never stack on one place.

    Raises:
        CommandFailed: as `_is_mounted`.
        MountFailed: as `check_place`.
    """
    from threadfs.mounting.place import MountFailed, check_place

    if _is_mounted(place, shown, mountpoint, settings):
        return True
    try:
        check_place(directory, place)
    except MountFailed:
        if _is_mounted(place, shown, mountpoint, settings):
            return True
        raise
    return False


def _missing_settings(there: Mount, settings: Settings) -> str:
    """The requested settings that a mount does not have, in words."""
    requested = [
        ("read-only", settings.read_only, "ro" in there.options),
        ("with --allow-other", settings.allow_other, "allow_other" in there.shared),
        ("noexec", settings.no_exec, "noexec" in there.options),
        ("nowords", settings.no_words, settings.no_words and _has_option(there, "nowords")),
        ("with this owner and these masks", *_owners(there, settings.ownership)),
    ]
    return ", nor ".join(words for words, is_requested, is_set in requested if is_requested and not is_set)


def _has_option(there: Mount, name: str) -> bool:
    """Whether it was mounted with an option that is in no table of mounts: the mount itself says so."""
    with open(f"{there.mountpoint}/.threadfs/stats", encoding="utf-8") as stats:
        return f"{name} 1\n" in stats


def _owners(there: Mount, requested: ownership.Ownership) -> tuple[bool, bool]:
    """Whether an owner or masks are requested, and whether the mount shows them."""
    if requested == ownership.Ownership():
        return False, True
    # A directory and a file. If the mount hangs here, the command would hang later as well.
    for shown, mode in ((there.mountpoint, 0o40755), (f"{there.mountpoint}/README.md", 0o100444)):
        found = os.stat(shown)
        expected = (requested.uid, requested.gid, requested.shown(mode))
        if (found.st_uid, found.st_gid, found.st_mode) != expected:
            return True, False
    return True, True


def _is_unattended(mount_options: dict[str, str]) -> bool:
    """Whether fstab or a unit has named the store, not a person at a terminal.

    The disk of a missing directory may not be mounted yet then.
    """
    from threadfs.commands.progress import is_journal

    if _BY_MOUNT in mount_options or is_journal():
        return True
    return "NOTIFY_SOCKET" in os.environ or os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())


def _is_new(directory: str, *, is_unattended: bool, insist: bool) -> bool:
    """Whether the store is missing and has to be made.

    Raises:
        CommandFailed, CannotOpen: it must not be made, is not a store, or cannot be read.
    """
    from threadfs.stores import NoStore, check_is_there, open_store

    if not os.path.lexists(directory):
        if is_unattended and not insist:
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
