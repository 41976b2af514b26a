"""A worker and what it answers, for the tests of every store."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from store import DocumentKey, Run, RunStatus, Store, Thread
from store.tools import ToolCall
from store.working import Answer, GrowingAnswer, Outcome, Registration, WorkerState
from tests.store.conftest import message

STATE = WorkerState(endpoint="localhost:11434", jobs=4)
COMPLETED = Outcome(RunStatus.completed)
CALLS = [ToolCall("call_1", "weather", '{"city":"Oslo"}'), ToolCall("call_2", "time", "{}")]
WITH_CALLS = Outcome(RunStatus.requires_action, tool_calls=CALLS)


def asked(store: Store, *run_ids: str, thread_id: str = "T", **fields: Any) -> None:
    """The thread T, in which a question for each run was asked."""
    store.create_thread(Thread(id=thread_id, created_at=1))
    for run_id in run_ids:
        ask(store, run_id, thread_id=thread_id, **fields)


def ask(store: Store, run_id: str, *, thread_id: str = "T", created_at: int = 2) -> None:
    store.ask(
        thread_id, message(f"question of {run_id}", id=f"m-{run_id}"), Run(id=run_id, created_at=created_at)
    )


def claimed(store: Store, worker: Registration | None = None) -> Answer:
    """The run R in the thread T, claimed."""
    asked(store, "R")
    return (worker or store.register_worker(STATE)).claim("T", "R")


def run_of(store: Store, run_id: str = "R", thread_id: str = "T") -> dict[str, Any]:
    """The fields of a stored run."""
    return store.get_run(thread_id, run_id).fields()


def steps_of(store: Store, run_id: str = "R") -> list[dict[str, Any]]:
    return [step.fields() for step in store.list_steps("T", run_id)]


def whole_text(store: Store, answer: GrowingAnswer) -> str | None:
    data = store.read_answer(answer, 0, 1 << 20)
    return None if data is None else data.decode()


def growing_text(store: Store, thread_id: str = "T") -> list[str | None]:
    return [whole_text(store, answer) for answer in store.growing_answers(thread_id)]


def eventually(is_so: Callable[[], bool], within_s: float = 10.0) -> bool:
    """Whether *is_so* becomes true: a database shows the text of answers a moment later."""
    ends = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > ends:
            return False
        time.sleep(0.002)
    return True


def key_of(answer: Answer) -> DocumentKey:
    return DocumentKey(answer.run.thread_id, answer.run.id, answer.step_id)
