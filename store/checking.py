"""Problems in a store: in its documents, in the lines of its logs, and in their references.

Every store can be checked for these. Problems that only a disk has, and repairs, are in ``disk/fsck/``.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

from store import documents, lines, transitions
from store.api import DocumentKey, LogReader, Store
from store.documents import MAX_LINE_BYTES
from store.errors import Damaged, InvalidDocument, NotFound, StorageFailed
from store.models import Document, RunStep, ThreadMessage
from store.statuses import RunStepStatus

META, LOG, RUNS, STATUS, STEPS = "meta.json", "messages.jsonl", "runs", "status.json", "steps"

# The ids of so many messages of a log are compared, which takes some 70 MB.
MAX_COMPARED = 1_000_000

_BLANKS = b" \t\r\n"


class Severity(Enum):
    """How bad it is: an error hides something from a program of this format, a warning does not, a note is
    no damage at all."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Problem(Enum):
    """The kinds of problems, which repairs are chosen by."""

    UNREADABLE = "the disk does not give it"
    DOCUMENT = "no document of this format"
    INCOMPLETE = "a document without a field that the format requires, and that can be filled in"
    IDENTITY = "a document that names other ids than its path"
    STEP_REFERENCE = "a step that refers to a message that is not there"
    LOG = "a log that is no file"
    LINE = "a line of a log that is no message"
    LINE_INCOMPLETE = "a message without a field that the format requires, and that can be filled in"
    LINE_IDENTITY = "a message that names another thread"
    LINE_REFERENCE = "a message of a run that is not there any more"
    DUPLICATE = "a message whose id another one before it has"
    TORN_LINE = "a last line without its end"
    NO_META = "what a thread holds, without its document"
    NO_STATUS = "what a run holds, without its document"
    NAME = "a thread, run or step whose name is no id"
    MISPLACED = "something else where a directory should be"
    LEFTOVER = "what a killed program left"

    @property
    def severity(self) -> Severity:
        return _SEVERITIES.get(self, Severity.ERROR)


