"""OpenAI's spellings, in every store."""

from __future__ import annotations

import json

import pytest

from store import (
    DocumentKey,
    Run,
    RunStepStatus,
    Store,
    ThreadMessage,
)
from tests.store.conftest import (
    STEP,
    make_run,
    make_thread,
    message,
    stored,
)

OPENAI_STEP = {
    "created_at": 3,
    "status": "in_progress",
    "type": "tool_calls",
    "step_details": {"type": "tool_calls", "tool_calls": [{"id": "c", "message_id": 1}]},
    "usage": None,
}


def test_a_step_found_with_type_keeps_that_spelling_through_every_rewrite(store: Store) -> None:
    make_run(store)
    store.replace_document(STEP, json.dumps(OPENAI_STEP).encode())
    store.patch_document(STEP, {"a": 1})
    store.update_step_status("T", "R", "S", RunStepStatus.expired)
    fields = stored(store, STEP)
    assert fields["type"] == "tool_calls"
    assert "step_type" not in fields
    assert fields["step_details"] == OPENAI_STEP["step_details"]
    assert list(fields)[4:6] == ["type", "status"]


def test_a_step_found_with_type_keeps_that_spelling_when_it_is_read_and_appended_again(store: Store) -> None:
    make_run(store)
    store.replace_document(STEP, json.dumps(OPENAI_STEP).encode())
    store.create_run("T", Run(id="R2"))
    store.append_step("T", "R2", store.get_step("T", "R", "S"))
    assert "step_type" not in stored(store, DocumentKey("T", "R2", "S"))


@pytest.mark.parametrize(
    "details",
    [
        {"message_id": "m"},
        {"type": "message_creation", "message_creation": {"message_id": "m"}},
        {"type": "tool_calls", "tool_calls": []},
        {},
    ],
)
def test_step_details_are_kept_whole(store: Store, details: dict[str, object]) -> None:
    make_run(store)
    store.replace_document(STEP, json.dumps(OPENAI_STEP | {"step_details": details}).encode())
    store.update_step_status("T", "R", "S", RunStepStatus.completed)
    assert stored(store, STEP)["step_details"] == details


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image_file", "image_file": {"file_id": "f"}},
        {"type": "refusal", "refusal": "no"},
        {"type": "input_text", "text": {"value": "x"}},
        {"type": "input_text", "text": "x"},
        {"type": "text", "text": {"value": "x", "annotations": [{"type": "file_citation"}], "more": None}},
    ],
)
def test_a_block_of_content_is_kept_as_found(store: Store, block: dict[str, object]) -> None:
    make_thread(store)
    store.append_message("T", ThreadMessage.of({**message().fields(), "content": [block]}))
    assert store.list_messages("T")[0].fields()["content"] == [block]
