"""Read an export from stdin into STORE, which is made when it is missing.

Each thread is checked to its end, then stored in one step. One that is there already and equal is left as it
is, so an import that was interrupted can be run again; one that differs is refused, and so is one whose
end is missing because the export was cut off; the others go on.

An export of other origin is read too, if its lines are threads, messages, runs and steps of OpenAI in the
order in which `threadfs export` writes them; whether such a one was cut off cannot be seen.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Iterator

from threadfs.commands import CommandFailed, progress
from threadfs.commands.places import add_store

EXAMPLES = """\
examples:
  threadfs import ~/assistants < backup.jsonl
  ssh server threadfs export /srv/assistants | threadfs import ~/copy"""


def arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)


def run(options: argparse.Namespace) -> int:
    from threadfs.importing.openai_lines import Import
    from threadfs.stores import open_store

    refused = 0

    def refuse(reason: str) -> None:
        nonlocal refused
        refused += 1
        progress.complain(reason)

    importing = Import(open_store(options.store, create=True), refuse)
    importing.read(_lines())
    said = f"{importing.imported} imported, {importing.left} were there already"
    if refused:
        raise CommandFailed(f"{said}, {refused} refused")
    if sys.stderr.isatty():
        progress.complain(said)
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
