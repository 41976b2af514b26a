"""Evidence that a directory is a thread, be it a damaged one, and not something else.

A store may lie among other directories, and its name may be mistyped.
"""

from __future__ import annotations

import os
from contextlib import suppress

from store import documents, transitions
from store.api import DocumentKey
from store.disk import files, foreign, paths
from store.disk.layout import LOG, META, RUNS
from store.disk.paths import opened
from store.errors import Damaged, InvalidDocument, StoreError
from store.messages import message_of

# How much of a log is searched for a message.
_SEARCHED_BYTES = 1 << 20


def is_surely_thread(root: str, thread_id: str) -> bool:
    """Whether a directory is a thread, be it a damaged one, by a document, message or run in it.

    Without these, it is one if it holds nothing else, and no ``meta.json`` of another program.
    """
    with opened(root) as parent:
        if parent is None or foreign.why_not_ours(parent, thread_id, DocumentKey(thread_id)) is None:
            return True
        if _has_message(root, thread_id) or _has_run(root, thread_id):
            return True
        if next(foreign.foreign_in(parent, thread_id, DocumentKey(thread_id)), None):
            return False
    with opened(root, thread_id) as thread:
        return thread is None or not is_anothers(thread, thread_id)


def _has_message(root: str, thread_id: str) -> bool:
    with suppress(StoreError), opened(root, thread_id) as thread:
        log = paths.open_file(thread, LOG) if thread is not None else None
        if log is not None:
            try:
                start = os.pread(log.descriptor, _SEARCHED_BYTES, 0)
            finally:
                os.close(log.descriptor)
            return any(message_of(line, thread_id) for line in start.split(b"\n"))
    return False


def _has_run(root: str, thread_id: str) -> bool:
    with suppress(StoreError), opened(root, thread_id, RUNS) as runs:
        if runs is not None:
            for run_id, _ in paths.subdirectories(runs):
                if foreign.why_not_ours(runs, run_id, DocumentKey(thread_id, run_id)) is None:
                    return True
    return False


def is_anothers(thread: int, thread_id: str) -> bool:
    """Whether there is a whole ``meta.json`` of another program."""
    try:
        fields = documents.parse(files.read_file(thread, META, META) or b"")
    except (Damaged, InvalidDocument):
        return False
    if not fields or fields.get("object") == "thread" or fields.get("id") == thread_id:
        return False
    try:
        transitions.document_at(DocumentKey(thread_id), fields)
    except InvalidDocument:
        return True
    return False
