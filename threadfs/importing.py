"""Reading an export into a store, thread by thread.

A thread is checked to its end before anything of it is stored, and is then stored in one step. One that is
there already and equal is left, so that an import that was interrupted can be run again; one that differs is
refused. What is wrong with one thread does not stop the others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import IO

from store import (
    AlreadyExists,
    DocumentKey,
    InvalidDocument,
    NotFound,
    RunContents,
    Store,
    StoreError,
    documents,
    lines,
    names,
    transitions,
)
from threadfs import openai_objects
from threadfs.openai_translation import Fields

# Messages beyond this wait in a file without a name.
_IN_MEMORY_BYTES = 16 << 20


def _spool() -> IO[bytes]:
    return tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)


@dataclass(slots=True)
class _Thread:
    """One thread of an export: laid out as it will be stored, until something is wrong with it."""

    thread_id: str
    line: int
    document: bytes
    messages: IO[bytes] = field(default_factory=_spool)
    runs: dict[str, tuple[bytes, dict[str, bytes]]] = field(default_factory=dict)
    is_refused: bool = False

    def lines(self) -> Iterator[bytes]:
        self.messages.seek(0)
        return iter(self.messages)


@dataclass(slots=True)
class Import:
    """Imports threads; *refused* is told of each that is not imported, as one line that names the line."""

    store: Store
    refused: Callable[[str], None]
    imported: int = 0
    left: int = 0

    def read(self, export: Iterable[bytes]) -> None:
        """Imports all threads of an export."""
        thread: _Thread | None = None
        # After a thread's own line was no use, the others of it are none either.
        is_lost = False
        for number, line in enumerate(export, 1):
            if not line.strip():
                continue
            try:
                made = openai_objects.parsed(line)
                if made["object"] == "thread":
                    self._commit(thread)
                    thread, is_lost = None, True
                    thread, is_lost = _started(number, made), False
                elif thread is not None:
                    _add(thread, made)
                elif not is_lost:
                    raise InvalidDocument("the export does not begin with a thread")
            except (StoreError, KeyError) as error:
                reason = f"{error.args[0]}: missing" if isinstance(error, KeyError) else str(error)
                self._refuse(thread, number, reason)
        self._commit(thread)

    def _refuse(self, thread: _Thread | None, number: int, reason: str) -> None:
        if thread is None or not thread.is_refused:
            of = f", so thread {thread.thread_id!r} is not imported" if thread else ""
            self.refused(f"line {number}: {reason}{of}")
        if thread is not None:
            thread.is_refused = True

    def _commit(self, thread: _Thread | None) -> None:
        if thread is None:
            return
        with closing(thread.messages):
            if thread.is_refused:
                return
            contents = {run_id: RunContents(*run) for run_id, run in thread.runs.items()}
            try:
                self.store.import_thread(thread.thread_id, thread.document, thread.lines(), contents)
            except AlreadyExists:
                if where := _difference(self.store, thread):
                    self._refuse(thread, thread.line, f"there is another {thread.thread_id!r} ({where})")
                else:
                    self.left += 1
            except StoreError as error:
                self._refuse(thread, thread.line, str(error))
            else:
                self.imported += 1


def _started(number: int, made: Fields) -> _Thread:
    thread_id = names.checked(made["id"])
    return _Thread(thread_id, number, _laid_out(DocumentKey(thread_id), made))


def _laid_out(key: DocumentKey, made: Fields) -> bytes:
    return transitions.laid_out(key, openai_objects.restored(made, is_line=False))


def _add(thread: _Thread, made: Fields) -> None:
    """Adds a message, run or step to the thread that it belongs to.

    Raises:
        InvalidDocument, InvalidName: it does not belong there, or is none.
        KeyError: a field that says where it belongs is missing.
    """
    of_thread, object_id = made["thread_id"], made["id"]
    if of_thread != thread.thread_id:
        raise InvalidDocument(f"it is of thread {of_thread!r}, which is not the one before")
    if made["object"] == "thread.message":
        restored = openai_objects.restored(made, is_line=True)
        thread.messages.write(transitions.laid_out_line(thread.thread_id, restored))
        return
    if made["object"] == "thread.run":
        run_id = names.checked(object_id)
        if run_id in thread.runs:
            raise InvalidDocument(f"there is a run {run_id!r} before")
        thread.runs[run_id] = _laid_out(DocumentKey(thread.thread_id, run_id), made), {}
        return
    run_id, step_id = made["run_id"], names.checked(object_id)
    if run_id not in thread.runs:
        raise InvalidDocument(f"there is no run {run_id!r} before")
    steps = thread.runs[run_id][1]
    if step_id in steps:
        raise InvalidDocument(f"there is a step {step_id!r} before")
    steps[step_id] = _laid_out(DocumentKey(thread.thread_id, run_id, step_id), made)


def _difference(store: Store, thread: _Thread) -> str | None:
    """What of a stored thread differs from one that is to be imported; ``None`` when nothing does."""
    key = DocumentKey(thread.thread_id)
    try:
        if _stored(store, key) != thread.document:
            return "it differs itself"
        if not _same_messages(store, thread):
            return "it has other messages"
        if set(store.list_run_ids(thread.thread_id)) != thread.runs.keys():
            return "it has other runs"
        for run_id, (document, steps) in thread.runs.items():
            run = DocumentKey(thread.thread_id, run_id)
            if _stored(store, run) != document:
                return f"run {run_id!r} differs"
            if set(store.list_step_ids(thread.thread_id, run_id)) != steps.keys():
                return f"run {run_id!r} has other steps"
            for step_id, step in steps.items():
                if _stored(store, DocumentKey(thread.thread_id, run_id, step_id)) != step:
                    return f"step {step_id!r} differs"
    except InvalidDocument as error:
        return f"something in it is damaged: {error}"
    except NotFound:
        return "it is none, or is changing"
    return None


def _stored(store: Store, key: DocumentKey) -> bytes:
    return transitions.laid_out(key, store.read_document(key)[0])


def _same_messages(store: Store, thread: _Thread) -> bool:
    with closing(store.open_log(thread.thread_id)) as log:
        there = (
            documents.line(message)
            for line, _ in lines.iter_lines(log.read)
            if (message := lines.message_of(line, thread.thread_id))
        )
        given = (
            documents.line(message)
            for line in thread.lines()
            if (message := lines.message_of(line, thread.thread_id))
        )
        return all(one == other for one, other in zip_longest(there, given))
