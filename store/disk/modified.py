"""When anything in a thread last changed, with as few system calls as can be: a listing asks it of each."""

from __future__ import annotations

import os
import stat

from store.disk.layout import LOG, META, RUNS, STATUS, STEPS
from store.waiting import waits


def thread_modified_ns(root: str, thread_id: str) -> int | None:
    """In nanoseconds since 1970; ``None`` when there is no thread or no document of it that can be read."""
    waits()
    path = f"{root}/{thread_id}"
    # No link is followed: each directory is looked at by itself before anything in it is.
    document = _modified_ns(f"{path}/{META}", stat.S_IFREG) if _modified_ns(path, stat.S_IFDIR) else 0
    if not document:
        return None
    log = _modified_ns(f"{path}/{LOG}", stat.S_IFREG)
    runs = _modified_ns(f"{path}/{RUNS}", stat.S_IFDIR)
    return max(document, log, runs, _runs_modified_ns(f"{path}/{RUNS}") if runs else 0)


def _runs_modified_ns(path: str) -> int:
    latest = 0
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    status = _modified_ns(f"{path}/{entry.name}/{STATUS}", stat.S_IFREG)
                    steps = _modified_ns(f"{path}/{entry.name}/{STEPS}", stat.S_IFDIR) if status else 0
                    latest = max(latest, status, steps)
    except OSError:
        return latest  # It went meanwhile, or may not be read; the document still tells a time.
    return latest


def _modified_ns(path: str, kind: int) -> int:
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return 0
    return status.st_mtime_ns if stat.S_IFMT(status.st_mode) == kind else 0
