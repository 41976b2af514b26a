"""What a thread and a run say of themselves, for a catalogue."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import Final, Protocol

from store.api import DocumentKey
from store.catalogue.describing import summary_of, summary_of_run_document, without_document
from store.catalogue.finding import Described, text_of
from store.catalogue.values import Kind, RunSummary, Signature, ThreadSummary
from store.disk import paths, signatures
from store.disk.layout import LOG, META
from store.disk.paths import storage_errors
from store.errors import Damaged, NotFound
from store.lines import iter_lines

# Of a log, for its first message.
_READ_BYTES: Final = 1 << 16


class Documents(Protocol):
    root: str

    def read_document(self, key: DocumentKey) -> tuple[bytes, object]: ...


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
    try:
        data, _ = source.read_document(DocumentKey(thread_id))
    except (NotFound, Damaged):
        # One that has gone is seen to have gone the next time.
        return without_document(thread_id, document.modified_ns, changed_ns)
    said = partial(_said, source.root, thread_id)
    return summary_of(thread_id, data, said, document.modified_ns, changed_ns)


def _said(root: str, thread_id: str) -> Iterator[str]:
    """The texts of the user's messages, of which most often the first is enough: little is read at once."""
    try:
        file = paths.open_file(root, thread_id, LOG)
    except Damaged:  # It is no file.
        return
    if file is None:
        return
    try:
        with storage_errors(thread_id):
            for line, _ in iter_lines(lambda at, _: os.pread(file.descriptor, _READ_BYTES, at)):
                text = text_of(line, 1, thread_id)
                if text is not None and text.kind is Kind.USER:
                    yield text.text
    finally:
        os.close(file.descriptor)


def run_of(source: Documents, thread_id: str, run_id: str, document: Signature) -> RunSummary | None:
    """``None`` for one that is in no list: it is gone, or its document is damaged."""
    try:
        data, _ = source.read_document(DocumentKey(thread_id, run_id))
    except (NotFound, Damaged):
        return None
    return summary_of_run_document(thread_id, run_id, data, document.modified_ns)
