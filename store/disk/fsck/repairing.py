"""Repairing a store without losing anything: files that are removed or replaced are kept below `ASIDE`.

Every repair takes the thread's lock for a moment and looks again first.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from store import documents, transitions
from store.api import DocumentKey
from store.checking import (
    Finding,
    Problem,
    check_text,
    path_of,
    wrong_fields,
)
from store.disk import evidence, files, paths
from store.disk.fsck.aside import Aside
from store.disk.fsck.log_repair import LogRepair
from store.disk.layout import LOG, META, RUNS, STATUS, Parts
from store.disk.leftovers import ASIDE
from store.disk.open_threads import locked_thread
from store.disk.paths import opened
from store.disk.system_calls import SystemCalls
from store.disk.thread_store import ThreadStore
from store.documents import MAX_LINE_BYTES
from store.errors import Foreign, InvalidDocument, StoreError
from store.messages import message_of
from store.models import Thread, now_s
from store.printing import printable


class Repair:
    """Mends the findings of a check, one by one."""

    def __init__(self, store: ThreadStore, calls: SystemCalls | None = None) -> None:
        self._store = store
        self._root = store.root
        self._calls = calls or SystemCalls()
        self._aside = Aside(self._root, self._calls)
        log = LogRepair(store.open_threads, self._calls, self._aside)
        self._menders: dict[Problem, Callable[[Finding], str]] = {
            Problem.DOCUMENT: self._mend_document,
            Problem.INCOMPLETE: self._mend_fields,
            Problem.IDENTITY: self._mend_fields,
            Problem.STEP_REFERENCE: self._mend_step_reference,
            Problem.LINE: log.blank_line,
            Problem.LINE_INCOMPLETE: log.mend_line,
            Problem.LINE_IDENTITY: log.mend_line,
            Problem.TORN_LINE: log.end_line,
            Problem.NO_META: self._make_meta,
            Problem.NO_STATUS: self._move_aside,
            Problem.NAME: self._move_aside,
            Problem.LOG: self._move_aside,
            Problem.MISPLACED: self._move_aside,
            Problem.LEFTOVER: self._move_leftover,
        }

    def mend(self, finding: Finding) -> str:
        """Repairs a finding, and returns in words what was done; empty when nothing can be done.

        Raises:
            Foreign: it is in something that is not surely a thread.
            StoreError: it failed, and the store is as it was.
        """
        place = finding.key.thread_id
        if finding.problem is not Problem.LEFTOVER and not evidence.is_surely_thread(self._root, place):
            raise Foreign(place, "not surely a thread")
        mender = self._menders.get(finding.problem)
        return mender(finding) if mender else ""

    # ── Documents ───────────────────────────────────────────────────────────────────────────────────

    def _mend_document(self, finding: Finding) -> str:
        """A thread gets a new document, so that what it holds is there; a run goes aside with its steps."""
        key = finding.key
        if key.run_id is None:
            return self._make_meta(finding)
        parts = tuple(path_of(key).split("/"))
        if key.step_id is None:
            parts = parts[:-1]
        with locked_thread(self._store.open_threads, key.thread_id):
            with suppress(StoreError):
                data, _ = self._store.read_document(key)
                check_text(data, transitions.document_at(key, documents.parse(data)))
                return "mended by somebody else meanwhile"
            return self._moved(parts)

    def _make_meta(self, finding: Finding) -> str:
        """A document made of what is left of the old one, and of the time of the oldest message or run."""
        thread_id = finding.key.thread_id
        key = DocumentKey(thread_id)
        with locked_thread(self._store.open_threads, thread_id) as thread:
            if paths.exists(thread.directory, META):
                try:
                    data, _ = self._store.read_document(key)
                except StoreError:
                    # A link, a FIFO, a directory.
                    self._aside.move((thread_id, META))
                    data = b""
            else:
                data = b""
            document = _meta_of(data, key, _oldest_s(self._root, thread_id))
            if data:
                self._aside.copy((thread_id, META), data)
            path = path_of(key)
            files.rewrite(
                self._calls, thread.directory, META, path, lambda stored: _if_same(stored, data, document)
            )
        return "made anew" + (f"; the old one is in {ASIDE}" if data else "")

    def _mend_fields(self, finding: Finding) -> str:
        key = finding.key

        def mended(data: bytes) -> bytes | None:
            fields = documents.parse(data)
            document = transitions.document_at(key, fields)
            if not wrong_fields(fields, transitions.with_identity(key, {}), document):
                return None
            return documents.pretty(document)

        is_missing = finding.problem is Problem.INCOMPLETE
        return self._rewrite(key, mended, "filled in" if is_missing else "set to what its path says")

    def _mend_step_reference(self, finding: Finding) -> str:
        key = finding.key

        def mended(data: bytes) -> bytes | None:
            fields = documents.parse(data)
            fields.pop("step_details", None)
            return documents.pretty(transitions.document_at(key, fields))

        return self._rewrite(key, mended, "taken out")

    def _rewrite(self, key: DocumentKey, mended: Callable[[bytes], bytes | None], done: str) -> str:
        """Replaces a document by what *mended* makes of it; the old one is kept aside."""
        *parts, name = path_of(key).split("/")

        def changed(stored: bytes | None) -> bytes | None:
            new = mended(stored) if stored is not None else None
            if stored is not None and new is not None:
                self._aside.copy((*parts, name), stored)
            return new

        with locked_thread(self._store.open_threads, key.thread_id), opened(self._root, *parts) as directory:
            if directory is None:
                return "gone meanwhile"
            files.rewrite(self._calls, directory, name, path_of(key), changed)
        return f"{done}; the old one is in {ASIDE}"

    # ── Moved aside ─────────────────────────────────────────────────────────────────────────────────

    def _move_aside(self, finding: Finding) -> str:
        with locked_thread(self._store.open_threads, finding.parts[0]):
            return self._moved(finding.parts)

    def _move_leftover(self, finding: Finding) -> str:
        return self._moved(finding.parts)

    def _moved(self, parts: Parts) -> str:
        place = self._aside.move(parts)
        return f"moved to {printable(place)}" if place else "gone meanwhile"


def _if_same(stored: bytes | None, expected: bytes, new: bytes) -> bytes | None:
    """*new*, unless another program has replaced the document."""
    return new if (stored or b"") == expected else None


def _meta_of(data: bytes, key: DocumentKey, oldest_s: int) -> bytes:
    """A new document for a thread, with all fields of the damaged one that can be kept."""
    kept: dict[str, Any] = {}
    with suppress(InvalidDocument):
        kept = documents.parse(data)
    if type(kept.get("created_at")) is not int:
        kept.pop("created_at", None)
    thread = Thread.of(transitions.with_identity(key, {"created_at": oldest_s, **kept}))
    try:
        return documents.pretty(thread)
    except InvalidDocument:
        return documents.pretty(Thread(id=key.thread_id, created_at=oldest_s))


def _oldest_s(root: str, thread_id: str) -> int:
    """When a thread was made, at the latest: the time of its first message or its oldest run."""
    found = [now_s()]
    with opened(root, thread_id) as thread:
        if thread is not None:
            found.append(int(os.fstat(thread).st_mtime))
            with suppress(StoreError, OSError):
                log = paths.open_file(thread, LOG)
                if log is not None:
                    try:
                        first = os.pread(log.descriptor, MAX_LINE_BYTES, 0).split(b"\n", 1)[0]
                    finally:
                        os.close(log.descriptor)
                    if message := message_of(first, thread_id):
                        found.append(message.created_at)
    with opened(root, thread_id, RUNS) as runs:
        names = [name for name, _ in paths.subdirectories(runs)] if runs is not None else []
        for name in names:
            with suppress(StoreError, OSError, KeyError, TypeError):
                with opened(root, thread_id, RUNS, name) as run:
                    data = files.read_file(run, STATUS, name) if run is not None else None
                if data:
                    found.append(int(documents.parse(data)["created_at"]))
    return min(found)
