"""Where documents are: the names of files and directories below a store's root."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

from store import names
from store.errors import NotFound, RunNotFound, RunStepNotFound, ThreadNotFound
from store.names import DocumentKey

META, LOG, RUNS, STATUS, STEPS = "meta.json", "messages.jsonl", "runs", "status.json", "steps"

# The directory of the files that living workers hold locked, and the text of an answer while it grows.
WORKERS, ANSWER = names.WORKERS.thread_id, ".threadfs-answer-"

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


def is_answer(name: str) -> bool:
    return name.startswith(ANSWER) and names.is_id(name.removeprefix(ANSWER))


def answer_name(message_id: str) -> str:
    """The file, in the directory of the run, for the text of an answer. Raises InvalidName."""
    return ANSWER + names.checked(message_id)


def not_found(key: DocumentKey) -> NotFound:
    if key.run_id is None:
        return ThreadNotFound(key.thread_id)
    return RunNotFound(key.run_id) if key.step_id is None else RunStepNotFound(key.step_id)
