"""Arguments that name a place, and what a shell offers for them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping

_SCHEMES = ("postgresql", "postgres")

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
    store = parser.add_argument("store", metavar="STORE", type=store_location, help="a directory, or a URL")
    completes(store, DIRECTORY)


def store_location(given: str) -> str:
    """What may name a store. Raises ArgumentTypeError for a URL of a kind that nobody knows."""
    scheme = re.match("([A-Za-z][A-Za-z0-9+.-]*)://", given)
    if scheme and scheme[1] not in _SCHEMES:
        # Not the whole of it, which may hold a password.
        raise argparse.ArgumentTypeError(f"{scheme[0]} is no store: give a directory, or a postgresql:// URL")
    return not_empty(given)


def not_empty(place: str) -> str:
    if not place:
        raise argparse.ArgumentTypeError("it is empty")
    return place
