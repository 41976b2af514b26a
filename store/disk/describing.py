"""What a thread and a run say of themselves, for a catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

from store.api import DocumentKey
from store.catalogue.describing import summary_of, summary_of_run, without_document
from store.catalogue.finding import Described
from store.catalogue.values import RunSummary, Signature, ThreadSummary
from store.disk import signatures
from store.disk.layout import META
from store.errors import Damaged, NotFound
from store.models import Run, ThreadMessage


class Documents(Protocol):
    root: str

    def get_run(self, thread_id: str, run_id: str) -> Run: ...
    def read_document(self, key: DocumentKey) -> tuple[bytes, object]: ...
    def iter_messages(self, thread_id: str) -> Iterator[ThreadMessage]: ...


def described(source: Documents, thread_id: str) -> Described | None:
    """A thread as it is now; ``None`` if there is none."""
    seen = signatures.look(source.root, thread_id, {})
    if seen is None:
        return None
    thread = summary(source, thread_id, seen[META], signatures.modified_ns(seen.values()))
    runs = (
        run_of(source, thread_id, run_id, found)
        for path, found in seen.items()
        if (run_id := signatures.run_of(path))
    )
    return Described(thread, [run for run in runs if run is not None])


def summary(source: Documents, thread_id: str, document: Signature, changed_ns: int) -> ThreadSummary:
    def messages() -> Iterator[ThreadMessage]:
        with suppress(NotFound, Damaged):
            yield from source.iter_messages(thread_id)

    try:
        data, _ = source.read_document(DocumentKey(thread_id))
    except (NotFound, Damaged):
        # One that has gone is seen to have gone the next time.
        return without_document(thread_id, document.modified_ns, changed_ns)
    return summary_of(thread_id, data, messages, document.modified_ns, changed_ns)


def run_of(source: Documents, thread_id: str, run_id: str, document: Signature) -> RunSummary | None:
    """``None`` for one that is in no list: it is gone, or its document is damaged."""
    try:
        return summary_of_run(source.get_run(thread_id, run_id), document.modified_ns)
    except (NotFound, Damaged):
        return None
