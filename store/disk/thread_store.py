"""`ThreadStore`: the store in a directory, as ``FORMAT.md`` describes it."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from store import documents, lines, names, transitions
from store.api import Change, DocumentKey, Info, RunContents, Watch
from store.disk import directories, files, leftovers, log
from store.disk.directories import opened, storage_errors
from store.disk.locking import locked_thread
from store.disk.system_calls import SystemCalls
from store.errors import (
    AlreadyExists,
    Damaged,
    InvalidDocument,
    NotEmpty,
    NotFound,
    RunInProgress,
    RunNotFound,
    RunStepNotFound,
    ThreadNotFound,
)
from store.models import (
    Document,
    Run,
    RunError,
    RunStatus,
    RunStep,
    RunStepStatus,
    Thread,
    ThreadMessage,
)

META, STATUS, RUNS, STEPS = "meta.json", "status.json", "runs", "steps"

_PIECE_BYTES = 1 << 20

D = TypeVar("D", bound=Document)
K = TypeVar("K")


class ThreadStore:
    """The threads in a directory, which other programs may be using at the same moment.

    A missing directory is made. Every change is durable when its method returns. Methods may be called
    from many threads at once.

    Raises:
        StorageFailed: the directory cannot be made or is none.
    """

    def __init__(self, directory: str | os.PathLike[str], *, calls: SystemCalls | None = None) -> None:
        self.location = os.path.abspath(directory)
        self._calls = calls or SystemCalls()
        # Directories seen with their document: name and inode number of each, by parent, so that listing
        # looks at each of them once. A name whose document has gone is forgotten when it is looked up.
        self._known: dict[tuple[str, ...], dict[str, int]] = {}
        # Statuses as last parsed, by the version of the document.
        self._statuses: dict[DocumentKey, tuple[tuple[int, ...], RunStatus]] = {}
        # The inode of what each path below the root is known to name durably.
        self._durable: dict[tuple[str, ...], int] = {}
        with storage_errors(self.location):
            self._make_root(self.location)

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

    # ── Where things are ────────────────────────────────────────────────────────────────────────────

    def thread_dir(self, thread_id: str) -> Path:
        """Where the thread's files are, or would be. Raises InvalidName."""
        return Path(self.location, names.checked(thread_id))

    def run_dir(self, thread_id: str, run_id: str) -> Path:
        return self.thread_dir(thread_id) / RUNS / names.checked(run_id)

    def steps_dir(self, thread_id: str, run_id: str) -> Path:
        return self.run_dir(thread_id, run_id) / STEPS

    @staticmethod
    def _place(key: DocumentKey) -> tuple[tuple[str, ...], str]:
        """The directories below the root that lead to a document, and its file's name."""
        thread = (names.checked(key.thread_id),)
        if key.run_id is None:
            return thread, META
        run = (*thread, RUNS, names.checked(key.run_id))
        if key.step_id is None:
            return run, STATUS
        return (*run, STEPS), f"{names.checked(key.step_id)}.json"

    @staticmethod
    def _path(key: DocumentKey) -> str:
        parts, name = ThreadStore._place(key)
        return "/".join((*parts, name))

    @staticmethod
    def _not_found(key: DocumentKey) -> NotFound:
        if key.run_id is None:
            return ThreadNotFound(key.thread_id)
        return RunNotFound(key.run_id) if key.step_id is None else RunStepNotFound(key.step_id)

    def _listed(self, parts: tuple[str, ...], document: str) -> list[str]:
        """The ids of the directories below *parts* that hold *document*, in the order of the disk."""
        with opened(self.location, *parts) as directory:
            if directory is None:
                return []
            with storage_errors("/".join(parts) or self.location):
                found = directories.subdirectories(directory)
            known = self._known.get(parts, {})
            present = {}
            for name, inode in found:
                if known.get(name) == inode or (names.is_id(name) and self._holds(directory, name, document)):
                    present[name] = inode
            self._known[parts] = present
        return list(present)

    @staticmethod
    def _holds(directory: int, name: str, document: str) -> bool:
        try:
            os.stat(f"{name}/{document}", dir_fd=directory, follow_symlinks=False)
        except OSError:
            return False
        return True

    def _forget(self, parts: tuple[str, ...], name: str) -> None:
        self._known.get(parts, {}).pop(name, None)

    # ── Documents ───────────────────────────────────────────────────────────────────────────────────

    def document_info(self, key: DocumentKey) -> Info:
        """Size, time and version of a stored document.

        Raises:
            ThreadNotFound, RunNotFound, RunStepNotFound: there is none.
            Damaged: something that is no regular file stands there.
        """
        parts, name = self._place(key)
        with opened(self.location, *parts) as directory:
            info = files.stat_file(directory, name, self._path(key)) if directory is not None else None
        if info is None:
            raise self._gone(key)
        return info

    def read_document(self, key: DocumentKey) -> tuple[bytes, Info]:
        """The stored bytes of one version of a document, whatever they are, and its info."""
        parts, name = self._place(key)
        with opened(self.location, *parts) as directory:
            found = files.read_file(directory, name, self._path(key)) if directory is not None else None
        if found is None:
            raise self._gone(key)
        return found

    def _gone(self, key: DocumentKey) -> NotFound:
        if key.run_id is None:
            self._forget((), key.thread_id)
        elif key.step_id is None:
            self._forget((key.thread_id, RUNS), key.run_id)
        return self._not_found(key)

    def _parsed(self, key: DocumentKey, data: bytes, model: type[D]) -> D:
        try:
            return model.of(transitions.with_identity(key, documents.parse(data)))
        except InvalidDocument as error:
            raise Damaged(self._path(key), str(error)) from None

    def _get(self, key: DocumentKey, model: type[D]) -> D:
        return self._parsed(key, self.read_document(key)[0], model)

    def _rewrite(self, key: DocumentKey, change: Callable[[bytes | None], bytes | None]) -> None:
        """Replaces a document under its thread's lock; see `files.rewrite`."""
        parts, name = self._place(key)
        with locked_thread(self.location, key.thread_id), opened(self.location, *parts) as directory:
            if directory is None:
                raise self._gone(key)
            self._sync_names(*parts[:3])
            files.rewrite(self._calls, directory, name, self._path(key), change)

    def _update(self, key: DocumentKey, model: type[D], change: Callable[[D], D]) -> D:
        """Replaces a document by what *change* makes of its model; returns that."""
        result: list[D] = []

        def changed(stored: bytes | None) -> bytes | None:
            if stored is None:
                raise self._gone(key)
            before = self._parsed(key, stored, model)
            after = change(before)
            result[:] = [after]
            return None if after is before else documents.pretty(after)

        self._rewrite(key, changed)
        return result[0]

    def replace_document(self, key: DocumentKey, document: bytes) -> None:
        """Puts a whole document in place of the stored one; a step that is missing is created.

        It gets the ids that *key* says. A document in the layout of the format is stored byte for byte.

        Raises:
            InvalidDocument: *document* is none.
            RunInTerminalState, RunStepInTerminalState: the stored one has ended, and this differs.
        """
        if key.step_id is not None and key.run_id is not None:
            with suppress(NotFound):
                self.document_info(key)
                return self._replace_existing(key, document)
            return self._add_step(key, transitions.laid_out_new_step(key, document))
        return self._replace_existing(key, document)

    def _replace_existing(self, key: DocumentKey, document: bytes) -> None:
        def changed(stored: bytes | None) -> bytes | None:
            if stored is None:
                raise self._gone(key)
            try:
                before: Document | None = transitions.document_at(key, documents.parse(stored))
            except InvalidDocument:
                before = None  # A whole document mends a damaged one.
            new = transitions.replaced(key, before, document)
            return None if new == stored else new

        self._rewrite(key, changed)

    def patch_document(self, key: DocumentKey, patch: dict[str, Any]) -> None:
        """Merges *patch* (RFC 7396) into a document; a status in it changes the status as well."""
        self._update(key, transitions.model_of(key), lambda stored: transitions.patched(key, stored, patch))

    def set_document_modified(self, key: DocumentKey, modified_ns: int) -> None:
        """Sets the time of a stored document's last change, in nanoseconds since 1970."""
        parts, name = self._place(key)
        self.document_info(key)
        self._set_modified(parts, name, modified_ns, self._not_found(key))

    def _set_modified(self, parts: tuple[str, ...], name: str, modified_ns: int, gone: NotFound) -> None:
        with opened(self.location, *parts) as directory:
            if directory is None:
                raise gone
            with storage_errors("/".join((*parts, name))):
                self._calls.set_modified(directory, name, modified_ns)

    def _write_directory(self, parent: int, name: str, contents: files.Contents) -> None:
        """A new directory *name* with all that it holds, synced; its own name is not."""
        self._calls.make_directory(parent, name)
        child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            for entry, content in contents.items():
                if isinstance(content, dict):
                    self._write_directory(child, entry, content)
                else:
                    pieces = (content,) if isinstance(content, bytes) else content
                    files.write_new(self._calls, child, entry, pieces)
            self._calls.sync(child)
        finally:
            os.close(child)

    def _sync_names(self, *parts: str) -> None:
        """Makes the names of a thread, and of a run in it, durable: who made them may have been killed.

        What is done in them now would go with them in a power cut.
        """
        for depth in range(1, len(parts) + 1, 2):
            with opened(self.location, *parts[: depth - 1]) as parent:
                if parent is not None:
                    with storage_errors("/".join(parts[:depth])):
                        self._sync_name(parent, parts[:depth])

    def _sync_name(self, parent: int, parts: tuple[str, ...]) -> None:
        try:
            inode = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False).st_ino
        except FileNotFoundError:
            return  # Who needs it will say that it has gone.
        if self._durable.get(parts) != inode:
            self._calls.sync(parent)
            self._durable[parts] = inode

    @contextmanager
    def _made_aside(self, parent: int, contents: files.Contents) -> Iterator[str]:
        """A synced directory under a temporary name in *parent*."""
        temporary = files.temporary_name()
        try:
            self._write_directory(parent, temporary, contents)
            yield temporary
        except BaseException:
            with suppress(OSError):
                directories.remove_tree(self._calls, parent, temporary)
            raise

    def _create(self, parent: int, parts: tuple[str, ...], contents: files.Contents) -> None:
        """Makes a directory with all it holds appear in one step; an empty directory is adopted."""
        kind, object_id = "thread" if len(parts) == 1 else "run", parts[-1]
        with storage_errors(f"{kind} {object_id}"), self._made_aside(parent, contents) as temporary:
            try:
                # Fails, atomically, unless the name is free or an empty directory.
                self._calls.rename(parent, temporary, parent, object_id)
            except OSError as error:
                if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.ENOTEMPTY):
                    raise AlreadyExists(kind, object_id) from None
                raise
            self._durable.pop(parts, None)
            self._sync_name(parent, parts)

    # ── Threads ─────────────────────────────────────────────────────────────────────────────────────

    def create_thread(self, thread: Thread) -> Thread:
        """Makes a thread with no messages and no runs.

        Raises:
            AlreadyExists: the id is taken, also by something that is no thread.
        """
        names.checked(thread.id)
        with opened(self.location) as root:
            assert root is not None
            self._create(root, (thread.id,), {META: documents.pretty(thread)})
        return thread

    def import_thread(
        self, thread_id: str, document: bytes, messages: Iterable[bytes], runs: Mapping[str, RunContents]
    ) -> None:
        """Makes a thread with all that it holds appear in one step.

        All documents are whole ones as bytes, and all are checked; they get the ids of their place. A
        document or line in the layout of the format is stored byte for byte. *messages* are lines, of
        which only some at a time are in memory.

        Raises:
            InvalidDocument: with the place of the first wrong document.
            AlreadyExists: the id is taken.
        """
        names.checked(thread_id)
        contents: files.Contents = {META: _imported(META, DocumentKey(thread_id), document)}
        pieces = _pieces(
            _of_import(f"{log.LOG}:{number}", transitions.laid_out_line, thread_id, line)
            for number, line in enumerate(messages, 1)
        )
        if first := next(pieces, b""):
            contents[log.LOG] = chain((first,), pieces)
        if runs:
            contents[RUNS] = {
                run_id: self._run_contents(thread_id, run_id, run) for run_id, run in runs.items()
            }
        with opened(self.location) as root:
            assert root is not None
            self._create(root, (thread_id,), contents)

    @staticmethod
    def _run_contents(thread_id: str, run_id: str, run: RunContents) -> files.Contents:
        key = DocumentKey(thread_id, names.checked(run_id))
        contents: files.Contents = {STATUS: _imported(f"{RUNS}/{run_id}/{STATUS}", key, run.document)}
        if run.steps:
            contents[STEPS] = {
                f"{names.checked(step_id)}.json": _imported(
                    f"{RUNS}/{run_id}/{STEPS}/{step_id}.json", DocumentKey(thread_id, run_id, step_id), step
                )
                for step_id, step in run.steps.items()
            }
        return contents

    def get_thread(self, thread_id: str) -> Thread:
        return self._get(DocumentKey(thread_id), Thread)

    def list_thread_ids(self) -> list[str]:
        """The ids of all threads, in no order."""
        return self._listed((), META)

    def thread_modified_ns(self, thread_id: str) -> int:
        """When anything in the thread last changed, in nanoseconds since 1970."""
        times = [self.document_info(DocumentKey(thread_id)).modified_ns]
        with suppress(Damaged):
            times.append(self.log_info(thread_id).modified_ns)
        with opened(self.location, thread_id, RUNS) as runs:
            times.append(directories.modified_ns(runs))
        for run_id in self._listed((thread_id, RUNS), STATUS):
            with suppress(NotFound, Damaged):
                times.append(self.document_info(DocumentKey(thread_id, run_id)).modified_ns)
            with opened(self.location, thread_id, RUNS, run_id, STEPS) as steps:
                times.append(directories.modified_ns(steps))
        return max(times)

    def set_thread_modified(self, thread_id: str, modified_ns: int) -> None:
        """Forgets that runs and steps came or went later than that; documents have times of their own."""
        self.document_info(DocumentKey(thread_id))
        parents: list[tuple[tuple[str, ...], str]] = [((thread_id,), RUNS)]
        parents += [((thread_id, RUNS, run_id), STEPS) for run_id in self._listed((thread_id, RUNS), STATUS)]
        for parts, name in parents:
            with opened(self.location, *parts, name) as directory:
                is_later = directories.modified_ns(directory) > modified_ns
            if is_later:
                self._set_modified(parts, name, modified_ns, ThreadNotFound(thread_id))

    def delete_thread(self, thread_id: str, *, force: bool = False, only_empty: bool = False) -> None:
        """Deletes a thread with all that it holds; readers see all of it or nothing.

        Raises:
            RunInProgress: a run is in progress, and *force* is not given.
            NotEmpty: it holds messages or runs, and *only_empty* was asked for.
        """
        self.document_info(DocumentKey(thread_id))
        with opened(self.location) as root, locked_thread(self.location, thread_id):
            assert root is not None
            run_ids = self._listed((thread_id, RUNS), STATUS)
            if not force:
                for run_id in run_ids:
                    self._refuse_in_progress(thread_id, run_id)
            if only_empty and (run_ids or self.log_info(thread_id).size_bytes):
                raise NotEmpty(f"thread {thread_id!r} holds messages or runs")
            self._delete(root, thread_id, (), (thread_id,))

    def _refuse_in_progress(self, thread_id: str, run_id: str) -> None:
        with suppress(NotFound, Damaged):
            status = self.get_run(thread_id, run_id).status
            if status.is_in_progress:
                raise RunInProgress(run_id, status)

    def _delete(self, parent: int, name: str, parts: tuple[str, ...], inside: tuple[str, ...]) -> None:
        with storage_errors("/".join(inside)):
            deleted = files.temporary_name(files.DELETED)
            self._calls.rename(parent, name, parent, deleted)
            try:
                self._calls.sync(parent)
            except OSError:
                # Not durable, so nothing of it may be removed: a power cut could bring back half.
                with suppress(OSError):
                    self._calls.rename(parent, deleted, parent, name)
                raise
            self._forget(parts, name)
            for known in [known for known in self._known if known[: len(inside)] == inside]:
                self._known.pop(known, None)
            # The thread is gone; what of its files cannot be removed is left for maintenance.
            with suppress(OSError):
                directories.remove_tree(self._calls, parent, deleted)

    # ── Messages ────────────────────────────────────────────────────────────────────────────────────

    def append_message(self, thread_id: str, message: ThreadMessage) -> ThreadMessage:
        """Appends *message* to the thread's log; on disk when this returns.

        Returns:
            The message as stored, with the thread's id.

        Raises:
            ThreadNotFound: no such thread.
        """
        message = message.model_copy(update={"thread_id": names.checked(thread_id)})
        self._append(thread_id, documents.line(message))
        return message

    def append_lines(self, thread_id: str, given: Sequence[bytes]) -> None:
        """Appends messages given as lines, whole or short ones, side by side, in one write.

        All are checked before. A power cut before this returns may leave the first few of them.

        Raises:
            InvalidDocument: with the number of the first line that is no message.
        """
        laid_out = [
            _of_import(f"line {number}", transitions.laid_out_line, names.checked(thread_id), line)
            for number, line in enumerate(given, 1)
        ]
        if laid_out:
            self._append(thread_id, b"".join(laid_out))

    def _append(self, thread_id: str, data: bytes) -> None:
        path = f"{thread_id}/{log.LOG}"
        with locked_thread(self.location, thread_id) as directory:
            if not directories.stands(directory, META):
                raise self._gone(DocumentKey(thread_id))
            self._sync_names(thread_id)
            file, was_empty = log.append(self._calls, directory, path, data, thread_id)
            try:
                with storage_errors(path):
                    if was_empty:
                        self._durable.pop((thread_id, log.LOG), None)
                    self._sync_name(directory, (thread_id, log.LOG))
            except BaseException:
                os.close(file)
                raise
        # Without the lock: writers of one log wait for their disk side by side.
        try:
            with storage_errors(path):
                self._calls.sync(file)
        finally:
            os.close(file)

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

    def _open_log_file(self, thread_id: str) -> int | None:
        with opened(self.location, names.checked(thread_id)) as directory:
            if directory is None or not directories.stands(directory, META):
                raise self._gone(DocumentKey(thread_id))
            return directories.open_file(directory, log.LOG, f"{thread_id}/{log.LOG}")

    def open_log(self, thread_id: str) -> log.DiskLogReader:
        """The log, open for reading at any offset."""
        file = self._open_log_file(thread_id)
        missing = Info(0, 0, ())
        if file is None:
            missing = Info(0, self.document_info(DocumentKey(thread_id)).modified_ns, ())
        return log.DiskLogReader(file, f"{thread_id}/{log.LOG}", missing)

    def log_info(self, thread_id: str) -> Info:
        reader = self.open_log(thread_id)
        try:
            return reader.info()
        finally:
            reader.close()

    def set_log_modified(self, thread_id: str, modified_ns: int) -> None:
        """Sets the time of the log's last change; a log without messages has none to set."""
        if self.log_info(thread_id).version:
            self._set_modified((thread_id,), log.LOG, modified_ns, ThreadNotFound(thread_id))

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
        with locked_thread(self.location, thread_id) as thread:
            if not directories.stands(thread, META):
                raise self._gone(DocumentKey(thread_id))
            self._sync_names(thread_id)
            self._ensure_directory(thread, RUNS, f"{thread_id}/{RUNS}")
            with opened(self.location, thread_id, RUNS) as runs:
                if runs is None:
                    raise Damaged(f"{thread_id}/{RUNS}", "not a directory")
                self._create(runs, (thread_id, RUNS, run.id), {STATUS: data})
        return run

    def _ensure_directory(self, parent: int, name: str, path: str) -> None:
        with storage_errors(path), suppress(FileExistsError):
            self._calls.make_directory(parent, name)
        # Also when it was there: who made it may not have synced it yet.
        with storage_errors(path):
            self._calls.sync(parent)

    def get_run(self, thread_id: str, run_id: str) -> Run:
        return self._get(DocumentKey(thread_id, run_id), Run)

    def list_run_ids(self, thread_id: str) -> list[str]:
        """The ids of the thread's runs, in no order. Raises ThreadNotFound."""
        self.document_info(DocumentKey(thread_id))
        return self._listed((thread_id, RUNS), STATUS)

    def update_run_status(
        self,
        thread_id: str,
        run_id: str,
        status: RunStatus,
        error: RunError | None = None,
        *,
        expected: RunStatus | None = None,
    ) -> Run:
        """Sets the status of a run that has not ended, and ``last_error`` to *error* or none.

        Raises:
            RunInTerminalState: it has ended, with whatever status.
            StatusChanged: it is not in the *expected* status: somebody else was faster.
        """
        wanted = _status(status)
        return self._update(
            DocumentKey(thread_id, run_id),
            Run,
            lambda run: transitions.with_status(run, wanted, error, expected=expected),
        )

    def force_update_run_status(
        self, thread_id: str, run_id: str, status: RunStatus, error: RunError | None = None
    ) -> Run:
        """As `update_run_status`, also for a run that has ended."""
        wanted = _status(status)
        return self._update(
            DocumentKey(thread_id, run_id),
            Run,
            lambda run: transitions.with_status(run, wanted, error, force=True),
        )

    def cancel_run(self, thread_id: str, run_id: str, *, force: bool = False) -> Run:
        """Cancels a run, whether or not a worker holds it; one that is cancelled already stays as it is.

        Raises:
            RunInTerminalState: it has ended otherwise, and *force* is not given.
        """
        return self._update(
            DocumentKey(thread_id, run_id), Run, lambda run: transitions.cancelled(run, force=force)
        )

    def delete_run(
        self, thread_id: str, run_id: str, *, force: bool = False, only_empty: bool = False
    ) -> None:
        """Deletes a run with its steps.

        Raises:
            RunInProgress: it is in progress, and *force* is not given.
            NotEmpty: it is not queued or has steps, and *only_empty* was asked for.
        """
        key = DocumentKey(thread_id, run_id)
        self.document_info(key)
        with locked_thread(self.location, thread_id), opened(self.location, thread_id, RUNS) as runs:
            if runs is None:
                raise self._gone(key)
            if not force:
                self._refuse_in_progress(thread_id, run_id)
            if only_empty and (
                self.get_run(thread_id, run_id).status is not RunStatus.queued
                or self.list_step_ids(thread_id, run_id)
            ):
                raise NotEmpty(f"run {run_id!r} has been worked on")
            self._delete(runs, run_id, (thread_id, RUNS), (thread_id, RUNS, run_id))

    def runs_by_status(self) -> Iterator[tuple[str, str, RunStatus]]:
        """(thread, run, status) of every run that can be read."""
        for thread_id in self.list_thread_ids():
            for run_id in self._listed((thread_id, RUNS), STATUS):
                with suppress(NotFound, Damaged):
                    yield thread_id, run_id, self._status_of(DocumentKey(thread_id, run_id))

    def _status_of(self, key: DocumentKey) -> RunStatus:
        version = self.document_info(key).version
        remembered = self._statuses.get(key)
        if remembered and remembered[0] == version:
            return remembered[1]
        data, info = self.read_document(key)
        status = self._parsed(key, data, Run).status
        self._statuses[key] = info.version, status
        return status

    def stale_runs(self, older_than_s: float) -> Iterator[tuple[str, str, RunStatus]]:
        """The runs that have not ended and whose status is unchanged for *older_than_s* seconds."""
        latest_ns = time.time_ns() - int(older_than_s * 1e9)
        for thread_id, run_id, status in self.runs_by_status():
            if not status.is_terminal:
                with suppress(NotFound, Damaged):
                    if self.document_info(DocumentKey(thread_id, run_id)).modified_ns <= latest_ns:
                        yield thread_id, run_id, status

    # ── Steps ───────────────────────────────────────────────────────────────────────────────────────

    def append_step(self, thread_id: str, run_id: str, step: RunStep) -> RunStep:
        """Adds a step to a run.

        Raises:
            RunNotFound: no such run.
            AlreadyExists: the run has a step of this id.
        """
        step = step.model_copy(update={"run_id": run_id, "thread_id": thread_id})
        self._add_step(DocumentKey(thread_id, run_id, step.id), documents.pretty(step))
        return step

    def _add_step(self, key: DocumentKey, data: bytes) -> None:
        parts, name = self._place(key)
        thread_id, step_id = key.thread_id, str(key.step_id)

        def changed(stored: bytes | None) -> bytes:
            if stored is not None:
                raise AlreadyExists("step", step_id)
            return data

        with locked_thread(self.location, thread_id):
            self._sync_names(*parts[:3])
            with opened(self.location, *parts[:-1]) as run:
                if run is None or not directories.stands(run, STATUS):
                    raise self._gone(DocumentKey(thread_id, key.run_id))
                self._ensure_directory(run, STEPS, "/".join(parts))
            with opened(self.location, *parts) as steps:
                if steps is None:
                    raise Damaged("/".join(parts), "not a directory")
                try:
                    files.rewrite(self._calls, steps, name, self._path(key), changed)
                except Damaged:  # Something else stands there: the name is taken.
                    raise AlreadyExists("step", step_id) from None

    def get_step(self, thread_id: str, run_id: str, step_id: str) -> RunStep:
        return self._get(DocumentKey(thread_id, run_id, step_id), RunStep)

    def list_step_ids(self, thread_id: str, run_id: str) -> list[str]:
        """The ids of the run's steps, damaged ones too, in no order. Raises RunNotFound."""
        self.document_info(DocumentKey(thread_id, run_id))
        with opened(self.location, thread_id, RUNS, run_id, STEPS) as directory:
            if directory is None:
                return []
            with storage_errors(f"{thread_id}/{RUNS}/{run_id}/{STEPS}"):
                found = os.listdir(directory)
        stems = [name.removesuffix(".json") for name in found if name.endswith(".json")]
        return [stem for stem in stems if names.is_id(stem)]

    def list_steps(self, thread_id: str, run_id: str) -> list[RunStep]:
        """The run's steps, oldest first; damaged ones are left out."""
        steps = []
        for step_id in self.list_step_ids(thread_id, run_id):
            with suppress(NotFound, Damaged):
                steps.append(self.get_step(thread_id, run_id, step_id))
        return sorted(steps, key=lambda step: (step.created_at, step.id))

    def update_step_status(self, thread_id: str, run_id: str, step_id: str, status: RunStepStatus) -> RunStep:
        """Sets the status of a step that has not ended, and the time when it did.

        Raises:
            RunStepInTerminalState: it has ended with another status.
        """
        try:
            wanted = RunStepStatus(status)
        except ValueError:
            raise InvalidDocument(f"status: {status!r} is no status of a step") from None
        return self._update(
            DocumentKey(thread_id, run_id, step_id),
            RunStep,
            lambda step: transitions.with_step_status(step, wanted),
        )

    # ── The store as a whole ────────────────────────────────────────────────────────────────────────

    def list_leftovers(self, older_than_s: float) -> Iterator[leftovers.Leftover]:
        """What killed programs left unfinished, untouched for *older_than_s* seconds."""
        return leftovers.find(self.location, older_than_s)

    def clear_leftover(self, leftover: leftovers.Leftover) -> None:
        """Finishes a deletion; moves a temporary file or directory aside, where nothing reads it."""
        leftovers.clear(self._calls, self.location, leftover)

    def watch(self, on_change: Callable[[Change], None]) -> Watch:
        """Calls *on_change* for each change, by whichever program, in what the watch is told to follow."""
        from store.disk.watching import DiskWatch  # Its library is needed by those who watch alone.

        with storage_errors(self.location):
            return DiskWatch(self.location, on_change)

    def space(self) -> os.statvfs_result:
        with storage_errors(self.location):
            return os.statvfs(self.location)


def _pieces(parts: Iterable[bytes]) -> Iterator[bytes]:
    """*parts* joined to pieces worth a system call."""
    piece = bytearray()
    for part in parts:
        piece += part
        if len(piece) >= _PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def _imported(place: str, key: DocumentKey, document: bytes) -> bytes:
    return _of_import(place, transitions.laid_out, key, document)


def _of_import(place: str, lay_out: Callable[[K, bytes], bytes], key: K, given: bytes) -> bytes:
    try:
        return lay_out(key, given)
    except InvalidDocument as error:
        raise InvalidDocument(f"{place}: {error}") from None


def _status(status: str) -> RunStatus:
    try:
        return RunStatus(status)
    except ValueError:
        raise InvalidDocument(f"status: {status!r} is no status of a run") from None
