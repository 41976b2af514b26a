"""Read an export from stdin into STORE, which is made if it is missing.

Each thread is checked to its end, then stored in one step. An equal thread that is in the store already is
left alone, so an interrupted import can be run again. A thread that differs from the stored one is refused,
and so is a thread whose end is missing because the export was cut off; the other threads are imported.

Exports by other programs are read too, if their lines are OpenAI's threads, messages, runs and steps in the
order of `threadfs export`. Such an export does not show whether it was cut off. Messages that come newest
first, as OpenAI lists them, are stored oldest first.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Iterator

from threadfs.commands import CommandFailed, progress
from threadfs.commands.places import add_create, add_store

EXAMPLES = """\
examples:
  threadfs import ~/assistants < backup.jsonl
  ssh server threadfs export /srv/assistants | threadfs import ~/copy"""


def arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    add_create(parser)


def run(options: argparse.Namespace) -> int:
    from threadfs.importing import Import
    from threadfs.stores import NoStore, open_store

    refused = 0

    def refuse(reason: str) -> None:
        nonlocal refused
        refused += 1
        progress.complain(reason)

    try:
        store = open_store(options.store, create=True, insist=options.create)
    except NoStore as error:
        raise CommandFailed(f"{error} (--create makes it one)") from None
    importing = Import(store, refuse)
    importing.read(_lines())
    summary = f"{importing.imported} imported, {importing.left} were there already"
    if refused:
        raise CommandFailed(f"{summary}, {refused} refused")
    if sys.stderr.isatty():
        progress.complain(summary)
    return 0


def _lines() -> Iterator[bytes]:
    if sys.stdin is None:
        raise CommandFailed("stdin is closed: the export is read from there")
    status = os.fstat(sys.stdin.fileno())
    size = status.st_size if stat.S_ISREG(status.st_mode) else None
    with progress.bar(size, "B") as shown:
        for line in sys.stdin.buffer:
            yield line
            shown.update(len(line))
