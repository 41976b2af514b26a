"""One store for each backend, and the few objects that most tests begin with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from store import (
    ContentBlock,
    DocumentKey,
    MessageRole,
    Run,
    RunStatus,
    RunStep,
    RunStepStatus,
    Store,
    Thread,
    ThreadMessage,
    ThreadStore,
)

# Opens another Store object on the same data.
MakeStore: TypeAlias = Callable[[], Store]

LONG_AGO_NS = 1_000_000_000_123_456_000
META = b'{"created_at":1}'
RUN_DOCUMENT = b'{"created_at":2,"status":"queued"}'
STEP_DOCUMENT = b'{"created_at":3,"status":"in_progress","step_type":"tool_calls"}'
TERMINAL = [status for status in RunStatus if status.is_terminal]
IN_PROGRESS = [status for status in RunStatus if status.is_in_progress]
NOT_TERMINAL = [status for status in RunStatus if not status.is_terminal]
ENDED_STEP = [status for status in RunStepStatus if status is not RunStepStatus.in_progress]
TIMESTAMP = {
    RunStatus.in_progress: "started_at",
    RunStatus.completed: "completed_at",
    RunStatus.cancelled: "cancelled_at",
    RunStatus.failed: "failed_at",
}

THREAD, RUN, STEP = DocumentKey("T"), DocumentKey("T", "R"), DocumentKey("T", "R", "S")
KEYS = [pytest.param(key, id=kind) for key, kind in ((THREAD, "thread"), (RUN, "run"), (STEP, "step"))]
# Values that a program might spell otherwise.
SPELLINGS = ["1e16", "1E+2", "0.10", "-0.0", "1.0", "123456789012345678901234567890", '"é\\n"', "null", "[]"]


@pytest.fixture(params=["disk", "postgres"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStore]:
    with ExitStack() as opened:

        def on_disk() -> ThreadStore:
            return opened.enter_context(closing(ThreadStore(tmp_path / "store")))

        yield on_disk if request.param == "disk" else request.getfixturevalue("open_store")


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    return make_store()


def message(text: str = "Hello", **fields: Any) -> ThreadMessage:
    return ThreadMessage(role=MessageRole.user, content=[ContentBlock.of_text(text)], **fields)


def make_thread(store: Store) -> None:
    """The thread T."""
    store.create_thread(Thread(id="T", created_at=1))


def make_run(store: Store, status: RunStatus = RunStatus.queued, **fields: Any) -> None:
    """The thread T with the run R."""
    make_thread(store)
    store.create_run("T", Run(id="R", created_at=2, status=status, **fields))


def make_step(store: Store, status: RunStepStatus = RunStepStatus.in_progress, **fields: Any) -> None:
    """The thread T with the run R, in progress, with the step S."""
    make_run(store, RunStatus.in_progress)
    store.append_step("T", "R", RunStep(id="S", created_at=3, status=status, **fields))


def stored(store: Store, key: DocumentKey) -> dict[str, Any]:
    """The fields of a stored document, in their order."""
    fields: dict[str, Any] = json.loads(store.read_document(key)[0])
    return fields


def texts(store: Store, thread_id: str = "T") -> list[str]:
    return [found.text for found in store.list_messages(thread_id)]


def nested(depth: int, kind: str) -> Any:
    """Lists or objects in one another."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


def whole_log(store: Store) -> bytes:
    reader = store.open_log("T")
    try:
        return reader.read(0, 1 << 20)
    finally:
        reader.close()
