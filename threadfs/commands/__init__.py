"""The commands, one module each.

A module has ``arguments(parser)``, which declares what the command takes, and ``run(options)``, which does
it and returns the exit status. Modules import at their top only what is quick: the command line is made of
all of them.
"""

from __future__ import annotations

import importlib

# Instead of importing it from typing, which every start would take time for.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Each command with its line in the help, in the order of the help.
COMMANDS = {
    "list": "what is mounted where, also what a killed process left",
    "umount": "unmount, and wait until the mount is gone",
    "fsck": "check every document, line and reference of a store",
    "export": "write threads as OpenAI objects, JSON Lines",
    "import": "bring conversations in: exports of ChatGPT, Claude.ai and others",
    "prune": "delete threads, or runs, without a change for some time",
    "expire": "expire runs that nobody works on",
    "wait": "wait until a run has ended",
}
# Other words for them: mounting has none, and two are often taken for each other.
ALIASES = {"mount": "mount", "unmount": "umount"}
# What Python calls otherwise, because it has the word for itself.
_MODULES = {"list": "list_", "import": "import_"}


class CommandFailed(Exception):
    """The command cannot do what was asked; the text is one line for the user."""

    status = 1


class UsedWrongly(CommandFailed):
    """What was asked for is nothing; the text says what to write instead."""

    status = 2


def module_of(command: str) -> Any:
    """The module of a command. (``mount`` is one without a name on the command line.)"""
    return importlib.import_module(f"threadfs.commands.{_MODULES.get(command, command)}")
