"""What oxillama-server, which reads the same store, makes of what workers of threadfs write.

Its structs, as strict models: an unknown field is passed over; a document that lacks a field, or has a value
of another type or an unknown status, is not read. Of a log it skips such lines, and of a list such steps.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from store import RunError, RunStatus, ThreadStore
from store.working import Outcome
from tests.store.contract.working import CALLS, COMPLETED, STATE, WITH_CALLS, asked, claimed


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class Text(Strict):
    value: str
    annotations: list[Any]


class Block(Strict):
    type: str
    text: Text


class Message(Strict):
    id: str
    object: str
    created_at: int
    thread_id: str
    role: Literal["user", "assistant"]
    content: list[Block]
    run_id: str | None = None


class Error(Strict):
    code: str
    message: str


class RunOfReference(Strict):
    id: str
    object: str
    created_at: int
    thread_id: str
    status: Literal["queued", "in_progress", "completed", "cancelled", "failed", "expired"]
    model: str
    last_error: Error | None = None


class Details(Strict):
    message_id: str


class Step(Strict):
    id: str
    object: str
    run_id: str
    thread_id: str
    step_type: Literal["message_creation", "tool_calls"]
    status: Literal["in_progress", "completed", "failed", "cancelled"]
    created_at: int
    completed_at: int | None = None
    failed_at: int | None = None
    error: str | None = None
    step_details: Details | None = None


@pytest.fixture
def store(tmp_path: Path) -> ThreadStore:
    return ThreadStore(tmp_path)


def run_read(store: ThreadStore, run_id: str = "R") -> RunOfReference:
    return RunOfReference.model_validate_json((store.run_dir("T", run_id) / "status.json").read_bytes())


def messages_read(store: ThreadStore) -> list[Message]:
    lines = (store.thread_dir("T") / "messages.jsonl").read_bytes().splitlines()
    return [Message.model_validate_json(line) for line in lines]


def steps_read(store: ThreadStore) -> list[Step]:
    return [Step.model_validate_json(path.read_bytes()) for path in store.steps_dir("T", "R").glob("*.json")]


FAILED = Outcome(
    RunStatus.failed, "run_failed", error=RunError(code="server_error", message="it ended early")
)


@pytest.mark.parametrize(
    "outcome",
    [COMPLETED, FAILED, Outcome(RunStatus.cancelled, "run_cancelled")],
    ids=["completed", "failed", "cancelled"],
)
def test_it_reads_all_of_an_answer_at_each_moment(store: ThreadStore, outcome: Outcome) -> None:
    asked(store, "R")
    assert run_read(store).status == "queued"
    worker = store.register_worker(STATE)
    answer = worker.claim("T", "R")
    assert run_read(store).status == "in_progress"
    assert [step.status for step in steps_read(store)] == ["in_progress"]
    answer.append("Yes.")
    assert [message.role for message in messages_read(store)] == ["user"]
    answer.finish(Outcome(outcome.status, outcome.message_is_cut, error=outcome.error, usage={"n": 1}))
    assert run_read(store).status == outcome.status
    assert [message.content[0].text.value for message in messages_read(store)] == ["question of R", "Yes."]
    (step,) = steps_read(store)
    assert step.status == outcome.status
    assert step.step_details == Details(message_id=messages_read(store)[-1].id)
    store.close()


def test_it_reads_what_a_dead_worker_leaves_and_what_becomes_of_it(store: ThreadStore) -> None:
    with store.register_worker(STATE) as worker:
        claimed(store, worker).append("half")
    assert run_read(store).status == "in_progress"
    store.take_over()
    assert run_read(store).status == "queued"
    (step,) = steps_read(store)
    assert step.status == "failed"
    assert step.error


def test_it_does_not_read_a_run_that_requires_action_nor_the_step_of_its_calls(store: ThreadStore) -> None:
    claimed(store).finish(WITH_CALLS)
    with pytest.raises(ValidationError, match="status"):
        run_read(store)
    with pytest.raises(ValidationError, match="message_id"):
        steps_read(store)
    for call in CALLS:
        store.set_tool_output("T", "R", call.id, "rain")
    assert run_read(store).status == "queued"
    store.close()


def test_it_does_not_read_an_incomplete_run_but_its_message(store: ThreadStore) -> None:
    answer = claimed(store)
    answer.append("Ye")
    answer.finish(Outcome(RunStatus.incomplete, "max_tokens", run_is_cut="max_completion_tokens"))
    with pytest.raises(ValidationError, match="status"):
        run_read(store)
    assert messages_read(store)[-1].content[0].text.value == "Ye"
    store.close()


def test_a_run_that_it_has_written_is_nobodys_and_is_left_to_it(store: ThreadStore) -> None:
    answer = claimed(store)
    path = store.run_dir("T", "R") / "status.json"
    fields = RunOfReference.model_validate_json(path.read_bytes()).model_dump(exclude_none=True)
    path.write_text(json.dumps(fields, indent=2))
    answer.append("Yes.")
    answer.close()
    assert store.take_over() == []
    assert store.get_run("T", "R").status is RunStatus.in_progress
    store.close()
