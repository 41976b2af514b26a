"""The store that objects of OpenAI's go to, as they are: made when there is something for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any

from store import AlreadyExists, DocumentKey, NotFound, RunContents
from threadfs.importing.merging import Merge


class MadeWhenNeeded:
    """A store as `openai_lines` uses it. A rehearsal writes nothing, and remembers what it would have.

    Attributes:
        repeated: of how many threads that were rehearsed one before was the same.
    """

    def __init__(self, merge: Merge) -> None:
        self._merge = merge
        self._rehearsed: dict[str, bytes] = {}
        self.repeated = 0

    def import_thread(
        self, thread_id: str, document: bytes, messages: Iterable[bytes], runs: Mapping[str, RunContents]
    ) -> None:
        if self._merge.writing is not None:
            self._merge.writing().import_thread(thread_id, document, messages, runs)
            return
        store = self._merge.reading()
        if store is not None:
            with suppress(NotFound):
                store.document_info(DocumentKey(thread_id))
                raise AlreadyExists("thread", thread_id)
        made = sha256(document)
        for line in messages:
            made.update(line)
        for run_id in sorted(runs):
            made.update(runs[run_id].document)
            for step_id in sorted(runs[run_id].steps):
                made.update(runs[run_id].steps[step_id])
        before = self._rehearsed.get(thread_id)
        if before is None:
            self._rehearsed[thread_id] = made.digest()
        elif before == made.digest():
            self.repeated += 1
        else:
            raise AlreadyExists("thread", thread_id)

    def __getattr__(self, name: str) -> Any:
        """Everything that only reads is a method of the store."""
        store = self._merge.reading()
        if store is None:
            raise NotFound("there is no store yet")
        return getattr(store, name)
