"""Entries in the directory of a thread or run that are not of this format.

A directory with a ``meta.json`` is shown as a thread, whatever the file and the directory hold. It is deleted
only if it surely is a thread, and foreign entries in it only if the caller allows that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from store import names, recognition
from store.api import DocumentKey
from store.disk import files, layout, paths
from store.disk.layout import LOG, META, RUNS, STATUS, STEPS
from store.disk.paths import storage_errors
from store.errors import Damaged, Foreign

# The kinds of entries: a file, or a directory of one of these kinds.
_FILE, _THREAD, _RUNS, _RUN, _STEPS = range(5)
_IN_THREAD = {META: _FILE, LOG: _FILE, RUNS: _RUNS}
_IN_RUN = {STATUS: _FILE, STEPS: _STEPS}


def check(
    parent: int, name: str, key: DocumentKey, *, with_foreign: bool = False, with_damaged: bool = False
) -> None:
    """Checks that the directory *name* is surely the thread or run *key*, and holds nothing else.

    Args:
        with_foreign: it may hold something else.
        with_damaged: its document may be damaged or missing; then it may hold nothing else.

    Raises:
        Foreign: it is not; with the path that is wrong.
    """
    why = why_not_ours(parent, name, key)
    if why and not with_damaged:
        raise Foreign(f"{_path_of(key)}/{_document_of(key)}", why)
    if why or not with_foreign:
        check_contents(parent, name, key, f", and {_document_of(key)} {why}" if why else "")


def check_contents(parent: int, name: str, key: DocumentKey, besides: str = "") -> None:
    """Checks that the directory *name*, of the thread or run *key*, holds nothing else. Raises Foreign."""
    for path in foreign_in(parent, name, key):
        raise Foreign(path, f"no part of a thread{besides}")


def _path_of(key: DocumentKey) -> str:
    return key.thread_id if key.run_id is None else f"{key.thread_id}/{RUNS}/{key.run_id}"


def _document_of(key: DocumentKey) -> str:
    return META if key.run_id is None else STATUS


def why_not_ours(parent: int, name: str, key: DocumentKey) -> str | None:
    """Why the directory *name* is not surely the thread or run *key*, in words; ``None`` when it is."""
    document = _document_of(key)
    directory = paths.open_directory(parent, name)
    if directory is None:
        return "not there"
    try:
        data = files.read_file(directory, document, f"{name}/{document}")
    except Damaged as error:
        return str(error).partition(": ")[2]
    finally:
        os.close(directory)
    return "not there" if data is None else recognition.why_not_ours(key, data)


def foreign_in(parent: int, name: str, key: DocumentKey) -> Iterator[str]:
    """The paths of entries that the format does not know in the directory of the thread or run *key*.

    It knows the leftovers of killed programs, among them temporary files of the reference.
    """
    return _foreign_in(parent, name, _path_of(key), _THREAD if key.run_id is None else _RUN)


def _foreign_in(parent: int, name: str, path: str, kind: int) -> Iterator[str]:
    directory = paths.open_directory(parent, name)
    if directory is None:
        return
    try:
        with storage_errors(path), os.scandir(directory) as entries:
            found = sorted(
                (e.name, e.is_dir(follow_symlinks=False), e.is_file(follow_symlinks=False)) for e in entries
            )
        for entry, is_directory, is_file in found:
            meaning = _meaning(kind, entry)
            if is_directory and meaning not in (None, _FILE):
                yield from _foreign_in(directory, entry, f"{path}/{entry}", meaning)
            elif not (is_file and meaning == _FILE) and not files.is_leftover(entry, is_file=is_file):
                yield f"{path}/{entry}"
    finally:
        os.close(directory)


def _meaning(kind: int, name: str) -> int | None:
    """The kind of the entry *name* in a directory of *kind*; ``None``: the format does not know it."""
    if kind == _THREAD:
        return _IN_THREAD.get(name)
    if kind == _RUN:
        return _FILE if layout.is_answer(name) else _IN_RUN.get(name)
    if kind == _RUNS:
        return _RUN if names.is_id(name) else None
    stem = name.removesuffix(".json")
    return _FILE if stem != name and names.is_id(stem) else None
