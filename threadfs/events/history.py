"""What happened before anybody listened, as far as the documents of a store tell by their times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Final

from store import DocumentKey, InvalidDocument, NotFound, Store, documents
from threadfs.events.event import Event, of_seconds
from threadfs.events.telling import message_event

# The fields of a document that say when it got a status.
_STATUS_TIMES: Final = {
    "started_at": "in_progress",
    "completed_at": "completed",
    "failed_at": "failed",
    "cancelled_at": "cancelled",
}


def events_since(store: Store, since_ns: int, thread_ids: Iterable[str]) -> list[Event]:
    """The events of some threads since a time in nanoseconds since 1970, the oldest first.

    Documents know when they were created and how they ended, in whole seconds; what was deleted or only
    became another one is not known. Raises StoreError when the store cannot be read.
    """
    found: list[Event] = []
    for thread_id in thread_ids:
        with suppress(NotFound):
            if store.thread_times(thread_id).changed_ns >= since_ns:
                found += (event for event in _of_thread(store, thread_id) if event.time_ns >= since_ns)
    return sorted(found, key=lambda event: event.time_ns)


def _of_thread(store: Store, thread_id: str) -> Iterator[Event]:
    fields = _fields(store, DocumentKey(thread_id))
    yield Event(_time_ns(fields, "created_at"), "thread.created", thread_id)
    for message in store.iter_messages(thread_id):
        yield message_event(thread_id, message, of_seconds(message.created_at))
    for run_id in store.list_run_ids(thread_id):
        with suppress(NotFound):
            yield from _of_run(store, thread_id, run_id)


def _of_run(store: Store, thread_id: str, run_id: str) -> Iterator[Event]:
    key = DocumentKey(thread_id, run_id)
    fields = _fields(store, key)

    def event(time_ns: int, status: str) -> Event:
        return Event(time_ns, f"run.{status}", thread_id, run_id, status=status)

    yield event(_time_ns(fields, "created_at"), "queued")
    yield from _statuses(store, key, fields, event, {"queued"})
    for step_id in store.list_step_ids(thread_id, run_id):
        with suppress(NotFound):
            yield from _of_step(store, DocumentKey(thread_id, run_id, step_id))


def _of_step(store: Store, key: DocumentKey) -> Iterator[Event]:
    fields = _fields(store, key)

    def event(time_ns: int, status: str, name: str | None = None) -> Event:
        return Event(
            time_ns, f"step.{name or status}", key.thread_id, key.run_id, step_id=key.step_id, status=status
        )

    yield event(_time_ns(fields, "created_at"), "in_progress", "created")
    yield from _statuses(store, key, fields, event, {"in_progress"})


def _statuses(
    store: Store,
    key: DocumentKey,
    fields: dict[str, Any],
    event: Callable[[int, str], Event],
    first: set[str],
) -> Iterator[Event]:
    """The statuses that a document says it has had, but for the *first* one."""
    told = set(first)
    for name, status in _STATUS_TIMES.items():
        if fields.get(name) is not None:
            told.add(status)
            yield event(_time_ns(fields, name), status)
    last = fields.get("status")
    if isinstance(last, str) and last not in told:
        yield event(store.document_info(key).modified_ns, last)


def _fields(store: Store, key: DocumentKey) -> dict[str, Any]:
    try:
        return documents.parse(store.read_document(key)[0])
    except InvalidDocument:
        return {}


def _time_ns(fields: dict[str, Any], name: str) -> int:
    given = fields.get(name)
    return of_seconds(given) if type(given) is int else 0
