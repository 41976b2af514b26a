"""A whole thread, checked, as the contents of a directory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import TypeVar

from store import names, transitions
from store.api import DocumentKey, RunContents
from store.disk.layout import LOG, META, RUNS, STATUS, STEPS
from store.disk.trees import Contents
from store.errors import InvalidDocument

_PIECE_BYTES = 1 << 20

K = TypeVar("K")


def contents_of_thread(
    thread_id: str, document: bytes, messages: Iterable[bytes], runs: Mapping[str, RunContents]
) -> Contents:
    """The contents for the thread's directory; *messages* are checked while they are written.

    Raises:
        InvalidDocument: with the path of the first wrong document.
        InvalidName: the id of a run or step.
    """
    contents: Contents = {META: _imported(META, DocumentKey(thread_id), document)}
    pieces = _pieces(
        of_place(f"{LOG}:{number}", transitions.laid_out_line, thread_id, line)
        for number, line in enumerate(messages, 1)
    )
    if first := next(pieces, b""):
        contents[LOG] = chain((first,), pieces)
    if runs:
        contents[RUNS] = {run_id: contents_of_run(thread_id, run_id, run) for run_id, run in runs.items()}
    return contents


def contents_of_run(thread_id: str, run_id: str, run: RunContents) -> Contents:
    """What the directory of the run is to hold. Raises as `contents_of_thread`."""
    key = DocumentKey(thread_id, names.checked(run_id))
    contents: Contents = {STATUS: _imported(f"{RUNS}/{run_id}/{STATUS}", key, run.document)}
    if run.steps:
        contents[STEPS] = {
            f"{names.checked(step_id)}.json": _imported(
                f"{RUNS}/{run_id}/{STEPS}/{step_id}.json", DocumentKey(thread_id, run_id, step_id), step
            )
            for step_id, step in run.steps.items()
        }
    return contents


def _imported(place: str, key: DocumentKey, document: bytes) -> bytes:
    return of_place(place, transitions.laid_out, key, document)


def of_place(place: str, lay_out: Callable[[K, bytes], bytes], key: K, given: bytes) -> bytes:
    """The result of *lay_out* for a document; an error says its *place*."""
    try:
        return lay_out(key, given)
    except InvalidDocument as error:
        raise InvalidDocument(f"{place}: {error}") from None


def _pieces(parts: Iterable[bytes]) -> Iterator[bytes]:
    """*parts* joined to pieces that are worth a system call."""
    piece = bytearray()
    for part in parts:
        piece += part
        if len(piece) >= _PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)
