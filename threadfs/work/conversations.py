"""Reads from a store what a run is asked."""

from __future__ import annotations

from collections import deque
from contextlib import suppress

from store import Damaged, NotFound, Run, RunStep, Store, ThreadMessage
from threadfs.work.failures import PromptRefused
from threadfs.work.prompt import Conversation

# Also the limit for a request.
MAX_BYTES = 64 << 20


def conversation_of(store: Store, run: Run, *, may_be_cut: bool = False) -> Conversation:
    """The thread of *run* as it is now, without documents that cannot be read.

    Args:
        may_be_cut: of a log that is too long the end is taken.

    Raises:
        PromptRefused: the log is too long for any prompt.
        StoreError: the thread cannot be read.
    """
    thread_id = run.thread_id
    thread = store.get_thread(thread_id)
    messages: deque[ThreadMessage] = deque()
    size = 0
    for message in store.iter_messages(thread_id):
        messages.append(message)
        size += len(message.text)
        while size > MAX_BYTES:
            if not may_be_cut:
                raise too_long()
            size -= len(messages.popleft().text)
    runs: list[Run] = []
    steps: dict[str, list[RunStep]] = {}
    for run_id in store.list_run_ids(thread_id):
        with suppress(NotFound, Damaged):
            runs.append(store.get_run(thread_id, run_id))
            steps[run_id] = store.list_steps(thread_id, run_id)
    return Conversation(thread, list(messages), runs, steps)


def too_long() -> PromptRefused:
    return PromptRefused(
        f"the conversation is longer than {MAX_BYTES >> 20} MiB: start a run with a truncation_strategy"
    )
