"""Arguments that name a place, and what a shell offers for them."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping

from threadfs.commands import ALIASES, COMMANDS

_SCHEMES = ("postgresql", "postgres")
_URL = re.compile("([A-Za-z][A-Za-z0-9+.-]*)://")

# How much of two words is the same, of 1.
_NEAR = 0.5

# As shtab has them, which is not imported to parse a command line.
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


def completes(action: argparse.Action, candidates: Mapping[str, str]) -> None:
    """Has shells offer *candidates* for an argument."""
    action.complete = candidates  # type: ignore[attr-defined]


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
        help="make STORE where it is missing, or holds other things and not one thread",
    )


def store_location(given: str) -> str:
    """What may name a store. Raises ArgumentTypeError for a URL of a kind that nobody knows."""
    scheme = _URL.match(given)
    if scheme and scheme[1] not in _SCHEMES:
        # Not the whole of it, which may hold a password.
        raise argparse.ArgumentTypeError(f"{scheme[0]} is no store: give a directory, or a postgresql:// URL")
    return not_empty(given)


def mount_point(given: str) -> str:
    """What may be a mount point. Raises ArgumentTypeError for a URL, which names a store."""
    if scheme := _URL.match(given):
        raise argparse.ArgumentTypeError(f"{scheme[0]} is no directory to mount on")
    return not_empty(given)


def mistyped(word: str) -> str | None:
    """Why *word* is neither a command nor a store, in words; ``None`` when it may be one.

    A new store is given with its directory, so that no mistyped command makes one.
    """
    path = os.path.expanduser(word)
    if not word or "/" in path or os.path.lexists(path):
        return None
    return f"{word!r} is no command{did_you_mean(word)}, and no store: a new one is given as ./{word}"


def did_you_mean(word: str) -> str:
    """The command whose name is nearest to *word*, if one is near."""
    from difflib import get_close_matches

    near = get_close_matches(word, [*COMMANDS, *ALIASES], n=1, cutoff=_NEAR)
    return f" (did you mean {near[0]}?)" if near else ""


def not_empty(place: str) -> str:
    if not place:
        raise argparse.ArgumentTypeError("it is empty")
    return place
