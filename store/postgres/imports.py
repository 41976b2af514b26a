"""Threads that arrive whole, and what is added to them: checked first, then written in one transaction."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Self, TypeAlias

from store import names, transitions
from store.api import DocumentKey, RunContents
from store.changes import Change, Part
from store.errors import ModifiedSince, ThreadNotFound
from store.postgres.database import Transaction
from store.postgres.documents import Documents
from store.postgres.log import append
from store.postgres.tables import NOW_NS, path_of, placed, status_in, stored_time
from store.postgres.threads import insert_thread

# Lines of a log that are kept in memory while it is checked; more go to a temporary file.
_IN_MEMORY_BYTES = 8 << 20
# Of what is sent in one statement.
_PIECE_BYTES = 1 << 20

Documented: TypeAlias = list[tuple[DocumentKey, bytes]]

# The documents go in binary (``%b``), as the lines of a log do.
# What the caller gives, or now.
_TIME_NS = f"coalesce(%(modified_ns)s::bigint, {NOW_NS})"
_ADD_RUNS = f"""
    INSERT INTO runs (thread_id, run_id, status, document, modified_ns, version, steps_modified_ns)
    SELECT %(thread)s, run_id, status, document, {_TIME_NS}, %(version)s, {_TIME_NS}
    FROM unnest(%(runs)s::text[], %(statuses)s::text[], %(documents)b::bytea[])
        AS run (run_id, status, document)
    ON CONFLICT DO NOTHING
    RETURNING run_id
"""
_ADD_STEPS = f"""
    INSERT INTO steps (thread_id, run_id, step_id, status, document, modified_ns, version)
    SELECT %(thread)s, run_id, step_id, status, document, {_TIME_NS}, %(version)s
    FROM unnest(%(runs)s::text[], %(steps)s::text[], %(statuses)s::text[], %(documents)b::bytea[])
        AS step (run_id, step_id, status, document)
    ON CONFLICT DO NOTHING
    RETURNING run_id
"""
_SET_TIMES = f"""
    UPDATE threads
    SET modified_ns = %(modified_ns)s, log_modified_ns = %(modified_ns)s, imported_ns = {NOW_NS}
    WHERE thread_id = %(thread)s
