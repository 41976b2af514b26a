"""Whole documents, in every store."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from store import (
    DocumentKey,
    InvalidDocument,
    RunContents,
    RunInTerminalState,
    RunStatus,
    RunStepInTerminalState,
    RunStepStatus,
    Store,
    StoreError,
)
from tests.store.conftest import (
    KEYS,
    LONG_AGO_NS,
    RUN,
    SPELLINGS,
    STEP,
    TERMINAL,
    THREAD,
    MakeStore,
    make_run,
    make_step,
    make_thread,
    message,
    stored,
    texts,
)

IN_LAYOUT = {
    THREAD: '{\n  "id": "T",\n  "object": "thread",\n  "created_at": 1,\n  "metadata": {%s}\n}',
    RUN: (
        '{\n  "id": "R",\n  "object": "thread.run",\n  "created_at": 1,\n  "thread_id": "T",\n'
        '  "status": "completed",\n  "model": "é",\n  "tools": {%s}\n}'
    ),
    STEP: (
        '{\n  "id": "S",\n  "object": "thread.run.step",\n  "run_id": "R",\n  "thread_id": "T",\n'
        '  "step_type": "tool_calls",\n  "status": "completed",\n  "created_at": 1,\n  "usage": {%s}\n}'
    ),
}


def in_layout(key: DocumentKey, value: str) -> bytes:
    return IN_LAYOUT[key].replace("%s", f'\n    "x": {value}\n  ').encode()


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", SPELLINGS)
def test_a_whole_document_in_the_layout_is_stored_byte_for_byte(
    store: Store, key: DocumentKey, value: str
) -> None:
    make_step(store)
    store.replace_document(key, in_layout(key, value))
    assert store.read_document(key)[0] == in_layout(key, value)


@pytest.mark.parametrize("value", SPELLINGS)
def test_a_whole_step_that_is_missing_is_made_byte_for_byte(store: Store, value: str) -> None:
    make_run(store)
    store.replace_document(STEP, in_layout(STEP, value))
    assert store.read_document(STEP)[0] == in_layout(STEP, value)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", SPELLINGS)
def test_an_imported_document_in_the_layout_is_stored_byte_for_byte(
    store: Store, key: DocumentKey, value: str
) -> None:
    document = {each: in_layout(each, value) for each in IN_LAYOUT}
    store.import_thread("T", document[THREAD], [], {"R": RunContents(document[RUN], {"S": document[STEP]})})
    assert store.read_document(key)[0] == document[key]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "change",
    [
        lambda document: document + b"\n",
        lambda document: b" " + document,
        lambda document: json.dumps(json.loads(document)).encode(),
        lambda document: json.dumps(json.loads(document), indent=2).encode(),
        lambda document: json.dumps(dict(reversed(json.loads(document).items()))).encode(),
        lambda document: document.replace(b'"created_at": 1', b'"created_at": 9, "created_at": 1'),
    ],
    ids=["newline", "space", "one line", "escaped", "reversed", "duplicate key"],
)
def test_a_whole_document_in_another_layout_is_laid_out_anew(
    store: Store, key: DocumentKey, change: Callable[[bytes], bytes]
) -> None:
    make_step(store)
    document = in_layout(key, '"é"')
    store.replace_document(key, change(document))
    assert store.read_document(key)[0] == document


@pytest.mark.parametrize("key", KEYS)
def test_a_whole_document_gets_the_ids_of_its_place(store: Store, key: DocumentKey) -> None:
    make_step(store)
    document = in_layout(key, "1")
    other_ids = {"id": "other", "thread_id": "other", "run_id": "other", "object": "other"}
    fields = json.loads(document)
    store.replace_document(
        key, json.dumps(fields | {name: other_ids[name] for name in fields if name in other_ids}).encode()
    )
    assert store.read_document(key)[0] == document


@pytest.mark.parametrize("key", KEYS)
def test_known_optional_fields_that_are_null_are_left_out_and_unknown_ones_kept(
    store: Store, key: DocumentKey
) -> None:
    make_step(store)
    optional = {
        THREAD: (),
        RUN: ("last_error", "started_at", "completed_at", "cancelled_at", "failed_at"),
        STEP: ("completed_at", "failed_at", "error", "step_details"),
    }[key]
    fields = stored(store, key)
    given = {**dict.fromkeys(optional), "zeta": None, **fields, "alpha": None}
    store.replace_document(key, json.dumps(given).encode())
    found = stored(store, key)
    assert list(found.items()) == [
        *((name, value) for name, value in fields.items() if name not in optional),
        ("zeta", None),
        ("alpha", None),
    ]


def test_metadata_that_is_null_is_kept(store: Store) -> None:
    make_thread(store)
    store.replace_document(THREAD, b'{"created_at": 1, "metadata": null}')
    store.patch_document(THREAD, {"a": 1})
    assert stored(store, THREAD)["metadata"] is None


NO_DOCUMENTS = [
    b"",
    b" ",
    b"null",
    b"[]",
    b'"text"',
    b"{",
    b"{}",
    b'{"created_at": 1,}',
    b'{"created_at": 1} {}',
    b"\xef\xbb\xbf" + b'{"created_at": 1}',
    '{"created_at": 1}'.encode("utf-16"),
    b"\xff",
    b'{"created_at": true}',
    b'{"created_at": 1.5}',
    b'{"created_at": "1"}',
    b'{"created_at": null}',
]
NO_VALUES = ["NaN", "-Infinity", "1e999", '"\\ud800"', '{"\\udfff": 1}', "\x01", "'x'", "1" * 5000]
NO_VALUES += ["[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("document", NO_DOCUMENTS)
def test_what_is_no_document_is_refused_and_changes_nothing(
    store: Store, key: DocumentKey, document: bytes
) -> None:
    make_step(store)
    before = store.read_document(key)
    with pytest.raises(InvalidDocument):
        store.replace_document(key, document)
    assert store.read_document(key) == before


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", NO_VALUES, ids=[value[:12] for value in NO_VALUES])
def test_a_document_with_what_is_no_json_is_refused_and_changes_nothing(
    store: Store, key: DocumentKey, value: str
) -> None:
    make_step(store)
    before = store.read_document(key)
    with pytest.raises(InvalidDocument):
        store.replace_document(key, in_layout(key, value))
    assert store.read_document(key) == before


@pytest.mark.parametrize("depth", range(100, 1000, 50))
@pytest.mark.parametrize("kind", ["list", "object"])
def test_no_depth_of_nesting_crashes_a_whole_document_and_then_a_patch(
    store: Store, kind: str, depth: int
) -> None:
    make_thread(store)
    value = "[" * depth + "]" * depth if kind == "list" else '{"a":' * depth + "1" + "}" * depth
    try:
        store.replace_document(THREAD, b'{"created_at":1,"metadata":' + value.encode() + b"}")
        store.patch_document(THREAD, {"a": 1})
    except StoreError:
        pass
    assert store.get_thread("T").created_at == 1


@pytest.mark.parametrize(
    ("key", "field", "value"),
    [
        (RUN, "status", "done"),
        (RUN, "status", None),
        (RUN, "model", None),
        (RUN, "model", 1),
        (RUN, "last_error", "text"),
        (RUN, "last_error", {"code": "c"}),
        (RUN, "started_at", 1.5),
        (STEP, "status", "queued"),
        (STEP, "step_type", "thinking"),
        (STEP, "completed_at", "now"),
        (STEP, "step_details", "text"),
    ],
)
def test_a_field_of_the_wrong_kind_is_refused_and_named(
    store: Store, key: DocumentKey, field: str, value: object
) -> None:
    make_step(store)
    before = store.read_document(key)
    with pytest.raises(InvalidDocument, match=field):
        store.replace_document(key, json.dumps(stored(store, key) | {field: value}).encode())
    assert store.read_document(key) == before


@pytest.mark.parametrize("status", TERMINAL)
def test_a_whole_document_that_changes_nothing_of_a_run_that_has_ended_succeeds(
    store: Store, status: RunStatus
) -> None:
    make_run(store, status, tools=[])
    document, _ = store.read_document(RUN)
    store.replace_document(RUN, document)
    store.replace_document(RUN, json.dumps(json.loads(document)).encode())
    assert store.read_document(RUN)[0] == document


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (RunStatus.completed, RunStatus.completed),
        (RunStatus.completed, RunStatus.queued),
        (RunStatus.cancelled, RunStatus.failed),
    ],
)
def test_a_whole_document_with_another_status_for_a_run_that_has_ended_is_refused(
    store: Store, before: RunStatus, after: RunStatus
) -> None:
    make_run(store, before)
    document = store.read_document(RUN)
    if after is not before:
        with pytest.raises(RunInTerminalState):
            store.replace_document(RUN, document[0].replace(before.encode(), after.encode()))
    assert store.read_document(RUN) == document


def test_a_whole_document_for_a_run_that_has_not_ended_is_stored_as_it_says(store: Store) -> None:
    make_run(store)
    store.replace_document(RUN, b'{"created_at": 9, "status": "completed", "model": "m"}')
    assert stored(store, RUN) == {
        "id": "R",
        "object": "thread.run",
        "created_at": 9,
        "thread_id": "T",
        "status": "completed",
        "model": "m",
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (RunStepStatus.completed, RunStepStatus.completed),
        (RunStepStatus.completed, RunStepStatus.in_progress),
        (RunStepStatus.expired, RunStepStatus.failed),
    ],
)
def test_a_whole_document_with_another_status_for_a_step_that_has_ended_is_refused(
    store: Store, before: RunStepStatus, after: RunStepStatus
) -> None:
    make_step(store, before)
    document = store.read_document(STEP)
    if after is not before:
        with pytest.raises(RunStepInTerminalState):
            store.replace_document(STEP, document[0].replace(before.encode(), after.encode()))
    assert store.read_document(STEP) == document


def test_a_replaced_document_has_another_version_and_its_info_is_that_of_the_bytes(store: Store) -> None:
    make_thread(store)
    before = store.document_info(THREAD)
    store.replace_document(THREAD, in_layout(THREAD, "1"))
    document, info = store.read_document(THREAD)
    assert info == store.document_info(THREAD)
    assert info.version != before.version
    assert info.size_bytes == len(document)


@pytest.mark.parametrize("key", KEYS)
def test_the_time_of_a_document_can_be_set_and_its_bytes_stay(
    make_store: MakeStore, key: DocumentKey
) -> None:
    store = make_store()
    make_step(store)
    document, _ = store.read_document(key)
    store.set_document_modified(key, LONG_AGO_NS)
    assert make_store().document_info(key).modified_ns == LONG_AGO_NS
    assert store.read_document(key)[0] == document


@pytest.mark.parametrize("modified_ns", [0, -1, 10**18, 2**63, -(2**63), 10**30])
@pytest.mark.parametrize("what", ["document", "log"])
def test_a_time_that_cannot_be_stored_is_refused_with_an_error_of_the_store(
    store: Store, what: str, modified_ns: int
) -> None:
    make_thread(store)
    store.append_message("T", message())
    try:
        if what == "log":
            store.set_log_modified("T", modified_ns)
        else:
            store.set_document_modified(THREAD, modified_ns)
    except StoreError:
        assert abs(modified_ns) > 10**18
    assert texts(store) == ["Hello"]
