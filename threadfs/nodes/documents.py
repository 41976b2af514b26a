"""Stored documents as files: ``meta.json``, ``status`` and ``steps/*.json``."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from store import (
    DocumentKey,
    Info,
    InvalidDocument,
    NotFound,
    RunStatus,
    RunStepStatus,
    StoreError,
    documents,
)
from threadfs.nodes.base import Attributes, BytesReader, PathNode, Reader, Writer, alternatives, regular
from threadfs.nodes.lives import Life
from threadfs.nodes.writers import DocumentWriter, decoded


def _attributes(info: Info) -> Attributes:
    return regular(0o644, info.size_bytes, info.modified_ns, info.version, info.changed_ns)


@dataclass(frozen=True, slots=True)
class DocumentFile(PathNode):
    """A document: reads as stored; an object with ``id`` replaces it, one without is a merge patch."""

    is_within_thread: ClassVar[bool] = True

    key: DocumentKey

    @property
    def life(self) -> Life:
        return Life.REPORTED

    @property
    def scope(self) -> DocumentKey:
        return self.key

    def attributes(self) -> Attributes:
        return _attributes(self.store.document_info(self.key))

    def set_modified(self, modified_ns: int) -> None:
        self.store.set_document_modified(self.key, modified_ns)

    def open_for_reading(self) -> Reader:
        data, info = self.store.read_document(self.key)
        return BytesReader(data, _attributes(info), info.version)

    def open_for_writing(self, *, truncate: bool, append: bool) -> Writer:
        self.store.document_info(self.key)
        self.store.check_writable(self.key.thread_id)
        return DocumentWriter(self._stored, self._commit, self._word, truncate=truncate, append=append)

    def _stored(self) -> bytes:
        return self.store.read_document(self.key)[0]

    def _commit(self, data: bytes) -> None:
        if not data.lstrip().startswith(b"{"):
            # `_word` has done every known word: this one is unknown, and incomplete until now.
            return self._refuse_word(data)
        fields = documents.parse(data)
        if "id" in fields or not self._exists():
            self.store.replace_document(self.key, data)
        else:
            self.store.patch_document(self.key, fields)
        return None

    def _exists(self) -> bool:
        return True

    def words(self) -> dict[str, Callable[[], object]]:
        """The words that may be written here, and their actions."""
        return {}

    def _word(self, data: bytes) -> bool:
        """Does the action of a word and returns True; returns False for the beginning of a word."""
        text = decoded(data) if data.endswith(b"\n") else data.decode(errors="ignore")
        word = text.strip()
        if action := self.words().get(word):
            action()
            return True
        if data.endswith(b"\n") or not any(known.startswith(word) for known in self.words()):
            self._refuse_word(data)
        return False

    def _refuse_word(self, data: bytes) -> None:
        word = decoded(data).strip()[:60]
        choice = alternatives(list(self.words()))
        what = f"{word!r}" if word else "nothing but blanks"
        raise InvalidDocument(f"{what}: write a JSON object" + (f" or one of {choice}" if choice else ""))


@dataclass(frozen=True, slots=True)
class MetaFile(DocumentFile):
    """``meta.json``: the Thread."""

    @property
    def path(self) -> str:
        return f"threads/{self.key.thread_id}/meta.json"


@dataclass(frozen=True, slots=True)
class StatusFile(DocumentFile):
    """``status``: the Run. A bare word sets its status."""

    @property
    def path(self) -> str:
        return f"threads/{self.key.thread_id}/runs/{self.key.run_id}/status"

    def open_for_reading(self) -> Reader:
        reader = DocumentFile.open_for_reading(self)
        thread_id, run_id = self.key.thread_id, self.key.run_id or ""
        if self.tree.journal.was_cancelled(thread_id, run_id):
            with suppress(StoreError):
                status = self.store.get_run(thread_id, run_id).status
                self.tree.journal.saw_status(thread_id, run_id, status)
        return reader

    def words(self) -> dict[str, Callable[[], object]]:
        def setter(status: RunStatus) -> Callable[[], object]:
            thread_id, run_id = self.key.thread_id, self.key.run_id or ""
            return lambda: self.store.update_run_status(thread_id, run_id, status)

        return {status.value: setter(status) for status in RunStatus}


@dataclass(frozen=True, slots=True)
class StepFile(DocumentFile):
    """``steps/<step>.json``: a RunStep. A bare word sets its status."""

    @property
    def path(self) -> str:
        return f"threads/{self.key.thread_id}/runs/{self.key.run_id}/steps/{self.key.step_id}.json"

    @property
    def _directory(self) -> str:
        return f"threads/{self.key.thread_id}/runs/{self.key.run_id}/steps"

    @property
    def _name(self) -> str:
        return f"{self.key.step_id}.json"

    @property
    def scope(self) -> DocumentKey:
        return DocumentKey(self.key.thread_id, self.key.run_id, "")

    @property
    def life(self) -> Life:
        return Life.UNREPORTED if self._is_appearing() else Life.REPORTED

    def _is_appearing(self) -> bool:
        """Whether it is open for its first write: it vanishes if its document is refused."""
        return self.tree.scratch.is_appearing(self._directory, self._name)

    def _exists(self) -> bool:
        try:
            self.store.document_info(self.key)
        except NotFound:
            return False
        return True

    def attributes(self) -> Attributes:
        try:
            return DocumentFile.attributes(self)
        except NotFound:
            if not self._is_appearing():
                raise
            return regular(0o644, 0, time.time_ns())

    def open_for_writing(self, *, truncate: bool, append: bool) -> Writer:
        self.attributes()
        self.store.check_writable(self.key.thread_id)
        return DocumentWriter(
            self._stored,
            self._commit,
            self._word,
            truncate=truncate or not self._exists(),
            append=append,
            on_close=lambda: self.tree.scratch.appeared(self._directory, self._name),
        )

    def _word(self, data: bytes) -> bool:
        if not self._exists():
            raise InvalidDocument("there is no such step yet: write a JSON object to make it")
        return DocumentFile._word(self, data)

    def words(self) -> dict[str, Callable[[], object]]:
        def setter(status: RunStepStatus) -> Callable[[], object]:
            key = self.key
            return lambda: self.store.update_step_status(
                key.thread_id, key.run_id or "", key.step_id or "", status
            )

        return {status.value: setter(status) for status in RunStepStatus}
