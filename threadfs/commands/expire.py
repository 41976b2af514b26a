"""Expire abandoned runs: those that have been queued or in progress for AGE without a change.

The name of each expired run goes to stdout as RUN@THREAD, as in runs/ of a mount. A run that changes at the
same moment is left alone. So is a directory whose meta.json or status.json is not that of a thread or run; it
is named on stderr.
"""

from __future__ import annotations

import argparse

from threadfs.commands import progress
from threadfs.commands.ages import add_older_than
from threadfs.commands.places import add_store, tell_if_empty

EXAMPLES = """\
examples:
  threadfs expire ~/assistants --older-than 1h --dry-run"""


def arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    add_older_than(parser, "how long the run has not changed: a number and s, m, h, d, w or y, like 2h")
    parser.add_argument("--dry-run", action="store_true", help="only name the runs that would be expired")


def run(options: argparse.Namespace) -> int:
    from store import (
        DocumentKey,
        NotFound,
        RunInTerminalState,
        RunStatus,
        StatusChanged,
        StoreError,
        Unreachable,
    )
    from threadfs.stores import open_store

    store = open_store(options.store)
    tell_if_empty(options.store)
    failed = False
    stale = sorted(progress.tracked(store.stale_runs(options.older_than_s), "run"))
    for thread_id, run_id, status in stale:
        try:
            # Expiring deletes nothing, so foreign files do not matter.
            store.check_ours(DocumentKey(thread_id, run_id), with_foreign=True)
            if not options.dry_run:
                store.update_run_status(thread_id, run_id, RunStatus.expired, expected=status)
        except (NotFound, RunInTerminalState, StatusChanged):
            continue
        except Unreachable:
            raise  # No other run could be expired either.
        except StoreError as error:
            progress.complain(f"run {run_id}@{thread_id} stays: {error}")
            failed = True
            continue
        progress.say(f"{run_id}@{thread_id}")
    return 1 if failed else 0
