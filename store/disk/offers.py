"""Threads and runs that a shell may offer to who types: some, the newest first, found at a glance.

Nothing is opened as a store here, compared or written: who presses the tabulator waits for it. The catalogue
is read as it is, if there is one. What it does not know of is looked for in the directories, as far as that
takes no longer than a moment, and what has gone since is left out.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain, islice
from typing import Final, NamedTuple

from store.catalogue import place
from store.catalogue.names import name_of
from store.disk.layout import META, RUNS, STATUS
from store.names import is_id

# How many threads are offered; how many runs are looked at, each of which is a file that is read.
MOST: Final = 1000
_MOST_RUNS: Final = 500
# Larger stores are not listed: of threads that their catalogue does not know, none is offered.
_MOST_LISTED: Final = 20_000
# Of so many threads that are not in the catalogue the documents are read, for their titles.
_MOST_READ: Final = 200
_DOCUMENT_BYTES: Final = 1 << 20
_UNENDED: Final = ("queued", "in_progress", "requires_action", "cancelling")


class Offer(NamedTuple):
    """An id, or RUN@THREAD, and what that stands for, which may be empty."""

    word: str
    meaning: str


def threads(store: str, environ: Mapping[str, str], beginning: str) -> list[Offer]:
    """Threads of the store at a path whose ids have this *beginning*, with their titles.

    Raises:
        OSError: the store cannot be read.
    """
    with _catalogue(store, environ) as catalogue:
        return [Offer(*found) for found in islice(_threads(store, catalogue, beginning), MOST)]


def runs(store: str, environ: Mapping[str, str], beginning: str) -> list[Offer]:
    """Runs, as RUN@THREAD with this *beginning*, with their statuses and the titles of their threads; those
    that have not ended come first. Raises OSError."""
    run_beginning, mark, thread_beginning = beginning.partition("@")
    titles: dict[str, str] = {}
    with _catalogue(store, environ) as catalogue:
        if catalogue is not None:
            with suppress(sqlite3.Error):
                titles.update(_with_unended_runs(catalogue))
        titles.update(islice(_threads(store, catalogue, thread_beginning), MOST))
    of_all = (_runs_of(store, thread_id, run_beginning, exactly=bool(mark)) for thread_id in titles)
    found = sorted(islice(chain.from_iterable(of_all), _MOST_RUNS), key=_Run.order)
    offers = (
        Offer(f"{run.id}@{run.thread_id}", " · ".join(filter(None, (run.status, titles[run.thread_id]))))
        for run in found
    )
    return [offer for offer in offers if offer.word.startswith(beginning)]


def runs_of(store: str, thread_id: str, beginning: str) -> list[Offer]:
    """Runs of one thread, whose ids have this *beginning*, with their statuses."""
    found = islice(_runs_of(store, thread_id, beginning), _MOST_RUNS)
    return [Offer(run.id, run.status) for run in sorted(found, key=_Run.order)]


class _Run(NamedTuple):
    thread_id: str
    id: str
    status: str
    changed_ns: int

    def order(self) -> tuple[bool, int, str]:
        return self.status not in _UNENDED, -self.changed_ns, self.id


# ── The catalogue ───────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _catalogue(store: str, environ: Mapping[str, str]) -> Iterator[sqlite3.Connection | None]:
    """The catalogue of a store, to be read as it is; ``None`` where there is none that can be."""
    found: sqlite3.Connection | None = None
    with suppress(OSError, sqlite3.Error, place.NoPlace):
        found = place.open_to_read(place.base(environ), place.identity_of(store))
    try:
        yield found
    finally:
        if found is not None:
            found.close()


def _named(catalogue: sqlite3.Connection, beginning: str) -> list[tuple[str, str]]:
    """(id, name) of threads in the catalogue, those that changed last first."""
    # Not by the index of ids, in which most ids have the beginning that is typed.
    found = catalogue.execute(
        "SELECT id, name FROM threads WHERE substr(id, 1, length(?1)) = ?1 ORDER BY changed_ns DESC LIMIT ?2",
        (beginning, MOST),
    )
    return found.fetchall()


def _with_unended_runs(catalogue: sqlite3.Connection) -> list[tuple[str, str]]:
    """(id, name) of threads, some more than once."""
    found = catalogue.execute(
        "SELECT threads.id, name FROM runs JOIN threads ON number = thread"
        f" WHERE status IN ({', '.join('?' * len(_UNENDED))}) ORDER BY runs.changed_ns DESC LIMIT ?",
        (*_UNENDED, MOST),
    )
    return found.fetchall()


def _ids(catalogue: sqlite3.Connection) -> set[str] | None:
    """All threads in the catalogue; ``None`` if they are too many."""
    if catalogue.execute("SELECT count(*) FROM threads").fetchone()[0] > _MOST_LISTED:
        return None
    return {thread_id for (thread_id,) in catalogue.execute("SELECT id FROM threads")}


# ── What is there ───────────────────────────────────────────────────────────────────────────────────────


def _threads(store: str, catalogue: sqlite3.Connection | None, beginning: str) -> Iterator[tuple[str, str]]:
    """(id, title) of threads, first of those that the catalogue does not know: they are the newest."""
    known: list[tuple[str, str]] = []
    ids: set[str] | None = set()
    if catalogue is not None:
        with suppress(sqlite3.Error):
            known, ids = _named(catalogue, beginning), _ids(catalogue)
    if ids is not None:
        unknown = (name for name in os.listdir(store) if name.startswith(beginning) and name not in ids)
        for number, thread_id in enumerate(_newest_first(store, filter(is_id, unknown))):
            if number < _MOST_READ:
                title = _title(store, thread_id)
            else:
                title = "" if _is(f"{store}/{thread_id}/{META}", stat.S_IFREG) else None
            if title is not None:
                yield thread_id, title
    for thread_id, name in known:
        if is_id(thread_id) and _is(f"{store}/{thread_id}", stat.S_IFDIR):
            yield thread_id, "" if name == thread_id else name


def _newest_first(store: str, names: Iterable[str]) -> list[str]:
    """Directories in that of the store; of more than can be looked at, some."""
    found = []
    for name in islice(names, _MOST_LISTED):
        with suppress(OSError):
            status = os.lstat(f"{store}/{name}")
            if stat.S_ISDIR(status.st_mode):
                found.append((-status.st_mtime_ns, name))
    return [name for _, name in sorted(found)]


def _runs_of(store: str, thread_id: str, beginning: str, *, exactly: bool = False) -> Iterator[_Run]:
    if not is_id(thread_id):
        return
    with suppress(OSError), os.scandir(f"{store}/{thread_id}/{RUNS}") as entries:
        for entry in entries:
            is_wanted = entry.name == beginning if exactly else entry.name.startswith(beginning)
            if is_wanted and is_id(entry.name) and (found := _document(f"{entry.path}/{STATUS}")):
                status = found[0].get("status")
                shown = status if isinstance(status, str) and status.isidentifier() else ""
                yield _Run(thread_id, entry.name, shown, found[1])


def _title(store: str, thread_id: str) -> str | None:
    """``None`` if there is no thread of this id."""
    if (found := _document(f"{store}/{thread_id}/{META}")) is None:
        return None
    metadata = found[0].get("metadata")
    title = metadata.get("title") if isinstance(metadata, dict) else None
    name = name_of(thread_id, title if isinstance(title, str) else "", "")
    return "" if name == thread_id else name


def _document(path: str) -> tuple[dict[str, object], int] | None:
    """The object in a file, empty if there is another thing in it, and its time in nanoseconds; ``None``: no
    file is there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        found: object = {}
        with suppress(OSError, ValueError, RecursionError):
            found = json.loads(file.read(_DOCUMENT_BYTES))
        return found if isinstance(found, dict) else {}, status.st_mtime_ns


def _is(path: str, kind: int) -> bool:
    try:
        return stat.S_IFMT(os.lstat(path).st_mode) == kind
    except OSError:
        return False
