"""What somebody has to look at who deletes or ends what is old, as the catalogue of a store says.

The catalogue only says what need not be looked at. What it does not know, or could not read, is looked at,
and where there is no catalogue everything is. Each document is read before anything is done with it.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeAlias

from store.catalogue.api import Catalogue, Listed, Progress
from store.errors import StoreError, Unreachable

# The ids of threads, and for each those of the runs to look at; ``None``: of whichever there are.
Candidates: TypeAlias = dict[str, list[str] | None]


class Catalogued(Protocol):
    """A store."""

    def list_thread_ids(self) -> list[str]: ...
    def catalogue(self) -> Catalogue: ...


def threads_not_changed_since(
    store: Catalogued, latest_ns: int, progress: Progress | None = None
) -> list[str]:
    """The threads that may not have changed after *latest_ns*, in nanoseconds since 1970.

    Raises:
        StoreError: the threads cannot be listed.
    """
    there = store.list_thread_ids()
    threads, unread = _asked(store, lambda catalogue: catalogue.threads(), progress)
    newer = {one.thread_id for one in threads if one.changed_ns > latest_ns} - unread
    return sorted(thread_id for thread_id in there if thread_id not in newer)


def runs_not_changed_since(
    store: Catalogued, statuses: Collection[str], latest_ns: int, progress: Progress | None = None
) -> Candidates:
    """As `threads_not_changed_since`, the runs that may be in one of *statuses*."""
    there = store.list_thread_ids()
    listed, unread = _asked(store, lambda catalogue: [*catalogue.threads(), *catalogue.runs()], progress)
    known = {one.thread_id for one in listed} - unread
    runs: dict[str, list[str]] = defaultdict(list)
    for one in listed:
        if one.run_id is not None and one.status in statuses and one.changed_ns <= latest_ns:
            runs[one.thread_id].append(one.run_id)
    found: Candidates = {thread_id: None for thread_id in there if thread_id not in known}
    found.update((thread_id, of_it) for thread_id, of_it in runs.items() if thread_id in known)
    return dict(sorted(found.items()))


def _asked(
    store: Catalogued, ask: Callable[[Catalogue], list[Listed]], progress: Progress | None
) -> tuple[list[Listed], frozenset[str]]:
    """What the catalogue lists, and the threads that it could not read; nothing where there is none."""
    try:
        with _without_warnings():
            catalogue = store.catalogue()
            catalogue.refresh(words=False, progress=progress)
            return ask(catalogue), catalogue.unread()
    except Unreachable:
        raise
    except StoreError:
        return [], frozenset()  # Who looks at a thread says what is wrong with it.


@contextmanager
def _without_warnings() -> Iterator[None]:
    """The catalogue warns of what it leaves out. That is looked at here, and what is wrong with it said."""
    log = logging.getLogger("threadfs")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
