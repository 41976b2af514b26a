"""Serving a mount: in a process of its own that outlives the command, and where it logs."""

from __future__ import annotations

import logging
import logging.handlers
import os
import pwd
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from store import StoreError
from threadfs import mount
from threadfs.commands import CommandFailed
from threadfs.commands.progress import is_journal
from threadfs.stores import is_url, open_store

_LOG_BYTES = 10 << 20
# What a process in the background says when its mount answers.
_MOUNTED = "mounted"
# What the journal reads at the beginning of a line: how urgent it is.
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


@dataclass(frozen=True, slots=True)
class Server:
    """What is to be served where. *lock* is held until the mount stands.

    *insist*: as for `open_store`; what is missing has been made before.
    """

    location: str
    place: str
    settings: mount.Settings
    lock: mount.PlaceLock
    insist: bool = False

    def serve(self, on_mounted: Callable[[str], None]) -> None:
        """Serves in this process, until the mount is gone. *on_mounted* gets what the user should know."""
        # Not before: connections to a database and their threads do not survive a fork.
        store = open_store(self.location, create=is_url(self.location), insist=self.insist)

        def mounted(warning: str) -> None:
            self.lock.release()
            on_mounted(warning)

        mount.serve(store, self.place, self.settings, on_mounted=mounted)

    def start(self, log_file: str) -> str:
        """Serves in a process of its own; returns when it is mounted, with what the user should know.

        Raises:
            CommandFailed: it is not, and why.
        """
        sys.stdout.flush()
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.close(reading)
            os._exit(self._in_background(writing, log_file))
        os.close(writing)
        with os.fdopen(reading, "rb") as answer:
            said = os.fsdecode(answer.read())
        state, _, warning = said.partition("\n")
        if state != _MOUNTED:
            raise CommandFailed(said or f"the mount ended before it answered: see {log_file}")
        return warning

    def _in_background(self, writing: int, log_file: str) -> int:
        def mounted(warning: str) -> None:
            # Not before: an automount point lets in only the process group of who is asked to mount on it.
            os.setsid()
            say(f"{_MOUNTED}\n{warning}")

        def say(text: str) -> None:
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
        except (StoreError, mount.MountFailed) as error:
            logging.getLogger("threadfs").error("%s", error)
            say(str(error))
            return 1
        except Exception as error:
            logging.getLogger("threadfs").exception("the mount ended")
            say(str(error))
            return 1
        return 0


def log_file_for(place: str, asked: str | None) -> str:
    """Where a mount in the background logs, which can be written.

    Raises:
        OSError: what was asked for cannot.
        CommandFailed: nor can what it would be otherwise.
    """
    if asked:
        path = os.path.abspath(asked)
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
    asked = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(asked):  # As the XDG specification has it, a relative one counts as unset.
        return asked
    home = os.path.expanduser("~")
    with suppress(OSError, KeyError):
        # When a user mounts what fstab lets users mount, mount(8) hands on the home of root.
        if os.stat(home).st_uid != os.getuid():
            home = pwd.getpwuid(os.getuid()).pw_dir
    return os.path.join(home, ".local", "state")


def log_to(path: str | None) -> None:
    """Logs to a file that never grows large; else to stderr, in the way of the journal if it is one."""
    form = "%(asctime)s %(levelname)s %(message)s"
    handler: logging.Handler
    if path:
        handler = logging.handlers.RotatingFileHandler(
            path, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8", errors="backslashreplace"
        )
    else:
        handler = logging.StreamHandler()
    handler.setFormatter(_JournalFormatter() if not path and is_journal() else logging.Formatter(form))
    logging.basicConfig(handlers=[handler], level=logging.INFO)


class _JournalFormatter(logging.Formatter):
    """The journal knows the time; each line says how urgent it is."""

    def format(self, record: logging.LogRecord) -> str:
        priority = _PRIORITIES.get(record.levelno, 6)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())
