"""One attempt at a run, in every store: its text in memory, and its end."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, Self, TypeVar

from store import attempts, documents, held_thread
from store.errors import InvalidDocument, NotFound, RunLost, ThreadNotFound
from store.held_thread import HeldThread
from store.models import Run, RunStep, ThreadMessage
from store.working import Outcome

T = TypeVar("T")

_SURROGATES = re.compile("[\ud800-\udfff]")


class InHand(Protocol):
    """The registration that an answer belongs to."""

    def let_go(self, answer: StoredAnswer, *, has_ended: bool) -> None:
        """The worker has the run no longer, or leaves it as it is."""
        ...


class StoredAnswer:
    """A `store.working.Answer`; a store supplies how its text is shown, and how a thread is held."""

    def __init__(self, worker: InHand, run: Run, step: RunStep, message_id: str) -> None:
        self.run = run
        self.message_id = message_id
        self.step_id = step.id
        self._step = step
        self._worker = worker
        self._text: list[str] = []
        self._is_open = self._is_shown = True
        # Whether `finish` was called before, and has failed.
        self._was_tried = False

    def _hold(self, work: Callable[[HeldThread], T]) -> T:
        """The result of *work* on the run's thread."""
        raise NotImplementedError

    def _show(self, data: bytes) -> None:
        """Lets others read *data* after what they can read already."""
        raise NotImplementedError

    def _hide(self) -> None:
        """Closes what is needed for showing; what others can read stays."""
        raise NotImplementedError

    def append(self, text: str) -> None:
        if not text.isascii():
            text = _SURROGATES.sub("\ufffd", text)
        self._text.append(text)
        if self._is_shown:
            self._show(text.encode())

    def finish(self, outcome: Outcome) -> Run:
        message = self._message(outcome.message_is_cut) if outcome.keeps_text else None
        is_repeated, self._was_tried = self._was_tried, True

        def work(thread: HeldThread) -> Run:
            return held_thread.finish(thread, self.run, self._step, message, outcome, is_repeated=is_repeated)

        return self._end(work)

    def _message(self, cut: str | None) -> ThreadMessage | None:
        """The answer, shortened if it does not fit in a line of the log; ``None`` without text."""
        text = "".join(self._text)
        while text:
            message = attempts.message_of(self.run, self.message_id, text, cut)
            try:
                documents.line(message)
            except InvalidDocument:
                text, cut = text[: len(text) * 3 // 4], cut or "max_tokens"
            else:
                return message
        return None

    def hand_back(self) -> None:
        if self._was_tried:
            # Its message may be in the log: what is there decides, as if the worker had died.
            self._end(
                lambda thread: held_thread.bury(thread, self.run.id, str(self.run.worker), self.step_id)
            )
        else:
            self._end(lambda thread: held_thread.hand_back(thread, self.run, self._step))

    def _end(self, work: Callable[[HeldThread], T]) -> T:
        self._no_longer_show()
        try:
            result = self._hold(work)
        except NotFound as error:
            self._let_go(has_ended=True)
            is_thread = isinstance(error, ThreadNotFound)
            raise RunLost(self.run.id, "its thread was deleted" if is_thread else "it was deleted") from None
        except RunLost:
            self._let_go(has_ended=True)
            raise
        self._let_go(has_ended=True)
        return result

    def _no_longer_show(self) -> None:
        if self._is_shown:
            self._is_shown = False
            self._hide()

    def close(self) -> None:
        self._no_longer_show()
        self._let_go(has_ended=False)

    def _let_go(self, *, has_ended: bool) -> None:
        if self._is_open:
            self._is_open = False
            self._worker.let_go(self, has_ended=has_ended)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if self._is_open:
                with suppress(RunLost):
                    self.hand_back()
        finally:
            self.close()
