"""Threads that arrive whole: checked first, then written in one transaction."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any, TypeAlias

from store import names, transitions
from store.api import DocumentKey, RunContents
from store.postgres.database import Transaction
from store.postgres.documents import Documents
from store.postgres.log import append
from store.postgres.tables import NOW_NS, path_of, placed, status_in
from store.postgres.threads import insert_thread

# Lines of a log that are kept in memory while it is checked; more go to a temporary file.
_IN_MEMORY_BYTES = 8 << 20
# Of what is sent in one statement.
_PIECE_BYTES = 1 << 20

Documented: TypeAlias = list[tuple[DocumentKey, bytes]]

_ADD_RUNS = f"""
    INSERT INTO runs (thread_id, run_id, status, document, modified_ns, version, steps_modified_ns)
    SELECT %(thread)s, run_id, status, document, {NOW_NS}, %(version)s, {NOW_NS}
    FROM unnest(%(runs)s::text[], %(statuses)s::text[], %(documents)s::bytea[])
        AS run (run_id, status, document)
"""
_ADD_STEPS = f"""
    INSERT INTO steps (thread_id, run_id, step_id, status, document, modified_ns, version)
    SELECT %(thread)s, run_id, step_id, status, document, {NOW_NS}, %(version)s
    FROM unnest(%(runs)s::text[], %(steps)s::text[], %(statuses)s::text[], %(documents)s::bytea[])
        AS step (run_id, step_id, status, document)
"""


class Imports(Documents):
    def import_thread(
        self, thread_id: str, document: bytes, messages: Iterable[bytes], runs: Mapping[str, RunContents]
    ) -> None:
        """Makes a thread with all that it holds appear in one step.

        All documents are whole ones as bytes, and all are checked; they get the ids of their place. A
        document or line in the layout of the format is stored byte for byte. *messages* are lines, of
        which only some at a time are in memory.

        Raises:
            InvalidDocument: with the place of the first wrong document.
            AlreadyExists: the id is taken.
        """
        thread = _laid_out(DocumentKey(names.checked(thread_id)), document)
        run_keys = {run_id: DocumentKey(thread_id, names.checked(run_id)) for run_id in runs}
        laid_out_runs = [(key, _laid_out(key, runs[run_id].document)) for run_id, key in run_keys.items()]
        laid_out_steps = [
            (key, _laid_out(key, step))
            for run_id, run in runs.items()
            for step_id, step in run.steps.items()
            for key in [DocumentKey(thread_id, run_id, names.checked(step_id))]
        ]
        with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as checked_lines:
            for number, line in enumerate(messages, 1):
                place = f"messages.jsonl:{number}"
                checked_lines.write(placed(place, transitions.laid_out_line, thread_id, line))

            def work(transaction: Transaction) -> None:
                insert_thread(transaction, thread_id, thread)
                checked_lines.seek(0)
                for lines in _pieces(checked_lines):
                    append(transaction, thread_id, lines)
                _add_runs(transaction, thread_id, laid_out_runs)
                _add_steps(transaction, thread_id, laid_out_steps)

            self._database.write(thread_id, work)


def _laid_out(key: DocumentKey, document: bytes) -> bytes:
    return placed(path_of(key).partition("/")[2], transitions.laid_out, key, document)


def _pieces(lines: IO[bytes]) -> Iterator[list[bytes]]:
    """Lines, so many at a time as are worth a statement."""
    while piece := lines.readlines(_PIECE_BYTES):
        yield piece


def _add_runs(transaction: Transaction, thread_id: str, runs: Documented) -> None:
    for piece in _limited(runs):
        row = {**_columns(transaction, thread_id, piece), "runs": [key.run_id for key, _ in piece]}
        transaction.execute(_ADD_RUNS, row)
    if runs:
        transaction.execute(
            f"UPDATE threads SET runs_modified_ns = {NOW_NS} WHERE thread_id = %s", [thread_id]
        )


def _add_steps(transaction: Transaction, thread_id: str, steps: Documented) -> None:
    for piece in _limited(steps):
        row = {**_columns(transaction, thread_id, piece), "runs": [key.run_id for key, _ in piece]}
        transaction.execute(_ADD_STEPS, {**row, "steps": [key.step_id for key, _ in piece]})


def _columns(transaction: Transaction, thread_id: str, piece: Documented) -> dict[str, Any]:
    return {
        "thread": thread_id,
        "version": transaction.version,
        "statuses": [status_in(key, document) for key, document in piece],
        "documents": [document for _, document in piece],
    }


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
