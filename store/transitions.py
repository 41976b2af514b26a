"""Stored documents after a change: pure functions that every store calls under its lock.

Each takes the stored document and gives the new one, or refuses. Nothing here reads or writes a store.
"""

from __future__ import annotations

import json
from typing import Any

from store import documents, names
from store.api import DocumentKey
from store.errors import (
    InvalidDocument,
    RunInTerminalState,
    RunStepInTerminalState,
    StatusChanged,
)
from store.models import ContentBlock, Document, Run, RunError, RunStep, Thread, ThreadMessage, now_s
from store.statuses import RunStatus, RunStepStatus

_TIMESTAMP = {
    RunStatus.in_progress: "started_at",
    RunStatus.completed: "completed_at",
    RunStatus.cancelled: "cancelled_at",
    RunStatus.failed: "failed_at",
}

_STATUS_AT_FIRST: dict[type[Document], dict[str, Any]] = {
    Run: {"status": RunStatus.queued.value},
    RunStep: {"status": RunStepStatus.in_progress.value},
}


def model_of(key: DocumentKey) -> type[Document]:
    if key.run_id is None:
        return Thread
    return Run if key.step_id is None else RunStep


def with_identity(key: DocumentKey, fields: dict[str, Any]) -> dict[str, Any]:
    """*fields* with the ids and the ``object`` of their path: the path is the identity."""
    identity: dict[str, str]
    if key.run_id is None:
        identity = {"id": key.thread_id, "object": "thread"}
    elif key.step_id is None:
        identity = {"id": key.run_id, "object": "thread.run", "thread_id": key.thread_id}
    else:
        identity = {
            "id": key.step_id,
            "object": "thread.run.step",
            "run_id": key.run_id,
            "thread_id": key.thread_id,
        }
    return {**fields, **identity}


def document_at(key: DocumentKey, fields: dict[str, Any]) -> Document:
    """The document that *fields* are at *key*. Raises InvalidDocument."""
    return model_of(key).of(with_identity(key, fields))


def with_status(
    run: Run,
    status: RunStatus,
    error: RunError | None,
    *,
    expected: RunStatus | None = None,
    force: bool = False,
) -> Run:
    """*run* in *status*, with *error* or none, and the time of the change, which is set once.

    Raises:
        StatusChanged: the run is not in the *expected* status.
        RunInTerminalState: the run has ended, and *force* is not given.
    """
    if expected is not None and run.status is not expected:
        raise StatusChanged(run.id, expected, run.status)
    if run.status.is_terminal and not force:
        raise RunInTerminalState(run.id, run.status)
    changed = run.model_copy()
    changed.status = status
    changed.last_error = error
    timestamp = _TIMESTAMP.get(status)
    if timestamp and getattr(changed, timestamp) is None:
        setattr(changed, timestamp, now_s())
    return changed


def cancelled(run: Run, *, force: bool) -> Run:
    """*run*, cancelled: itself when it is already.

    Raises:
        RunInTerminalState: it has ended otherwise, and *force* is not given.
    """
    if run.status is RunStatus.cancelled:
        return run
    return with_status(run, RunStatus.cancelled, None, force=force)


def with_step_status(step: RunStep, status: RunStepStatus) -> RunStep:
    """*step* in *status*, with the time when it ended.

    Raises:
        RunStepInTerminalState: it has ended with another status.
    """
    if step.status is status:
        return step
    if step.status is not RunStepStatus.in_progress:
        raise RunStepInTerminalState(step.id, step.status)
    changed = step.model_copy()
    changed.status = status
    if status is RunStepStatus.completed:
        changed.completed_at = now_s()
    elif status is RunStepStatus.failed:
        changed.failed_at = now_s()
    return changed


def replaced(key: DocumentKey, stored: Document | None, given: bytes) -> bytes:
    """The bytes to store for a whole document *given* in place of *stored*.

    Raises:
        InvalidDocument: *given* is none.
        RunInTerminalState, RunStepInTerminalState: the stored run or step has ended, and *given* differs.
    """
    new = document_at(key, documents.parse(given))
    if isinstance(stored, Run) and stored.status.is_terminal and not _same(stored, new):
        raise RunInTerminalState(stored.id, stored.status)
    if (
        isinstance(stored, RunStep)
        and isinstance(new, RunStep)
        and stored.status is not RunStepStatus.in_progress
        and new.status is not stored.status
    ):
        raise RunStepInTerminalState(stored.id, stored.status)
    return documents.as_given(given, new)


