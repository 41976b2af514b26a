"""Wait until a run has ended, and write its status to stdout. RUN@THREAD is its name in `runs/` of a mount,
and in the output of `prune` and `expire`.

Exit status: 0 when it is completed, 1 when it has ended otherwise or does not exist (any more).
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from threadfs.commands import CommandFailed
from threadfs.commands.places import add_store

if TYPE_CHECKING:
    from store import Run

EXAMPLES = """\
examples:
  threadfs wait ~/assistants thread_1 run_1 && echo done
  threadfs wait ~/mnt run_1@thread_1"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s STORE THREAD RUN\n       %(prog)s STORE RUN@THREAD"
    add_store(parser)
    parser.add_argument("run", metavar="THREAD RUN", nargs="+", action=_OneRun, help="or RUN@THREAD")


class _OneRun(argparse.Action):
    """``options.thread`` and ``options.run``, given as two words or in one."""

    def __call__(
        self, parser: argparse.ArgumentParser, options: argparse.Namespace, words: object, *_: object
    ) -> None:
        assert isinstance(words, list)
        if len(words) == 1 and "@" in words[0]:
            options.run, _, options.thread = words[0].partition("@")
        elif len(words) == 2:
            options.thread, options.run = words
        else:
            parser.error("which run? Give THREAD RUN, or RUN@THREAD")


def run(options: argparse.Namespace) -> int:
    from store import DocumentKey
    from threadfs.commands.changes import Changes, of_thread
    from threadfs.stores import open_store

    store = open_store(options.store)
    with Changes(store, of_thread(options.thread)) as changes:
        while True:
            changes.follow(DocumentKey(options.thread, options.run), DocumentKey(options.thread, ""))
            found = store.get_run(options.thread, options.run)
            if found.status.is_terminal:
                break
            changes.wait()
    print(found.status)
    return exit_status(found)


def exit_status(ended: Run) -> int:
    """0 for a run that is completed.

    Raises:
        CommandFailed: it has ended otherwise; with the reason that it gives.
    """
    from store import RunStatus

    if ended.status is RunStatus.completed:
        return 0
    details = ended.extra("incomplete_details")
    reason = ended.last_error.message if ended.last_error else ""
    if not reason and ended.status is RunStatus.incomplete and isinstance(details, dict):
        reason = str(details.get("reason", ""))
    why = f": {' '.join(reason.splitlines())}" if reason else ""
    raise CommandFailed(f"run {ended.id!r} is {ended.status}{why}")
