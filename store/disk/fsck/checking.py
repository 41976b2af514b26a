"""What can be wrong in a store's directory, besides what any store can have wrong: names, things that are
missing or in the wrong place, a last line without its end, and what killed programs left.

Nothing here takes a lock. What a program does between two steps looks like damage for a moment: so what is
found is looked for again before it counts.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Generator, Iterator
from contextlib import closing, suppress

from store import names
from store.api import DocumentKey
from store.checking import Finding, Problem, check_thread
from store.disk import leftovers, paths
from store.disk.layout import LOG, META, RUNS, STATUS, STEPS
from store.disk.log import complete_size
from store.disk.paths import opened, storage_errors
from store.disk.thread_store import ThreadStore
from store.errors import StorageFailed
from store.printing import printable

# Problems that another program may be about to repair itself, and how long it may take.
_MOMENTARY = frozenset({Problem.TORN_LINE, Problem.NO_META, Problem.NO_STATUS})
MOMENT_S = 1.0
# A program that lives renames its temporary file long before.
LEFTOVER_AGE_S = 3600.0


def places(store: ThreadStore) -> list[str]:
    """The names in the store's directory that are, or could be, threads, in order."""
    with opened(store.root) as root, storage_errors(store.root):
        assert root is not None
        found = (name for name, _ in paths.subdirectories(root))
        return sorted(name for name in found if not name.startswith(".") and name != names.OF_THE_DISK)


def check_place(store: ThreadStore, place: str) -> Iterator[Finding]:
    """The problems in one of the `places` that a second look confirms."""
    with closing(_findings(store, place)) as findings:
        first = next(findings, None)
    if first is not None:
        _settle(store, first)
        yield from _findings(store, place)


def _settle(store: ThreadStore, finding: Finding) -> None:
    if finding.problem in _MOMENTARY:
        with suppress(OSError):
            status = os.stat(os.path.join(store.root, finding.path), follow_symlinks=False)
            time.sleep(min(MOMENT_S, max(0.0, status.st_mtime + MOMENT_S - time.time())))


def _findings(store: ThreadStore, place: str) -> Generator[Finding, None, None]:
    try:
        yield from _structure(store, place)
    except StorageFailed as error:
        what = f"cannot be read: {error}"
        yield _at((place,), Problem.UNREADABLE, what)


def _structure(store: ThreadStore, place: str) -> Iterator[Finding]:
    with opened(store.root, place) as thread:
        if thread is None:
            return
        has_document = paths.exists(thread, META)
        if reason := names.why_not_an_id(place):
            if has_document:
                yield _at((place,), Problem.NAME, f"a thread that is not shown: {reason}")
            return
        if not has_document:
            if paths.exists(thread, LOG) or paths.exists(thread, RUNS):
                yield _at((place,), Problem.NO_META, f"a thread without {META}")
            return
        yield from _misplaced(thread, (place, RUNS))
        torn = _torn(thread)
    with opened(store.root, place, RUNS) as runs:
        if runs is not None:
            for name, _ in sorted(paths.subdirectories(runs)):
                if not name.startswith("."):
                    yield from _run(store.root, (place, RUNS, name))
    yield from check_thread(store, place)
    if torn:
        yield _at((place, LOG), Problem.TORN_LINE, f"the last line, of {torn} bytes, has no end")


def _run(root: str, parts: tuple[str, ...]) -> Iterator[Finding]:
    with opened(root, *parts) as run:
        if run is None:
            return
        has_document = paths.exists(run, STATUS)
        if reason := names.why_not_an_id(parts[-1]):
            if has_document:
                yield _at(parts, Problem.NAME, f"a run that is not shown: {reason}")
            return
        if not has_document:
            if paths.exists(run, STEPS):
                yield _at(parts, Problem.NO_STATUS, f"a run without {STATUS}")
            return
        yield from _misplaced(run, (*parts, STEPS))
    with opened(root, *parts, STEPS) as steps:
        found = os.listdir(steps) if steps is not None else []
    for name in sorted(found):
        reason = names.why_not_an_id(name.removesuffix(".json"))
        if reason and name.endswith(".json") and not name.startswith("."):
            yield _at((*parts, STEPS, name), Problem.NAME, f"a step that is not shown: {reason}")


def _misplaced(parent: int, parts: tuple[str, ...]) -> Iterator[Finding]:
    """Something else, a link too, in the place of a directory."""
    with suppress(FileNotFoundError):
        status = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            yield _at(parts, Problem.MISPLACED, "not a directory")


def _torn(thread: int) -> int:
    """How many bytes the last line of a log has without its newline."""
    try:
        file = paths.open_file(thread, LOG)
    except Exception:  # The check of the thread reports it.
        return 0
    if file is None:
        return 0
    try:
        size = file.status.st_size
        return size - complete_size(file.descriptor, size)
    finally:
        os.close(file.descriptor)


def find_leftovers(store: ThreadStore, older_than_s: float = LEFTOVER_AGE_S) -> Iterator[Finding]:
    """The leftovers of killed programs, untouched for so long."""
    latest_ns = time.time_ns() - int(older_than_s * 1e9)
    for leftover in store.list_leftovers(0):
        if _modified_ns(store, leftover) <= latest_ns:
            what = "a temporary file or directory that a killed program left"
            if leftover.is_deleted:
                what = "a deletion that did not finish"
            yield _at(leftover.parts, Problem.LEFTOVER, what)


def _modified_ns(store: ThreadStore, leftover: leftovers.Leftover) -> int:
    try:
        status = os.stat(os.path.join(store.root, *leftover.parts), follow_symlinks=False)
    except OSError:
        return time.time_ns()  # gone: another program is at work there
    # The rename that begins a deletion leaves the modification time alone.
    return max(status.st_mtime_ns, status.st_ctime_ns if leftover.is_deleted else 0)


def _at(parts: tuple[str, ...], problem: Problem, what: str) -> Finding:
    key = DocumentKey(parts[0])
    return Finding(printable("/".join(parts)), problem.severity, what, problem, key, parts=parts)