_SEVERITIES = {
    Problem.IDENTITY: Severity.WARNING,
    Problem.STEP_REFERENCE: Severity.WARNING,
    Problem.LINE_IDENTITY: Severity.WARNING,
    Problem.LINE_REFERENCE: Severity.NOTE,
    Problem.DUPLICATE: Severity.WARNING,
    Problem.TORN_LINE: Severity.WARNING,
    Problem.LEFTOVER: Severity.WARNING,
}
# Problems with the fields of a document, as problems of a line of a log.
_OF_LINES = {Problem.INCOMPLETE: Problem.LINE_INCOMPLETE, Problem.IDENTITY: Problem.LINE_IDENTITY}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. *path* is relative to the store, *what* one line for a person.

    *key* names the document, or else the thread. *span* is the offset of a line in the log, and its size
    without the newline. *parts* lead to something that is no document.
    """

    path: str
    severity: Severity
    what: str
    problem: Problem
    key: DocumentKey
    span: tuple[int, int] = (0, 0)
    parts: tuple[str, ...] = ()


def path_of(key: DocumentKey) -> str:
    """The path of a document on a disk, by which documents of all stores are named."""
    if key.run_id is None:
        return f"{key.thread_id}/{META}"
    run = f"{key.thread_id}/{RUNS}/{key.run_id}"
    return f"{run}/{STATUS}" if key.step_id is None else f"{run}/{STEPS}/{key.step_id}.json"


def check_thread(store: Store, thread_id: str) -> Iterator[Finding]:
    """The problems in a thread; none when it is not there (any more)."""
    key = DocumentKey(thread_id)
    try:
        yield from _Thread(store, key).findings()
    except (NotFound, Damaged):
        # Not there (any more), or so damaged that nothing else can be looked at; that has been reported.
        return


class _Thread:
    def __init__(self, store: Store, key: DocumentKey) -> None:
        self._store = store
        self._key = key
        # By id of a message: the steps that refer to it, until it is found in the log.
        self._awaited: dict[str, list[DocumentKey]] = {}
        # Hashes of the ids of messages.
        self._seen: set[int] = set()

    def findings(self) -> Iterator[Finding]:
        yield from self._document(self._key)
        run_ids = self._store.list_run_ids(self._key.thread_id)
        for run_id in sorted(run_ids):
            with suppress(NotFound, Damaged):
                yield from self._run(DocumentKey(self._key.thread_id, run_id))
        yield from self._log(frozenset(run_ids))
        for message_id, steps in self._awaited.items():
            for step in steps:
                what = f"step_details: there is no message {message_id!r}"
                yield _finding(step, Problem.STEP_REFERENCE, what)

    def _run(self, key: DocumentKey) -> Iterator[Finding]:
        yield from self._document(key)
        for step_id in sorted(self._store.list_step_ids(key.thread_id, str(key.run_id))):
            step_key = DocumentKey(key.thread_id, key.run_id, step_id)
            try:
                step = yield from self._document(step_key)
            except NotFound:
                continue
            # Of one that has not completed the message may yet come, or never will.
            if not isinstance(step, RunStep) or step.status is not RunStepStatus.completed:
                continue
            if (message_id := referenced_message(step)) is not None:
                self._awaited.setdefault(message_id, []).append(step_key)

    def _document(self, key: DocumentKey) -> Generator[Finding, None, Document | None]:
        """The findings of one document; its value is the document when it is one."""
        try:
            data, _ = self._store.read_document(key)
            fields = documents.parse(data)
            document = transitions.document_at(key, fields)
            check_text(data, document)
        except StorageFailed as error:
            yield _finding(key, Problem.UNREADABLE, f"cannot be read: {error}")
            return None
        except Damaged as error:
            yield _finding(key, Problem.DOCUMENT, str(error).removeprefix(f"{error.path} is damaged: "))
            return None
        except InvalidDocument as error:
            yield _finding(key, Problem.DOCUMENT, str(error))
            return None
        if wrong := wrong_fields(fields, transitions.with_identity(key, {}), document):
            yield _finding(key, *wrong)
        return document

    def _log(self, run_ids: frozenset[str]) -> Iterator[Finding]:
        try:
            log = self._store.open_log(self._key.thread_id)
        except Damaged as error:
            what = str(error).removeprefix(f"{error.path} is damaged: ")
            yield self._log_finding(Problem.LOG, what)
            return
        with closing(log):
            try:
                start, known_bytes = 0, log.info().size_bytes
                for number, (line, end) in enumerate(lines.iter_lines(log.read), 1):
                    span = (start, end - 1 - start)
                    # A repair may append lines, set right, while the log is read.
                    is_new = start >= known_bytes
                    start = end
                    for problem, what in self._line(log, line, span, run_ids):
                        if problem is not Problem.DUPLICATE or not is_new:
                            yield self._log_finding(problem, f"line {number}: {what}", span)
            except StorageFailed as error:
                yield self._log_finding(Problem.UNREADABLE, f"cannot be read: {error}")

    def _line(
        self, log: LogReader, line: bytes, span: tuple[int, int], run_ids: frozenset[str]
    ) -> Iterator[tuple[Problem, str]]:
        if span[1] > MAX_LINE_BYTES:
            if not _is_blank(log, *span):
                yield Problem.LINE, f"longer than {MAX_LINE_BYTES} bytes"
            return
        if not line.strip():
            return
        try:
            fields = documents.parse(line)
            message = ThreadMessage.of({**fields, "thread_id": self._key.thread_id})
            check_text(line, message)
        except InvalidDocument as error:
            yield Problem.LINE, str(error)
            return
        if wrong := wrong_fields(fields, {"thread_id": self._key.thread_id}, message):
            yield _OF_LINES[wrong[0]], wrong[1]
        if message.run_id and message.run_id not in run_ids:
            yield Problem.LINE_REFERENCE, f"run_id: there is no run {message.run_id!r} any more"
        self._awaited.pop(message.id, None)
        hashed = hash(message.id)
        if hashed in self._seen:
            yield Problem.DUPLICATE, f"id: there is a message {message.id!r} before"
        elif len(self._seen) < MAX_COMPARED:
            self._seen.add(hashed)

    def _log_finding(self, problem: Problem, what: str, span: tuple[int, int] = (0, 0)) -> Finding:
        parts = (self._key.thread_id, LOG)
        return Finding("/".join(parts), problem.severity, what, problem, self._key, span, parts)


def _finding(key: DocumentKey, problem: Problem, what: str) -> Finding:
    return Finding(path_of(key), problem.severity, what, problem, key)


def check_text(data: bytes, document: Document) -> None:
    """Raises InvalidDocument when a text could not be written again: JSON can name what UTF-8 cannot."""
    if b"\\ud" in data.lower():
        documents.pretty(document)


def wrong_fields(
    fields: dict[str, Any], identity: dict[str, str], document: Document
) -> tuple[Problem, str] | None:
    """What is wrong with the *fields* that were found of a *document*, which has them right all the same: the
    ids are those of its path, its *identity*, and what else is missing is filled in."""
    for name in identity:
        if name not in fields:
            return Problem.INCOMPLETE, f"{name}: missing"
        if not isinstance(fields[name], str):
            return Problem.INCOMPLETE, f"{name}: must be a text"
    if left_out := document.left_out():
        return Problem.INCOMPLETE, f"{left_out}: missing"
    for name, value in identity.items():
        if fields[name] != value:
            return Problem.IDENTITY, f"{name}: {fields[name]!r:.140} is not {value!r}, as its path says"
    return None


def referenced_message(step: RunStep) -> str | None:
    """The message that a step says it made, in our words or in OpenAI's."""
    details = step.fields().get("step_details")
    if not isinstance(details, dict):
        return None
    creation = details.get("message_creation")
    message_id = (creation if isinstance(creation, dict) else details).get("message_id")
    return message_id if isinstance(message_id, str) and message_id else None


def _is_blank(log: LogReader, start: int, size: int) -> bool:
    end = start + size
    while start < end:
        piece = log.read(start, min(1 << 20, end - start))
        if not piece or piece.strip(_BLANKS):
            return not piece
        start += len(piece)
    return True
