"""Message logs: rows that are lines, read as one file at any offset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from errno import EACCES, EROFS, ESTALE
from itertools import accumulate

from store import documents, lines, names, transitions
from store.api import Info
from store.changes import Change, Part
from store.errors import StorageFailed, ThreadNotFound
from store.messages import message_of
from store.models import ThreadMessage
from store.postgres.database import Database, Transaction
from store.postgres.documents import Documents
from store.postgres.tables import LOG_CHANGED_NS, NOW_NS, placed, stored_time

# The update locks the thread until the transaction ends. So the next append continues where this one ends,
# and lines become visible in the order of their offsets: a reader never sees a gap.
# The lines go in binary (``%b``). As text an array takes psycopg fifteen times as long to write out, and the
# server ends a transaction that pauses for it (`Limits.idle_s`), which on a busy machine it did each time.
_APPEND = f"""
    WITH log AS (
        UPDATE threads SET log_bytes = log_bytes + %(size)s::bigint, log_modified_ns = {NOW_NS},
            log_changed_ns = {LOG_CHANGED_NS}
        WHERE thread_id = %(thread)s RETURNING thread_id, log_id, log_bytes - %(size)s::bigint AS start
    ), added AS (
        INSERT INTO messages (thread_id, log_id, start, line)
        SELECT thread_id, log_id, log.start + line.start, line.line
        FROM log, unnest(%(starts)s::bigint[], %(lines)b::bytea[]) AS line (start, line)
    )
    SELECT 1 FROM log
"""

# The reasons, as far as they are known beforehand, why `_APPEND` or the seal of its transaction would fail.
# (By column, as a privilege may have been granted for some columns only.)
_APPENDABLE = """
    SELECT EXISTS (SELECT FROM threads WHERE thread_id = %s),
        current_setting('transaction_read_only')::boolean,
        ARRAY(SELECT privilege || ' on ' || relation
            FROM (VALUES ('UPDATE', 'threads', 'log_bytes'), ('INSERT', 'messages', 'line'),
                ('INSERT', 'commits', 'token')) AS needed (privilege, relation, attribute)
            WHERE NOT has_column_privilege(relation, attribute, privilege))
"""

# All lines that overlap with [offset, end), the first and the last one cut.
_READ = """
    SELECT string_agg(
        CASE WHEN start >= %(offset)s AND start + octet_length(line) <= %(end)s THEN line
        ELSE substring(line FROM greatest(%(offset)s - start, 0)::int + 1
            FOR least(%(end)s - greatest(start, %(offset)s), 2147483647)::int) END,
        ''::bytea ORDER BY start)
    FROM messages
    WHERE thread_id = %(thread)s AND log_id = %(log)s
        AND start < %(end)s AND start + octet_length(line) > %(offset)s AND start >= coalesce(
        (SELECT max(start) FROM messages
            WHERE thread_id = %(thread)s AND log_id = %(log)s AND start <= %(offset)s), 0)
"""

_INFO = """
    SELECT log_id, log_bytes, CASE WHEN log_bytes > 0 THEN log_modified_ns ELSE modified_ns END,
        CASE WHEN log_bytes > 0 THEN log_changed_ns ELSE changed_ns END
    FROM threads WHERE thread_id = %s
"""
# The size of a log whose thread is deleted.
_SIZE_OF_DELETED = """
    SELECT start + octet_length(line) FROM messages WHERE thread_id = %s AND log_id = %s
    ORDER BY start DESC LIMIT 1
