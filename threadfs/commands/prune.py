"""Delete threads in which nothing has changed for AGE, and write the id of each to stdout. A thread that
was imported is as young as its import, however old the conversation is.

With --status, delete only runs that have had one of these statuses for AGE. What is in progress is never
deleted, nor is a thread that holds a run in progress, or a damaged one, which may be.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from threadfs.commands import progress
from threadfs.commands.ages import add_older_than
from threadfs.commands.places import add_store

if TYPE_CHECKING:
    from store import Store

# All that are not in progress.
_STATUSES = ("queued", "completed", "cancelled", "failed", "expired", "incomplete")

EXAMPLES = """\
examples:
  threadfs prune ~/assistants --older-than 90d --dry-run
  threadfs prune ~/assistants --older-than 30d --status failed expired"""


def arguments(parser: argparse.ArgumentParser) -> None:
    # STORE comes first, since --status takes all that follow it.
    parser.usage = "%(prog)s STORE --older-than AGE [--status STATUS ...] [--dry-run]"
    add_store(parser)
    add_older_than(parser, "how long nothing has changed: a number and s, m, h, d, w or y, like 30d")
    parser.add_argument(
        "--status",
        metavar="STATUS",
        nargs="+",
        action="extend",
        choices=_STATUSES,
        help=f"delete runs in these statuses, not threads ({', '.join(_STATUSES)})",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")


def run(options: argparse.Namespace) -> int:
    from threadfs.stores import open_store

    store = open_store(options.store)
    latest_ns = time.time_ns() - options.older_than_s * 1_000_000_000
    thread_ids = sorted(store.list_thread_ids())
    failed = False
    for thread_id in progress.tracked(thread_ids, "thread", len(thread_ids)):
        if options.status:
            pruned = _prune_runs(store, thread_id, latest_ns, options.status, options.dry_run)
        else:
            pruned = _prune_thread(store, thread_id, latest_ns, options.dry_run)
        failed |= not _said(pruned)
    return 1 if failed else 0


def _said(pruned: Iterator[str]) -> bool:
    """Names what is deleted; whether nothing went wrong."""
    from store import StoreError

    try:
        for name in pruned:
            progress.say(name)
    except StoreError as error:
        progress.complain(str(error))
        return False
    return True


def _prune_thread(store: Store, thread_id: str, latest_ns: int, dry_run: bool) -> Iterator[str]:
    from store import Damaged, ModifiedSince, NotFound, RunInProgress, StoreError

    with suppress(NotFound, RunInProgress, ModifiedSince):
        if store.thread_touched_ns(thread_id) > latest_ns:
            return
        for run_id in store.list_run_ids(thread_id):
            try:
                if store.get_run(thread_id, run_id).status.is_in_progress:
                    return
            except NotFound:
                continue
            except Damaged as error:
                # It may be in progress.
                raise StoreError(f"thread {thread_id!r} stays: {error}") from None
        if not dry_run:
            store.delete_thread(thread_id, unmodified_since_ns=latest_ns)
        yield thread_id


def _prune_runs(
    store: Store, thread_id: str, latest_ns: int, statuses: list[str], dry_run: bool
) -> Iterator[str]:
    from store import Damaged, DocumentKey, NotFound, RunInProgress

    with suppress(NotFound):
        for run_id in sorted(store.list_run_ids(thread_id)):
            key = DocumentKey(thread_id, run_id)
            # Of a damaged run nobody knows the status.
            with suppress(NotFound, Damaged, RunInProgress):
                if store.document_info(key).modified_ns > latest_ns:
                    continue
                if store.get_run(thread_id, run_id).status not in statuses:
                    continue
                if not dry_run:
                    store.delete_run(thread_id, run_id)
                yield f"{run_id}@{thread_id}"
