"""The one definition of the command line: help, completion and the manual page are made from it.

A mount has no command word: ``threadfs STORE MNT``. So there is a parser for a mount, one for each command,
and one for the whole command line, which is only used for help and the like. Making a parser is fast: it
imports the modules that format help only to print it.
"""

from __future__ import annotations

import argparse
import sys

from threadfs import __version__
from threadfs.commands import ALIASES, COMMANDS, module_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

SHELLS = ("bash", "zsh", "fish", "tcsh")
_HELP_COLUMNS = 100

USAGE = "threadfs [OPTION...] STORE MNT\n       threadfs COMMAND [ARGUMENT...]"
DESCRIPTION = """\
Mount STORE, a store of assistant conversations (threads, messages, runs and run steps), on the
directory MNT as a tree of files; or look after a store.

STORE is a directory, or a postgresql:// URL. A missing directory is made if it is given as a path (./NAME, in
an existing directory), but not from fstab or a unit, where its disk may not be mounted yet; --create makes it
anyway. Write ./NAME for a store that has the name of a command.

`threadfs mount STORE MNT` is the same, and `unmount` means `umount`."""
EPILOG = """\
examples:
  threadfs ~/assistants ~/mnt                   mount in the background
  threadfs -f ~/assistants ~/mnt                stay in the foreground, log to the terminal
  threadfs umount ~/mnt                         unmount
  threadfs fsck --repair ~/assistants           find damage, and repair it without losing anything
  threadfs export ~/assistants > backup.jsonl   and back: threadfs import ~/other < backup.jsonl
  threadfs prune ~/assistants --older-than 90d --dry-run

Exit status: 0 done, 1 failed, 2 used wrongly; of `wait` also 3, for a run that is not there.
`threadfs COMMAND --help` has the details."""


class Parser(argparse.ArgumentParser):
    """Reports errors in one line, and colours help on a terminal."""

    def __init__(self, *, prog: str, **settings: Any) -> None:
        super().__init__(prog=prog, allow_abbrev=False, formatter_class=_any_formatter, **settings)

    def error(self, message: str) -> NoReturn:
        from threadfs.commands.progress import complaint

        self.exit(2, complaint(f"{message}; see {self.prog} --help") + "\n")

    def format_help(self) -> str:
        import textwrap

        self.formatter_class = _formatter
        paragraphs = (self.description or "").split("\n\n")
        self.description = "\n\n".join(textwrap.fill(text, _width()) for text in paragraphs)
        return super().format_help()


def _any_formatter(prog: str) -> argparse.HelpFormatter:
    """A formatter for argparse while arguments are added; a fixed width saves a call to the terminal."""
    return argparse.HelpFormatter(prog, width=_HELP_COLUMNS)


def _width() -> int:
    import shutil

    return min(shutil.get_terminal_size().columns, _HELP_COLUMNS) - 2


def _formatter(prog: str) -> argparse.HelpFormatter:
    width = _width()
    if not sys.stdout.isatty():
        return argparse.RawDescriptionHelpFormatter(prog, width=width)
    from rich_argparse import RawDescriptionRichHelpFormatter

    return RawDescriptionRichHelpFormatter(prog, width=width)


class _PrintCompletion(argparse.Action):
    """Writes a completion script for a shell."""

    def __call__(self, parser: argparse.ArgumentParser, *arguments: Any, **_: Any) -> None:
        from threadfs.commands.completion import script

        print(script(whole_parser(is_brief=True), arguments[1]))
        parser.exit()


def _add_general(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", action="version", version=f"threadfs {__version__}")
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        choices=SHELLS,
        metavar="SHELL",
        help=f"write the completion script for a shell ({', '.join(SHELLS)})",
    )


def mount_parser(given: Sequence[str], *, is_named: bool = False) -> Parser:
    """The parser of ``threadfs STORE MNT``, or (*is_named*) of ``threadfs mount STORE MNT``.

    Its errors depend on the arguments *given* after that word.
    """
    parser = _add_mounting(_MountParser(given, is_named))
    module_of("mount").places(parser)
    return parser


def _add_mounting(parser: Parser) -> Parser:
    module_of("mount").arguments(parser)
    _add_general(parser)
    return parser


class _MountParser(Parser):
    """Parses a mount; its help and errors cover the commands as well."""

    def __init__(self, given: Sequence[str], is_named: bool) -> None:
        super().__init__(prog="threadfs")
        self._given = given
        self._is_named = is_named

    def format_help(self) -> str:
        return whole_parser().format_help()

    def error(self, message: str) -> NoReturn:
        from threadfs.commands.places import did_you_mean, mistyped

        _, rest = _add_mounting(Parser(prog="threadfs")).parse_known_args(self._given)
        if len(rest) > 1 and not rest[0].startswith("-") and (mistake := mistyped(rest[0])):
            # The arguments of an unknown command mean nothing.
            message = mistake
        elif "required" in message:
            # argparse names a missing argument even when an unknown option is the mistake.
            unknown = [word for word in rest if word.startswith("-")]
            if unknown and "--" not in rest:
                message = f"unrecognized arguments: {' '.join(unknown)}"
            elif len(rest) == 1 and (self._is_named or not mistyped(rest[0])):
                message = "MNT is missing: give the directory to mount STORE on"
            elif len(rest) == 1:
                message = f"MNT is missing, and {rest[0]!r} is no command{did_you_mean(rest[0])}"
        super().error(message)


def command_parser(command: str) -> Parser:
    """The parser of one command."""
    parser = Parser(prog=f"threadfs {command}")
    _define(parser, command)
    return parser


def _define(parser: argparse.ArgumentParser, command: str) -> None:
    module = module_of(command)
    parser.description = module.__doc__.strip()
    parser.epilog = getattr(module, "EXAMPLES", None)
    module.arguments(parser)
    if command == "mount":
        module.places(parser)


def whole_parser(*, is_brief: bool = False) -> Parser:
    """All commands in one parser, for help, the manual page and (*is_brief*: a line each) completion."""
    parser = Parser(prog="threadfs", usage=USAGE, description=DESCRIPTION, epilog=EPILOG)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    for command, line in COMMANDS.items():
        subparser = commands.add_parser(command, prog=f"threadfs {command}", help=line)
        _define(subparser, command)
        if is_brief:
            subparser.description = line
    if is_brief:
        for alias, command in ALIASES.items():
            line = COMMANDS.get(command, "mount STORE on MNT")
            subparser = commands.add_parser(alias, prog=f"threadfs {alias}", help=line)
            _define(subparser, command)
            subparser.description = line
    return _add_mounting(parser)
