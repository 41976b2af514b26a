"""``answers/``: of each thread the text of its newest answer, also while that grows."""

from __future__ import annotations

from collections.abc import Iterator

from store import MessageRole, Store, ThreadMessage
from store.api import LogReader
from store.documents import MAX_LINE_BYTES
from store.messages import message_of
from store.printing import printable_lines
from store.working import GrowingAnswer
from threadfs.nodes.growing import GrowingText
from threadfs.nodes.markdown import Printed
from threadfs.nodes.reading_on import AnswerStream, LogPlace

_BLOCK_BYTES = 1 << 16


class NewestAnswer(GrowingText):
    """The text of one answer; empty until there is one."""

    def __init__(self, thread_id: str) -> None:
        super().__init__(thread_id)
        self._place = LogPlace()
        self._newest_id: str | None = None
        self._shown_id: str | None = None
        # The shown answer while it grows.
        self._stream: AnswerStream | None = None
        self._printed = Printed()

    def _update(self, store: Store) -> None:
        if not self.is_current and self._stream is None:
            return
        growing = store.growing_answers(self.thread_id)  # First: one that has ended is in the log then.
        log = store.open_log(self.thread_id)
        try:
            if not self._place.is_in(log):
                self._stream, self.is_current = None, False
                return
            if (message := self._newest_in(log)) is not None:
                self._newest_id = message.id
            if self._stream is not None:
                self._follow(self._stream, store, log, growing)
            growing = [answer for answer in growing if answer.message_id != self._newest_id]
            if self._shown_id is None and growing:
                self._begin(growing[0], store)
            elif self._shown_id is None and message is not None:
                self._shown_id = message.id
                self._write(_text(message))
            elif self._shown_id != (growing[0].message_id if growing else self._newest_id):
                self.is_current = False
        finally:
            log.close()

    def _newest_in(self, log: LogReader) -> ThreadMessage | None:
        """The newest answer in the log that was not read yet."""
        if not self._place.end:
            for line, end in _from_the_end(log):
                if not self._place.end:
                    self._place.passed(line, end)
                if answer := self._answer_in(line):
                    return answer
            return None
        newest = None
        for line in self._place.lines(log):
            newest = self._answer_in(line) or newest
        return newest

    def _answer_in(self, line: bytes) -> ThreadMessage | None:
        message = message_of(line, self.thread_id)
        return message if message is not None and message.role is MessageRole.assistant else None

    def _begin(self, answer: GrowingAnswer, store: Store) -> None:
        stream = AnswerStream(answer, self._place.end)
        if first := next(stream.more(store), ""):
            self._shown_id, self._stream = answer.message_id, stream
            self._grow(self._printed.add(first))
            self._go_on(stream, store)

    def _go_on(self, stream: AnswerStream, store: Store) -> None:
        for piece in stream.more(store):
            self._grow(self._printed.add(piece))

    def _follow(
        self, stream: AnswerStream, store: Store, log: LogReader, growing: list[GrowingAnswer]
    ) -> None:
        message = stream.message_in(log)
        if message is None and any(other.message_id == self._shown_id for other in growing):
            self._go_on(stream, store)
            return
        text, seen = _text(message) if message else "", self._written(0).decode()
        if text.startswith(seen):
            self._write(text[len(seen) :])
        else:  # It was handed back, and another one takes its place.
            self._write(self._printed.end() + "\n")
            self.is_current = False
        self._stream = None


def _text(message: ThreadMessage) -> str:
    return printable_lines(message.text) + "\n" if message.text else ""


def _from_the_end(log: LogReader) -> Iterator[tuple[bytes, int]]:
    """The lines of a log, the last one first, and where each ends, with its newline."""
    end = log.info().size_bytes
    size = _BLOCK_BYTES
    while end:
        start = max(0, end - size)
        block = log.read(start, end - start)
        # The beginning of a block is the end of a line that the next one has, but for that of the log.
        first = block.find(b"\n", 0, -1) + 1 if start else 0
        if start and not first:
            # A longer line, or part of one that is too long for a message.
            size, end = (size * 2, end) if size <= MAX_LINE_BYTES else (_BLOCK_BYTES, start)
            continue
        for line in reversed(block[first:-1].split(b"\n")):
            yield line, end
            end -= len(line) + 1
        size = _BLOCK_BYTES