"""


class Imports(Documents):
    def import_thread(
        self,
        thread_id: str,
        document: bytes,
        messages: Iterable[bytes],
        runs: Mapping[str, RunContents],
        *,
        modified_ns: int | None = None,
    ) -> None:
        """Makes a thread with all that it holds appear in one step.

        All documents are whole ones as bytes, and all are checked; they get the ids of their place. A
        document or line in the layout of the format is stored byte for byte. *messages* are lines, of
        which only some at a time are in memory. The time of all of it is *modified_ns* since 1970, or now.

        Raises:
            InvalidDocument: with the place of the first wrong document.
            AlreadyExists: the id is taken.
        """
        thread = _laid_out(DocumentKey(names.checked(thread_id)), document)
        laid_out = _Runs.checked(thread_id, runs, _checked_time(modified_ns))
        with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as checked_lines:
            checked_lines.writelines(_checked_lines(thread_id, messages))

            def work(transaction: Transaction) -> None:
                insert_thread(transaction, thread_id, thread)
                checked_lines.seek(0)
                for lines in _pieces(checked_lines):
                    append(transaction, thread_id, lines)
                laid_out.add(transaction)
                if modified_ns is not None:
                    transaction.execute(_SET_TIMES, {"thread": thread_id, "modified_ns": modified_ns})

            self._database.write(thread_id, work)

    def extend_thread(
        self,
        thread_id: str,
        log_bytes: int,
        messages: Sequence[bytes],
        runs: Mapping[str, RunContents],
        *,
        modified_ns: int | None = None,
    ) -> None:
        """Adds runs, the steps that a run has not yet, and messages to a log of *log_bytes*, in one step.

        The time of what is added, and of the log, is *modified_ns* since 1970, or now.

        Raises:
            ThreadNotFound: no such thread.
            ModifiedSince: its log has another size by now.
            InvalidDocument: with the place of the first wrong document.
        """
        lines = list(_checked_lines(names.checked(thread_id), messages))
        laid_out = _Runs.checked(thread_id, runs, _checked_time(modified_ns))

        def work(transaction: Transaction) -> None:
            # Locks the thread: nobody appends, and no run comes, until all of this is there.
            found = transaction.execute(
                "SELECT log_bytes FROM threads WHERE thread_id = %s FOR NO KEY UPDATE", [thread_id]
            )
            if not found:
                raise ThreadNotFound(thread_id)
            if found[0][0] != log_bytes:
                raise ModifiedSince(thread_id)
            transaction.changed(*laid_out.add(transaction))
            if lines:
                append(transaction, thread_id, lines)
                if modified_ns is not None:
                    transaction.execute(
                        "UPDATE threads SET log_modified_ns = %s WHERE thread_id = %s",
                        [modified_ns, thread_id],
                    )
                transaction.changed(Change(Part.LOG, thread_id))

        self._database.write(thread_id, work)


@dataclass(frozen=True, slots=True)
class _Runs:
    """Runs and their steps, checked and laid out."""

    thread_id: str
    runs: Documented
    steps: Documented
    modified_ns: int | None

    @classmethod
    def checked(cls, thread_id: str, runs: Mapping[str, RunContents], modified_ns: int | None) -> Self:
        keys = {run_id: DocumentKey(thread_id, names.checked(run_id)) for run_id in runs}
        return cls(
            thread_id,
            [(key, _laid_out(key, runs[run_id].document)) for run_id, key in keys.items()],
            [
                (key, _laid_out(key, step))
                for run_id, run in runs.items()
                for step_id, step in run.steps.items()
                for key in [DocumentKey(thread_id, run_id, names.checked(step_id))]
            ],
            modified_ns,
        )

    def add(self, transaction: Transaction) -> list[Change]:
        """Adds those that are not there, to a thread that is locked; what is other than it was."""
        if not self.runs:
            return []
        added = self._add(transaction, _ADD_RUNS, self.runs)
        extended = self._add(transaction, _ADD_STEPS, self.steps) - added
        row: dict[str, Any] = {"thread": self.thread_id, "modified_ns": self.modified_ns}
        if added:
            transaction.execute(
                f"UPDATE threads SET runs_modified_ns = {_TIME_NS} WHERE thread_id = %(thread)s", row
            )
        if extended:
            transaction.execute(
                f"UPDATE runs SET steps_modified_ns = {_TIME_NS}"
                " WHERE thread_id = %(thread)s AND run_id = ANY(%(runs)s)",
                {**row, "runs": sorted(extended)},
            )
        # One message to all holds only so many: of several it says that there are some.
        changes = [Change(Part.RUNS, self.thread_id)] if added else []
        if len(extended) > 1:
            return [*changes, Change(Part.EVERYTHING)]
        return changes + [Change(Part.STEPS, self.thread_id, run_id) for run_id in extended]

    def _add(self, transaction: Transaction, statement: str, given: Documented) -> set[str]:
        """The ids of the runs to which something was added."""
        changed: set[str] = set()
        for piece in _limited(given):
            row: dict[str, Any] = {
                "thread": self.thread_id,
                "version": transaction.version,
                "modified_ns": self.modified_ns,
                "runs": [key.run_id for key, _ in piece],
                "steps": [key.step_id for key, _ in piece],
                "statuses": [status_in(key, document) for key, document in piece],
                "documents": [document for _, document in piece],
            }
            changed.update(run_id for (run_id,) in transaction.execute(statement, row))
        return changed


def _checked_time(modified_ns: int | None) -> int | None:
    return None if modified_ns is None else stored_time(modified_ns, "a thread")


def _checked_lines(thread_id: str, messages: Iterable[bytes]) -> Iterator[bytes]:
    for number, line in enumerate(messages, 1):
        yield placed(f"messages.jsonl:{number}", transitions.laid_out_line, thread_id, line)


def _laid_out(key: DocumentKey, document: bytes) -> bytes:
    return placed(path_of(key).partition("/")[2], transitions.laid_out, key, document)


def _pieces(lines: IO[bytes]) -> Iterator[list[bytes]]:
    """Lines, so many at a time as are worth a statement."""
    while piece := lines.readlines(_PIECE_BYTES):
        yield piece


def _limited(given: Documented) -> Iterator[Documented]:
    piece: Documented = []
    size = 0
    for key, document in given:
        piece.append((key, document))
        size += len(document)
        if size >= _PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece
