"""Whether a directory is taken for a store by mistake."""

from __future__ import annotations

import os
from collections.abc import Iterator

from store import names
from store.disk import paths
from store.disk.layout import LOG, META, RUNS, STATUS
from store.disk.paths import opened, storage_errors
from store.errors import StoreError


def holds_no_thread(root: str) -> bool:
    """Whether a directory holds something but not one thread, be it a damaged one: it is no store.

    Names that begin with a dot, and ``lost+found``, do not count.
    """
    is_empty = True
    for entry in _shown(root):
        is_empty = False
        if entry.is_dir(follow_symlinks=False) and _may_be_thread(root, entry.name):
            return False
    return not is_empty


def is_empty(root: str) -> bool:
    """Whether a directory holds nothing, as a new store does; the same names do not count."""
    return next(_shown(root), None) is None


def _shown(root: str) -> Iterator[os.DirEntry[str]]:
    with opened(root) as directory, storage_errors(root):
        assert directory is not None
        with os.scandir(directory) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.name != names.OF_THE_DISK:
                    yield entry


def _may_be_thread(root: str, name: str) -> bool:
    try:
        with opened(root, name) as thread:
            if thread is None:
                return False
            if paths.exists(thread, LOG):
                return True
            if paths.exists(thread, META):
                from store.disk import evidence  # It needs the models, which take a while to import.

                return not evidence.is_anothers(thread, name)
        with opened(root, name, RUNS) as runs:
            found = paths.subdirectories(runs) if runs is not None else []
            return any(paths.exists(runs, f"{run}/{STATUS}") for run, _ in found if runs is not None)
    except (StoreError, OSError):
        return False  # It cannot be looked at, so there is no evidence.