"""


class PostgresLogReader:
    """An open log, which stays the same one after its thread has been deleted."""

    def __init__(self, database: Database, thread_id: str) -> None:
        self._database = database
        self._thread_id = thread_id
        found = database.read(_INFO, [names.checked(thread_id)])
        if not found:
            raise ThreadNotFound(thread_id)
        self._log_id, size, modified_ns, changed_ns = found[0]
        self._info = Info(size, modified_ns, (self._log_id, size), changed_ns, self._log_id)

    def opened_info(self) -> Info:
        """The info when the log was opened."""
        return self._info

    def info(self) -> Info:
        found = self._database.read(_INFO, [self._thread_id])
        if found and found[0][0] == self._log_id:
            _, size, modified_ns, changed_ns = found[0]
        else:
            last = self._database.read(_SIZE_OF_DELETED, [self._thread_id, self._log_id])
            size = last[0][0] if last else 0
            modified_ns, changed_ns = self._info.modified_ns, self._info.changed_ns
            self._check_is_kept(size)
        self._info = Info(size, modified_ns, (self._log_id, size), changed_ns, self._log_id)
        return self._info

    def read(self, offset: int, size: int) -> bytes:
        end = min(offset + size, 2**63 - 1)
        if end <= offset:
            return b""
        row = {"thread": self._thread_id, "log": self._log_id, "offset": offset, "end": end}
        ((data,),) = self._database.read(_READ, row)
        if not data:
            self._check_is_kept(offset)
        return bytes(data or b"")

    def _check_is_kept(self, size: int) -> None:
        """Raises StorageFailed when lines that were there have been cleared."""
        if size < self._info.size_bytes:
            raise StorageFailed(ESTALE, f"thread {self._thread_id!r}", "it was deleted a while ago")

    def close(self) -> None:
        pass


class Messages(Documents):
    def check_appendable(self, thread_id: str, size_bytes: int = 0) -> None:
        """Asks the server, once, whether it could take a message for the thread now.

        Raises:
            ThreadNotFound: no such thread.
            StorageFailed: it is read-only or away, or this role may not. (A full disk shows later.)
        """
        ((is_there, is_read_only, missing),) = self._database.read(_APPENDABLE, [names.checked(thread_id)])
        if not is_there:
            raise ThreadNotFound(thread_id)
        if is_read_only:
            raise StorageFailed(EROFS, "the database is read-only")
        if missing:
            raise StorageFailed(EACCES, f"this role of the database lacks {', '.join(missing)}")

    def append_message(self, thread_id: str, message: ThreadMessage) -> ThreadMessage:
        """Appends *message* to the thread's log; on the server's disk when this returns.

        Returns:
            The message as stored, with the thread's id.

        Raises:
            ThreadNotFound: no such thread.
        """
        message = message.model_copy(update={"thread_id": names.checked(thread_id)})
        self._append(thread_id, [documents.line(message)])
        return message

    def append_lines(self, thread_id: str, given: Sequence[bytes]) -> None:
        """Appends messages given as lines, whole or short ones, side by side, all or none.

        Raises:
            InvalidDocument: with the number of the first line that is no message.
        """
        names.checked(thread_id)
        laid_out = [
            placed(f"line {number}", transitions.laid_out_line, thread_id, line)
            for number, line in enumerate(given, 1)
        ]
        if laid_out:
            self._append(thread_id, laid_out)

    def _append(self, thread_id: str, lines_given: Sequence[bytes]) -> None:
        def work(transaction: Transaction) -> None:
            if not append(transaction, thread_id, lines_given):
                raise ThreadNotFound(thread_id)
            transaction.changed(Change(Part.LOG, thread_id, grew=True))

        self._database.write(thread_id, work)

    def iter_messages(self, thread_id: str) -> Iterator[ThreadMessage]:
        """The messages in the order of the log, in bounded memory; lines that are no messages are skipped."""
        reader = self.open_log(thread_id)
        for line, _ in lines.iter_lines(reader.read):
            if message := message_of(line, thread_id):
                yield message

    def list_messages(self, thread_id: str) -> list[ThreadMessage]:
        return list(self.iter_messages(thread_id))

    def open_log(self, thread_id: str) -> PostgresLogReader:
        """The log, open for reading at any offset."""
        return PostgresLogReader(self._database, thread_id)

    def log_info(self, thread_id: str) -> Info:
        return self.open_log(thread_id).opened_info()

    def set_log_modified(self, thread_id: str, modified_ns: int) -> None:
        """Sets the time of the log's last change; a log without messages has none to set."""
        row = [stored_time(modified_ns, "a log"), names.checked(thread_id)]

        def work(transaction: Transaction) -> None:
            if not transaction.execute(
                f"UPDATE threads SET log_modified_ns = %s, log_changed_ns = {LOG_CHANGED_NS}"
                " WHERE thread_id = %s RETURNING 1",
                row,
            ):
                raise ThreadNotFound(thread_id)
            transaction.changed(Change(Part.LOG, thread_id, grew=True, only_times=True))

        self._database.write(thread_id, work, is_commit=False)


def append(transaction: Transaction, thread_id: str, given: Sequence[bytes]) -> bool:
    """Appends whole lines; False when there is no such thread."""
    sizes = [len(line) for line in given]
    starts = list(accumulate(sizes, initial=0))[:-1]
    row = {"thread": thread_id, "size": sum(sizes), "starts": starts, "lines": list(given)}
    return bool(transaction.execute(_APPEND, row))
