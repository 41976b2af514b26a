"""Delete threads that have not changed for AGE, and write the id of each to stdout. A thread that was
imported is as young as its import, however old the conversation is.

With --status, delete only runs that have had one of these statuses for AGE. A run in progress is never
deleted, nor is its thread. A damaged run counts as in progress.

A directory stays if its meta.json is not that of a thread, or if it holds files that do not belong to a
thread (except those that killed programs have left): it is named on stderr, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from threadfs.commands import UsedWrongly, progress
from threadfs.commands.ages import add_older_than
from threadfs.commands.places import add_store, tell_if_empty
from threadfs.commands.statuses import add_status

if TYPE_CHECKING:
    from store import Store
    from store.catalogue.candidates import Candidates

EXAMPLES = """\
examples:
  threadfs prune ~/assistants --older-than 90d --dry-run
  threadfs prune ~/assistants --older-than 30d --status failed expired"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s STORE --older-than AGE [--status STATUS ...] [--foreign] [--dry-run]"
    add_store(parser)
    add_older_than(parser, "how long it has not changed: a number and s, m, h, d, w or y, like 30d")
    add_status(parser, "delete runs in one of these statuses, not threads")
    parser.add_argument(
        "--foreign",
        action="store_true",
        help="delete a thread or run with files in it that do not belong to it",
    )
    parser.add_argument("--dry-run", action="store_true", help="only name what would be deleted")


def run(options: argparse.Namespace) -> int:
    from store import RunStatus
    from threadfs.stores import open_store

    for status in options.status or ():
        if RunStatus(status).is_in_progress:
            raise UsedWrongly(f"no run that is {status} is deleted: expire it; see threadfs prune --help")
    with closing(open_store(options.store)) as store:
        tell_if_empty(options.store)
        prune = _Prune(store, options)
        candidates = prune.candidates()
        for thread_id, run_ids in progress.tracked(candidates.items(), "thread", len(candidates)):
            prune.look_at(thread_id, run_ids)
    return 1 if prune.has_failed else 0


class _Prune:
    """Deletes threads or runs and names them; also names old ones that it has to leave."""

    def __init__(self, store: Store, options: argparse.Namespace) -> None:
        self.store = store
        self.has_failed = False
        self._options = options
        self._latest_ns = time.time_ns() - options.older_than_s * 1_000_000_000

    def candidates(self) -> Candidates:
        from store.catalogue.candidates import runs_not_changed_since, threads_not_changed_since

        with progress.counting("thread") as tell:
            if statuses := self._options.status:
                return runs_not_changed_since(self.store, statuses, self._latest_ns, tell)
            return dict.fromkeys(threads_not_changed_since(self.store, self._latest_ns, tell))

    def look_at(self, thread_id: str, run_ids: list[str] | None) -> None:
        """Deletes the thread or, with --status, these of its runs, if that is what is to be deleted."""
        from store import StoreError, Unreachable

        try:
            names = self._runs(thread_id, run_ids) if self._options.status else self._thread(thread_id)
            for name in names:
                progress.say(name)
        except Unreachable:
            raise  # Nothing else could be deleted either.
        except StoreError as error:
            self._complain(str(error))

    def _complain(self, reason: str) -> None:
        self.has_failed = True
        progress.complain(reason)

    def _thread(self, thread_id: str) -> Iterator[str]:
        from store import Damaged, DocumentKey, Foreign, ModifiedSince, NotFound, RunInProgress

        store, foreign = self.store, self._options.foreign
        with suppress(NotFound, RunInProgress, ModifiedSince):
            if store.thread_touched_ns(thread_id) > self._latest_ns:
                return
            for run_id in store.list_run_ids(thread_id):
                try:
                    if store.get_run(thread_id, run_id).status.is_in_progress:
                        return
                except NotFound:
                    continue
                except Damaged as error:
                    # It may be in progress.
                    self._complain(f"thread {thread_id!r} stays: {error}")
                    return
            try:
                if self._options.dry_run:
                    store.check_ours(DocumentKey(thread_id), with_foreign=foreign)
                else:
                    store.delete_thread(thread_id, unmodified_since_ns=self._latest_ns, with_foreign=foreign)
            except Foreign as error:
                self._complain(f"thread {thread_id!r} stays: {error}")
                return
            yield thread_id

    def _runs(self, thread_id: str, run_ids: list[str] | None) -> Iterator[str]:
        from store import Damaged, DocumentKey, Foreign, NotFound, RunInProgress

        store, foreign = self.store, self._options.foreign
        with suppress(NotFound):
            for run_id in sorted(store.list_run_ids(thread_id) if run_ids is None else run_ids):
                key = DocumentKey(thread_id, run_id)
                # The status of a damaged run is unknown.
                with suppress(NotFound, Damaged, RunInProgress):
                    if store.document_info(key).modified_ns > self._latest_ns:
                        continue
                    if store.get_run(thread_id, run_id).status not in self._options.status:
                        continue
                    try:
                        if self._options.dry_run:
                            store.check_ours(key, with_foreign=foreign)
                        else:
                            store.delete_run(thread_id, run_id, with_foreign=foreign)
                    except Foreign as error:
                        self._complain(f"run {run_id}@{thread_id} stays: {error}")
                        continue
                    yield f"{run_id}@{thread_id}"
