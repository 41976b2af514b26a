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
from typing import TYPE_CHECKING

from threadfs.commands import UsedWrongly, progress
from threadfs.commands.places import add_store

if TYPE_CHECKING:
    from store import Run, Store

EXAMPLES = """\
examples:
  run=$(threadfs next ~/mnt) && jq -r .model "$run/status"
  threadfs next ~/mnt --model 'llama3*'"""

# How often to look, as changes in some threads may not be reported.
_LOOK_S = 1.0


def arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("--model", metavar="GLOB", help="only runs whose model matches, as 'llama3*' does")


def run(options: argparse.Namespace) -> int:
    from store import DocumentKey, Part
    from threadfs import stores
    from threadfs.commands.changes import Changes, uninterrupted

    is_mount = stores.resolved(options.store) != options.store
    if not is_mount and stores.is_url(options.store):
        raise UsedWrongly("STORE: a run in a database has no path; give the place where it is mounted")
    threads = os.path.join(os.path.abspath(os.path.expanduser(options.store)), "threads")
    store = stores.open_store(options.store)
    store.index_runs()
    with Changes(store, lambda change: change.part is not Part.ANSWER, until_unread=True) as changes:
        while True:
            changes.follow(DocumentKey(""))
            # So that no run is claimed, and nobody learns of it.
            with uninterrupted() as interrupts:
                if claimed := _claimed(store, options.model):
                    _print_path(store, claimed, threads if is_mount else options.store)
                    return 0
            if interrupts:
                raise KeyboardInterrupt
            changes.wait(_LOOK_S)


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


def _claimed(store: Store, model: str | None) -> Run | None:
    """The oldest queued run whose turn it is, claimed; ``None`` if there is none."""
    from fnmatch import fnmatchcase

    from store import Damaged, DocumentKey, NotFound, RunStatus, StatusChanged
    from store.errors import RunWaits

    def is_wanted(run: Run) -> bool:
        return model is None or fnmatchcase(run.model, model)

    queued = []
    for thread_id, run_id, _ in store.runs_by_status({RunStatus.queued}):
        with suppress(NotFound, Damaged):
            found = store.get_run(thread_id, run_id)
            if is_wanted(found):
                made_ns = store.document_info(DocumentKey(thread_id, run_id)).modified_ns
                queued.append((found.created_at, made_ns, thread_id, run_id))
    for _, _, thread_id, run_id in sorted(queued):
        with suppress(NotFound, Damaged, RunWaits, StatusChanged):
            return store.claim_run(thread_id, run_id, yields_to=is_wanted)
    return None
