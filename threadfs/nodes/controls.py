"""Control files: they read as empty, and writing to them does something."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from store import (
    ContentBlock,
    Damaged,
    DocumentKey,
    InvalidDocument,
    MessageRole,
    Run,
    RunStatus,
    ThreadMessage,
    documents,
)
from store.documents import MAX_LINE_BYTES
from threadfs.nodes.base import Attributes, BytesReader, PathNode, Reader, Refused, Writer, regular
from threadfs.nodes.lives import Life
from threadfs.nodes.object_end import object_end
from threadfs.nodes.writers import TextWriter, check_beginning, decoded

_SECOND_NS = 1_000_000_000
MAX_START_BYTES = 1 << 20
_MAX_CREATION_TIMES = 4096
# The reader of all of them. Only the version of its attributes is used.
_EMPTY = BytesReader(b"", regular(0o644, 0, 0), version="always empty")


@dataclass(frozen=True, slots=True)
class ControlFile(PathNode):
    life = Life.REPORTED
    # Its time is in a document, which a listing would have to read.
    has_cheap_attributes: ClassVar[bool] = False
    is_within_thread: ClassVar[bool] = True
    shows_what_is_written: ClassVar[bool] = False

    thread_id: str

    def created_at(self) -> int:
        """When the thread or run was created, in Unix seconds."""
        return self.store.get_thread(self.thread_id).created_at

    def key(self) -> DocumentKey:
        return DocumentKey(self.thread_id)

    @property
    def scope(self) -> DocumentKey:
        return self.key()

    def attributes(self) -> Attributes:
        info = self.store.document_info(self.key())
        known = self.tree.creation_times.get(self.key())
        if known is not None and known[0] == info.version:
            return regular(0o644, 0, known[1])
        try:
            modified_ns = self.created_at() * _SECOND_NS
        except Damaged:
            modified_ns = info.modified_ns
        # A document may hold any number, also one that is no valid file time.
        modified_ns = modified_ns if 0 <= modified_ns < 1 << 62 else 0
        if len(self.tree.creation_times) >= _MAX_CREATION_TIMES:
            self.tree.creation_times.clear()
        # If the document was replaced in between, this version is the old one: the next call reads it again.
        self.tree.creation_times[self.key()] = info.version, modified_ns
        return regular(0o644, 0, modified_ns)

    def _check_writable(self) -> None:
        """Refuses early: a shell's ``echo`` does not report an error from close."""
        self.store.document_info(self.key())
        self.store.check_writable(self.thread_id)

    def open_for_reading(self) -> Reader:
        self.store.document_info(self.key())
        return _EMPTY


@dataclass(frozen=True, slots=True)
class SayFile(ControlFile):
    """Text written here, from open to close, is one user message; one newline at its end is dropped."""

    @property
    def path(self) -> str:
        return f"threads/{self.thread_id}/say"

    def open_for_writing(self, *, truncate: bool, append: bool) -> Writer:
        self._check_writable()
        check = partial(self.store.check_appendable, self.thread_id)
        return TextWriter(self._commit, limit_bytes=MAX_LINE_BYTES, check=check)

    def _commit(self, data: bytes) -> None:
        text = decoded(data).removesuffix("\n")
        if not text:
            return
        message = ThreadMessage(role=MessageRole.user, content=[ContentBlock.of_text(text)])
        try:
            self.store.append_message(self.thread_id, message)
        except InvalidDocument as error:
            raise Refused(errno.EFBIG, str(error)) from None


@dataclass(frozen=True, slots=True)
class StartFile(ControlFile):
    """A model name (a line of its own; empty: the default model) or a JSON object queues a new run."""

    @property
    def path(self) -> str:
        return f"threads/{self.thread_id}/start"

    def open_for_writing(self, *, truncate: bool, append: bool) -> Writer:
        self._check_writable()
        return TextWriter(
            self._commit,
            limit_bytes=MAX_START_BYTES,
            at_once=_Requests(self._commit).take,
            check=partial(self.store.check_appendable, self.thread_id),
        )

    def _commit(self, data: bytes) -> None:
        if data.lstrip().startswith(b"{"):
            fields = documents.parse(data)
            if fields.get("status", "queued") != RunStatus.queued:
                raise InvalidDocument("status: a new run is queued")
            owner = {"object": "thread.run", "thread_id": self.thread_id}
            run = Run.of({"created_at": Run().created_at, **fields, **owner, "status": "queued"})
        else:
            model = decoded(data).strip()
            if not model.isprintable():
                raise InvalidDocument("model: write one name on one line, or a JSON object")
            run = Run(model=model)
        self.store.create_run(self.thread_id, run)


class _Requests:
    """Splits the text written to ``start`` into requests: lines, and objects of one or more lines."""

    def __init__(self, commit: Callable[[bytes], None]) -> None:
        self._commit = commit
        # An empty line after an object means nothing; anywhere else it asks for the default model.
        self._follows_object = False

    def take(self, text: bytes) -> bool:
        """Commits *text* and returns True if it is a whole request. Refuses text that cannot become one."""
        start = text.lstrip()
        if not start:
            if self._follows_object:
                return True
        elif start.startswith(b"["):
            raise InvalidDocument("a list: write a model name or a JSON object")
        elif start.startswith(b"{"):
            end = object_end(text)
            if end is None:
                check_beginning(text)
                return False
            if text[end:].strip():
                raise InvalidDocument("something follows the object: write one at a time")
            self._commit(text)
            self._follows_object = True
            return True
        if not text.endswith(b"\n"):
            return False
        self._commit(text)
        self._follows_object = False
        return True


@dataclass(frozen=True, slots=True)
class CancelFile(ControlFile):
    """Writing anything cancels the run, whether or not a worker holds it.

    A run that has already ended keeps its status (RunInTerminalState) unless the text is ``force``.
    """

    run_id: str

    @property
    def path(self) -> str:
        return f"threads/{self.thread_id}/runs/{self.run_id}/cancel"

    def created_at(self) -> int:
        return self.store.get_run(self.thread_id, self.run_id).created_at

    def key(self) -> DocumentKey:
        return DocumentKey(self.thread_id, self.run_id)

    def open_for_writing(self, *, truncate: bool, append: bool) -> Writer:
        self._check_writable()
        return TextWriter(lambda text: None, limit_bytes=MAX_START_BYTES, at_once=self._cancel)

    def _cancel(self, data: bytes) -> bool:
        self.store.cancel_run(self.thread_id, self.run_id, force=data.strip() == b"force")
        self.tree.journal.cancelled(self.thread_id, self.run_id)
        return True
