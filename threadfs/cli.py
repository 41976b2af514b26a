"""The command line: ``threadfs STORE MNT``."""

from __future__ import annotations

import argparse
import logging
import logging.handlers
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from threadfs import __version__

_EPILOG = """\
examples:
  threadfs ~/assistants ~/mnt       mount in the background
  threadfs -f ~/assistants ~/mnt    stay in the foreground, log to the terminal
  fusermount3 -u ~/mnt              unmount
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="threadfs",
        description="Mount a store of assistant conversations as a tree of files.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("store", metavar="STORE", help="the store's directory; made when it is missing")
    parser.add_argument("mountpoint", metavar="MNT", help="an empty directory; made when it is missing")
    parser.add_argument("-f", "--foreground", action="store_true", help="do not go to the background")
    parser.add_argument(
        "--log", metavar="FILE", help="where to log (default: the terminal with -f, else a file)"
    )
    parser.add_argument("--read-only", action="store_true", help="refuse every change")
    parser.add_argument("--allow-other", action="store_true", help="let other users see the mount")
    parser.add_argument("--version", action="version", version=f"threadfs {__version__}")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    options.store = os.path.abspath(os.path.expanduser(options.store))
    options.mountpoint = os.path.abspath(os.path.expanduser(options.mountpoint))
    try:
        return _mount(options)
    except _failures() as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}")


def _failures() -> tuple[type[Exception], ...]:
    # Imported late: `--help` and `--version` answer at once.
    try:
        from store import StoreError
        from threadfs.mount import MountFailed
    except ImportError as error:
        raise SystemExit(_fail(f"cannot load what is needed to mount ({error}): run ./mount.sh")) from None
    return StoreError, MountFailed


def _fail(reason: str) -> int:
    sys.stderr.write(f"threadfs: {reason}\n")
    return 1


def _mount(options: argparse.Namespace) -> int:
    _failures()
    from store import ThreadStore
    from threadfs import mount

    if mount.clear_dead(options.mountpoint):
        print(f"cleared the dead mount that a killed process left on {options.mountpoint}")
    place = os.path.realpath(options.mountpoint)
    if mount.mounted_at(place) == ("fuse.threadfs", options.store):
        print(f"already mounted: {options.store} on {options.mountpoint}")
        return 0
    is_new = not os.path.exists(options.store)
    mount.check_place(options.store, place)
    store = ThreadStore(options.store)
    store.list_thread_ids()  # Says now if it cannot be read.
    if is_new:
        print(f"made a new store: {options.store}")

    def serve(on_mounted: Callable[[], None]) -> None:
        mount.serve(
            store,
            place,
            read_only=options.read_only,
            allow_other=options.allow_other,
            on_mounted=on_mounted,
        )

    if options.foreground:
        _log_to(options.log)
        serve(lambda: None)
        return 0
    log_file = os.path.abspath(options.log) if options.log else _default_log(place)
    with open(log_file, "a"):
        pass  # Says now if it cannot be written.
    reason = _in_background(log_file, serve)
    if reason:
        return _fail(reason)
    os.stat(place)  # Answered by the mount itself.
    _welcome(options.store, options.mountpoint, log_file)
    return 0


def _default_log(place: str) -> str:
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    directory = os.path.join(state, "threadfs")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    name = place.strip("/").replace("/", "-").encode()[:200].decode(errors="ignore")
    return os.path.join(directory, f"{name}.log")


def _log_to(path: str | None) -> None:
    target: logging.Handler
    if path:
        target = logging.handlers.RotatingFileHandler(path, maxBytes=10 << 20, backupCount=1)
    else:
        target = logging.StreamHandler()
    logging.basicConfig(handlers=[target], level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")


def _in_background(log_file: str, serve: Callable[[Callable[[], None]], None]) -> str:
    """Serves in a process of its own; returns when it is mounted, or why it is not."""
    sys.stdout.flush()
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        os.setsid()
        if os.fork():
            os._exit(0)
        os._exit(_background(writing, log_file, serve))
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        said = answer.read().decode()
    return "" if said == "mounted" else said or f"the mount ended before it answered: see {log_file}"


def _background(writing: int, log_file: str, serve: Callable[[Callable[[], None]], None]) -> int:
    def say(text: str) -> None:
        nonlocal writing
        if writing >= 0:
            os.write(writing, text.encode())
            os.close(writing)
            writing = -1

    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        os.close(nothing)
        os.chdir("/")
        _log_to(log_file)
        serve(lambda: say("mounted"))
    except Exception as error:
        logging.getLogger("threadfs").exception("the mount ended")
        say(str(error))
        return 1
    return 0


def _welcome(store: str, mountpoint: str, log_file: str) -> None:
    print(f"mounted {store} on {mountpoint}")
    print(f"  try      ls {mountpoint}/runs/queued; cat {mountpoint}/README.md")
    print(f"  unmount  fusermount3 -u {mountpoint}")
    print(f"  log      {log_file}")


if __name__ == "__main__":
    sys.exit(main())
