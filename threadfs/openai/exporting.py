"""A store as lines of OpenAI objects: each thread, then its messages, its runs, and their steps.

Threads are sorted by id, messages as in the log, runs and steps by time and id: a store always gives the same
bytes. The store may be in use: each document is exported in one version.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from store import DocumentKey, InvalidDocument, NotFound, Store, StoreError, documents, lines, transitions
from store.models import ThreadMessage
from threadfs.openai import objects


@dataclass(frozen=True, slots=True)
class Export:
    """Exports threads; calls *missed* with the name of each damaged object, and the error."""

    store: Store
    strict: bool
    missed: Callable[[str, StoreError], None]

    def thread(self, thread_id: str) -> Iterator[bytes]:
        """The lines for a thread and everything in it; none if it does not exist.

        The last line has a mark, which shows a reader that no line is missing.
        """
        last: bytes | None = None
        try:
            for line in self._lines(thread_id):
                if last is not None:
                    yield last
                last = line
        except NotFound:
            return  # Deleted meanwhile: without the mark, an import refuses what was exported of it.
        if last is not None:
            yield last if self.strict else objects.marked_as_last(last)

    def _lines(self, thread_id: str) -> Iterator[bytes]:
        try:
            yield self._document(DocumentKey(thread_id))
            yield from self._messages(thread_id)
            run_ids = self.store.list_run_ids(thread_id)
        except NotFound:
            raise
        except StoreError as error:
            self.missed(f"thread {thread_id}", error)
            return
        keys = [DocumentKey(thread_id, run_id) for run_id in run_ids]
        runs = self._sorted(keys)
        yield from (line for _, line in runs)
        for run, _ in runs:
            yield from (line for _, line in self._sorted(self._steps_of(run)))

    def _steps_of(self, run: DocumentKey) -> list[DocumentKey]:
        try:
            step_ids = self.store.list_step_ids(run.thread_id, str(run.run_id))
        except NotFound:
            return []
        return [DocumentKey(run.thread_id, run.run_id, step_id) for step_id in step_ids]

    def _sorted(self, keys: list[DocumentKey]) -> list[tuple[DocumentKey, bytes]]:
        """The lines of runs or steps, oldest first, without those that are unreadable or gone."""
        found: list[tuple[int, str, DocumentKey, bytes]] = []
        for key in keys:
            try:
                line = self._document(key)
            except NotFound:
                continue
            except StoreError as error:
                of_run = f"step {key.step_id} of " if key.step_id else ""
                self.missed(f"{of_run}run {key.run_id} of thread {key.thread_id}", error)
                continue
            found.append((json.loads(line)["created_at"], str(key.step_id or key.run_id), key, line))
        found.sort(key=lambda item: item[:2])
        return [(key, line) for _, _, key, line in found]

    def _document(self, key: DocumentKey) -> bytes:
        data, _ = self.store.read_document(key)
        fields = documents.parse(data)
        transitions.document_at(key, fields)  # Raises InvalidDocument if it is damaged.
        identified = transitions.with_identity(key, fields)
        text = data.decode() if identified == fields else json.dumps(identified, ensure_ascii=False, indent=2)
        return objects.line_of(objects.exported(identified, text, is_line=False, strict=self.strict))

    def _messages(self, thread_id: str) -> Iterator[bytes]:
        with closing(self.store.open_log(thread_id)) as log:
            for number, (line, _) in enumerate(lines.iter_lines(log.read), 1):
                if line.strip():
                    try:
                        yield self._message(thread_id, line)
                    except InvalidDocument as error:
                        self.missed(f"line {number} of the messages of thread {thread_id}", error)

    def _message(self, thread_id: str, line: bytes) -> bytes:
        fields = documents.parse(line)
        identified = {**fields, "object": "thread.message", "thread_id": thread_id}
        ThreadMessage.of(identified)  # Raises InvalidDocument if it is damaged.
        text = line.decode()
        if identified != fields:
            text = json.dumps(identified, ensure_ascii=False, separators=(",", ":"))
        return objects.line_of(objects.exported(identified, text, is_line=True, strict=self.strict))
