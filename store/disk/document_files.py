"""Documents of all kinds in a store's directory: looked at, read, replaced, patched."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar

from store import documents, transitions
from store.api import DocumentKey
from store.changes import Change, Part, change_of
from store.disk import files, foreign, layout, paths, trees
from store.disk.durable_names import DurableNames, NamesToSync
from store.disk.echoes import Echoes
from store.disk.layout import RUNS, STATUS, Parts
from store.disk.list_times import ListTimes
from store.disk.open_threads import OpenThread, OpenThreads, locked_thread
from store.disk.paths import opened, storage_errors
from store.disk.stored_files import StoredFiles
from store.disk.system_calls import SystemCalls
from store.errors import AlreadyExists, Damaged, InvalidDocument, NotFound, StorageFailed
from store.models import Document
from store.updates import Updates
from store.waiting import waits

D = TypeVar("D", bound=Document)
T = TypeVar("T")


class Changing(NamedTuple):
    """A thread that is locked, what was changed in it, and names in it that may not be durable yet."""

    thread: OpenThread
    changes: list[Change]
    unsynced: NamesToSync


class DocumentFiles(StoredFiles, Updates):
    """The part of the store that is the same for threads, runs and steps."""

    def __init__(self, location: str, calls: SystemCalls) -> None:
        super().__init__(location)
        self._calls = calls
        self._durable = DurableNames(self.root, calls)
        self.open_threads = OpenThreads(self.root)
        self._lists = ListTimes()
        self.announcer.first = self._lists.changed
        self._echoes = Echoes(self.root)

    def check_ours(self, key: DocumentKey, *, with_foreign: bool = False) -> None:
        """Checks that a thread or run is surely one of this format, and holds nothing else.

        A directory with a ``meta.json`` is shown as a thread, but another program may have made it.

        Args:
            with_foreign: it may hold something else. (Deleting has *with_damaged* too: its document may be
                damaged or missing, and then it holds nothing else.)

        Raises:
            Foreign: it is not; with the path that is wrong.
        """
        self.document_info(key)
        if key.run_id is None:
            with opened(self.root) as root:
                assert root is not None
                foreign.check(root, key.thread_id, key, with_foreign=with_foreign)
            return
        self._check_is_thread(key.thread_id)
        with opened(self.root, key.thread_id, RUNS) as runs:
            if runs is None:
                raise self._gone(key)
            foreign.check(runs, key.run_id, key, with_foreign=with_foreign)

    def _check_is_thread(self, thread_id: str) -> None:
        self.check_ours(DocumentKey(thread_id), with_foreign=True)

    def replace_document(self, key: DocumentKey, document: bytes) -> None:
        """Puts a whole document in place of the stored one; a step that is missing is created.

        It gets the ids of *key*. A document in the layout of the format is stored byte for byte.

        Raises:
            InvalidDocument: *document* is none.
            RunInTerminalState, RunStepInTerminalState: the stored one has ended, and this differs.
        """
        if key.step_id is not None:
            with suppress(NotFound):
                self.document_info(key)
                return self._replace_existing(key, document)
            return self._add_step(key, transitions.laid_out_new(key, document))
        return self._replace_existing(key, document)

    def _replace_existing(self, key: DocumentKey, document: bytes) -> None:
        def changed(stored: bytes | None) -> bytes | None:
            if stored is None:
                raise self._gone(key)
            try:
                before: Document | None = transitions.document_at(key, documents.parse(stored))
            except InvalidDocument:
                before = None  # A whole document repairs a damaged one.
            new = transitions.replaced(key, before, document)
            return None if new == stored else new

        self._rewrite(key, changed)

    def set_document_modified(self, key: DocumentKey, modified_ns: int) -> None:
        """Sets the time of a stored document's last change, in nanoseconds since 1970."""
        parts, name = layout.place(key)
        self.document_info(key)
        with self.announcer.announcing(is_commit=False) as changes:
            self._set_modified(parts, name, modified_ns, layout.not_found(key))
            self._echoes.note(*layout.parts(key))
            changes.append(replace(change_of(Part.DOCUMENT, key), only_times=True))

    def _parsed(self, key: DocumentKey, data: bytes, model: type[D]) -> D:
        try:
            return model.of(transitions.with_identity(key, documents.parse(data)))
        except InvalidDocument as error:
            raise Damaged(layout.path(key), str(error)) from None

    def _get(self, key: DocumentKey, model: type[D]) -> D:
        return self._parsed(key, self.read_document(key)[0], model)

    def _while_there(self, key: DocumentKey, read: Callable[[], T]) -> T:
        """The result of *read* in a thread or run that was whole when *read* ended.

        A deleted directory loses its name in one step, but its files then go one by one, also for a reader
        that has opened it before.
        """
        parts = layout.place(key)[0]
        path = "/".join((self.root, *parts))
        while True:
            with opened(self.root, *parts) as directory:
                found = read()
                if directory is None or files.stat_path(self.root, layout.parts(key)) is None:
                    raise self._gone(key)
                if paths.is_at(directory, path):
                    return found

    @contextmanager
    def _changing(self, thread_id: str) -> Iterator[Changing]:
        """The thread, locked. After that names become durable, and what was changed is announced."""
        with (
            self.announcer.announcing() as changes,
            self._durable.syncing() as unsynced,
            locked_thread(self.open_threads, thread_id) as thread,
        ):
            self._durable.note(unsynced, (thread_id,), thread.inode)
            yield Changing(thread, changes, unsynced)

    @contextmanager
    def _held(self, parts: Parts) -> Iterator[int | None]:
        """The directory that *parts* lead to, with its thread locked; its names are durable after it."""
        with self._durable.syncing() as unsynced, locked_thread(self.open_threads, parts[0]) as thread:
            self._durable.note(unsynced, parts[:1], thread.inode)
            with self._directory_in(thread, parts, unsynced) as directory:
                yield directory

    @contextmanager
    def _directory_in(self, thread: OpenThread, parts: Parts, unsynced: NamesToSync) -> Iterator[int | None]:
        """The directory that *parts* lead to in a locked *thread*; *unsynced* names are noted."""
        inner = self._open_inner(thread.directory, parts, unsynced) if len(parts) > 1 else None
        try:
            yield inner if len(parts) > 1 else thread.directory
        finally:
            if inner is not None:
                os.close(inner)

    def _open_inner(self, thread: int, parts: Parts, unsynced: NamesToSync) -> int | None:
        directory = paths.open_directory(thread, *parts[1:3])
        if directory is None or len(parts) < 3:
            return directory
        try:
            self._durable.note(unsynced, parts[:3], os.fstat(directory).st_ino)
            if len(parts) == 3:
                return directory
            inner = paths.open_directory(directory, *parts[3:])
        except BaseException:
            os.close(directory)
            raise
        os.close(directory)
        return inner

    def _rewrite(self, key: DocumentKey, change: Callable[[bytes | None], bytes | None]) -> None:
        """Replaces a document under its thread's lock; see `files.rewrite`."""
        with self._changing(layout.place(key)[0][0]) as changing:
            self._rewrite_in(changing, key, change)

    def _rewrite_in(
        self, changing: Changing, key: DocumentKey, change: Callable[[bytes | None], bytes | None]
    ) -> None:
        parts, name = layout.place(key)
        with self._directory_in(changing.thread, parts, changing.unsynced) as directory:
            if directory is None:
                raise self._gone(key)
            path, on_replaced = layout.path(key), partial(self._replaced, changing.changes, key)
            files.rewrite(self._calls, directory, name, path, change, on_replaced)

    def _replaced(self, changes: list[Change], key: DocumentKey) -> None:
        """A document is another one, which is to be announced with *changes*."""
        self._echoes.note(*layout.parts(key))
        changes.append(change_of(Part.DOCUMENT, key))

    def _update(self, key: DocumentKey, model: type[D], change: Callable[[D], D]) -> D:
        """Replaces a document by the result of *change*, which gets its model; returns that result."""
        with self._changing(layout.place(key)[0][0]) as changing:
            return self.update_in(changing, key, model, change)

    def update_in(self, changing: Changing, key: DocumentKey, model: type[D], change: Callable[[D], D]) -> D:
        """As `_update`, in a thread that the caller is *changing*."""
        result: list[D] = []

        def changed(stored: bytes | None) -> bytes | None:
            if stored is None:
                raise self._gone(key)
            before = self._parsed(key, stored, model)
            after = change(before)
            result[:] = [after]
            new = documents.pretty(after)
            return None if new == stored else new

        self._rewrite_in(changing, key, changed)
        return result[0]

    def _add_step(self, key: DocumentKey, data: bytes) -> None:
        with self._changing(layout.place(key)[0][0]) as changing:
            self.add_step_in(changing, key, data)

    def add_step_in(self, changing: Changing, key: DocumentKey, data: bytes) -> None:
        """Adds a step, in a thread that the caller is *changing*. Raises RunNotFound, AlreadyExists."""
        parts, name = layout.place(key)
        step_id = str(key.step_id)

        def changed(stored: bytes | None) -> bytes:
            if stored is not None:
                raise AlreadyExists("step", step_id)
            return data

        with self._directory_in(changing.thread, parts[:3], changing.unsynced) as run:
            if run is None or not paths.exists(run, STATUS):
                raise self._gone(DocumentKey(key.thread_id, key.run_id))
            steps = trees.ensure_directory(self._calls, self._durable, run, parts)
            try:
                path, on_replaced = layout.path(key), partial(self._replaced, changing.changes, key)
                files.rewrite(self._calls, steps, name, path, changed, on_replaced)
            except Damaged:  # Something that is no file has the name.
                raise AlreadyExists("step", step_id) from None
            finally:
                os.close(steps)
            changing.changes.append(change_of(Part.STEPS, key))

    def _set_modified(self, parts: Parts, name: str, modified_ns: int, gone: NotFound) -> None:
        waits()
        with opened(self.root, *parts) as directory:
            if directory is None:
                raise gone
            try:
                with storage_errors("/".join((*parts, name))):
                    self._calls.set_modified(directory, name, modified_ns)
            except OverflowError:
                raise StorageFailed(errno.EINVAL, f"a time of {modified_ns} ns") from None
