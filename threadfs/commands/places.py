"""Arguments that name a place, and what a shell offers for them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

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
    store = parser.add_argument("store", metavar="STORE", type=not_empty, help="a directory, or a URL")
    completes(store, DIRECTORY)


def not_empty(place: str) -> str:
    if not place:
        raise argparse.ArgumentTypeError("it is empty")
    return place
