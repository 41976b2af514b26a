"""Where documents are: the names of files and directories below a store's root."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

from store import names
from store.api import DocumentKey
from store.errors import NotFound, RunNotFound, RunStepNotFound, ThreadNotFound

META, LOG, RUNS, STATUS, STEPS = "meta.json", "messages.jsonl", "runs", "status.json", "steps"

# The names that lead from the root to a file or directory.
Parts: TypeAlias = tuple[str, ...]


def place(key: DocumentKey) -> tuple[Parts, str]:
    """The directory of a document, and the name of its file. Raises InvalidName."""
    thread = (names.checked(key.thread_id),)
    if key.run_id is None:
        return thread, META
    run = (*thread, RUNS, names.checked(key.run_id))
    if key.step_id is None:
        return run, STATUS
    return (*run, STEPS), f"{names.checked(key.step_id)}.json"


@lru_cache(maxsize=10_000)  # A request looks at the same document several times.
def parts(key: DocumentKey) -> Parts:
    """From the root to the file of a document. Raises InvalidName."""
    above, name = place(key)
    return (*above, name)


def path(key: DocumentKey) -> str:
    return "/".join(parts(key))


def not_found(key: DocumentKey) -> NotFound:
    if key.run_id is None:
        return ThreadNotFound(key.thread_id)
    return RunNotFound(key.run_id) if key.step_id is None else RunStepNotFound(key.step_id)
