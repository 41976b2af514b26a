"""Bring conversations into STORE, which is made when there is something for it: exports of ChatGPT,
Claude.ai, Open WebUI and LibreChat, sessions of Claude Code and Codex, conversations of LM Studio, logs.db of
llm, chat-completions and ShareGPT as lines or an array, objects of OpenAI's Assistants, and what
`threadfs export` wrote. FILE is a file, a zip, or a directory with such in it; without one, or for `-`, stdin
is read. What a file is, its content says. With --from it must be of SOURCE: chatgpt, claude, claude-code,
codex, openwebui, librechat, lmstudio, llm, sharegpt, chat or openai.

A conversation becomes a thread, with an id that is the same each time. So a newer export, or one that was
interrupted, is imported again: what is there is left, what has grown is extended, and where another answer
took the place of the one that is there, it becomes a thread beside it. Nothing in the store is ever replaced
but the title, if nobody has changed it.

Whether objects of other origin were cut off cannot be seen. Messages that come with the newest first, as
OpenAI lists them, are stored with the oldest first.

What cannot be imported is named on stderr, and costs itself alone. At the end stdout has one line with the
numbers. Exit status: 0 done, 1 something was skipped or not recognised, 2 used wrongly.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from threadfs.commands import CommandFailed, UsedWrongly, progress
from threadfs.commands.places import (
    DIRECTORY,
    FILE,
    add_create,
    add_store,
    completes,
    is_bare_name,
    new_store,
)
from threadfs.importing import SOURCES

if TYPE_CHECKING:
    from store import Store

EXAMPLES = """\
examples:
  threadfs import ~/assistants ~/Downloads/chatgpt-export.zip
  threadfs import ~/assistants ~/Downloads --dry-run
  threadfs import ~/assistants conversations.zip --branches --files ~/assistants-files
  threadfs import ~/assistants ~/.claude/projects ~/.codex/sessions
  ssh server threadfs export /srv/assistants | threadfs import ~/copy"""


def arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    add_create(parser)
    files = parser.add_argument(
        "files", metavar="FILE", nargs="*", help="a file, zip or directory (default: stdin)"
    )
    completes(files, FILE)
    parser.add_argument(
        "--from",
        dest="source",
        metavar="SOURCE",
        choices=SOURCES,
        help="take the files for those of SOURCE alone",
    )
    parser.add_argument(
        "--branches", action="store_true", help="bring what was said on other branches, each as a thread, too"
    )
    directory = parser.add_argument(
        "--files",
        dest="attached",
        metavar="DIR",
        help="write the pictures and files that are in the export to DIR",
    )
    completes(directory, DIRECTORY)
    parser.add_argument("--dry-run", action="store_true", help="read everything, write nothing, say the same")
    parser.add_argument("--json", action="store_true", help="say the numbers, and what was skipped, as JSON")


def run(options: argparse.Namespace) -> int:
    from threadfs.importing.attached import AttachedFiles
    from threadfs.importing.merging import Merge
    from threadfs.importing.reporting import Report
    from threadfs.importing.session import STDIN, Session, Stopped
    from threadfs.stores import why_no_place_for_files

    if not options.files and sys.stdin is not None and sys.stdin.isatty():
        progress.complain(
            "FILE is missing: name what to import, or give it on stdin; see threadfs import --help"
        )
        return 2
    if not options.create and is_bare_name(options.store):
        name = options.store
        raise UsedWrongly(f"{name!r} is no store: a new one is given as ./{name}; see threadfs import --help")
    target = _Target(options.store, insist=options.create, is_rehearsal=options.dry_run)
    target.check()
    if options.attached and (why := why_no_place_for_files(options.attached, options.store)):
        raise UsedWrongly(f"--files: {why}")
    report = Report(progress.complain)
    merge = Merge(
        target.reading, None if options.dry_run else target.writing, int(time.time()), report.counts
    )
    files = options.files or [STDIN]
    attached = AttachedFiles(options.attached) if options.attached and not options.dry_run else None
    status = 0
    with progress.bar(_size(files), "B") as shown:
        session = Session(merge, report, shown.update, options.source, options.branches, attached)
        try:
            session.read(files)
        except Stopped as error:
            progress.complain(str(error))
            status = 1
    progress.say(json.dumps(report.as_object()) if options.json else report.summary())
    return status or report.exit_status


class _Target:
    """The store, which is opened when it is needed and made when there is something for it.

    *insist*: as `open_store` has it.
    """

    def __init__(self, location: str, *, insist: bool, is_rehearsal: bool) -> None:
        self._location = location
        self._insist = insist
        self._is_rehearsal = is_rehearsal
        self._store: Store | None = None

    def check(self) -> None:
        """Says before anything is read that there is no store yet. Raises CommandFailed: none can be had."""
        from threadfs.stores import is_empty, is_url

        if is_url(self._location):
            return
        if self.reading() is None:
            if self._is_rehearsal:
                progress.complain(f"{self._location} is not there yet: what is imported makes it")
        elif is_empty(self._location):
            progress.complain(new_store(self._location))

    def reading(self) -> Store | None:
        """``None`` while there is none, and one can be made. Raises CommandFailed."""
        from threadfs.stores import is_url, open_if_there

        if self._store is None:
            if is_url(self._location) and not self._is_rehearsal:
                return self.writing()  # Which brings older tables up to date.
            with _failing():
                self._store = open_if_there(self._location, insist=self._insist)
        return self._store

    def writing(self) -> Store:
        """Raises CommandFailed: what follows would fail, too."""
        from threadfs.stores import absolute, is_url, open_store

        if self._store is None:
            with _failing():
                self._store = open_store(self._location, create=True, insist=self._insist)
            if not is_url(self._location):
                progress.complain(f"made a new store: {absolute(self._location)}")
        return self._store


@contextmanager
def _failing() -> Iterator[None]:
    """A store that cannot be opened is the end, and not the fault of a conversation."""
    from store import StoreError
    from threadfs.stores import NoStore

    try:
        yield
    except NoStore as error:
        raise CommandFailed(f"{error} (--create makes it one)") from None
    except StoreError as error:
        raise CommandFailed(str(error)) from None


def _size(files: list[str]) -> int | None:
    """Of all files together, if each has one."""
    size = 0
    for name in files:
        if os.path.isdir(name):
            for at, _, inners in os.walk(name):
                for inner in inners:
                    with suppress(OSError):  # It may be gone by now.
                        size += os.lstat(os.path.join(at, inner)).st_size
        elif os.path.isfile(name):
            size += os.stat(name).st_size
        else:
            return None
    return size
