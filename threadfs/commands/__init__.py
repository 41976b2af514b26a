"""The commands, one module each.

A module has ``arguments(parser)``, which declares the arguments, and ``run(options)``, which runs the command
and returns the exit status. At the top a module imports only what loads fast: help and completion load all.
"""

from __future__ import annotations

import importlib

# A constant, as importing typing would slow down each start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Each command with its line in the help, in the order of the help.
COMMANDS = {
    "list": "show all mounts, also those of killed processes",
    "umount": "unmount, and wait until the mount is gone",
    "work": "answer queued runs through an endpoint for chat completions",
    "ask": "ask in a thread, and print the answer as it comes",
    "follow": "print a transcript as it grows",
    "events": "print what happens in a store, as JSON Lines",
    "next": "wait for a queued run, and claim it",
    "wait": "wait until a run has ended",
    "search": "find messages and titles by their words",
    "ls": "list threads or runs by title, status, model and age",
    "fsck": "check every document, line and reference of a store",
    "export": "write threads as OpenAI objects, JSON Lines",
    "import": "bring conversations in: exports of ChatGPT, Claude.ai and others",
    "prune": "delete threads or runs that have not changed for some time",
    "expire": "expire abandoned runs",
}
# `mount` may be left out; `unmount` is a common slip for umount.
ALIASES = {"mount": "mount", "unmount": "umount"}
# Modules whose command is a word that Python has taken.
_MODULES = {"list": "list_", "import": "import_"}


class CommandFailed(Exception):
    """The command failed; the text is one line for the user."""

    status = 1


class UsedWrongly(CommandFailed):
    """The command line is wrong; the text says what to write instead."""

    status = 2


def module_of(command: str) -> Any:
    """The module of a command."""
    return importlib.import_module(f"threadfs.commands.{_MODULES.get(command, command)}")
