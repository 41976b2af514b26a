"""Serves a mount in a background process that outlives the command, and finds a place for its log."""

from __future__ import annotations

import logging
import os
import pwd
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from store import StoreError
from threadfs.commands import CommandFailed
from threadfs.commands.logs import log_to
from threadfs.mounting import serving
from threadfs.mounting.place import MountFailed, PlaceLock
from threadfs.stores import is_url, open_store

# The background process sends this when its mount answers.
_MOUNTED = "mounted"


@dataclass(frozen=True, slots=True)
class Server:
    """A store and the place to mount it. *lock* is released when the mount answers.

    *insist*: as for `open_store`. A missing directory has been made before.
    """

    location: str
    place: str
    settings: serving.Settings
    lock: PlaceLock
    insist: bool = False

    def serve(self, on_mounted: Callable[[str], None]) -> None:
        """Serves in this process until the mount is gone. *on_mounted* gets a warning for the user, or ""."""
        # Opened after the fork, which database connections and their threads would not survive.
        store = open_store(self.location, create=is_url(self.location), insist=self.insist)

        def mounted(warning: str) -> None:
            self.lock.release()
            on_mounted(warning)

        serving.serve(store, self.place, self.settings, on_mounted=mounted)

    def start(self, log_file: str) -> str:
        """Serves in a background process. Returns when the mount answers, with a warning for the user, or "".

        Raises:
            CommandFailed: it could not mount; the text says why.
        """
        sys.stdout.flush()
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.close(reading)
            os._exit(self._in_background(writing, log_file))
        os.close(writing)
        with os.fdopen(reading, "rb") as answer:
            message = os.fsdecode(answer.read())
        state, _, warning = message.partition("\n")
        if state != _MOUNTED:
            raise CommandFailed(message or f"the mount ended before it answered: see {log_file}")
        return warning

    def _in_background(self, writing: int, log_file: str) -> int:
        def mounted(warning: str) -> None:
            # Only now: an automount point admits only the process group of the command that mounts on it.
            os.setsid()
            send(f"{_MOUNTED}\n{warning}")

        def send(text: str) -> None:
            nonlocal writing
            if writing >= 0:
                os.write(writing, os.fsencode(text))
                os.close(writing)
                writing = -1

        try:
            nothing = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(nothing, descriptor)
            os.close(nothing)
            os.chdir("/")
            log_to(log_file)
            self.serve(mounted)
        except (StoreError, MountFailed) as error:
            logging.getLogger("threadfs").error("%s", error)
            send(str(error))
            return 1
        except Exception as error:
            logging.getLogger("threadfs").exception("the mount ended")
            send(str(error))
            return 1
        return 0


def log_file_for(place: str, given: str | None) -> str:
    """The log file of a background mount: the *given* one, or the default one for *place*. It can be written.

    Raises:
        OSError: the given file cannot be written.
        CommandFailed: the default file cannot be written.
    """
    if given:
        path = os.path.abspath(given)
        open(path, "a").close()
        return path
    directory = os.path.join(_state_home(), "threadfs")
    name = os.fsencode(place.strip("/").replace("/", "-"))[:200].decode(errors="ignore")
    path = os.path.join(directory, f"{name}.log")
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        open(path, "a").close()
    except OSError as error:
        raise CommandFailed(f"cannot log to {path}: {error.strerror}; say where with --log FILE") from None
    return path


def _state_home() -> str:
    state_home = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(state_home):  # A relative path counts as unset, says the XDG specification.
        return state_home
    home = os.path.expanduser("~")
    with suppress(OSError, KeyError):
        # When a user mounts an entry of fstab with the option `user`, mount(8) passes on root's HOME.
        if os.stat(home).st_uid != os.getuid():
            home = pwd.getpwuid(os.getuid()).pw_dir
    return os.path.join(home, ".local", "state")
