"""The rows of documents in the tables, and their names in errors."""

from __future__ import annotations

from collections.abc import Callable
from errno import EOVERFLOW
from typing import TypeVar

from store import documents, names, recognition, transitions
from store.api import DocumentKey
from store.errors import (
    Damaged,
    Foreign,
    InvalidDocument,
    NotFound,
    RunNotFound,
    RunStepNotFound,
    StorageFailed,
    ThreadNotFound,
)
from store.models import Document

# Now, by the server's clock, which all hosts share. Its unit is the microsecond.
NOW_NS = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000"
# A later change time of a row, also when the clock was set back. (A new row has now by default.)
CHANGED_NS = f"greatest(changed_ns + 1000, {NOW_NS})"
LOG_CHANGED_NS = f"greatest(log_changed_ns + 1000, {NOW_NS})"

# Where there are rows for a run that a worker answers.
ANSWER_TABLES = ("answers", "answer_texts")
# Whether the worker of a row of `workers` lives: its session holds the lock.
LIVES = """EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (classid::bigint << 32 | objid::bigint) = workers.lock_number
)"""
# Whether the worker of an answer died, of which there may be no row any more (``LEFT JOIN workers``).
DIED = f"(workers.worker_id IS NULL OR NOT {LIVES})"

D = TypeVar("D", bound=Document)
K = TypeVar("K")


def checked(key: DocumentKey) -> DocumentKey:
    """Raises InvalidName."""
    for name in (key.thread_id, key.run_id, key.step_id):
        if name is not None:
            names.checked(name)
    return key


def row_of(key: DocumentKey) -> tuple[str, str, list[str]]:
    """The table of a document, the condition for its row, and its parameters. Raises InvalidName."""
    checked(key)
    if key.run_id is None:
        return "threads", "thread_id = %s", [key.thread_id]
    if key.step_id is None:
        return "runs", "thread_id = %s AND run_id = %s", [key.thread_id, key.run_id]
    return (
        "steps",
        "thread_id = %s AND run_id = %s AND step_id = %s",
        [key.thread_id, key.run_id, key.step_id],
    )


def path_of(key: DocumentKey) -> str:
    """The path of the document in a store on a disk, by which people know it."""
    if key.run_id is None:
        return f"{key.thread_id}/meta.json"
    if key.step_id is None:
        return f"{key.thread_id}/runs/{key.run_id}/status.json"
    return f"{key.thread_id}/runs/{key.run_id}/steps/{key.step_id}.json"


def not_found(key: DocumentKey) -> NotFound:
    if key.run_id is None:
        return ThreadNotFound(key.thread_id)
    return RunNotFound(key.run_id) if key.step_id is None else RunStepNotFound(key.step_id)


def parsed(key: DocumentKey, data: bytes, model: type[D]) -> D:
    """The stored document. Raises Damaged."""
    try:
        return model.of(transitions.with_identity(key, documents.parse(data)))
    except InvalidDocument as error:
        raise Damaged(path_of(key), str(error)) from None


def refuse_foreign(key: DocumentKey, data: bytes) -> None:
    """Raises Foreign when a stored document is not surely the one that *key* names."""
    if why := recognition.why_not_ours(key, data):
        raise Foreign(path_of(key), why)


def status_in(key: DocumentKey, data: bytes) -> str | None:
    """The status of a document that is about to be stored, for the column beside it; a thread has none."""
    return None if key.run_id is None else str(documents.parse(data)["status"])


def stored_time(modified_ns: int, what: str) -> int:
    """*modified_ns*, if it fits the column."""
    if not -(2**63) <= modified_ns < 2**63:
        raise StorageFailed(EOVERFLOW, f"the time of {what}")
    return modified_ns


def placed(place: str, lay_out: Callable[[K, bytes], bytes], key: K, given: bytes) -> bytes:
    """The result of *lay_out* for *given*; an InvalidDocument says the *place*."""
    try:
        return lay_out(key, given)
    except InvalidDocument as error:
        raise InvalidDocument(f"{place}: {error}") from None
