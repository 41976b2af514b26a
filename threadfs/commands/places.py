"""Arguments that name a store or a mount point, and their completion."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping

from threadfs.commands import ALIASES, COMMANDS

_SCHEMES = ("postgresql", "postgres")
_URL = re.compile("([A-Za-z][A-Za-z0-9+.-]*)://")

# What is said of a place with nothing in it.
PERHAPS_NOT_MOUNTED = "has no thread; is it a mount point that is not mounted?"

# How similar a command must be to be suggested, from 0 to 1.
_NEAR = 0.5

# As in shtab, which takes too long to import for each command line.
FILE = {
    "bash": "_shtab_compgen_files",
    "zsh": "_files",
    "fish": "(__fish_complete_path (commandline -ct))",
    "tcsh": "f",
}
DIRECTORY = {
    "bash": "_shtab_compgen_dirs",
    "zsh": "_files -/",
    "fish": "(__fish_complete_directories)",
    "tcsh": "d",
}
# Threads or runs, as `completing` finds them. (tcsh can be told nothing of the other words.)
_OFFERED = {"bash": "_threadfs_offer", "fish": "(_threadfs_offer)"}


def completes(action: argparse.Action, candidates: Mapping[str, str]) -> None:
    """Lets shells offer *candidates* for an argument."""
    action.complete = candidates  # type: ignore[attr-defined]


def completes_threads(action: argparse.Action) -> None:
    completes(action, {**_OFFERED, "zsh": "{_threadfs_offer thread}"})


def completes_runs(action: argparse.Action) -> None:
    completes(action, {**_OFFERED, "zsh": "{_threadfs_offer run}"})


def add_store(parser: argparse.ArgumentParser) -> None:
    """The argument STORE: ``options.store``, as it was given."""
    what = "a directory, a URL, or where a store is mounted"
    store = parser.add_argument("store", metavar="STORE", type=store_location, help=what)
    completes(store, DIRECTORY)


def add_create(parser: argparse._ActionsContainer) -> None:
    """The option ``--create``: ``options.create``."""
    parser.add_argument(
        "--create",
        action="store_true",
        help="make STORE if it is missing, or if it holds other files and not one thread",
    )


def store_location(given: str) -> str:
    """A path or URL of a store. Raises ArgumentTypeError for a URL of an unknown kind."""
    scheme = _URL.match(given)
    if scheme and scheme[1] not in _SCHEMES:
        # Without the rest, which may hold a password.
        raise argparse.ArgumentTypeError(f"{scheme[0]} is no store: give a directory, or a postgresql:// URL")
    return not_empty(given)


def mount_point(given: str) -> str:
    """A path of a mount point. Raises ArgumentTypeError for a URL, which can only be a store."""
    if scheme := _URL.match(given):
        raise argparse.ArgumentTypeError(f"{scheme[0]} is no directory to mount on")
    return not_empty(given)


def tell_if_empty(location: str) -> None:
    """Says on stderr that there is nothing at *location*, which a command has opened to find something."""
    from threadfs import stores
    from threadfs.commands.progress import complain

    if stores.is_empty(location):
        complain(f"{location} {PERHAPS_NOT_MOUNTED}")


def new_store(location: str) -> str:
    """What a command says that may begin a store in a directory without anything in it."""
    return f"{location} has no thread yet: it is taken for a new store"


def is_bare_name(word: str) -> bool:
    """Whether *word* is no path, and nothing is called so: a new store is given as a path with a `/`."""
    path = os.path.expanduser(word)
    return bool(word) and "/" not in path and not os.path.lexists(path)


def mistyped(word: str) -> str | None:
    """Why *word* is neither a command nor a store, in words; ``None`` when it may be one."""
    if not is_bare_name(word):
        return None
    return f"{word!r} is no command{did_you_mean(word)}, and no store: a new one is given as ./{word}"


def did_you_mean(word: str) -> str:
    """The command that is most similar to *word*, as a question; empty if none is similar."""
    from difflib import get_close_matches

    near = get_close_matches(word, [*COMMANDS, *ALIASES], n=1, cutoff=_NEAR)
    return f" (did you mean {near[0]}?)" if near else ""


def not_empty(place: str) -> str:
    if not place:
        raise argparse.ArgumentTypeError("it is empty")
    return place
