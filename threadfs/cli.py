"""The command line: ``threadfs STORE MNT`` mounts, ``threadfs COMMAND`` looks after a store.

This imports only what every start needs: ``--version`` answers as fast as Python starts.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from threadfs import __version__
from threadfs.commands import ALIASES, COMMANDS, CommandFailed, module_of

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit status: 0 done, 1 failed, 2 used wrongly."""
    try:
        try:
            return _run(arguments)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has closed the pipe.
        _end_stdout()
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    except ImportError as error:
        return _fail(f"cannot load what is needed ({error}): run ./mount.sh, or pip install threadfs")
    except CommandFailed as error:
        return _fail(str(error), error.status)
    except OSError as error:
        _end_stdout()
        reason = str(error.strerror or error)
        return _fail(f"{error.filename}: {reason}" if error.filename else reason)
    except Exception as error:
        from store import StoreError

        if not isinstance(error, StoreError):
            raise
        return _fail(str(error))


def _run(arguments: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["--version"]:
        # Scripts often call this, and it needs no parser.
        print(f"threadfs {__version__}")
        return 0
    if given[:1] == ["--complete"]:
        from threadfs.commands.completing import complete

        return complete(given[1:])
    from threadfs.commands.parser import command_parser, mount_parser
    from threadfs.commands.progress import complain_of_warnings

    if arguments is None and isinstance(sys.stdout, io.TextIOWrapper):
        # Paths are bytes in any encoding: print them as they were given.
        sys.stdout.reconfigure(errors="surrogateescape")
    if arguments is None and any("://" in argument for argument in given):
        _hide_passwords()
    word = given[0] if given else ""
    command = word if word in COMMANDS else ALIASES.get(word, "mount")
    if word in COMMANDS or word in ALIASES:
        del given[0]
    if command == "mount":
        options = mount_parser(given, is_named=word == command).parse_args(given)
    else:
        # Options may stand between the files or threads of a command, too.
        options = command_parser(command).parse_intermixed_args(given)
    complain_of_warnings()
    status: int = module_of(command).run(options)
    return status


def _end_stdout() -> None:
    """Replaces a stdout that cannot be written, as Python would report it again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _hide_passwords() -> None:
    """Restarts without the password of a URL: every user of the machine can read a command line."""
    from threadfs import stores

    command = [*sys.orig_argv]
    for index, argument in enumerate(command):
        if stores.is_url(argument):
            command[index], password = stores.without_password(argument)
            if password:
                os.environ["PGPASSWORD"] = password
    if command != sys.orig_argv:
        os.execv(sys.executable, command)


def _fail(reason: str, status: int = 1) -> int:
    from threadfs.commands.progress import complaint

    sys.stderr.write(complaint(reason) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
