"""The answer of a run, printed as it comes."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from threadfs.commands import progress
from threadfs.nodes.markdown import Printed

if TYPE_CHECKING:
    from store import Store, ThreadMessage

_CHUNK_BYTES = 1 << 16


class ShownAnswer:
    """Prints what a run says to stdout: while it grows, and what is in the log.

    On a terminal control characters are escaped, since nothing that a model says may drive one.
    """

    def __init__(self, store: Store, thread_id: str, run_id: str) -> None:
        self._store = store
        self._thread_id = thread_id
        self._run_id = run_id
        # Its messages come after what is in the log now.
        self._log_bytes = store.log_info(thread_id).size_bytes
        self._is_terminal = sys.stdout is not None and sys.stdout.isatty()
        self._ends_line = True
        # The message that was shown last, how much of it, whether the log has it, and a character cut in two.
        self._message_id = ""
        self._shown_bytes = 0
        self._is_in_log = True
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._printed = Printed()

    def update(self) -> None:
        """Prints what has come since the last call. Raises BrokenPipeError, NotFound, StorageFailed."""
        # In this order: what has ended meanwhile is in the log.
        growing = [
            answer for answer in self._store.growing_answers(self._thread_id) if answer.run_id == self._run_id
        ]
        logged = set()
        for message in self._new_messages():
            logged.add(message.id)
            self._turn_to(message.id)
            self._show(message.text.encode(errors="replace")[self._shown_bytes :])
            self._is_in_log = True
        for answer in growing:
            if answer.message_id in logged:
                continue
            self._turn_to(answer.message_id)
            while piece := self._store.read_answer(answer, self._shown_bytes, _CHUNK_BYTES):
                self._show(piece)

    def end_line(self) -> None:
        """Ends the last line, as a terminal and a shell's ``read`` need it."""
        if not self._ends_line:
            self._ends_line = True
            self._write(b"\n")

    def _new_messages(self) -> Iterator[ThreadMessage]:
        """What has come into the log from the run, or from a program that does not say from which."""
        from store import MessageRole
        from store.lines import iter_lines
        from store.messages import message_of

        if self._store.log_info(self._thread_id).size_bytes <= self._log_bytes:
            return
        log = self._store.open_log(self._thread_id)
        try:
            for line, end in iter_lines(log.read, self._log_bytes):
                self._log_bytes = end
                message = message_of(line, self._thread_id)
                if (
                    message
                    and message.role is MessageRole.assistant
                    and message.run_id in (self._run_id, None)
                ):
                    yield message
        finally:
            log.close()

    def _turn_to(self, message_id: str) -> None:
        """Goes on with a message: the one that was shown last, or the next one, after a blank line."""
        if message_id == self._message_id:
            return
        if self._message_id:
            self.end_line()
            if self._is_in_log:
                self._write(b"\n")
            else:
                progress.complain("the answer begins again")
        self._message_id, self._shown_bytes, self._is_in_log = message_id, 0, False
        self._decoder.reset()
        self._printed = Printed()

    def _show(self, piece: bytes) -> None:
        self._shown_bytes += len(piece)
        if self._is_terminal:
            piece = self._printed.add(self._decoder.decode(piece)).encode()
        if piece:
            self._ends_line = piece.endswith(b"\n")
            self._write(piece)

    def _write(self, data: bytes) -> None:
        if sys.stdout is not None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
