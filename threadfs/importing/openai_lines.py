"""Reading an export into a store, thread by thread.

A thread is checked to its end, and then stored in one step. An equal thread that is in the store already is
left alone, so that an interrupted import can be run again. A thread that differs from the stored one is
refused, and so is a thread of our own exports without its end. The other threads are imported all the same.
Messages of other programs' exports that come newest first are stored oldest first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import zip_longest

from store import (
    AlreadyExists,
    DocumentKey,
    InvalidDocument,
    NotFound,
    RunContents,
    Store,
    StoreError,
    Unreachable,
    documents,
    lines,
    names,
    transitions,
)
from store.messages import message_of
from threadfs.importing.message_spool import MessageSpool
from threadfs.openai import objects
from threadfs.openai.translation import Fields


@dataclass(slots=True)
class _Thread:
    """One thread of an export, laid out as it will be stored."""

    thread_id: str
    line: int
    document: bytes = b""
    messages: MessageSpool = field(default_factory=MessageSpool)
    runs: dict[str, tuple[bytes, dict[str, bytes]]] = field(default_factory=dict)
    is_ours: bool = False
    has_ended: bool = False
    is_refused: bool = False

    def lines(self) -> Iterator[bytes]:
        return self.messages.lines(as_added=self.is_ours)


@dataclass(slots=True)
class Import:
    """Imports threads; calls *refused* for each refused one, with a reason that names the line."""

    store: Store
    refused: Callable[[str], None]
    imported: int = 0
    left: int = 0
    _thread: _Thread | None = None
    # Damaged lines whose thread is not known until the next good line: number and reason.
    _damage: list[tuple[int, str]] = field(default_factory=list)

    def read(self, export: Iterable[bytes]) -> None:
        """Imports all threads of an export."""
        for number, line in enumerate(export, 1):
            if not line.strip():
                continue
            try:
                fields = objects.parsed(line)
                is_thread = fields["object"] == "thread"
                thread_id = _id(fields, "id" if is_thread else "thread_id")
            except InvalidDocument as error:
                self._note_damage(number, str(error))
                continue
            thread = (
                self._begin_thread(number, thread_id)
                if is_thread
                else self._thread_of_line(number, thread_id)
            )
            thread.has_ended |= objects.is_last(fields)
            if not thread.is_refused:
                try:
                    _add(thread, fields)
                except StoreError as error:
                    self._refuse(thread, number, str(error))
        self._finish()

    def _note_damage(self, number: int, reason: str) -> None:
        if self._thread is not None and self._thread.has_ended:
            self._finish()
        if self._thread is None and self._damage:
            self._refuse(None, *self._damage.pop())  # It cannot be the first line of the next thread.
        # Only the last can be the first line of the next thread, so two are enough.
        if len(self._damage) < 2:
            self._damage.append((number, reason))

    def _begin_thread(self, number: int, thread_id: str) -> _Thread:
        self._finish()
        self._thread = _Thread(thread_id, number)
        return self._thread

    def _thread_of_line(self, number: int, thread_id: str) -> _Thread:
        """The thread that a line with this *thread_id* belongs to."""
        thread = self._thread
        if thread is not None and thread.thread_id == thread_id:
            if self._damage:
                self._refuse(thread, *self._damage[0])
                self._damage.clear()
            return thread
        if self._damage:
            # The damaged line was the first of this thread.
            where = self._damage.pop(-1 if thread else 0)
        elif thread is not None and not thread.has_ended:
            self._refuse(thread, number, f"it is of thread {thread_id!r}, which is not the one before")
            return thread
        elif thread is not None:
            where = number, "the line of its thread is missing"
        else:
            where = number, "the export does not begin with a thread"
        if thread is None:
            self._damage.clear()
        thread = self._begin_thread(number, thread_id)
        self._refuse(thread, *where)
        return thread

    def _refuse(self, thread: _Thread | None, number: int, reason: str) -> None:
        if thread is None or not thread.is_refused:
            of = f", so thread {thread.thread_id!r} is not imported" if thread else ""
            self.refused(f"line {number}: {reason}{of}")
        if thread is not None:
            thread.is_refused = True

    def _finish(self) -> None:
        """Stores the thread, unless it was refused."""
        thread, self._thread = self._thread, None
        if self._damage:
            self._refuse(thread, *self._damage[0])
            self._damage.clear()
        if thread is None:
            return
        if thread.is_ours and not thread.has_ended:
            self._refuse(thread, thread.line, "the end of this thread is missing: the export was cut off")
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
            except Unreachable:
                raise  # The next thread would fail too. The import can be run again later.
            except StoreError as error:
                self._refuse(thread, thread.line, str(error))
            else:
                self.imported += 1


def _id(fields: Fields, name: str) -> str:
    """The field *name*, an id. Raises InvalidDocument."""
    value = fields.get(name)
    if not isinstance(value, str):
        raise InvalidDocument(f"{name}: must be a text" if name in fields else f"{name}: missing")
    return value


def _laid_out(key: DocumentKey, fields: Fields) -> bytes:
    return transitions.laid_out(key, objects.restored(fields, is_line=False))


def _add(thread: _Thread, fields: Fields) -> None:
    """Adds an object of an export, which may be the thread itself.

    Raises:
        InvalidDocument, InvalidName: it is not valid, or does not belong there.
    """
    object_id = _id(fields, "id")
    if fields["object"] == "thread":
        thread.is_ours = objects.OWN_FIELD in fields
        thread.document = _laid_out(DocumentKey(names.checked(object_id)), fields)
        return
    if fields["object"] == "thread.message":
        restored = objects.restored(fields, is_line=True)
        thread.messages.add(transitions.laid_out_line(thread.thread_id, restored), fields.get("created_at"))
        return
    if fields["object"] == "thread.run":
        run_id = names.checked(object_id)
        if run_id in thread.runs:
            raise InvalidDocument(f"there is a run {run_id!r} before")
        thread.runs[run_id] = _laid_out(DocumentKey(thread.thread_id, run_id), fields), {}
        return
    run_id, step_id = _id(fields, "run_id"), names.checked(object_id)
    if run_id not in thread.runs:
        raise InvalidDocument(f"there is no run {run_id!r} before")
    steps = thread.runs[run_id][1]
    if step_id in steps:
        raise InvalidDocument(f"there is a step {step_id!r} before")
    steps[step_id] = _laid_out(DocumentKey(thread.thread_id, run_id, step_id), fields)


def _difference(store: Store, thread: _Thread) -> str | None:
    """How the stored thread differs from the one to import; ``None`` if they are equal."""
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
            if (message := message_of(line, thread.thread_id))
        )
        given = (
            documents.line(message)
            for line in thread.lines()
            if (message := message_of(line, thread.thread_id))
        )
        return all(one == other for one, other in zip_longest(there, given))
