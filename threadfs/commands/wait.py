"""Wait until a run has ended, and write its status to stdout. RUN@THREAD is its name in `runs/` of a mount,
and in the output of `prune` and `expire`.

Exit status: 0 when it is completed, 1 when it has ended otherwise or does not exist (any more).
"""

from __future__ import annotations

import argparse
import threading

from threadfs.commands import CommandFailed
from threadfs.commands.places import add_store

EXAMPLES = """\
examples:
  threadfs wait ~/assistants thread_1 run_1 && echo done
  threadfs wait ~/mnt run_1@thread_1"""

# How often to look if no changes are reported.
_LOOK_S = 2.0


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
    from store import DocumentKey, RunStatus
    from threadfs.stores import open_store

    store = open_store(options.store)
    changed = threading.Event()
    watch = store.watch(lambda change: changed.set())
    try:
        while True:
            changed.clear()
            # First follow, then look, so that no change is missed. Each time, as a watch may be lost.
            reported = watch.follow(DocumentKey(options.thread, options.run))
            reported &= watch.follow(DocumentKey(options.thread, ""))
            found = store.get_run(options.thread, options.run)
            if found.status.is_terminal:
                break
            changed.wait(None if reported else _LOOK_S)
    finally:
        watch.close()
    print(found.status)
    if found.status is RunStatus.completed:
        return 0
    why = f": {found.last_error.message}" if found.last_error else ""
    raise CommandFailed(f"run {options.run!r} is {found.status}{' '.join(why.splitlines())}")
