"""``messages.jsonl``: the message log, which behaves like a file with ``chattr +a``.

Programs write a log in two ways. *Appending* adds messages. *Rewriting* from the start, as editors, ``cp``
and ``rsync`` do, has to repeat the stored lines, and appends the lines after them. The offset of the first
write says which of the two it is. The kernel's idea of the end of the file may be old, and is not used.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import ClassVar

from store import DocumentKey, Info, InvalidDocument
from store.api import LogReader
from store.documents import MAX_LINE_BYTES
from store.transitions import laid_out_line, repeats_line
from threadfs.nodes.base import Attributes, PathNode, Reader, Refused, Tree, Writer, regular
from threadfs.nodes.lives import Life
from threadfs.nodes.object_end import object_end
from threadfs.nodes.writers import check_beginning, committed_once

_CHUNK_BYTES = 1 << 18
# Longer pieces of a line are not checked before the line is complete.
_CHECK_BYTES = 1 << 20
_CHANGED = "the log is append only: a message that is there was changed"


@dataclass(frozen=True, slots=True)
class LogFile(PathNode):
    """``messages.jsonl``: the log as stored, complete lines only."""

    life = Life.REPORTED
    is_append_only: ClassVar[bool] = True
    is_within_thread: ClassVar[bool] = True

    thread_id: str

    @property
    def path(self) -> str:
        return f"threads/{self.thread_id}/messages.jsonl"

    @property
    def scope(self) -> DocumentKey:
        return DocumentKey(self.thread_id)

    def attributes(self) -> Attributes:
        return _attributes(self.store.log_info(self.thread_id))

    def set_modified(self, modified_ns: int) -> None:
        self.store.set_log_modified(self.thread_id, modified_ns)

    def truncate(self, size: int) -> None:
        if size not in (0, self.store.log_info(self.thread_id).size_bytes):
            raise Refused(errno.EPERM, "the log is append only: it cannot be cut or stretched")

    def open_for_reading(self) -> Reader:
        return _LogReader(self)

    def open_for_writing(self, *, truncate: bool, append: bool) -> Writer:
        self.store.check_writable(self.thread_id)
        return LogWriter(self.tree, self.thread_id, truncate=truncate, append=append)


def _attributes(info: Info) -> Attributes:
    return regular(0o644, info.size_bytes, info.modified_ns, info.version, info.changed_ns)


class _LogReader:
    """Follows the log as it grows. A log without messages has no file yet: each read opens it again."""

    def __init__(self, node: LogFile) -> None:
        self._node = node
        self._log = node.store.open_log(node.thread_id)
        # The version is the identity of the file: it stays the same while the log grows.
        try:
            self.version: object = self._log.info().identity
        except BaseException:  # For instance WouldWait.
            self._log.close()
            raise

    def read(self, offset: int, size: int) -> bytes:
        if not self.version:
            self._log.close()
            self._log = self._node.store.open_log(self._node.thread_id)
            self.version = self._log.info().identity
        return self._log.read(offset, size)

    def attributes(self) -> Attributes:
        return _attributes(self._log.info())

    def close(self) -> None:
        self._log.close()


class _StoredLines:
    """Reads the lines of a log one after the other."""

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._chunk = b""
        self._chunk_start = 0

    def at(self, offset: int) -> bytes | None:
        """The line that begins at *offset*, without its newline; ``None`` at the end of the log."""
        start = offset - self._chunk_start
        end = self._chunk.find(b"\n", start) if 0 <= start < len(self._chunk) else -1
        size = _CHUNK_BYTES
        while end < 0:
            self._chunk, self._chunk_start, start = self._log.read(offset, size), offset, 0
            end = self._chunk.find(b"\n")
            if end < 0 and len(self._chunk) < size:
                return None
            if size > 2 * MAX_LINE_BYTES:
                raise Refused(errno.EFBIG, f"a line of the log is longer than {size} bytes")
            size *= 2
        return self._chunk[start:end]


class LogWriter:
    """Writes to a log. Each line is committed by the write that completes it.

    Raises:
        InvalidDocument: a new line is not a message.
        Refused: with EPERM, a rewrite that does not repeat the stored lines.
    """

    only_buffers = False

    def __init__(self, tree: Tree, thread_id: str, *, truncate: bool, append: bool) -> None:
        self._tree = tree
        self._thread_id = thread_id
        self._append = append
        self._log = tree.store.open_log(thread_id)
        self._stored = _StoredLines(self._log)
        # Rewriting: how many bytes of the log have been repeated. Appending: None.
        self._repeated: int | None = 0 if truncate else None
        # The offset at which the next write continues this one; None before the first.
        self._expected: int | None = 0 if truncate else None
        # The last line, while it has no newline.
        self._rest = b""
        self.is_new = False

    @property
    def has_uncommitted(self) -> bool:
        return self.is_new and (bool(self._rest) or self._repeated is not None)

    def write(self, offset: int, data: bytes) -> None:
        if not self._append and offset != self._expected and not self._begins(offset, data):
            return
        *lines, rest = (self._rest + data).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise Refused(errno.EFBIG, f"a line has at most {MAX_LINE_BYTES} bytes")
        count = len(lines)
        repeated = self._take(lines)
        if rest.strip():
            self._check_rest(rest, repeated, count + 1)
        self._commit(lines, repeated)
        self._rest, self.is_new = rest, True
        self._expected = offset + len(data)

    def _begins(self, offset: int, data: bytes) -> bool:
        """Starts a new sequence of writes; False if the write only repeats a piece of the log."""
        size = self._refreshed().info().size_bytes
        if offset == 0 or offset == size:
            self._repeated = 0 if offset == 0 else None
            self._rest, self.is_new = b"", False
            return True
        if self._log.read(offset, len(data)) != data:
            raise Refused(errno.EPERM, "the log is append only: what is there cannot be changed")
        self._expected = None  # The next write does not continue a sequence.
        return False

    def _refreshed(self) -> LogReader:
        """The log, opened again if its file was created or replaced since."""
        current = self._tree.store.open_log(self._thread_id)
        try:
            is_same = current.info().identity == self._log.info().identity
        except BaseException:
            current.close()
            raise
        if is_same:
            current.close()
        else:
            self._log.close()
            self._log, self._stored = current, _StoredLines(current)
        return self._log

    def _take(self, lines: list[bytes]) -> int | None:
        """Removes from *lines* those that repeat stored lines; returns how many bytes are repeated now.

        Raises:
            Refused: a line differs from the stored line.
        """
        repeated = self._repeated
        while repeated is not None and lines:
            stored = self._stored.at(repeated)
            if stored is None:
                return None
            if repeats_line(lines[0], stored):
                repeated += len(stored) + 1
            elif lines[0].strip():
                raise Refused(errno.EPERM, _CHANGED)
            del lines[0]
        return repeated

    def _check_rest(self, rest: bytes, repeated: int | None, number: int) -> None:
        """Refuses an unfinished last line that ``flush`` would refuse: a shell ignores errors of close."""
        is_whole = len(rest) <= _CHECK_BYTES and object_end(rest) is not None
        stored = self._stored.at(repeated) if repeated is not None else None
        if stored is not None:
            if is_whole and not repeats_line(rest, stored):
                raise Refused(errno.EPERM, _CHANGED)
            return
        self._tree.store.check_appendable(self._thread_id, len(rest))
        try:
            if is_whole:
                laid_out_line(self._thread_id, rest)
            elif len(rest) <= _CHECK_BYTES:
                check_beginning(rest)
        except InvalidDocument as error:
            raise InvalidDocument(f"line {number} of what is written: {error}") from None

    def _commit(self, lines: list[bytes], repeated: int | None) -> None:
        messages = [line for line in lines if line.strip()]
        if messages:
            self._tree.store.append_lines(self._thread_id, messages)
        self._repeated = repeated

    def truncate(self, size: int) -> None:
        if size == 0:
            self._repeated, self._expected, self._rest, self.is_new = 0, 0, b"", False
        elif size not in (self._expected, self._refreshed().info().size_bytes):
            raise Refused(errno.EPERM, "the log is append only: it cannot be cut or stretched")

    def flush(self) -> None:
        if not self.is_new:
            return
        with committed_once(self):
            if self._rest:
                lines = [self._rest]
                self._commit(lines, self._take(lines))
                self._rest = b""
            if self._repeated is not None and self._repeated < self._refreshed().info().size_bytes:
                raise Refused(errno.EPERM, "the log is append only: the rewrite leaves messages out")

    def read(self, offset: int, size: int) -> bytes:
        return self._refreshed().read(offset, size)

    def close(self) -> None:
        self._log.close()
