"""What an inotify event means for the store: pure functions from names and flags to changes.

Directories are given as the names that lead to them from the store's root:

    ()                      the store, which holds the threads
    (T,)                    a thread: its document, its log, its list of runs
    (T, "runs")             the list of runs of T
    (T, "runs", R)          a run: its document, its list of steps, its answer while that grows
    (T, "runs", R, "steps") the list of steps of R, which holds their documents
    (".threadfs-workers",)  the workers

Source of the flags: https://man7.org/linux/man-pages/man7/inotify.7.html
"""

from __future__ import annotations

from dataclasses import replace

from inotify_simple import flags

from store import names
from store.api import DocumentKey
from store.changes import Change, Part
from store.disk.layout import ANSWER, LOG, META, RUNS, STATUS, STEPS, WORKERS, Parts

CAME = flags.CREATE | flags.MOVED_TO
CAME_OR_WENT = CAME | flags.MOVED_FROM | flags.DELETE
# The watched directory itself went.
GONE = flags.MOVE_SELF | flags.DELETE_SELF | flags.UNMOUNT
# What is written through mmap(2) raises no MODIFY, only CLOSE_WRITE.
WRITTEN = flags.MODIFY | flags.CLOSE_WRITE
# What to watch a directory for.
MASK = CAME_OR_WENT | WRITTEN | flags.ATTRIB | flags.MOVE_SELF | flags.DELETE_SELF | flags.ONLYDIR


def changes_of(parts: Parts, name: str, mask: int, *, has_document: bool) -> list[Change]:
    """What changed in the store, by an event in the directory *parts*, about the *name* in it.

    With *has_document*, a document that is moved into the directory is a new version of the one that was
    there, which is how a document is replaced; else a thread or run appears with it.
    """
    if parts == (WORKERS,) or (not parts and name == WORKERS):  # It comes with the first worker in it.
        return [Change(Part.WORKERS, WORKERS)]
    if name.startswith(ANSWER) and len(parts) == 3:
        return [Change(Part.ANSWER, parts[0], parts[2])]
    if name.startswith("."):
        return _only_times(parts)  # A temporary file.
    if len(parts) in (0, 2) and not mask & (GONE | flags.ISDIR):
        return _only_times(parts)  # Threads and runs are directories.
    if mask & GONE:
        if not parts:
            return [Change(Part.EVERYTHING)]
        return _changes(parts[:-1], parts[-1], came_or_went=True)
    came_or_went = flags.CREATE | flags.DELETE | flags.MOVED_FROM
    # A step has no directory of its own whose document could be known.
    if not has_document or _is_list_of_steps(parts):
        came_or_went |= flags.MOVED_TO
    found = _changes(
        parts,
        name,
        came_or_went=bool(mask & came_or_went),
        has_come=bool(mask & CAME),
        is_same_file=not mask & CAME_OR_WENT,
    )
    if mask & ~flags.ISDIR == flags.ATTRIB:
        found = [replace(change, only_times=change.part in (Part.DOCUMENT, Part.LOG)) for change in found]
    return found or _only_times(parts)


def _changes(
    parts: Parts, name: str, *, came_or_went: bool, has_come: bool = False, is_same_file: bool = False
) -> list[Change]:
    match parts:
        case () if names.is_id(name):
            return [Change(Part.THREADS, name, has_come=has_come)]
        case (thread,) if name == META:
            existence = [Change(Part.THREADS, thread)] if came_or_went else []
            return [*existence, Change(Part.DOCUMENT, thread)]
        case (thread,) if name == LOG:
            return [Change(Part.LOG, thread, grew=is_same_file)]
        case (thread,) if name == RUNS:
            return [Change(Part.RUNS, thread)]
        case (thread, _) if names.is_id(name):
            return [Change(Part.RUNS, thread, name, has_come=has_come)]
        case (thread, _, run) if name == STATUS:
            existence = [Change(Part.RUNS, thread, run)] if came_or_went else []
            return [*existence, Change(Part.DOCUMENT, thread, run)]
        case (thread, _, run) if name == STEPS:
            return [Change(Part.STEPS, thread, run)]
        case (thread, _, run, _) if name.endswith(".json") and names.is_id(name[:-5]):
            existence = [Change(Part.STEPS, thread, run, name[:-5])] if came_or_went else []
            return [*existence, Change(Part.DOCUMENT, thread, run, name[:-5])]
    return []


def _only_times(parts: Parts) -> list[Change]:
    """A list's mtime, and so its thread's, is that of any name in it, also one that is no id."""
    return [Change(Part.TIMES, parts[0])] if len(parts) in (2, 4) else []


def _is_list_of_steps(parts: Parts) -> bool:
    return len(parts) == 4


# ── Names ───────────────────────────────────────────────────────────────────────────────────────────────


def document_in(parts: Parts) -> str:
    """The name of the document that makes a directory a thread or run; empty for lists."""
    return {1: META, 3: STATUS}.get(len(parts), "")


def list_in(parts: Parts) -> Parts | None:
    """The list that a thread or run holds; ``None`` for lists."""
    below = {1: RUNS, 3: STEPS}.get(len(parts))
    return None if below is None else (*parts, below)


def file_of(parts: Parts, name: str) -> Parts | None:
    """The document or log that an event in the directory *parts* about the *name* in it is about.

    Of a thread or run, or of one that goes itself, that is the document; ``None`` if it is about no file.
    """
    place = (*parts, name) if name else parts
    if document := document_in(place):
        return (*place, document)
    return place if (len(place) in (2, 4) and place[-1] in (META, LOG, STATUS)) or len(place) == 5 else None


def directory_of(key: DocumentKey) -> Parts:
    """The directory that holds what *key* stands for: a document, or a list if its last id is empty."""
    ids = [part for part in (key.thread_id, key.run_id, key.step_id) if part is not None]
    parts: Parts = ()
    for object_id, below in zip(ids, ((), (RUNS,), (STEPS,)), strict=False):
        parts = (*parts, *below, *([object_id] if object_id else ()))
    return parts


def key_of(parts: Parts) -> DocumentKey:
    """The reverse of `directory_of`."""
    match parts:
        case (thread,):
            return DocumentKey(thread)
        case (thread, _):
            return DocumentKey(thread, "")
        case (thread, _, run):
            return DocumentKey(thread, run)
        case (thread, _, run, _):
            return DocumentKey(thread, run, "")
    return DocumentKey("")
