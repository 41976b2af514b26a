"""What is said of usual documents without their models is what the models say."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from store import InvalidDocument, Run, Thread
from store.catalogue import usual
from store.catalogue.values import Kind, MessageText
from store.messages import message_of

TEXTS = st.text(max_size=4) | st.sampled_from(["\ud800", "text", "user", "thread.message"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
TIMES = st.integers(-(2**63) - 1, 2**63)


def or_any(usual_values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(usual_values, usual_values, usual_values, VALUES)


def documents(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of these fields, most often as they should be, and others."""
    known = st.fixed_dictionaries({}, optional={name: or_any(values) for name, values in fields.items()})
    return st.builds(lambda one, other: {**other, **one}, known, st.dictionaries(TEXTS, VALUES, max_size=1))


THREADS = documents(created_at=TIMES, metadata=st.dictionaries(TEXTS, VALUES, max_size=1))
RUNS = documents(
    created_at=TIMES,
    status=st.sampled_from(["queued", "failed", "no status"]),
    model=TEXTS,
    last_error=st.none(),
    started_at=TIMES,
)
BLOCKS = documents(
    type=st.just("text"), text=documents(value=TEXTS, annotations=st.lists(VALUES, max_size=1))
)
MESSAGES = documents(
    id=TEXTS,
    object=st.just("thread.message"),
    created_at=TIMES,
    role=st.sampled_from(["user", "assistant"]),
    content=st.lists(BLOCKS, max_size=2),
    run_id=TEXTS,
)


@given(THREADS)
def test_a_usual_thread_is_one_for_the_model(fields: dict[str, Any]) -> None:
    try:
        thread = Thread.of({**fields, "id": "T", "object": "thread"})
    except InvalidDocument:
        assert not usual.is_thread(fields)
    else:
        assert not usual.is_thread(fields) or thread.created_at == fields["created_at"]


@given(RUNS)
def test_a_usual_run_is_one_for_the_model_and_says_the_same(fields: dict[str, Any]) -> None:
    try:
        run = Run.of({**fields, "id": "R", "object": "thread.run", "thread_id": "T"})
    except InvalidDocument:
        assert not usual.is_run(fields)
        return
    if usual.is_run(fields):
        said = fields["status"], fields.get("model", ""), fields["created_at"]
        assert (run.status.value, run.model, run.created_at) == said


@given(MESSAGES)
def test_a_usual_message_is_one_for_the_model_and_says_the_same(fields: dict[str, Any]) -> None:
    text = usual.message(fields, 7)
    message = message_of(json.dumps(fields).encode(), "T")
    if text is not None:
        assert message is not None
        kind = Kind[message.role.upper()]
        assert text == MessageText(7, kind, message.created_at, message.text)


def test_what_threadfs_writes_is_usual() -> None:
    block = {"type": "text", "text": {"value": "Grüße", "annotations": []}}
    message = {"id": "m", "object": "thread.message", "created_at": 1, "role": "user", "content": [block]}
    assert usual.message(message, 1) == MessageText(1, Kind.USER, 1, "Grüße")
    assert usual.is_thread(json.loads(json.dumps(Thread().fields())))
    assert usual.is_run(json.loads(json.dumps(Run(model="m").fields())))
