"""What a thread and a run say of themselves, for a catalogue, whatever store they are in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from store import documents
from store.api import DocumentKey
from store.catalogue import usual
from store.catalogue.names import name_of
from store.catalogue.values import RunSummary, ThreadSummary
from store.errors import InvalidDocument

if TYPE_CHECKING:
    from store.models import Document, Run


def summary_of(
    thread_id: str,
    document: bytes,
    said: Callable[[], Iterable[str]],
    modified_ns: int,
    changed_ns: int,
) -> ThreadSummary:
    """Of a thread with a *document*, which was written at *modified_ns*.

    *said* gives the texts of the user's messages, of which the first is read if need be.
    """
    try:
        fields = documents.parse(document)
        if not usual.is_thread(fields):
            _by_its_model(DocumentKey(thread_id), fields)
    except InvalidDocument:
        return without_document(thread_id, modified_ns, changed_ns)
    metadata = fields.get("metadata")
    found = metadata.get("title") if isinstance(metadata, dict) else None
    title = found if isinstance(found, str) and found.strip() else ""
    # A title may have no character that can be in a name.
    is_named = title[:1].isalnum() or bool(name_of("", _encodable(title), ""))
    said_first = "" if is_named else next(iter(said()), "")
    line = _line_of(title, document) if title else 1
    return ThreadSummary(
        thread_id, fields["created_at"], changed_ns, _encodable(title), line, _encodable(said_first)
    )


def without_document(thread_id: str, modified_ns: int, changed_ns: int) -> ThreadSummary:
    """Of one whose document cannot be read: it is one of the threads nevertheless."""
    return ThreadSummary(thread_id, modified_ns // 1_000_000_000, changed_ns)


def summary_of_run(run: Run, modified_ns: int) -> RunSummary:
    return RunSummary(run.id, run.status.value, _encodable(run.model), run.created_at, modified_ns)


def summary_of_run_document(
    thread_id: str, run_id: str, document: bytes, modified_ns: int
) -> RunSummary | None:
    """As `summary_of_run`, of a *document*; ``None`` if it is damaged."""
    try:
        fields = documents.parse(document)
        if usual.is_run(fields):
            status, model = fields["status"], fields.get("model", "")
            return RunSummary(run_id, status, model, fields["created_at"], modified_ns)
        run = _by_its_model(DocumentKey(thread_id, run_id), fields)
        return summary_of_run(cast("Run", run), modified_ns)
    except InvalidDocument:
        return None


def _by_its_model(key: DocumentKey, fields: dict[str, Any]) -> Document:
    """Of one that is not usual. Raises InvalidDocument."""
    from store import transitions  # Its models take longer to import than most stores to be searched.

    return transitions.document_at(key, fields)


def _encodable(text: str) -> str:
    """*text* without halves of pairs, which JSON can hold and UTF-8 cannot."""
    return text.encode(errors="replace").decode()


def _line_of(title: str, document: bytes) -> int:
    """The line of a document where its title stands: 1 in one that is all in one line."""
    at = -1
    while (at := document.find(b'"title"', at + 1)) >= 0:
        begin = document.rfind(b"\n", 0, at) + 1
        line, _, _ = document[begin:].partition(b"\n")
        if not document[begin:at].strip() and _is_title(line.decode(), title):
            return document.count(b"\n", 0, begin) + 1
    return 1


def _is_title(line: str, title: str) -> bool:
    try:
        return bool(json.loads(f"{{{line.strip().removesuffix(',')}}}") == {"title": title})
    except ValueError:
        return False
