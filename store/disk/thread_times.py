"""When anything in a thread last changed, in few system calls, as a listing needs it for each thread."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from store.api import Times
from store.disk.layout import LOG, META, RUNS, STATUS, STEPS
from store.waiting import waits


def thread_times(root: str, thread_id: str, run_ids: Iterable[str] | None = None) -> Times | None:
    """In nanoseconds since 1970; ``None`` when there is no thread, or no document that can be looked at.

    *run_ids* are the ids of all its runs, if they are known.
    """
    waits()
    path = f"{root}/{thread_id}"
    # No link is followed: each directory is looked at by itself before anything in it is.
    document = _times(f"{path}/{META}", stat.S_IFREG) if _times(path, stat.S_IFDIR) else None
    if not document:
        return None
    log = _times(f"{path}/{LOG}", stat.S_IFREG)
    runs = _times(f"{path}/{RUNS}", stat.S_IFDIR)
    found = [document, log, runs]
    if runs:
        for run_id in _directories(f"{path}/{RUNS}") if run_ids is None else run_ids:
            status = _times(f"{path}/{RUNS}/{run_id}/{STATUS}", stat.S_IFREG)
            steps = _times(f"{path}/{RUNS}/{run_id}/{STEPS}", stat.S_IFDIR) if status else None
            found += [status, steps]
    there = [times for times in found if times]
    return Times(max(times.modified_ns for times in there), max(times.changed_ns for times in there))


def _directories(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []  # It went meanwhile, or may not be read; the document still has a time.


def _times(path: str, kind: int) -> Times | None:
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    is_one = stat.S_IFMT(status.st_mode) == kind
    return Times(status.st_mtime_ns, status.st_ctime_ns) if is_one else None
