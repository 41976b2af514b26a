"""Unfinished work that killed programs leave in a store, and clearing it.

Readers ignore all names that start with ``.``; only maintenance touches them. A leftover is recognised by its
name (ours, or the reference's ``.tmpXXXXXX``), by its owner, which is the user we run as, and by its age: a
program that still lives renames its temporary file within moments. The text of an answer is one only when its
run has ended, and its worker does not live.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass

from store import documents, names
from store.disk import evidence, files, layout, paths, trees, worker_locks
from store.disk.layout import RUNS, STATUS, STEPS, Parts
from store.disk.paths import opened
from store.disk.system_calls import SystemCalls
from store.errors import StorageFailed, StoreError
from store.models import Run

# Where maintenance puts files that may still be of use.
ASIDE = ".threadfs-aside"


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file or directory; *parts* lead to it. ``is_deleted``: its deletion was begun and not finished."""

    parts: Parts
    is_deleted: bool

    @property
    def path(self) -> str:
        return "/".join(self.parts)


def find(root: str, older_than_s: float) -> Iterator[Leftover]:
    """The leftovers that are untouched for *older_than_s* seconds."""
    latest_ns = time.time_ns() - int(older_than_s * 1e9)
    for parts in _places(root):
        with _passing_over(parts), opened(root, *parts) as directory:
            if directory is None:
                continue
            with paths.storage_errors("/".join(parts) or root):
                names_found = [name for name in os.listdir(directory) if name.startswith(".")]
            for name in names_found:
                if (
                    (files.is_leftover(name) or _is_left_answer(root, parts, name))
                    and _is_old(directory, name, latest_ns)
                    # In a directory that is no thread it may belong to another program.
                    and (not parts or evidence.is_surely_thread(root, parts[0]))
                ):
                    yield Leftover((*parts, name), name.startswith(files.DELETED))


def _is_left_answer(root: str, parts: Parts, name: str) -> bool:
    """Whether it is the text of an answer, in a run that has ended and whose worker does not live."""
    if not (len(parts) == 3 and layout.is_answer(name)):
        return False
    with suppress(StoreError):
        document = files.read_path(root, (*parts, STATUS))
        run = Run.of(documents.parse(document[0])) if document is not None else None
        return run is not None and run.status.is_terminal and not worker_locks.lives(root, run.worker or "")
    return False


def _passing_over(parts: Parts) -> AbstractContextManager[None]:
    """Passes over a directory that cannot be read, which the check of its thread reports; not the store."""
    return suppress(StorageFailed) if parts else nullcontext()


def _places(root: str) -> Iterator[Parts]:
    """Every directory in which this format makes something."""
    yield ()
    for thread_id in _ids_in(root):
        yield (thread_id,)
        runs = (thread_id, RUNS)
        yield runs
        for run_id in _ids_in(root, *runs):
            yield (*runs, run_id)
            yield (*runs, run_id, STEPS)


def _ids_in(root: str, *parts: str) -> list[str]:
    with _passing_over(parts), opened(root, *parts) as directory:
        if directory is not None:
            with paths.storage_errors("/".join(parts) or root):
                return [name for name, _ in paths.subdirectories(directory) if names.is_id(name)]
    return []


def _is_old(directory: int, name: str, latest_ns: int) -> bool:
    with suppress(FileNotFoundError):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        # The rename that marks a directory as deleted leaves its modification time alone.
        return status.st_uid == os.geteuid() and max(status.st_mtime_ns, status.st_ctime_ns) <= latest_ns
    return False


def clear(calls: SystemCalls, root: str, leftover: Leftover) -> None:
    """Finishes a deletion; moves anything else aside."""
    if not leftover.is_deleted:
        set_aside(calls, root, leftover.parts)
        return
    with opened(root, *leftover.parts[:-1]) as parent, paths.storage_errors(leftover.path):
        if parent is not None:
            trees.remove(calls, parent, leftover.parts[-1])


def set_aside(calls: SystemCalls, root: str, parts: Parts) -> str | None:
    """Moves a file or directory to the same place below `ASIDE`, durably.

    Returns:
        Where it is now, below the root; ``None`` when it was gone.
    """
    *above, name = parts
    with paths.storage_errors("/".join(parts)), ExitStack() as stack:
        target_parts: list[str] = []
        for part in (ASIDE, *above):
            parent = stack.enter_context(opened(root, *target_parts))
            assert parent is not None
            with suppress(FileExistsError):
                calls.make_directory(parent, part)
                calls.sync(parent)
            target_parts.append(part)
        target = stack.enter_context(opened(root, *target_parts))
        source = stack.enter_context(opened(root, *above))
        if source is None or target is None:
            return None
        new_name, number = name, 1
        while paths.exists(target, new_name):
            number += 1
            new_name = f"{name}~{number}"
        try:
            calls.rename(source, name, target, new_name)
        except FileNotFoundError:
            return None
        calls.sync(target)
        calls.sync(source)
        return "/".join((*target_parts, new_name))
