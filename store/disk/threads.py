"""Threads: made, listed, timed, deleted with all that they hold."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from store import documents, names
from store.api import DocumentKey, RunContents, Times
from store.changes import Change, Part
from store.disk import foreign, layout, paths, thread_times, trees
from store.disk.extending import Addition
from store.disk.importing import contents_of_thread
from store.disk.layout import LOG, META, RUNS, STATUS, STEPS, Parts
from store.disk.messages import Messages
from store.disk.open_threads import locked_thread
from store.disk.paths import opened, storage_errors
from store.disk.runs import Runs
from store.errors import ModifiedSince, NotEmpty, StorageFailed, StoreError, ThreadNotFound
from store.models import Thread


class Threads(Runs, Messages):
    def create_thread(self, thread: Thread) -> Thread:
        """Makes a thread with no messages and no runs.

        Raises:
            AlreadyExists: the id is taken, perhaps by something that is no thread.
        """
        names.checked(thread.id)
        self._create(thread.id, {META: documents.pretty(thread)})
        return thread

    def _create(self, thread_id: str, contents: trees.Contents, modified_ns: int | None = None) -> None:
        with self.announcer.announcing() as changes, opened(self.root) as root:
            assert root is not None
            trees.create(self._calls, self._durable, root, (thread_id,), contents, modified_ns)
            self._echoes.note(thread_id, META)
            changes.append(Change(Part.THREADS, thread_id))

    def import_thread(
        self,
        thread_id: str,
        document: bytes,
        messages: Iterable[bytes],
        runs: Mapping[str, RunContents],
        *,
        modified_ns: int | None = None,
    ) -> None:
        """Makes a thread with all its contents; readers see all of it or nothing.

        All documents are whole ones as bytes. All are checked, and get the ids of their path. A document or
        line in the layout of the format is stored byte for byte. *messages* are lines; only some of them are
        in memory at a time. Everything gets the time *modified_ns* since 1970, or now.

        Raises:
            InvalidDocument: with the path of the first wrong document.
            AlreadyExists: the id is taken.
        """
        names.checked(thread_id)
        self._create(thread_id, contents_of_thread(thread_id, document, messages, runs), modified_ns)

    def extend_thread(
        self,
        thread_id: str,
        log_bytes: int,
        messages: Sequence[bytes],
        runs: Mapping[str, RunContents],
        *,
        modified_ns: int | None = None,
    ) -> None:
        """Adds runs, and the steps that a run has not yet, then messages, to a log of *log_bytes*.

        All are checked before. A kill or a power cut before this returns may leave the first few of them,
        each as a whole. The time of what is added, and of the log, is *modified_ns* since 1970, or now.

        Raises:
            ThreadNotFound: no such thread.
            ModifiedSince: its log has another size by now.
            InvalidDocument: with the place of the first wrong document.
        """
        addition = Addition.checked(names.checked(thread_id), messages, runs, modified_ns)
        lock = locked_thread(self.open_threads, thread_id)
        with self.announcer.announcing() as changes, self._durable.syncing() as unsynced, lock as thread:
            self._durable.note(unsynced, (thread_id,), thread.inode)
            if not paths.exists(thread.directory, META):
                raise self._gone(DocumentKey(thread_id))
            if self.log_info(thread_id).size_bytes != log_bytes:
                raise ModifiedSince(thread_id)
            changes += [Change(Part.RUNS, thread_id, run_id) for run_id in runs]
            addition.add_runs(self._calls, self._durable, thread.directory)
            if addition.lines:
                changes.append(Change(Part.LOG, thread_id))
                open_log = self._open_log(thread, unsynced)
                number = open_log.append(addition.lines)
                if modified_ns is not None:
                    with storage_errors(thread_id):
                        self._calls.set_modified(thread.directory, LOG, modified_ns)
            lock.unlock()
            if addition.lines:
                open_log.sync(number)

    def get_thread(self, thread_id: str) -> Thread:
        return self._get(DocumentKey(thread_id), Thread)

    def has_place(self, key: DocumentKey) -> bool:
        """Whether a thread or run has a directory, also without a document: it may be being made."""
        with opened(self.root, *layout.place(key)[0]) as directory:
            return directory is not None

    def check_writable(self, thread_id: str) -> None:
        """Raises StorageFailed when the disk is read-only, or this user may not write the thread."""
        with opened(self.root, names.checked(thread_id)) as thread:
            if thread is None:
                raise self._gone(DocumentKey(thread_id))
            if not os.access(".", os.W_OK, dir_fd=thread):
                is_read_only = os.fstatvfs(thread).f_flag & os.ST_RDONLY
                raise StorageFailed(errno.EROFS if is_read_only else errno.EACCES, thread_id)

    def thread_modified_ns(self, thread_id: str) -> int:
        """When anything in the thread last changed, in nanoseconds since 1970."""
        return self.thread_times(thread_id).modified_ns

    def thread_times(self, thread_id: str) -> Times:
        """The latest times of anything in the thread."""
        followed, changes_heard, run_ids = self._followed, 0, None
        if followed is not None:
            if (known := followed.times(thread_id)) is not None:
                return known
            changes_heard, run_ids = followed.changes_heard, followed.run_ids(thread_id)
        latest = thread_times.thread_times(self.root, names.checked(thread_id), run_ids)
        if latest is None:
            # Looking at the document raises the error that fits.
            info = self.document_info(DocumentKey(thread_id))
            return Times(info.modified_ns, info.changed_ns)
        if followed is not None:
            followed.remember_times(thread_id, latest, changes_heard)
        return latest

    def times_of_threads(self, thread_ids: Collection[str]) -> dict[str, Times]:
        """As `thread_times`, of many; without those that are not there, or cannot be looked at.

        Of a thread that is not followed yet the catalogue knows where its parts are, and how they were: to
        compare these takes half of what it takes to look for them.
        """
        found: dict[str, Times] = {}
        if (followed := self._followed) is not None:
            with suppress(StorageFailed):
                found = followed.run_lists().times_of(followed.without_times(thread_ids))
        for thread_id in thread_ids:
            if thread_id not in found:
                with suppress(StoreError):
                    found[thread_id] = self.thread_times(thread_id)
        return found

    def thread_touched_ns(self, thread_id: str) -> int:
        """The later of `thread_modified_ns` and of when an entry of its own directory last came or went.

        An import sets the times of all that is in the directory, and not that of the directory.
        """
        modified_ns = self.thread_modified_ns(thread_id)
        with opened(self.root, thread_id) as directory:
            return modified_ns if directory is None else max(modified_ns, os.fstat(directory).st_mtime_ns)

    def set_thread_modified(self, thread_id: str, modified_ns: int) -> None:
        """Sets the times of the lists of runs and steps back, where they are later; documents keep theirs."""
        self.document_info(DocumentKey(thread_id))
        parents: list[tuple[Parts, str]] = [((thread_id,), RUNS)]
        parents += [
            ((thread_id, RUNS, run_id), STEPS) for run_id in self._listing.ids((thread_id, RUNS), STATUS)
        ]
        with self.announcer.announcing(is_commit=False) as changes:
            changes.append(Change(Part.TIMES, thread_id))
            for parts, name in parents:
                with opened(self.root, *parts, name) as directory:
                    is_later = directory is not None and os.fstat(directory).st_mtime_ns > modified_ns
                if is_later:
                    self._set_modified(parts, name, modified_ns, ThreadNotFound(thread_id))

    def delete_thread(
        self,
        thread_id: str,
        *,
        force: bool = False,
        only_empty: bool = False,
        unmodified_since_ns: int | None = None,
        with_foreign: bool = False,
        with_damaged: bool = False,
    ) -> None:
        """Deletes a thread with all its contents; readers see all of it or nothing.

        Raises:
            RunInProgress: a run is in progress, and *force* is not given.
            NotEmpty: it holds messages or runs, and *only_empty* was asked for.
            ModifiedSince: it has changed, or come, after *unmodified_since_ns*, in nanoseconds since 1970.
            Foreign: see `check_ours`, also for *with_foreign* and *with_damaged*.
        """
        key = DocumentKey(thread_id)
        self.document_info(key)
        with (
            self.announcer.announcing() as changes,
            opened(self.root) as root,
            locked_thread(self.open_threads, thread_id) as thread,
        ):
            assert root is not None
            run_ids = self._listing.ids((thread_id, RUNS), STATUS)
            if not force:
                for run_id in run_ids:
                    self._refuse_in_progress(thread_id, run_id)
            if only_empty and (run_ids or self.log_info(thread_id).size_bytes):
                raise NotEmpty(f"thread {thread_id!r} holds messages or runs")
            if unmodified_since_ns is not None and self.thread_touched_ns(thread_id) > unmodified_since_ns:
                raise ModifiedSince(thread_id)
            foreign.check(root, thread_id, key, with_foreign=with_foreign, with_damaged=with_damaged)
            check_again = None if with_foreign else partial(foreign.check_contents, key=key)
            with self._handing_over_log(thread_id):
                trees.delete(self._calls, root, thread_id, thread_id, check_again)
            self.open_threads.forget(thread)
            self._listing.forget((thread_id,))
            self._echoes.forget(thread_id, META)
            changes.append(Change(Part.THREADS, thread_id))

    @contextmanager
    def _handing_over_log(self, thread_id: str) -> Iterator[None]:
        """While a thread is deleted, which must not fail for this."""
        heir, log = self.on_deleted, None
        if heir is not None:
            with suppress(StoreError):
                log = self.open_log(thread_id)
        try:
            yield
        except BaseException:
            if log is not None:
                log.close()
            raise
        if heir is not None and log is not None:
            heir(thread_id, log)
