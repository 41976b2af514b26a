"""A script of store operations, and the state that the store shows after each of them.

All ids and times in it are fixed, so that two runs of it end in the same state, byte for byte.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from store import (
    ContentBlock,
    DocumentKey,
    MessageRole,
    Run,
    RunContents,
    RunError,
    RunStatus,
    RunStep,
    RunStepStatus,
    RunStepType,
    Thread,
    ThreadMessage,
    ThreadStore,
)
from store.disk.system_calls import SystemCalls

# Below a directory that is there; neither the store nor these parents of it are.
STORE = Path("new", "nested", "store")

# By thread, run and step, with the documents as bytes: whatever the store shows of itself.
State = dict[str, Any]


@dataclass(frozen=True)
class Operation:
    name: str
    do: Callable[[ThreadStore], object]


class Unsynced(SystemCalls):
    """For tests in which the machine stays up."""

    def sync(self, file_or_directory: int) -> None:
        pass


def message(message_id: str, text: str) -> ThreadMessage:
    content = [ContentBlock.of_text(text)]
    return ThreadMessage(id=message_id, created_at=5, role=MessageRole.user, content=content)


def _line(message_id: str) -> bytes:
    return (
        b'{"id":"%s","object":"thread.message","created_at":7,"thread_id":"B","role":"assistant",'
        b'"content":[{"type":"text","text":{"value":"imported","annotations":[]}}]}' % message_id.encode()
    )


_RUN = b'{"created_at":8,"status":"in_progress","model":"m"}'
_STEP = b'{"created_at":9,"status":"in_progress","step_type":"tool_calls"}'
_IMPORTED = {"R": RunContents(_RUN, {"S": _STEP}), "Q": RunContents(_RUN)}


def _extend(store: ThreadStore, lines: list[bytes], runs: dict[str, RunContents]) -> None:
    store.extend_thread("B", store.log_info("B").size_bytes, lines, runs, modified_ns=1_000_000_000)


SCRIPT = [
    Operation("create thread", lambda s: s.create_thread(Thread(id="A", created_at=1, metadata={"n": 1}))),
    Operation("append first message", lambda s: s.append_message("A", message("m1", "grüße, 世界 " * 9))),
    Operation("append message", lambda s: s.append_message("A", message("m2", "second"))),
    Operation("append lines", lambda s: s.append_lines("A", [_line("m3"), _line("m4")])),
    Operation("create first run", lambda s: s.create_run("A", Run(id="R", created_at=2, model="llama3"))),
    Operation(
        "claim run",
        lambda s: s.update_run_status("A", "R", RunStatus.in_progress, expected=RunStatus.queued),
    ),
    Operation(
        "append first step",
        lambda s: s.append_step("A", "R", RunStep(id="S1", created_at=3, step_type=RunStepType.tool_calls)),
    ),
    Operation("append step", lambda s: s.append_step("A", "R", RunStep(id="S2", created_at=4))),
    Operation("update step status", lambda s: s.update_step_status("A", "R", "S1", RunStepStatus.completed)),
    Operation(
        "put new step",
        lambda s: s.replace_document(
            DocumentKey("A", "R", "S3"), b'{"created_at":6,"status":"in_progress","step_type":"tool_calls"}'
        ),
    ),
    Operation("patch run", lambda s: s.patch_document(DocumentKey("A", "R"), {"temperature": 0.5})),
    Operation(
        "fail run",
        lambda s: s.update_run_status("A", "R", RunStatus.failed, RunError(code="e", message="no memory")),
    ),
    Operation("force run", lambda s: s.force_update_run_status("A", "R", RunStatus.in_progress)),
    Operation("cancel run", lambda s: s.cancel_run("A", "R")),
    Operation("patch thread", lambda s: s.patch_document(DocumentKey("A"), {"metadata": {"title": "Oslo"}})),
    Operation(
        "replace thread",
        lambda s: s.replace_document(DocumentKey("A"), b'{"created_at":1,"metadata":{"whole":[1,2]}}'),
    ),
    Operation("create run", lambda s: s.create_run("A", Run(id="Q", created_at=10))),
    Operation(
        "import thread",
        lambda s: s.import_thread(
            "B", b'{"created_at":6,"metadata":{}}', [_line("m5"), _line("m6")], _IMPORTED
        ),
    ),
    Operation("append to imported", lambda s: s.append_message("B", message("m7", "after"))),
    Operation("extend by a run", lambda s: _extend(s, [], {"X": RunContents(_RUN, {"S": _STEP})})),
    Operation("extend by a step", lambda s: _extend(s, [], {"X": RunContents(_RUN, {"S2": _STEP})})),
    Operation("extend by a message", lambda s: _extend(s, [_line("m9")], {})),
    Operation("create thread again", lambda s: s.create_thread(Thread(id="C", created_at=11))),
    Operation("delete run", lambda s: s.delete_run("A", "R")),
    Operation("delete thread", lambda s: s.delete_thread("B", force=True)),
    Operation("create deleted thread", lambda s: s.create_thread(Thread(id="B", created_at=12))),
    Operation("append to it", lambda s: s.append_message("B", message("m8", "anew"))),
    Operation("delete thread with run", lambda s: s.delete_thread("A")),
]

# Each of several lines is a write: who is interrupted may leave the first few of them.
_SEVERAL_LINES = [operation.name for operation in SCRIPT].index("append lines")


def state_of(store: ThreadStore) -> State:
    """All that the store shows; raises what it raises when something in it is damaged."""
    return {
        thread_id: {
            "document": store.read_document(DocumentKey(thread_id))[0],
            "parsed": store.get_thread(thread_id).fields(),
            "messages": [message.fields() for message in store.iter_messages(thread_id)],
            "runs": {run_id: _run_of(store, thread_id, run_id) for run_id in store.list_run_ids(thread_id)},
        }
        for thread_id in store.list_thread_ids()
    }


def _run_of(store: ThreadStore, thread_id: str, run_id: str) -> State:
    return {
        "document": store.read_document(DocumentKey(thread_id, run_id))[0],
        "parsed": store.get_run(thread_id, run_id).fields(),
        "steps": {
            step_id: (
                store.read_document(DocumentKey(thread_id, run_id, step_id))[0],
                store.get_step(thread_id, run_id, step_id).fields(),
            )
            for step_id in store.list_step_ids(thread_id, run_id)
        },
        "step order": [step.id for step in store.list_steps(thread_id, run_id)],
    }


def states_of_script() -> list[State]:
    """The state before the script, then after each operation; all are different."""
    with tempfile.TemporaryDirectory() as base:
        store = ThreadStore(Path(base, STORE), calls=Unsynced())
        states = [state_of(store)]
        for operation in SCRIPT:
            operation.do(store)
            states.append(state_of(store))
            assert states.count(states[-1]) == 1, f"{operation.name}: shows nothing new"
    return states


@contextmanager
def stopped_clock() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr("store.transitions.now_s", lambda: 1_700_000_000)
        yield


def resume(store: ThreadStore, states: list[State], expected: range, limit: int | None = None) -> int:
    """Judges a store that was interrupted, then goes on with the script for *limit* operations in it.

    Returns:
        How many operations of the script the store showed as done, one of *expected*.
    """
    shown = state_of(store)
    done = next((number for number, state in enumerate(states) if state == shown), None)
    has_first_lines = done is None and _has_first_lines(shown, states)
    if has_first_lines:
        done = _SEVERAL_LINES
    assert done is not None, f"no state of the script: {_summary(shown)}"
    assert done in expected, f"{done} operations are there, not one of {expected}"
    # The lines are not appended anew behind the first of them.
    for number in () if has_first_lines else range(done, len(SCRIPT))[:limit]:
        SCRIPT[number].do(store)
        assert state_of(store) == states[number + 1], f"{SCRIPT[number].name} afterwards went wrong"
    _work_elsewhere(store)
    return done


def _has_first_lines(shown: State, states: list[State]) -> bool:
    """Whether the first of several lines that were to be appended together are there, and the others not."""
    before, after = (states[number]["A"] for number in (_SEVERAL_LINES, _SEVERAL_LINES + 1))
    count = len(shown.get("A", before)["messages"])
    between = {"A": {**before, "messages": after["messages"][:count]}}
    return count > len(before["messages"]) and shown == between


def _summary(state: State) -> State:
    return {
        thread_id: {
            "metadata": thread["parsed"]["metadata"],
            "messages": [message["id"] for message in thread["messages"]],
            "runs": {
                run_id: (str(run["parsed"]["status"]), run["step order"])
                for run_id, run in thread["runs"].items()
            },
        }
        for thread_id, thread in state.items()
    }


def _work_elsewhere(store: ThreadStore) -> None:
    before = state_of(store)
    for thread_id in before:
        store.append_message(thread_id, message("probe", "can you hear me?"))
        assert [m.id for m in store.iter_messages(thread_id)][-1] == "probe"
        assert len(store.list_messages(thread_id)) == len(before[thread_id]["messages"]) + 1
    store.create_thread(Thread(id="probe"))
    store.create_run("probe", Run(id="probe"))
    store.delete_run("probe", "probe")
    store.delete_thread("probe")
    assert sorted(store.list_thread_ids()) == sorted(before)


def hidden_names(directory: Path) -> list[str]:
    """What readers of the store ignore: temporary files, half deleted directories."""
    return [name for _, folders, files in os.walk(directory) for name in folders + files if name[0] == "."]
