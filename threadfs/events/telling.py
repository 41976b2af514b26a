"""From changes to events: what a `Change` of the store means, compared with what was known before.

Little is known at first. A thread or run of which a change says that it may have come, and that is there,
has come. A run whose earlier document was not seen has a new status, unless it says that it ended before the
telling began (``completed_at``). A message is new if it was created since then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from store import (
    Change,
    DocumentKey,
    NotFound,
    Part,
    Store,
    StoreError,
)
from store.messages import message_of
from store.models import ThreadMessage
from store.waiting import is_refused
from threadfs.events.event import MISSED, Event
from threadfs.events.known import KnownThread, KnownThreads
from threadfs.events.new_messages import place_before_new
from threadfs.events.states import BEING_MADE, GONE, State, state_of
from threadfs.nodes.reading_on import LogPlace

# Of a larger document, and of the runs of a longer list, only the last state is told.
_AT_ONCE_BYTES: Final = 1 << 20
_AT_ONCE_RUNS: Final = 50


class Heard(NamedTuple):
    """A change and, unless it has to be read yet, what its document said then; ``None``: there was none.

    *runs*: of a list of runs, what each said then. *told*: what has been told of it as of something new.
    """

    change: Change
    time_ns: int
    is_read: bool = False
    state: State | None = None
    runs: dict[str, State] | None = None
    told: State | None = None


class Telling:
    """Says what has happened, from when it is made. `heard` is called by any thread, `events` by one.

    *follow* is called with each thread and run that is new, and what is told of it, before what is in it is
    read. Its document may have changed since it was heard of: it has to be `heard` of again.
    """

    def __init__(
        self, store: Store, follow: Callable[[DocumentKey, State], object] = lambda key, told: None
    ) -> None:
        self._store = store
        self._follow = follow
        self._known = KnownThreads(int(time.time()))

    def heard(self, change: Change, told: State | None = None) -> Heard | None:
        """What is to be told later, by `events`; ``None`` if nothing is. *told*: as `follow` was called.

        Documents of a disk are read at once: each state that they have is told, however fast they change.
        """
        if change.part in (Part.ANSWER, Part.WORKERS, Part.TIMES):
            return None
        heard = Heard(change, time.time_ns(), told=told)
        key = _document_of(change)
        if self._store.is_remote or is_refused():
            return heard
        try:
            if key is None:
                runs = self._runs_at_once(change.thread_id) if change.part is Part.RUNS else None
                return heard._replace(runs=runs)
            if self._store.document_info(key).size_bytes > _AT_ONCE_BYTES:
                return heard
            return heard._replace(is_read=True, state=self._state(key))
        except NotFound:
            return heard._replace(is_read=True)
        except StoreError:
            return heard

    def _runs_at_once(self, thread_id: str) -> dict[str, State] | None:
        """Raises StoreError."""
        run_ids = self._store.list_run_ids(thread_id)
        if len(run_ids) > _AT_ONCE_RUNS:
            return None
        states = {run_id: self._state_now(DocumentKey(thread_id, run_id)) for run_id in run_ids}
        return {run_id: state for run_id, state in states.items() if state is not None}

    def events(self, heard: Heard) -> Iterator[Event]:
        """The events of what was `heard`, in the same order. What cannot be read is not told."""
        try:
            yield from self._events(heard)
        except StoreError:
            return
        finally:
            self._known.limit(int(time.time()))

    def _events(self, heard: Heard) -> Iterator[Event]:
        change, time_ns = heard.change, heard.time_ns
        if change.part is Part.EVERYTHING:
            self._known.clear(int(time.time()))
            yield Event(time_ns, MISSED)
            return
        thread_id, run_id = change.thread_id, change.run_id
        known = self._known[thread_id]
        if (key := _document_of(change)) is not None:
            state = heard.state if heard.is_read else self._state_now(key)
            if heard.told is not None:  # Much may have been heard of since, and this be forgotten.
                known.remember(run_id, heard.told)
            if run_id is None:
                yield from self._thread(change, state, time_ns)
            elif known.document is GONE:
                return  # Its runs went with it.
            elif change.step_id is None:
                yield from self._run(change, known, run_id, state, time_ns)
            else:
                yield from self._step(known, key, state, time_ns)
        elif known.document is GONE:
            return
        elif change.part is Part.LOG:
            yield from self._messages(thread_id, known, time_ns)
        elif change.part is Part.RUNS:
            yield from self._runs(thread_id, known, time_ns, heard.runs)
        elif run_id is not None:
            yield from self._steps(thread_id, run_id, known, time_ns)

    # ── Documents ───────────────────────────────────────────────────────────────────────────────────────

    def _state(self, key: DocumentKey) -> State:
        """Raises StoreError."""
        return state_of(key, self._store.read_document(key)[0])

    def _state_now(self, key: DocumentKey) -> State | None:
        try:
            return self._state(key)
        except NotFound:
            return None

    def _is_missed(self, change: Change, key: DocumentKey, before: State | None) -> State | None:
        """`GONE` if there was a document where none is now, `BEING_MADE` if there may be one soon."""
        if before is not None and before not in (GONE, BEING_MADE):
            return GONE
        if before is GONE:
            return None
        if change.is_own or change.part is Part.DOCUMENT:
            return GONE
        if change.has_come or self._store.has_place(key):
            return BEING_MADE
        return None if before is BEING_MADE else GONE

    def _thread(self, change: Change, state: State | None, time_ns: int) -> Iterator[Event]:
        thread_id = change.thread_id
        known = self._known[thread_id]
        before = known.document
        if state is None:
            after = self._is_missed(change, DocumentKey(thread_id), before)
            if after is GONE:
                self._known.begin(thread_id, GONE)
                yield Event(time_ns, "thread.deleted", thread_id)
            elif after is BEING_MADE:
                known.document = BEING_MADE
        elif before in (GONE, BEING_MADE) or (before is None and change.part is Part.THREADS):
            known = self._known.begin(thread_id, state)
            known.log = LogPlace()
            yield Event(time_ns, "thread.created", thread_id)
            self._follow(DocumentKey(thread_id), state)
            yield from self._messages(thread_id, known, time_ns)
            for run_id in self._store.list_run_ids(thread_id):
                yield from self._run_has_come(thread_id, run_id, known, time_ns)
        elif before is None or before.fingerprint != state.fingerprint:
            known.document = state
            yield Event(time_ns, "thread.updated", thread_id)

    # ── Messages ────────────────────────────────────────────────────────────────────────────────────────

    def _messages(self, thread_id: str, known: KnownThread, time_ns: int) -> Iterator[Event]:
        log = self._store.open_log(thread_id)
        try:
            place = known.log
            if place is None or not place.is_in(log):
                place = known.log = place_before_new(log, thread_id, self._known.since_s)
            for line in place.lines(log):
                if (message := message_of(line, thread_id)) is not None:
                    yield message_event(thread_id, message, time_ns)
        finally:
            log.close()

    # ── Runs ────────────────────────────────────────────────────────────────────────────────────────────

    def _runs(
        self, thread_id: str, known: KnownThread, time_ns: int, states: dict[str, State] | None
    ) -> Iterator[Event]:
        """The list as a whole may be another one; *states* is what its runs said, or they are read now."""
        found = self._store.list_run_ids(thread_id) if states is None else [*states]
        for run_id in set(known.runs).difference(found):
            if known.runs[run_id] not in (GONE, BEING_MADE):
                yield from self._run_has_gone(thread_id, run_id, known, time_ns)
        for run_id in found:
            before = known.runs.get(run_id)
            if before is None or before in (GONE, BEING_MADE):
                state = states[run_id] if states else self._state_now(DocumentKey(thread_id, run_id))
                if state is not None and (before is not None or state.created_s >= self._known.since_s):
                    yield from self._run_has_come(thread_id, run_id, known, time_ns, state)

    def _run(
        self, change: Change, known: KnownThread, run_id: str, state: State | None, time_ns: int
    ) -> Iterator[Event]:
        thread_id, before = change.thread_id, known.runs.get(run_id)
        if state is None:
            after = self._is_missed(change, DocumentKey(thread_id, run_id), before)
            if after is GONE:
                yield from self._run_has_gone(thread_id, run_id, known, time_ns)
            elif after is BEING_MADE:
                known.runs[run_id] = BEING_MADE
        elif before in (GONE, BEING_MADE) or (before is None and change.part is Part.RUNS):
            yield from self._run_has_come(thread_id, run_id, known, time_ns, state)
        elif before is None or before.fingerprint != state.fingerprint:
            known.runs[run_id] = state
            if before is not None:
                has_new_status = before.status != state.status
            else:
                # One that has expired, or is incomplete, does not say since when.
                has_new_status = state.status_s is None or state.status_s >= self._known.since_s
            status = state.status if has_new_status and state.status else "updated"
            yield Event(time_ns, f"run.{status}", thread_id, run_id, status=state.status or None)

    def _run_has_come(
        self, thread_id: str, run_id: str, known: KnownThread, time_ns: int, state: State | None = None
    ) -> Iterator[Event]:
        state = state or self._state_now(DocumentKey(thread_id, run_id))
        if state is None:
            return
        known.runs[run_id] = state
        yield Event(
            time_ns, f"run.{state.status or 'created'}", thread_id, run_id, status=state.status or None
        )
        self._follow(DocumentKey(thread_id, run_id), state)
        yield from self._steps(thread_id, run_id, known, time_ns, are_new=True)

    @staticmethod
    def _run_has_gone(thread_id: str, run_id: str, known: KnownThread, time_ns: int) -> Iterator[Event]:
        known.runs[run_id] = GONE
        for key in [key for key in known.steps if key[0] == run_id]:
            del known.steps[key]
        yield Event(time_ns, "run.deleted", thread_id, run_id)

    # ── Steps ───────────────────────────────────────────────────────────────────────────────────────────

    def _steps(
        self, thread_id: str, run_id: str, known: KnownThread, time_ns: int, *, are_new: bool = False
    ) -> Iterator[Event]:
        """The list as a whole may be another one."""
        found = self._store.list_step_ids(thread_id, run_id)
        for of_run, step_id in list(known.steps):
            if of_run == run_id and step_id not in found:
                key = DocumentKey(thread_id, run_id, step_id)
                yield from self._step(known, key, None, time_ns)
        for step_id in found:
            if (run_id, step_id) not in known.steps:
                key = DocumentKey(thread_id, run_id, step_id)
                state = self._state_now(key)
                if state is not None and (are_new or state.created_s >= self._known.since_s):
                    yield from self._step(known, key, state, time_ns, is_new=True)

    def _step(
        self,
        known: KnownThread,
        key: DocumentKey,
        state: State | None,
        time_ns: int,
        *,
        is_new: bool = False,
    ) -> Iterator[Event]:
        assert key.run_id is not None
        assert key.step_id is not None
        place = key.run_id, key.step_id
        before = known.steps.get(place)
        if state is None:
            if before is not GONE and known.runs.get(key.run_id) is not GONE:
                known.steps[place] = GONE
                yield Event(time_ns, "step.deleted", key.thread_id, key.run_id, step_id=key.step_id)
            return
        if before is not None and before.fingerprint == state.fingerprint:
            return
        known.steps[place] = state
        # The change does not say: a document that is replaced by a rename is announced like one that came.
        has_come = is_new or before is GONE or state.created_s >= self._known.since_s
        if before in (None, GONE) and has_come:
            name = "created"
        elif before is None or before.status != state.status:
            name = state.status or "updated"
        else:
            name = "updated"
        yield Event(
            time_ns,
            f"step.{name}",
            key.thread_id,
            key.run_id,
            step_id=key.step_id,
            status=state.status or None,
        )


def message_event(thread_id: str, message: ThreadMessage, time_ns: int) -> Event:
    return Event(time_ns, "message.created", thread_id, message.run_id, message.id)


def _document_of(change: Change) -> DocumentKey | None:
    """The document that may have come, gone or become another; ``None`` for a list or a log."""
    match change.part:
        case Part.THREADS:
            return DocumentKey(change.thread_id)
        case Part.DOCUMENT:
            return change.key
        case Part.RUNS if change.run_id:
            return change.key
        case Part.STEPS if change.step_id:
            return change.key
    return None
