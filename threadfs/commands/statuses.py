"""The argument ``--status``."""

from __future__ import annotations

import argparse

# As `store.RunStatus` has them, which takes too long to import for each command line.
STATUSES = (
    *("queued", "in_progress", "requires_action", "cancelling", "completed"),
    *("cancelled", "failed", "expired", "incomplete"),
)


def add_status(parser: argparse.ArgumentParser, what: str) -> None:
    """The argument ``--status STATUS...``: ``options.status``, a list, or ``None`` where it is not given.

    It takes all words after it, so the usage of a command shows STORE first.
    """
    parser.add_argument("--status", metavar="STATUS", nargs="+", action="extend", choices=STATUSES, help=what)
    *others, last = STATUSES
    parser.description = f"{parser.description}\n\nSTATUS is one of {', '.join(others)} and {last}."
