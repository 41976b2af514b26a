"""``transcripts/``: each conversation as Markdown, rendered on demand, and then only what is new.

Messages are in the order of the log, the ends of runs between them by time, and at the end the answer that
grows, if there is one. A reader sees what comes while an answer grows after that answer.
"""

from __future__ import annotations

import bisect
from contextlib import suppress
from typing import NamedTuple

from store import Damaged, DocumentKey, MessageRole, NotFound, Store, ThreadMessage
from store.api import LogReader
from store.messages import message_of
from store.working import GrowingAnswer
from threadfs.nodes import markdown
from threadfs.nodes.growing import GrowingText
from threadfs.nodes.reading_on import AnswerStream, LogPlace

_BEGUN_AGAIN = "\n*(begun again)*\n"


class _Outcome(NamedTuple):
    """How a run ended: when, in Unix seconds, and in words, which are empty for one that has not ended."""

    ended_s: int
    text: str
    run_id: str


class _ShownAnswer:
    """The answer that grows at the end of a transcript."""

    def __init__(self, stream: AnswerStream, heading: str, begins_at: int) -> None:
        self.stream = stream
        self.heading = heading
        self.body_at = begins_at + len(heading)
        self.contained = markdown.Contained()


class Transcript(GrowingText):
    """The text of one conversation."""

    def __init__(self, thread_id: str) -> None:
        super().__init__(thread_id)
        # The title in the heading, and a version of the thread's document that has it.
        self._title = ""
        self._document_version: object = None
        self._place = LogPlace()
        self._is_of_another_log = False
        # The place of the last message or outcome in the order of a new rendering, and the time of the last
        # message: it counts as no older than those before it.
        self._last: tuple[int | str, ...] = ()
        self._latest_s: int | None = None
        # Of each run: a version of its document, and the words for its outcome.
        self._runs: dict[str, tuple[object, str]] = {}
        # Outcomes that are not shown yet, in order.
        self._waiting: list[_Outcome] = []
        # Of each run: its last message that is shown.
        self._answered: dict[str, str] = {}
        self._answer: _ShownAnswer | None = None
        # The id of a message that was shown, as an answer, before it came up in the log; the size after it.
        self._ahead: tuple[str, int] | None = None

    @property
    def latest_s(self) -> int | None:
        """The time of the latest message, in Unix seconds; ``None`` while there is none."""
        return self._latest_s

    def _update(self, store: Store) -> None:
        if self._is_of_another_log:
            return
        # In this order: an answer that has ended is in the log, and its message is there before its run ends.
        answers = store.growing_answers(self.thread_id)
        log = store.open_log(self.thread_id)
        try:
            if not self._place.is_in(log):
                self._is_of_another_log = True
                self.is_current = False
                return
            self._write_head(store)
            self._look_at_runs(store)
            if self._answer is None or self._has_ended(self._answer, store, log, answers):
                self._write_new(store, log, answers)
        finally:
            log.close()

    def _write_head(self, store: Store) -> None:
        version = store.document_info(DocumentKey(self.thread_id)).version
        if self.size_bytes and version == self._document_version:
            return
        title = ""
        with suppress(Damaged):
            title = markdown.title_of(store.get_thread(self.thread_id).metadata)
        if not self.size_bytes:
            self._title = title
            self._write(markdown.head(self.thread_id, title))
        elif title != self._title:
            self.is_current = False
        self._document_version = version

    # ── The ends of runs ────────────────────────────────────────────────────────────────────────────

    def _look_at_runs(self, store: Store) -> None:
        run_ids = store.list_run_ids(self.thread_id)
        for gone in self._runs.keys() - set(run_ids):
            self._note(_Outcome(0, "", gone))
            del self._runs[gone]
        for run_id in run_ids:
            version: object = None
            outcome = _Outcome(0, "", run_id)
            with suppress(NotFound, Damaged):
                version = store.document_info(DocumentKey(self.thread_id, run_id)).version
                if run_id in self._runs and self._runs[run_id][0] == version:
                    continue
                run = store.get_run(self.thread_id, run_id)
                if run.status.is_terminal:
                    outcome = _Outcome(markdown.ended_at(run), markdown.outcome(run), run_id)
            self._note(outcome)
            self._runs[run_id] = version, outcome.text

    def _note(self, outcome: _Outcome) -> None:
        known = self._runs.get(outcome.run_id, (None, ""))[1]
        if outcome.text == known:
            return
        waiting = [other for other in self._waiting if other.run_id != outcome.run_id]
        if known and len(waiting) == len(self._waiting):
            self.is_current = False  # The one before is shown.
        self._waiting = waiting
        if outcome.text:
            bisect.insort(self._waiting, outcome)

    # ── What is new ─────────────────────────────────────────────────────────────────────────────────

    def _write_new(self, store: Store, log: LogReader, answers: list[GrowingAnswer]) -> None:
        answering = {answer.run_id for answer in answers}
        for line in self._place.lines(log):
            if message := message_of(line, self.thread_id):
                self._latest_s = max(message.created_at, self._latest_s or message.created_at)
                self._write_outcomes(answering, before_s=self._latest_s)
                self._write_message(message, self._latest_s)
        answers = self._unanswered(answers)
        if self._have_ended_here(answers):
            self.is_current = False
        self._write_outcomes({answer.run_id for answer in answers})
        if answers:
            self._begin(answers[0], store)

    def _unanswered(self, answers: list[GrowingAnswer]) -> list[GrowingAnswer]:
        """Those whose message has not been shown."""
        return [answer for answer in answers if self._answered.get(answer.run_id) != answer.message_id]

    def _have_ended_here(self, answers: list[GrowingAnswer]) -> bool:
        """Whether the outcome of a run is shown that has an answer only now: anew it comes after that."""
        waiting = {outcome.run_id for outcome in self._waiting}
        return any(
            self._runs.get(answer.run_id, (None, ""))[1] and answer.run_id not in waiting
            for answer in answers
        )

    def _write_outcomes(self, answering: set[str], before_s: int | None = None) -> None:
        """Writes outcomes, with *before_s* the earlier ones; none of the runs that are still *answering*."""
        at = 0
        while at < len(self._waiting):
            outcome = self._waiting[at]
            if before_s is not None and outcome.ended_s >= before_s:
                return
            if outcome.run_id in answering:
                at += 1
            else:
                del self._waiting[at]
                self._in_order(outcome.ended_s, 1, outcome.text)
                self._write(outcome.text)

    def _write_message(self, message: ThreadMessage, latest_s: int) -> None:
        self._in_order(latest_s, 0)
        if message.run_id:
            self._answered[message.run_id] = message.id
        if self._ahead is None or message.id != self._ahead[0]:
            self._write(markdown.heading(message.role, message.created_at) + markdown.body(message))
            return
        if self.size_bytes != self._ahead[1]:
            self.is_current = False
        self._ahead = None

    def _in_order(self, *place: int | str) -> None:
        """What comes next has this place in a new rendering."""
        if place < self._last:
            self.is_current = False
        else:
            self._last = place

    # ── An answer that grows ────────────────────────────────────────────────────────────────────────

    def _begin(self, answer: GrowingAnswer, store: Store) -> None:
        stream = AnswerStream(answer, self._place.end)
        with suppress(NotFound, Damaged):
            run = store.get_run(self.thread_id, answer.run_id)
            first = next(stream.more(store), "")
            if first:
                heading = markdown.heading(MessageRole.assistant, run.started_at or run.created_at)
                self._answer = shown = _ShownAnswer(stream, heading, self.size_bytes)
                self._grow(heading + shown.contained.add(first))
                self._go_on(shown, store)

    def _go_on(self, shown: _ShownAnswer, store: Store) -> None:
        for piece in shown.stream.more(store):
            self._grow(shown.contained.add(piece))

    def _has_ended(
        self, shown: _ShownAnswer, store: Store, log: LogReader, answers: list[GrowingAnswer]
    ) -> bool:
        """Shows what is new of the answer. Until it has ended nothing else is shown here, but anew it is."""
        answer = shown.stream.answer
        message = shown.stream.message_in(log)
        if message is not None:
            self._complete(shown, message)
        elif any(other.message_id == answer.message_id for other in answers):
            self._go_on(shown, store)
            growing = {other.run_id for other in answers}
            if (
                shown.stream.is_overtaken
                or answers[0].message_id != answer.message_id
                or self._have_ended_here(self._unanswered(answers))
                or any(outcome.run_id not in growing for outcome in self._waiting)
            ):
                self.is_current = False
            return False
        else:
            # Handed back, unless the run has gone, or has ended without an answer.
            has_ended = bool(self._runs.get(answer.run_id, (None, "gone"))[1])
            is_begun_again = shown.stream.is_replaced or not has_ended
            self._write(f"{shown.contained.end()}\n{_BEGUN_AGAIN if is_begun_again else ''}")
            self.is_current = False
        self._answer = None
        return True

    def _complete(self, shown: _ShownAnswer, message: ThreadMessage) -> None:
        heading = markdown.heading(message.role, message.created_at)
        body, seen = markdown.body(message), self._written(shown.body_at).decode()
        if body.startswith(seen):
            self._write(body[len(seen) :])
            if heading != shown.heading:
                self.is_current = False
        else:
            self._write(f"{shown.contained.end()}\n{_BEGUN_AGAIN}{heading}{body}")
            self.is_current = False
        self._ahead = message.id, self.size_bytes
