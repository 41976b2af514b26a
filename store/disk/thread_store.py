"""`ThreadStore`: the store in a directory, as ``FORMAT.md`` describes it."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from store import documents, lines, names, transitions
from store.api import Change, DocumentKey, Info, RunContents, StatusOfRun, Times
from store.disk import (
    appending,
    directories,
    filesystems,
    foreign,
    layout,
    leftovers,
    log,
    thread_times,
    trees,
)
from store.disk.appending import OpenLog
from store.disk.directories import opened, storage_errors
from store.disk.document_files import DocumentFiles
from store.disk.extending import Addition
from store.disk.importing import contents_of_thread, of_place
from store.disk.layout import LOG, META, RUNS, STATUS, STEPS, Parts
from store.disk.list_times import ListTimes
from store.disk.open_threads import OpenThread, locked_thread
from store.disk.system_calls import SystemCalls
from store.errors import (
    Damaged,
    ModifiedSince,
    NotEmpty,
    NotFound,
    RunInProgress,
    StorageFailed,
    StoreError,
    ThreadNotFound,
)
from store.models import (
    Run,
    RunStatus,
    RunStep,
    Thread,
    ThreadMessage,
)
from store.waiting import waits

if TYPE_CHECKING:  # They need the library for watching.
    from store.disk.run_index import RunIndex
    from store.disk.watching import DiskWatch, Watches


class ThreadStore(DocumentFiles):
    """The threads in a directory, which other programs may be using at the same moment.

    A missing directory is made. Every change is durable when its method returns. Methods may be called
    from many threads at once.

    Raises:
        StorageFailed: the directory cannot be made or is none.
    """

    def __init__(self, directory: str | os.PathLike[str], *, calls: SystemCalls | None = None) -> None:
        super().__init__(os.path.abspath(directory), calls or SystemCalls())
        self._index: RunIndex | None = None
        self._lists = ListTimes()
        self._watches: Watches | None = None
        self._watching = threading.Lock()
        with storage_errors(self.location):
            # What leads to it may be links; one in its own place is not made to lead somewhere.
            above, name = os.path.split(self.location)
            self._make_root(os.path.join(os.path.realpath(above), name))
        self.is_remote = not filesystems.is_local(self.root)
        self.open_threads.keeps = not self.is_remote
        self._listing.on_incomplete = self._await_documents

    def _make_root(self, path: str) -> None:
        parent = os.path.dirname(path)
        if os.path.isdir(path):
            # Who made it may have been killed before its name was durable.
            if os.access(parent, os.R_OK):
                with opened(parent) as directory:
                    assert directory is not None
                    self._calls.sync(directory)
            return
        self._make_root(parent)
        with opened(parent) as directory:
            assert directory is not None
            with suppress(FileExistsError):
                self._calls.make_directory(directory, os.path.basename(path))
            self._calls.sync(directory)
        if not os.path.isdir(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)

    def close(self) -> None:
        """Ends what runs in the background, and closes what is open."""
        self.open_threads.close()
        if self._index is not None:
            self._index.close()
            self._index = None

    def _note(self, thread_id: str, run_id: str | None = None) -> None:
        """A thread came or went, or a run came, went or changed."""
        if self._index is not None:
            self._index.note(thread_id, run_id)
        else:
            self._lists.note_all()

    def _touched(self, thread_id: str) -> None:
        if self._index is not None:
            self._index.touched(thread_id)

    def _rewrite(self, key: DocumentKey, change: Callable[[bytes | None], bytes | None]) -> None:
        super()._rewrite(key, change)
        if key.run_id is not None and key.step_id is None:
            self._note(key.thread_id, key.run_id)

    def thread_dir(self, thread_id: str) -> Path:
        """Where the thread's files are, or would be. Raises InvalidName."""
        return Path(self.location, names.checked(thread_id))

    def run_dir(self, thread_id: str, run_id: str) -> Path:
        return self.thread_dir(thread_id) / RUNS / names.checked(run_id)

    def steps_dir(self, thread_id: str, run_id: str) -> Path:
        return self.run_dir(thread_id, run_id) / STEPS

    # ── Threads ─────────────────────────────────────────────────────────────────────────────────────

    def create_thread(self, thread: Thread) -> Thread:
        """Makes a thread with no messages and no runs.

        Raises:
            AlreadyExists: the id is taken, also by something that is no thread.
        """
        names.checked(thread.id)
        with opened(self.root) as root:
            assert root is not None
            contents: trees.Contents = {META: documents.pretty(thread)}
            trees.create(self._calls, self._durable, root, (thread.id,), contents)
        self._note(thread.id)
        return thread

    def import_thread(
        self,
        thread_id: str,
        document: bytes,
        messages: Iterable[bytes],
        runs: Mapping[str, RunContents],
        *,
        modified_ns: int | None = None,
    ) -> None:
        """Makes a thread with all that it holds appear in one step.

        All documents are whole ones as bytes, and all are checked; they get the ids of their place. A
        document or line in the layout of the format is stored byte for byte. *messages* are lines, of
        which only some at a time are in memory. The time of all of it is *modified_ns* since 1970, or now.

        Raises:
            InvalidDocument: with the place of the first wrong document.
            AlreadyExists: the id is taken.
        """
        names.checked(thread_id)
        contents = contents_of_thread(thread_id, document, messages, runs)
        with opened(self.root) as root:
            assert root is not None
            trees.create(self._calls, self._durable, root, (thread_id,), contents, modified_ns)
        self._note(thread_id)

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
        with lock as thread:
            self._durable.ensure((thread_id,), thread.inode)
            if not directories.stands(thread.directory, META):
                raise self._gone(DocumentKey(thread_id))
            if self.log_info(thread_id).size_bytes != log_bytes:
                raise ModifiedSince(thread_id)
            try:
                addition.add_runs(self._calls, self._durable, thread.directory)
                if addition.lines:
                    open_log = self._open_log(thread)
                    number = open_log.append(addition.lines)
                    if modified_ns is not None:
                        with storage_errors(thread_id):
                            self._calls.set_modified(thread.directory, LOG, modified_ns)
            finally:
                self._touched(thread_id)
                for run_id in runs:
                    self._note(thread_id, run_id)
            lock.unlock()
            if addition.lines:
                open_log.sync(number)

    def get_thread(self, thread_id: str) -> Thread:
        return self._get(DocumentKey(thread_id), Thread)

    def list_thread_ids(self) -> list[str]:
        """The ids of all threads, in no order."""
        return self._listing.ids((), META)

    def check_writable(self, thread_id: str) -> None:
        """Says beforehand that the disk is read-only, or the thread somebody else's."""
        with opened(self.root, names.checked(thread_id)) as thread:
            if thread is None:
                raise self._gone(DocumentKey(thread_id))
            if not os.access(".", os.W_OK, dir_fd=thread):
                is_read_only = os.fstatvfs(thread).f_flag & os.ST_RDONLY
                raise StorageFailed(errno.EROFS if is_read_only else errno.EACCES, thread_id)

    def check_appendable(self, thread_id: str, size_bytes: int = 0) -> None:
        """Says beforehand, as far as the disk tells, that a message of *size_bytes* could not be appended.

        Raises:
            ThreadNotFound: no such thread.
            StorageFailed: the disk is read-only or full, or the thread or its log somebody else's.
        """
        self.document_info(DocumentKey(thread_id))
        with opened(self.root, thread_id) as thread:
            if thread is None:
                raise self._gone(DocumentKey(thread_id))
            log_status = directories.stat_path(self.root, (thread_id, LOG))
            log_bytes = None if log_status is None else log_status.st_size
            appending.check_room(thread, thread_id, log_bytes, size_bytes)

    def thread_modified_ns(self, thread_id: str) -> int:
        """When anything in the thread last changed, in nanoseconds since 1970."""
        return self.thread_times(thread_id).modified_ns

    def thread_times(self, thread_id: str) -> Times:
        """The latest times of anything in the thread."""
        index = self._index
        if index is not None and (known := index.times(thread_id)) is not None:
            return known
        changes_heard, run_ids = 0, None
        if index is not None:
            changes_heard, run_ids = index.changes_heard, index.run_ids(thread_id, some_may_be_none=True)
        latest = thread_times.thread_times(self.root, names.checked(thread_id), run_ids)
        if latest is None:
            # What is wrong is said by who looks at the document.
            info = self.document_info(DocumentKey(thread_id))
            return Times(info.modified_ns, info.changed_ns)
        if index is not None:
            index.remember_times(thread_id, latest, changes_heard)
        return latest

    def thread_touched_ns(self, thread_id: str) -> int:
        """The later of `thread_modified_ns` and of when an entry of its own directory last came or went.

        An import sets the times of all that is in the directory, and not that of the directory.
        """
        modified_ns = self.thread_modified_ns(thread_id)
        with opened(self.root, thread_id) as directory:
            return max(modified_ns, directories.modified_ns(directory))

    def set_thread_modified(self, thread_id: str, modified_ns: int) -> None:
        """Forgets that runs and steps came or went later than that; documents have times of their own."""
        self.document_info(DocumentKey(thread_id))
        parents: list[tuple[Parts, str]] = [((thread_id,), RUNS)]
        parents += [
            ((thread_id, RUNS, run_id), STEPS) for run_id in self._listing.ids((thread_id, RUNS), STATUS)
        ]
        for parts, name in parents:
            with opened(self.root, *parts, name) as directory:
                is_later = directories.modified_ns(directory) > modified_ns
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
        """Deletes a thread with all that it holds; readers see all of it or nothing.

        Raises:
            RunInProgress: a run is in progress, and *force* is not given.
            NotEmpty: it holds messages or runs, and *only_empty* was asked for.
            ModifiedSince: it has changed, or come, after *unmodified_since_ns*, in nanoseconds since 1970.
            Foreign: see `check_ours`, also for *with_foreign* and *with_damaged*.
        """
        key = DocumentKey(thread_id)
        self.document_info(key)
        with opened(self.root) as root, locked_thread(self.open_threads, thread_id) as thread:
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
            trees.delete(self._calls, root, thread_id, thread_id, check_again)
            self.open_threads.forget(thread)
            self._listing.forget((thread_id,))
        self._note(thread_id)

    def check_ours(self, key: DocumentKey, *, with_foreign: bool = False) -> None:
        """That a thread or run is surely one of this format, and holds nothing else.

        A directory with a ``meta.json`` is shown as a thread, but may be anybody's.

        Args:
            with_foreign: it may hold something else. (Deleting has *with_damaged* too: it may have no
                document that says what it is, and then holds nothing else.)

        Raises:
            Foreign: it is not; with the path of what is wrong.
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

    def _refuse_in_progress(self, thread_id: str, run_id: str) -> None:
        with suppress(NotFound, Damaged):
            status = self.get_run(thread_id, run_id).status
            if status.is_in_progress:
                raise RunInProgress(run_id, status)

    # ── Messages ────────────────────────────────────────────────────────────────────────────────────

    def append_message(self, thread_id: str, message: ThreadMessage) -> ThreadMessage:
        """Appends *message* to the thread's log; on disk when this returns.

        Returns:
            The message as stored, with the thread's id.

        Raises:
            ThreadNotFound: no such thread.
        """
        message = message.model_copy(update={"thread_id": names.checked(thread_id)})
        self._append(thread_id, [documents.line(message)])
        return message

    def append_lines(self, thread_id: str, given: Sequence[bytes]) -> None:
        """Appends messages given as lines, whole or short ones, side by side.

        All are checked before. A kill or a power cut before this returns may leave the first few of them.

        Raises:
            InvalidDocument: with the number of the first line that is no message.
        """
        laid_out = [
            of_place(f"line {number}", transitions.laid_out_line, names.checked(thread_id), line)
            for number, line in enumerate(given, 1)
        ]
        if laid_out:
            self._append(thread_id, laid_out)

    def _append(self, thread_id: str, given: Sequence[bytes]) -> None:
        lock = locked_thread(self.open_threads, thread_id)
        with lock as thread:
            self._durable.ensure((thread_id,), thread.inode)
            if not directories.stands(thread.directory, META):
                raise self._gone(DocumentKey(thread_id))
            try:
                open_log = self._open_log(thread)
                number = open_log.append(given)
            finally:
                self._touched(thread_id)
            # Others write while this waits for the disk.
            lock.unlock()
            open_log.sync(number)

    def _open_log(self, thread: OpenThread) -> OpenLog:
        if thread.log is None:
            opened_log = OpenLog(self._calls, thread.directory, thread.thread_id)
            name = (thread.thread_id, LOG)
            try:
                if opened_log.is_empty:
                    self._durable.forget(name)
                self._durable.ensure(name, opened_log.inode)
            except BaseException:
                os.close(opened_log.file)
                raise
            thread.log = opened_log
        return thread.log

    def iter_messages(self, thread_id: str) -> Iterator[ThreadMessage]:
        """The messages in the order of the log, in bounded memory; lines that are none are skipped."""
        reader = self.open_log(thread_id)
        try:
            for line, _ in lines.iter_lines(reader.read):
                if message := lines.message_of(line, thread_id):
                    yield message
        finally:
            reader.close()

    def list_messages(self, thread_id: str) -> list[ThreadMessage]:
        return list(self.iter_messages(thread_id))

    def open_log(self, thread_id: str) -> log.DiskLogReader:
        """The log, open for reading at any offset."""
        key = DocumentKey(thread_id)
        try:
            reader = log.DiskLogReader(self.root, names.checked(thread_id))
        except ThreadNotFound:
            raise self._gone(key) from None
        try:
            reader.document = self.document_info(key)
        except BaseException:
            reader.close()
            raise
        return reader

    def log_info(self, thread_id: str) -> Info:
        reader = self.open_log(thread_id)
        try:
            return reader.info()
        finally:
            reader.close()

    def set_log_modified(self, thread_id: str, modified_ns: int) -> None:
        """Sets the time of the log's last change; a log without messages has none to set."""
        if self.log_info(thread_id).version:
            self._set_modified((thread_id,), LOG, modified_ns, ThreadNotFound(thread_id))

    # ── Runs ────────────────────────────────────────────────────────────────────────────────────────

    def create_run(self, thread_id: str, run: Run) -> Run:
        """Makes a run of the thread.

        Raises:
            ThreadNotFound: no such thread.
            AlreadyExists: the thread has a run of this id.
        """
        names.checked(run.id)
        run = run.model_copy(update={"thread_id": names.checked(thread_id)})
        data = documents.pretty(run)
        with self._held((thread_id,)) as thread:
            if thread is None or not directories.stands(thread, META):
                raise self._gone(DocumentKey(thread_id))
            runs = trees.ensure_directory(self._calls, thread, RUNS, f"{thread_id}/{RUNS}")
            try:
                trees.create(self._calls, self._durable, runs, (thread_id, RUNS, run.id), {STATUS: data})
            finally:
                os.close(runs)
        self._note(thread_id, run.id)
        return run

    def get_run(self, thread_id: str, run_id: str) -> Run:
        return self._get(DocumentKey(thread_id, run_id), Run)

    def list_run_ids(self, thread_id: str) -> list[str]:
        """The ids of the thread's runs, in no order. Raises ThreadNotFound."""
        parts = (names.checked(thread_id), RUNS)
        if self._index is not None and (known := self._index.run_ids(thread_id)) is not None:
            return known
        return self._while_there(DocumentKey(thread_id), lambda: self._listing.ids(parts, STATUS))

    def delete_run(
        self,
        thread_id: str,
        run_id: str,
        *,
        force: bool = False,
        only_empty: bool = False,
        with_foreign: bool = False,
        with_damaged: bool = False,
    ) -> None:
        """Deletes a run with its steps.

        Raises:
            RunInProgress: it is in progress, and *force* is not given.
            NotEmpty: it is not queued or has steps, and *only_empty* was asked for.
            Foreign: see `check_ours`, also for *with_foreign* and *with_damaged*.
        """
        key = DocumentKey(thread_id, run_id)
        self.document_info(key)
        with locked_thread(self.open_threads, thread_id), opened(self.root, thread_id, RUNS) as runs:
            if runs is None:
                raise self._gone(key)
            if not force:
                self._refuse_in_progress(thread_id, run_id)
            if only_empty and (
                self.get_run(thread_id, run_id).status is not RunStatus.queued
                or self.list_step_ids(thread_id, run_id)
            ):
                raise NotEmpty(f"run {run_id!r} has been worked on")
            if not with_damaged:
                self._check_is_thread(thread_id)
            foreign.check(runs, run_id, key, with_foreign=with_foreign, with_damaged=with_damaged)
            check_again = None if with_foreign else partial(foreign.check_contents, key=key)
            trees.delete(self._calls, runs, run_id, f"{thread_id}/{RUNS}/{run_id}", check_again)
            self._listing.forget((thread_id, RUNS, run_id))
        self._note(thread_id, run_id)

    def index_runs(self) -> None:
        """Begins to keep in memory what `runs_by_status` answers from, if the store can be watched."""
        from store.disk.run_index import RunIndex  # As in `watch`.

        if self._index is None:
            with suppress(OSError, StorageFailed):
                self._index = RunIndex(self, lists=self._lists)

    def list_changed_ns(self, status: RunStatus | None = None) -> int:
        """When a name last came into or went from the list of threads, or that of the runs in *status*.

        In nanoseconds since 1970, not before the store was opened. What other programs do to runs in many
        threads that are not followed is not noticed.
        """
        waits()
        with suppress(StorageFailed):  # Who lists it is told.
            unheard = None if self._index is None else self._index.note_changes()
            self._lists.look(status, unheard, self)
        return self._lists.of(status)

    def runs_by_status(self, statuses: Collection[RunStatus] = tuple(RunStatus)) -> Iterator[StatusOfRun]:
        """(thread, run, status) of every run that can be read and is in one of *statuses*."""
        if self._index is not None:
            yield from self._index.runs(statuses)
            return
        for thread_id in self.list_thread_ids():
            yield from (found for found in self.scan(thread_id) if found[2] in statuses)

    def scan(self, thread_id: str) -> Iterator[StatusOfRun]:
        """(thread, run, status) of each run of the thread that can be read."""
        with suppress(StoreError):
            for run_id in self.list_run_ids(thread_id):
                with suppress(StoreError):
                    yield thread_id, run_id, self.status_of(thread_id, run_id)

    def status_of(self, thread_id: str, run_id: str) -> RunStatus:
        return self.get_run(thread_id, run_id).status

    def stale_runs(self, older_than_s: float) -> Iterator[StatusOfRun]:
        """The runs that have not ended and whose status is unchanged for *older_than_s* seconds."""
        latest_ns = time.time_ns() - int(older_than_s * 1e9)
        for found in self.runs_by_status([status for status in RunStatus if not status.is_terminal]):
            with suppress(NotFound, Damaged):
                if self.document_info(DocumentKey(found[0], found[1])).modified_ns <= latest_ns:
                    yield found

    # ── Steps ───────────────────────────────────────────────────────────────────────────────────────

    def append_step(self, thread_id: str, run_id: str, step: RunStep) -> RunStep:
        """Adds a step to a run.

        Raises:
            RunNotFound: no such run.
            AlreadyExists: the run has a step of this id.
        """
        step = step.model_copy(update={"run_id": run_id, "thread_id": thread_id})
        key = DocumentKey(thread_id, run_id, step.id)
        layout.place(key)  # A wrong id is said first.
        self._add_step(key, documents.pretty(step))
        return step

    def get_step(self, thread_id: str, run_id: str, step_id: str) -> RunStep:
        return self._get(DocumentKey(thread_id, run_id, step_id), RunStep)

    def list_step_ids(self, thread_id: str, run_id: str) -> list[str]:
        """The ids of the run's steps, damaged ones too, in no order. Raises RunNotFound."""
        key = DocumentKey(thread_id, run_id)
        with opened(self.root, *layout.place(key)[0], STEPS) as steps:
            if steps is None:
                self.document_info(key)
                return []
        return self._while_there(key, lambda: self._step_ids(key))

    def _step_ids(self, key: DocumentKey) -> list[str]:
        parts = (*layout.place(key)[0], STEPS)
        with opened(self.root, *parts) as directory:
            if directory is None:
                return []
            waits()
            with storage_errors("/".join(parts)):
                found = os.listdir(directory)
        stems = [name.removesuffix(".json") for name in found if name.endswith(".json")]
        return [stem for stem in stems if names.is_id(stem)]

    def list_steps(self, thread_id: str, run_id: str) -> list[RunStep]:
        """The run's steps, oldest first; damaged ones are left out."""
        key = DocumentKey(thread_id, run_id)
        steps = self._while_there(key, lambda: list(self._steps(key)))
        return sorted(steps, key=lambda step: (step.created_at, step.id))

    def _steps(self, key: DocumentKey) -> Iterator[RunStep]:
        for step_id in self._step_ids(key):
            with suppress(NotFound, Damaged):
                yield self.get_step(key.thread_id, str(key.run_id), step_id)

    # ── The store as a whole ────────────────────────────────────────────────────────────────────────

    def list_leftovers(self, older_than_s: float) -> Iterator[leftovers.Leftover]:
        """What killed programs left unfinished, untouched for *older_than_s* seconds."""
        return leftovers.find(self.root, older_than_s)

    def clear_leftover(self, leftover: leftovers.Leftover) -> None:
        """Finishes a deletion; moves a temporary file or directory aside, where nothing reads it."""
        leftovers.clear(self._calls, self.root, leftover)

    def watch(self, on_change: Callable[[Change], None], *, is_first: bool = False) -> DiskWatch:
        """Calls *on_change* for each change, by whichever program, in what is followed.

        The index *is_first* to be told: who is told asks it.

        Raises:
            StorageFailed: the system has no watch left, or the disk is one that other hosts change unheard.
        """
        if self.is_remote:
            raise StorageFailed(errno.EOPNOTSUPP, f"{self.location}: hearing what other hosts change")
        from store.disk.watching import Watches  # Its library is needed by those who watch alone.

        with self._watching, storage_errors(self.location):
            if self._watches is None or self._watches.is_closed:
                self._watches = Watches(self.root)
            return self._watches.follower(on_change, is_first=is_first)

    def _await_documents(self, parts: Parts, without: Collection[str]) -> bool:
        """What is no thread or run yet, who follows the list hears of when it becomes one."""
        watches = self._watches
        if watches is not None and not watches.is_closed:
            with suppress(StorageFailed, OSError, ValueError):  # No watch is left, or it is being closed.
                return watches.await_documents(parts, without)
        return False

    def reports_all_of(self, thread_id: str) -> bool:
        return self._index is not None and self._index.follows_all_of(thread_id)

    def space(self) -> os.statvfs_result:
        with storage_errors(self.location):
            return os.statvfs(self.location)
