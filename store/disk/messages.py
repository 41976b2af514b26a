"""The messages of threads: appended to the log, and read from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from store import documents, lines, names, transitions
from store.api import DocumentKey, Info
from store.changes import Change, Part
from store.disk import appending, paths
from store.disk.appending import OpenLog
from store.disk.document_files import Changing, DocumentFiles
from store.disk.durable_names import NamesToSync
from store.disk.importing import of_place
from store.disk.layout import LOG, META
from store.disk.open_threads import OpenThread, locked_thread
from store.disk.paths import opened
from store.errors import StorageFailed, ThreadNotFound
from store.messages import message_of
from store.models import ThreadMessage


class Messages(DocumentFiles):
    def check_appendable(self, thread_id: str, size_bytes: int = 0) -> None:
        """Checks, as far as is known beforehand, that a message of *size_bytes* can be appended.

        Raises:
            ThreadNotFound: no such thread.
            StorageFailed: the disk is read-only or full, or this user may not write the thread or its log.
        """
        self.document_info(DocumentKey(thread_id))
        with opened(self.root, thread_id) as thread:
            if thread is None:
                raise self._gone(DocumentKey(thread_id))
            log_status = paths.stat_file(self.root, thread_id, LOG)
            log_bytes = None if log_status is None else log_status.st_size
            appending.check_room(thread, thread_id, log_bytes, size_bytes)

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

        All are checked first. A kill or a power cut before this returns may leave the first few of them.

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
        with self.announcer.announcing() as changes, self._durable.syncing() as unsynced, lock as thread:
            self._durable.note(unsynced, (thread_id,), thread.inode)
            open_log, number = self._append_unsynced(Changing(thread, changes, unsynced), given)
            # Other threads write while this one waits for the disk.
            lock.unlock()
            open_log.sync(number)
            self._echoes.note(thread_id, LOG, inode=open_log.inode)

    def append_in(self, changing: Changing, line: bytes) -> None:
        """Appends a line, in a thread that the caller is *changing*; on disk when this returns.

        When it fails, the line is not there: one that could not be synced is in the kernel's memory, and a
        later sync would succeed without writing it.
        """
        with self._durable.syncing() as unsynced:
            open_log, number = self._append_unsynced(changing._replace(unsynced=unsynced), [line])
            try:
                open_log.sync(number)
            except StorageFailed:
                with suppress(OSError):
                    open_log.take_back()
                raise
        self._echoes.note(changing.thread.thread_id, LOG, inode=open_log.inode)

    def sync_log_in(self, changing: Changing) -> None:
        """What is in the log of a thread that the caller is *changing* is on disk when this returns."""
        with self._durable.syncing() as unsynced:
            self._open_log(changing.thread, unsynced).sync_all()

    def _append_unsynced(self, changing: Changing, given: Sequence[bytes]) -> tuple[OpenLog, int]:
        """Writes lines to the log of a locked thread. They are on disk after `OpenLog.sync` of the number."""
        thread_id = changing.thread.thread_id
        if not paths.exists(changing.thread.directory, META):
            raise self._gone(DocumentKey(thread_id))
        open_log = self._open_log(changing.thread, changing.unsynced)
        changing.changes.append(Change(Part.LOG, thread_id, grew=not open_log.is_empty))
        return open_log, open_log.append(given)

    def _open_log(self, thread: OpenThread, unsynced: NamesToSync) -> OpenLog:
        name = (thread.thread_id, LOG)
        if thread.log is None:
            thread.log = OpenLog(self._calls, thread.directory, thread.thread_id)
            if thread.log.is_empty:
                self._durable.forget(name)
        # Also if another thread has opened it, which may not have synced its name yet.
        self._durable.note(unsynced, name, thread.log.inode)
        return thread.log

    def iter_messages(self, thread_id: str) -> Iterator[ThreadMessage]:
        """The messages in the order of the log, in bounded memory; lines that are no messages are skipped."""
        reader = self.open_log(thread_id)
        try:
            for line, _ in lines.iter_lines(reader.read):
                if message := message_of(line, thread_id):
                    yield message
        finally:
            reader.close()

    def list_messages(self, thread_id: str) -> list[ThreadMessage]:
        return list(self.iter_messages(thread_id))

    def log_info(self, thread_id: str) -> Info:
        reader = self.open_log(thread_id)
        try:
            return reader.info()
        finally:
            reader.close()

    def set_log_modified(self, thread_id: str, modified_ns: int) -> None:
        """Sets the time of the log's last change; a log without messages has none to set."""
        if self.log_info(thread_id).identity:
            with self.announcer.announcing(is_commit=False) as changes:
                self._set_modified((thread_id,), LOG, modified_ns, ThreadNotFound(thread_id))
                changes.append(Change(Part.LOG, thread_id, grew=True, only_times=True))
