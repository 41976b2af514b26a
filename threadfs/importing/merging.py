"""Conversations that meet a store: new ones are made, longer ones appended, others left or made branches.

A log is compared with a path by the ids of the messages. There is no state but the store.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import takewhile
from typing import Any

from store import (
    AlreadyExists,
    DocumentKey,
    ModifiedSince,
    NotFound,
    Store,
    StoreError,
    ThreadNotFound,
    lines,
)
from store.messages import message_of
from threadfs.importing.conversations import (
    Conversation,
    Message,
    NotImported,
    Part,
    messages_of,
    thread_id_of,
)
from threadfs.importing.documents import LaidOut, LaidOutRun, iso, laid_out, metadata_of
from threadfs.importing.values import digest, fields

IMPORTED, EXTENDED, BRANCHES, LEFT, EMPTY = "imported", "extended", "branches", "left", "empty"

# The size of a digest of a message id. A log is compared as the digests of its messages, joined.
_DIGEST_BYTES = 8
# The messages of all branches together: a malicious file of a few MiB can have paths of GiB.
_MAX_ON_BRANCHES = 200_000
# How often a thread is compared again while other programs change it.
_ATTEMPTS = 100
# The id in a line that threadfs wrote.
_ID = re.compile(rb'\{"id":"([^"\\]*)"')


@dataclass(frozen=True, slots=True)
class _Log:
    """The log of a stored thread: the digests of its messages, and its size."""

    digests: bytes
    size_bytes: int


def _digests(ids: list[str]) -> bytes:
    return b"".join(_digest(message_id.encode()) for message_id in ids)


def _digest(message_id: bytes) -> bytes:
    return blake2b(message_id, digest_size=_DIGEST_BYTES).digest()


@dataclass(slots=True)
class Merge:
    """Brings conversations into a store.

    *reading* gives the store, if there is one yet; *writing* makes one that is missing. Without *writing*
    nothing is written, and what would be is remembered instead.
    """

    reading: Callable[[], Store | None]
    writing: Callable[[], Store] | None
    now_s: int
    counts: Counter[str] = field(default_factory=Counter)
    _rehearsed: dict[str, bytes] = field(default_factory=dict)

    def bring(self, source: str, conversation: Conversation, *, with_branches: bool) -> None:
        """Raises StoreError: it cannot be stored; NotImported: its other branches cannot."""
        if not conversation.messages:
            self.counts[EMPTY] += 1
            return
        if not conversation.source_id:
            raise StoreError("has no id")
        visible = _digests([message.id for message in conversation.messages])
        self.counts[_Path(self, source, conversation, conversation.parts, visible).bring()] += 1
        for parts in self._branches(conversation) if with_branches else ():
            self.counts[_Path(self, source, conversation, parts, visible).bring()] += 1

    def _branches(self, conversation: Conversation) -> list[list[Part]]:
        """The other paths, without those that are the beginning of another path. Raises NotImported."""
        found: dict[bytes, list[Part]] = {}
        size = 0
        for parts in conversation.others():
            digests = _digests([message.id for message in messages_of(parts)])
            if digests:
                found.setdefault(digests, parts)
            size += len(parts)
            if size > _MAX_ON_BRANCHES:
                raise NotImported(f"together they hold more than {_MAX_ON_BRANCHES:,} messages")
        seen = [_digests([message.id for message in conversation.messages]), *found]
        return [
            parts
            for digests, parts in found.items()
            if not any(other != digests and other.startswith(digests) for other in seen)
            and digests != seen[0]
        ]

    def log(self, thread_id: str) -> _Log | None:
        """The stored log; ``None`` when there is no such thread."""
        if thread_id in self._rehearsed:
            return _Log(self._rehearsed[thread_id], 0)
        store = self.reading()
        if store is None:
            return None
        try:
            with closing(store.open_log(thread_id)) as log:
                digests, size = [], 0
                for line, end in lines.iter_lines(log.read):
                    size = end
                    if found := _ID.match(line):
                        digests.append(_digest(found[1]))
                    elif message := message_of(line, thread_id):
                        digests.append(_digest(message.id.encode()))
        except ThreadNotFound:
            return None
        return _Log(b"".join(digests), size)

    def is_rehearsed(self, thread_id: str) -> bool:
        return thread_id in self._rehearsed

    def rehearse(self, thread_id: str, digests: bytes) -> None:
        self._rehearsed[thread_id] = digests


class _Path:
    """One path of a conversation, and the thread to which it belongs."""

    def __init__(
        self, merge: Merge, source: str, conversation: Conversation, parts: list[Part], visible: bytes
    ) -> None:
        self._merge = merge
        self._source = source
        self._conversation = conversation
        self._parts = parts
        self._thread_id = thread_id_of(source, conversation.source_id)
        self._ids = [message.id for message in messages_of(parts)]
        self._digests = _digests(self._ids)
        # The digests of the path that the user saw, which may be this one.
        self._visible = visible

    def bring(self) -> str:
        """Brings the path into the store. Returns IMPORTED, BRANCHES, EXTENDED or LEFT."""
        thread_id = self._thread_id
        seen: set[str] = set()
        for _ in range(_ATTEMPTS):
            log = self._merge.log(thread_id)
            if thread_id == self._thread_id and log is not None and self._is_beside(log):
                thread_id = self._branch(self._visible)
                continue
            try:
                if log is None:
                    self._make(thread_id)
                    return IMPORTED if thread_id == self._thread_id else BRANCHES
                if self._digests.startswith(log.digests):
                    return self._extend(thread_id, log)
                if log.digests.startswith(self._digests):
                    self._retitle(thread_id, is_longer=False)
                    return LEFT
            except (AlreadyExists, ModifiedSince, ThreadNotFound):
                continue  # Somebody else was faster: compare again.
            seen.add(thread_id)
            thread_id = self._branch(log.digests)
            if thread_id in seen:
                raise StoreError("has another log, and so has its branch")
        raise StoreError("another program keeps changing it")

    def _is_beside(self, log: _Log) -> bool:
        """Whether the log holds the visible path, or its beginning, and this path is another one."""
        is_visible = log.digests.startswith(self._visible) or self._visible.startswith(log.digests)
        return is_visible and self._digests != self._visible and not log.digests.startswith(self._digests)

    def _branch(self, digests: bytes) -> str:
        """The id of the thread for a path that differs from a log: from the first message that differs."""
        at = 0
        while self._digests[at : at + _DIGEST_BYTES] == digests[at : at + _DIGEST_BYTES]:
            at += _DIGEST_BYTES
        return f"{self._thread_id}~{digest(self._ids[at // _DIGEST_BYTES], 8)}"

    def _laid_out(self, thread_id: str) -> LaidOut:
        branch_of = self._thread_id if thread_id != self._thread_id else None
        metadata = metadata_of(self._source, self._conversation, branch_of)
        return laid_out(thread_id, self._conversation, self._parts, metadata, self._merge.now_s)

    def _make(self, thread_id: str) -> None:
        if self._merge.writing is None:
            self._merge.rehearse(thread_id, self._digests)
            return
        made = self._laid_out(thread_id)
        runs = {run.run_id: run.contents for run in made.runs}
        self._merge.writing().import_thread(
            thread_id, made.document, made.lines, runs, modified_ns=made.modified_ns
        )

    def _extend(self, thread_id: str, log: _Log) -> str:
        """Appends what the log lacks. Raises ModifiedSince: the log has changed since it was compared."""
        messages_there = len(log.digests) // _DIGEST_BYTES
        is_longer = messages_there < len(self._ids)
        if not is_longer and not self._may_have_grown(thread_id):
            self._retitle(thread_id, is_longer=False)
            return LEFT
        made = self._laid_out(thread_id)
        # The last run may have further steps, though nothing more was said.
        runs = [run for run in made.runs if run.messages_then >= messages_there]
        store = self._merge.reading()
        if not is_longer and (store is None or not _lacks_any(store, thread_id, runs)):
            self._retitle(thread_id, is_longer=False)
            return LEFT
        if self._merge.writing is None:
            self._merge.rehearse(thread_id, self._digests)
            return EXTENDED
        self._merge.writing().extend_thread(
            thread_id,
            log.size_bytes,
            made.lines[messages_there:],
            {run.run_id: run.contents for run in runs},
            modified_ns=made.modified_ns,
        )
        self._retitle(thread_id, is_longer=True)
        return EXTENDED

    def _may_have_grown(self, thread_id: str) -> bool:
        """Whether the last answer has a run, which may have further steps by now."""
        last = takewhile(
            lambda part: not isinstance(part, Message) or part.role != "user", reversed(self._parts)
        )
        is_stored = not self._merge.is_rehearsed(thread_id)
        return is_stored and any(not isinstance(part, Message) for part in last)

    def _retitle(self, thread_id: str, *, is_longer: bool) -> None:
        """Takes over the title of a newer export, if nobody has changed the one that is there."""
        store = self._merge.reading()
        if store is None or self._merge.writing is None:
            return
        key = DocumentKey(thread_id)
        for _ in range(_ATTEMPTS):
            info = store.document_info(key)
            stored = store.get_thread(thread_id).metadata
            patch = self._newer_metadata(fields(stored), is_longer=is_longer)
            if not patch:
                return
            with suppress(ModifiedSince):  # Then somebody may have given it a title of his own.
                store.patch_document(key, {"metadata": patch}, expected={"metadata": stored})
                store.set_document_modified(key, info.modified_ns)
                return

    def _newer_metadata(self, stored: dict[str, Any], *, is_longer: bool) -> dict[str, str]:
        updated_s = self._conversation.updated_s
        updated_at = iso(updated_s) if updated_s is not None else ""
        stored_at = stored.get("source_updated_at")
        is_newer = updated_at > stored_at if updated_at and isinstance(stored_at, str) else is_longer
        if not is_newer:
            return {}
        patch = {"source_updated_at": updated_at} if updated_at else {}
        title = self._conversation.shown_title
        if title and title != stored.get("title") and stored.get("title") == stored.get("source_title"):
            patch |= {"title": title, "source_title": title}
        if is_longer and self._conversation.model and "model" not in stored:
            # There was no answer when it came in.
            patch["model"] = self._conversation.model
        return patch


def _lacks_any(store: Store, thread_id: str, runs: list[LaidOutRun]) -> bool:
    """Whether a stored thread lacks the last step of one of the runs: steps are added in their order.

    (A store may remember lists of runs and steps, which would be all of them after an import.)
    """
    try:
        for run in runs:
            store.document_info(DocumentKey(thread_id, run.run_id, max(run.contents.steps)))
    except NotFound:
        return True
    return False
