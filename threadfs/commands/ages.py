"""Ages on the command line: ``90s``, ``15m``, ``12h``, ``30d``, ``8w``, ``1y``."""

from __future__ import annotations

import argparse
import re

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}
_AGE = re.compile(r"([0-9]{1,9})([smhdwy])")


def age_s(text: str) -> int:
    """An age in seconds.

    Raises:
        argparse.ArgumentTypeError: it is not an age.
    """
    if found := _AGE.fullmatch(text):
        return int(found[1]) * _SECONDS[found[2]]
    raise argparse.ArgumentTypeError(f"{text!r} is no age: write a number and s, m, h, d, w or y, like 30d")


def shown_age(seconds: int) -> str:
    """An age in the largest unit of which there is a whole one, as `age_s` reads it."""
    unit = next((unit for unit in "ydhm" if seconds >= _SECONDS[unit]), "s")
    return f"{seconds // _SECONDS[unit]}{unit}"


def add_older_than(parser: argparse.ArgumentParser, what: str, *, is_required: bool = True) -> None:
    """The argument ``--older-than AGE``: ``options.older_than_s``, in seconds."""
    parser.add_argument(
        "--older-than", dest="older_than_s", metavar="AGE", type=age_s, required=is_required, help=what
    )
