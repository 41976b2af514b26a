"""Wait until a run has ended, and write its status to stdout. RUN@THREAD is its name in `runs/` of a mount,
and in the output of `prune`, `expire` and `ls --runs`. RUN alone is enough where one thread has such a run.

Exit status: 0 when it is completed, 1 when it has ended otherwise, 2 used wrongly, 3 when it cannot be known:
there is no such run (any more), or several, or STORE cannot be read.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from threadfs.commands import CommandFailed
from threadfs.commands.places import add_store, completes_runs, tell_if_empty

if TYPE_CHECKING:
    from store import Run, Store

EXAMPLES = """\
examples:
  threadfs wait ~/assistants thread_1 run_1 && echo done
  threadfs wait ~/mnt run_1@thread_1
  threadfs wait ~/mnt run_1"""

# So many of the threads that have the same run are named.
_MOST_NAMED = 3


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s STORE THREAD RUN\n       %(prog)s STORE RUN[@THREAD]"
    add_store(parser)
    which = "or RUN@THREAD, or RUN"
    run = parser.add_argument("run", metavar="THREAD RUN", nargs="+", action=_OneRun, help=which)
    completes_runs(run)


class _OneRun(argparse.Action):
    """``options.thread``, which may be ``None``, and ``options.run``, given as two words or in one."""

    def __call__(
        self, parser: argparse.ArgumentParser, options: argparse.Namespace, words: object, *_: object
    ) -> None:
        assert isinstance(words, list)
        if len(words) == 1:
            options.run, mark, thread = words[0].partition("@")
            options.thread = thread if mark else None
        elif len(words) == 2:
            options.thread, options.run = words
        else:
            parser.error("which run? Give THREAD RUN, RUN@THREAD or RUN")


class _CannotWait(CommandFailed):
    """Nothing is known of how the run ends."""

    status = 3


def run(options: argparse.Namespace) -> int:
    from store import StoreError

    try:
        ended = _ended(options)
    except StoreError as error:
        raise _CannotWait(str(error)) from None
    print(ended.status)
    return exit_status(ended)


def _ended(options: argparse.Namespace) -> Run:
    """The run, when it has ended. Raises StoreError and _CannotWait."""
    from store import DocumentKey
    from threadfs.commands.changes import Changes, of_thread
    from threadfs.stores import open_store

    store, run_id = open_store(options.store), options.run
    tell_if_empty(options.store)
    thread_id = _thread_of(store, run_id) if options.thread is None else options.thread
    with Changes(store, of_thread(thread_id)) as changes:
        while True:
            changes.follow(DocumentKey(thread_id, run_id), DocumentKey(thread_id, ""))
            found = store.get_run(thread_id, run_id)
            if found.status.is_terminal:
                return found
            changes.wait()


def _thread_of(store: Store, run_id: str) -> str:
    """The id of the thread that has a run. Raises _CannotWait when none has it, or several have."""
    thread_ids = sorted(one.thread_id for one in store.catalogue().runs() if one.run_id == run_id)
    if len(thread_ids) == 1:
        return thread_ids[0]
    if not thread_ids:
        raise _CannotWait(f"no thread has a run {run_id!r}")
    names = [f"{run_id}@{thread_id}" for thread_id in thread_ids[:_MOST_NAMED]]
    names += ["…"] if len(thread_ids) > _MOST_NAMED else []
    raise _CannotWait(f"{len(thread_ids)} threads have a run {run_id!r}: give one of {', '.join(names)}")


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