def laid_out(key: DocumentKey, given: bytes) -> bytes:
    """The bytes to store for a whole document *given* where none is yet.

    A copy of a run is nobody's: the worker of the original knows nothing of it, and would never end it.

    Raises:
        InvalidDocument: it is none.
    """
    document = document_at(key, documents.parse(given))
    if isinstance(document, Run) and document.worker is not None:
        return documents.pretty(document.with_extra(worker=None, attempt=None))
    return documents.as_given(given, document)


def laid_out_new(key: DocumentKey, given: bytes) -> bytes:
    """As `laid_out`, for a new document, whose missing fields are filled in where possible."""
    filled_in = {"created_at": now_s(), **_STATUS_AT_FIRST.get(model_of(key), {})}
    return documents.as_given(given, document_at(key, {**filled_in, **documents.parse(given)}))


def laid_out_line(thread_id: str, given: bytes) -> bytes:
    """The line of the log for a message *given*, with its newline.

    The message may be a short one, ``{"role": …, "content": "text"}``: what is missing is filled in.

    Raises:
        InvalidDocument: it is no message.
    """
    fields = _expanded(documents.parse(given))
    filled_in = {"id": names.new_message_id(), "created_at": now_s()}
    message = ThreadMessage.of({**filled_in, **fields, "thread_id": thread_id})
    return documents.as_given(given.rstrip(b"\r\n") + b"\n", message, documents.line)


def _expanded(fields: dict[str, Any]) -> dict[str, Any]:
    """*fields* of a message with a content that is given as plain text in its whole form."""
    content = fields.get("content")
    return {**fields, "content": [ContentBlock.of_text(content)]} if isinstance(content, str) else fields


def repeats_line(given: bytes, stored: bytes) -> bool:
    """Whether a line *given* means the same as the *stored* one of the log.

    It may leave fields out, and name another thread: the ids are those of the path.
    """
    if given.rstrip(b"\r") == stored:
        return True
    try:
        fields, stored_fields = _expanded(documents.parse(given)), documents.parse(stored)
    except InvalidDocument:
        return False
    return all(
        name == "thread_id" or (name in stored_fields and _spelled(value) == _spelled(stored_fields[name]))
        for name, value in fields.items()
    )


def _spelled(value: Any) -> str:
    """A value of JSON to compare: to Python alone, ``1``, ``1.0`` and ``true`` are equal."""
    return json.dumps(value, sort_keys=True, default=lambda model: model.fields())


def _same(one: Document, other: Document) -> bool:
    return documents.pretty(one) == documents.pretty(other)


def patched(key: DocumentKey, stored: Document, patch: dict[str, Any]) -> Document:
    """*stored* after a JSON Merge Patch (RFC 7396); a patch with a status changes the status as well.

    Raises:
        InvalidDocument: the patch touches ``object`` or ``created_at``, or what comes out is no document.
        RunInTerminalState, RunStepInTerminalState: it gives a status, and the run or step has ended.
    """
    for name in ("object", "created_at"):
        if name in patch:
            raise InvalidDocument(f"{name}: cannot be patched")
    if not isinstance(stored, Thread) and patch.get("status", "") is None:
        raise InvalidDocument("status: cannot be removed")
    fields = documents.merge_patch(stored.fields(), patch)
    if isinstance(stored, Thread) and "metadata" not in fields:
        fields["metadata"] = {}
    merged = document_at(key, fields)
    if "status" not in patch:
        return merged
    if isinstance(merged, Run) and isinstance(stored, Run):
        error = merged.last_error if "last_error" in patch else None
        status = merged.status
        merged.status = stored.status
        return with_status(merged, status, error)
    if isinstance(merged, RunStep) and isinstance(stored, RunStep):
        status_of_step = merged.status
        merged.status = stored.status
        return with_step_status(merged, status_of_step)
    return merged
