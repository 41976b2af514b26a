"""Wait for a queued run, claim it, and write its path to stdout: how a worker in shell begins. Of the runs of
a thread one is in progress at a time, and the oldest goes first.

If STORE is a mount point, the path leads to the run in the mount. There, write `completed` into its `status`
when it is done, or `queued` to hand it back.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from threadfs.commands import UsedWrongly, progress
from threadfs.commands.places import add_store, tell_if_empty

if TYPE_CHECKING:
    from collections.abc import Callable

    from store import Run, Store
    from threadfs.work.queue import Queue

EXAMPLES = """\
examples:
  run=$(threadfs next ~/mnt) && jq -r .model "$run/status"
  threadfs next ~/mnt --model 'llama3*'"""


def arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("--model", metavar="GLOB", help="only runs whose model matches, as 'llama3*' does")


def run(options: argparse.Namespace) -> int:
    from store import Change, Part
    from threadfs import stores
    from threadfs.commands.changes import Changes, uninterrupted
    from threadfs.work.queue import Queue
    from threadfs.work.settings import Settings

    is_mount = stores.resolved(options.store) != options.store
    if not is_mount and stores.is_url(options.store):
        raise UsedWrongly("STORE: a run in a database has no path; give the place where it is mounted")
    threads = os.path.join(os.path.abspath(os.path.expanduser(options.store)), "threads")
    store = stores.open_store(options.store)
    tell_if_empty(options.store)
    store.index_runs()
    models = () if options.model is None else (options.model,)
    queue = Queue(store, Settings(only=models, backlog=True), default_model=lambda: "")

    def concerns(change: Change) -> bool:
        if change.run_id:
            queue.changed(change.thread_id, change.run_id)
        return change.part is not Part.ANSWER

    with Changes(store, concerns, until_unread=True) as changes:
        while True:
            changes.follow_all_runs()
            # So that no run is claimed, and nobody learns of it.
            with uninterrupted() as interrupts:
                if claimed := _claimed(store, queue):
                    _print_path(store, claimed, threads if is_mount else options.store)
                    return 0
            if interrupts:
                raise KeyboardInterrupt
            changes.wait()


def _print_path(store: Store, claimed: Run, place: str) -> None:
    """Prints where the run is, or hands it back when that fails."""
    from store import RunStatus, StoreError

    path = os.path.join(place, claimed.thread_id, "runs", claimed.id)
    try:
        # A person sees it escaped; a script gets the bytes of the name.
        (progress.say if sys.stdout is not None and sys.stdout.isatty() else print)(path)
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        with suppress(StoreError):
            store.update_run_status(
                claimed.thread_id, claimed.id, RunStatus.queued, expected=RunStatus.in_progress
            )
        raise


def _claimed(store: Store, queue: Queue) -> Run | None:
    """The oldest queued run whose turn it is, claimed; ``None`` if there is none."""
    from store import Damaged, NotFound, StatusChanged

    queue.look()
    for run in queue.next_of_each_thread():
        wants = partial(queue.wants, run.thread_id)
        with suppress(Damaged, NotFound, StatusChanged):
            if claimed := _claimed_in(store, run.thread_id, run.run_id, wants):
                return claimed
    return None


def _claimed_in(store: Store, thread_id: str, run_id: str, wants: Callable[[Run], bool]) -> Run | None:
    """A run, or the one in its thread that goes first, claimed; ``None`` if one is in progress."""
    from store import RunStatus
    from store.errors import RunWaits

    while True:
        try:
            return store.claim_run(thread_id, run_id, yields_to=wants)
        except RunWaits as error:
            if error.status != RunStatus.queued:
                return None
            run_id = error.other_id  # The store knows better which one is older.
