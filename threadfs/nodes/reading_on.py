"""Reading on in what grows: a message log, and an answer that becomes a message of it."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

from store import Store, ThreadMessage
from store.api import LogReader
from store.lines import iter_lines
from store.messages import message_of
from store.working import GrowingAnswer

_COMPARED_BYTES = 4096
_PIECE_BYTES = 1 << 16


class LogPlace:
    """How far a log has been read.

    The log of a thread that was deleted and made again is another one. The number of its file alone does not
    tell, as the system may use it again: so the last line is compared too, whose beginning has its id.
    """

    def __init__(self) -> None:
        self.end = 0
        self._identity = 0
        self._last_at = 0
        self._last = b""

    def is_in(self, log: LogReader) -> bool:
        """Whether *log* is the one that was read so far."""
        identity = log.info().identity
        if not self.end:
            self._identity = identity
        return identity == self._identity and log.read(self._last_at, len(self._last)) == self._last

    def lines(self, log: LogReader) -> Iterator[bytes]:
        """The lines from here on. Each counts as read when the next one is asked for."""
        for line, end in iter_lines(log.read, self.end):
            yield line
            self.passed(line, end)

    def passed(self, line: bytes, end: int) -> None:
        """*line* has been read, with the newline before *end*."""
        if line:
            self._last_at, self._last = end - len(line) - 1, line[:_COMPARED_BYTES]
        self.end = end


class AnswerStream:
    """An answer from its first text to its message in the log, which had *log_bytes* before."""

    def __init__(self, answer: GrowingAnswer, log_bytes: int) -> None:
        self.answer = answer
        # Whether the log has got other messages meanwhile, and one of the same run.
        self.is_overtaken = self.is_replaced = False
        self._log_bytes = log_bytes
        self._offset = 0
        self._characters = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def more(self, store: Store) -> Iterator[str]:
        """The text that was not read yet. Each piece counts as read once it is given."""
        while data := store.read_answer(self.answer, self._offset, _PIECE_BYTES):
            self._offset += len(data)
            yield self._characters.decode(data)

    def message_in(self, log: LogReader) -> ThreadMessage | None:
        """The message that it has become, if it is in the log."""
        for line, end in iter_lines(log.read, self._log_bytes):
            message = message_of(line, self.answer.thread_id)
            if message is not None and message.id == self.answer.message_id:
                return message
            if message is not None:
                self.is_overtaken = True
                self.is_replaced |= message.run_id == self.answer.run_id
            self._log_bytes = end
        return None
