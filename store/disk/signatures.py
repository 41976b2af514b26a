"""What the parts of a thread look like, to see without reading what another program has changed.

A part is what it was while its ctime, size and inode are. No program can set a ctime back, as it can an
mtime, and whether one is later than another does not matter, so that no clock does. A file that changes
twice within a moment may keep its ctime: one that was looked at that soon is not settled, and is read once
more.

Not seen is what is written through a mapping and not yet synced, and what another host has changed within the
time for which NFS believes its cache.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from store import names
from store.catalogue.tables import Seen
from store.catalogue.values import Signature
from store.disk.layout import LOG, META, RUNS, STATUS, STEPS
from store.disk.paths import MISSING, storage_errors
from store.waiting import waits

# Some file systems have times of whole seconds, or of two.
_SETTLES_NS: Final = 2_000_000_000

ABSENT: Final = Signature(0, 0, 0, 0, is_settled=True)


def look(root: str, thread_id: str, known: Mapping[str, Signature]) -> dict[str, Signature] | None:
    """The signature of each document, list and log of a thread, by its path in the thread; ``None``: there
    is none.

    *known* is what was seen before: a list of runs that is the same has the same names.

    Raises:
        StorageFailed: it cannot be looked at.
    """
    waits()
    path = f"{root}/{thread_id}"
    now_ns = time.time_ns()
    with storage_errors(thread_id):
        # No link is followed: each directory is looked at by itself before anything in it is.
        if _signature(path, now_ns, stat.S_IFDIR) == ABSENT:
            return None
        if (document := _signature(f"{path}/{META}", now_ns)) == ABSENT:
            return None
        runs = _signature(f"{path}/{RUNS}", now_ns, stat.S_IFDIR)
        found = {META: document, LOG: _signature(f"{path}/{LOG}", now_ns), RUNS: runs}
        for run_id in _run_ids(path, runs, known, now_ns):
            run = f"{RUNS}/{run_id}"
            found[f"{run}/{STATUS}"] = _signature(f"{path}/{run}/{STATUS}", now_ns)
            found[f"{run}/{STEPS}"] = _signature(f"{path}/{run}/{STEPS}", now_ns, stat.S_IFDIR)
    return found


def is_same(root: str, thread_id: str, known: Iterable[Seen]) -> bool:
    """Whether a thread, which is a directory, has nothing in it that differs from what is known of it.

    As `look` and `differs`, in fewer steps: where the list of runs is the same, its directories are.
    """
    at = f"{root}/{thread_id}/"
    for path, (changed_ns, size_bytes, inode, _, is_settled) in known:
        if not is_settled:
            return False
        try:
            status = os.lstat(at + path)
        except OSError as error:
            if error.errno not in MISSING or inode != ABSENT.inode:
                return False
            continue
        if status.st_ctime_ns != changed_ns or status.st_size != size_bytes or status.st_ino != inode:
            return False
    return True


def is_as_known(root: str, thread_id: str, known: Mapping[str, Signature]) -> bool:
    """As `is_same`, of what may be no directory, and of which nothing may be known."""
    try:
        is_directory = stat.S_ISDIR(os.lstat(f"{root}/{thread_id}").st_mode)
    except OSError:
        return False
    return bool(known) and is_directory and is_same(root, thread_id, known.items())


def is_log(root: str, thread_id: str, changed_ns: int, size_bytes: int, inode: int) -> bool:
    """Whether the log of a thread still is the one that has this ctime, size and inode."""
    try:
        status = os.lstat(f"{root}/{thread_id}/{LOG}")
    except OSError as error:
        return error.errno in MISSING and (changed_ns, size_bytes, inode) == ABSENT[:3]
    return (status.st_ctime_ns, status.st_size, status.st_ino) == (changed_ns, size_bytes, inode)


def look_at_log(root: str, thread_id: str) -> Signature:
    """Raises StorageFailed."""
    waits()
    with storage_errors(thread_id):
        return _signature(f"{root}/{thread_id}/{LOG}", time.time_ns())


def differs(known: Signature | None, seen: Signature) -> bool:
    """Whether it may be another one than it was."""
    return known is None or not known.is_settled or known[:3] != seen[:3]


def by_lists(seen: Mapping[str, Signature], ended: Collection[str]) -> tuple[dict[str, Signature], int]:
    """What was seen, that by which lists of runs that have not ended go first; and how much that is.

    *ended* are the ids of runs that have ended: such a list has them only when they are forced to go on. A
    thread of no other runs is in no such list, with a document or without, until a run comes.
    """
    unended = [path for path in seen if (run_id := run_of(path)) is not None and run_id not in ended]
    first = [RUNS, *([META] if unended else []), *unended]
    return {path: seen[path] for path in dict.fromkeys([*first, *seen])}, len(first)


def run_of(path: str) -> str | None:
    """The id of the run whose document has a path."""
    parts = path.split("/")
    return parts[1] if len(parts) == 3 and parts[2] == STATUS else None


def modified_ns(seen: Iterable[Signature]) -> int:
    """When a thread last changed, as its times say."""
    return max(signature.modified_ns for signature in seen)


def _run_ids(path: str, runs: Signature, known: Mapping[str, Signature], now_ns: int) -> list[str]:
    """The runs that are directories."""
    if runs == ABSENT:
        return []
    if not differs(known.get(RUNS), runs):
        ids = [run_id for place in known if (run_id := run_of(place)) is not None]
        return [one for one in ids if _signature(f"{path}/{RUNS}/{one}", now_ns, stat.S_IFDIR) != ABSENT]
    try:
        with os.scandir(f"{path}/{RUNS}") as entries:
            return [e.name for e in entries if names.is_id(e.name) and e.is_dir(follow_symlinks=False)]
    except OSError as error:
        if error.errno in MISSING:  # It has gone since.
            return []
        raise


def _signature(path: str, now_ns: int, kind: int = stat.S_IFREG) -> Signature:
    """*now_ns*: the time, or some time before; what has just changed is not settled."""
    try:
        status = os.lstat(path)
    except OSError as error:
        if error.errno in MISSING:
            return ABSENT
        raise
    if stat.S_IFMT(status.st_mode) != kind:
        return ABSENT
    is_settled = abs(now_ns - status.st_ctime_ns) > _SETTLES_NS
    return Signature(status.st_ctime_ns, status.st_size, status.st_ino, status.st_mtime_ns, is_settled)
