"""Merge patches, in every store."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from store import (
    DocumentKey,
    InvalidDocument,
    ModifiedSince,
    RunError,
    RunInTerminalState,
    RunStatus,
    RunStepInTerminalState,
    RunStepStatus,
    Store,
    Thread,
)
from tests.store.conftest import (
    ENDED_STEP,
    KEYS,
    RUN,
    STEP,
    TERMINAL,
    THREAD,
    MakeStore,
    make_run,
    make_step,
    make_thread,
    message,
    stored,
)


@pytest.mark.parametrize(
    ("metadata", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"a": 1}, {}, {"a": 1}),
        ({"a": 1}, None, {}),
        (None, {}, {}),
        ({"a": 1}, {"a": [None]}, {"a": [None]}),
    ],
)
def test_a_patch_merges_as_rfc_7396_says(store: Store, metadata: Any, patch: Any, expected: Any) -> None:
    store.create_thread(Thread(id="T", metadata=metadata))
    store.patch_document(THREAD, {"metadata": patch})
    assert stored(store, THREAD)["metadata"] == expected


def test_a_patch_that_expects_another_value_is_refused_and_changes_nothing(store: Store) -> None:
    store.create_thread(Thread(id="T", metadata={"title": "Mine"}))
    store.patch_document(THREAD, {"metadata": {"a": "1"}}, expected={"metadata": {"title": "Mine"}})
    with pytest.raises(ModifiedSince):
        store.patch_document(THREAD, {"metadata": {"title": "New"}}, expected={"metadata": {"title": "Mine"}})
    assert stored(store, THREAD)["metadata"] == {"title": "Mine", "a": "1"}


def test_a_patch_that_removes_metadata_leaves_an_empty_object(store: Store) -> None:
    store.create_thread(Thread(id="T", created_at=1, metadata={"a": 1}))
    store.patch_document(THREAD, {"metadata": None})
    assert list(stored(store, THREAD).items()) == [
        ("id", "T"),
        ("object", "thread"),
        ("created_at", 1),
        ("metadata", {}),
    ]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("field", ["object", "created_at"])
@pytest.mark.parametrize("value", [None, 1, "thread"])
def test_object_and_created_at_cannot_be_patched(
    store: Store, key: DocumentKey, field: str, value: object
) -> None:
    make_step(store)
    before = store.read_document(key)
    with pytest.raises(InvalidDocument, match=field):
        store.patch_document(key, {field: value, "other": 1})
    assert store.read_document(key) == before


@pytest.mark.parametrize("key", KEYS)
def test_a_patch_cannot_give_other_ids(store: Store, key: DocumentKey) -> None:
    make_step(store)
    before = stored(store, key)
    store.patch_document(key, {name: "other" for name in ("id", "thread_id", "run_id") if name in before})
    assert stored(store, key) == before


@pytest.mark.parametrize("key", KEYS)
def test_a_patch_keeps_unknown_fields_in_their_order_and_adds_after_them(
    store: Store, key: DocumentKey
) -> None:
    make_step(store)
    known = list(stored(store, key))
    store.patch_document(key, {"zeta": 1, "alpha": 2})
    store.patch_document(key, {"mu": 3, "alpha": {"b": 4}})
    fields = stored(store, key)
    assert list(fields) == [*known, "zeta", "alpha", "mu"]
    assert fields["alpha"] == {"b": 4}
    store.patch_document(key, {"zeta": None})
    assert list(stored(store, key)) == [*known, "alpha", "mu"]


@pytest.mark.parametrize(
    "name",
    ["fields", "text", "model_config", "model_fields", "__dict__", "_type_spelling", "__class__", "copy", ""],
)
def test_an_unknown_field_may_have_any_name_through_every_rewrite(store: Store, name: str) -> None:
    make_step(store)
    for key in (THREAD, RUN, STEP):
        store.replace_document(key, json.dumps(stored(store, key) | {name: [1]}).encode())
        store.patch_document(key, {"a": 1})
    store.update_run_status("T", "R", RunStatus.failed)
    store.update_step_status("T", "R", "S", RunStepStatus.failed)
    store.append_message("T", message().model_validate({**message().fields(), name: [1]}))
    assert [stored(store, key)[name] for key in (THREAD, RUN, STEP)] == [[1], [1], [1]]
    assert store.list_messages("T")[0].fields()[name] == [1]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("number", [2**63, 2**64, -(2**70), 10**100, 0.1, 1e300, 5e-324, -0.0])
def test_numbers_of_any_size_keep_their_value_through_a_rewrite(
    store: Store, key: DocumentKey, number: float
) -> None:
    make_step(store)
    field = "metadata" if key == THREAD else "unknown"
    store.patch_document(key, {field: {"n": number}})
    store.patch_document(key, {"other": 1})
    found = stored(store, key)[field]["n"]
    assert (type(found), repr(found)) == (type(number), repr(number))


def test_a_patch_of_a_run_with_a_status_sets_its_time_and_clears_the_error(store: Store) -> None:
    make_run(store, last_error=RunError(code="c", message="m"))
    store.patch_document(RUN, {"status": "in_progress"})
    fields = stored(store, RUN)
    assert fields["status"] == "in_progress"
    assert fields["started_at"] > 0
    assert "last_error" not in fields


def test_a_patch_of_a_run_with_a_status_an_error_and_more_is_one_commit(store: Store) -> None:
    make_run(store)
    store.patch_document(RUN, {"status": "failed", "last_error": {"code": "c", "message": "m"}, "model": "x"})
    run = store.get_run("T", "R")
    assert (run.status, run.model) == (RunStatus.failed, "x")
    assert run.last_error == RunError(code="c", message="m")
    assert run.failed_at is not None


@pytest.mark.parametrize("status", TERMINAL)
def test_a_patch_with_a_status_for_a_run_that_has_ended_is_refused(store: Store, status: RunStatus) -> None:
    make_run(store, status)
    before = store.read_document(RUN)
    with pytest.raises(RunInTerminalState):
        store.patch_document(RUN, {"status": str(status), "model": "x"})
    assert store.read_document(RUN) == before


@pytest.mark.parametrize("status", TERMINAL)
def test_a_patch_without_a_status_for_a_run_that_has_ended_merges(store: Store, status: RunStatus) -> None:
    make_run(store, status, last_error=RunError(code="c", message="m"))
    store.patch_document(RUN, {"usage": {"total_tokens": 3}})
    fields = stored(store, RUN)
    assert fields["usage"] == {"total_tokens": 3}
    assert fields["last_error"] == {"code": "c", "message": "m"}
    assert fields["status"] == status


@pytest.mark.parametrize("status", [None, "done", 1, "", {}])
@pytest.mark.parametrize("key", KEYS[1:])
def test_a_patch_with_no_known_status_is_refused(store: Store, key: DocumentKey, status: object) -> None:
    make_step(store)
    before = store.read_document(key)
    with pytest.raises(InvalidDocument):
        store.patch_document(key, {"status": status})
    assert store.read_document(key) == before


def test_a_patch_of_a_step_with_a_status_sets_its_time(store: Store) -> None:
    make_step(store)
    store.patch_document(STEP, {"status": "completed", "usage": 1})
    fields = stored(store, STEP)
    assert (fields["status"], fields["usage"]) == ("completed", 1)
    assert fields["completed_at"] > 0


@pytest.mark.parametrize("status", ENDED_STEP)
def test_a_patch_with_another_status_for_a_step_that_has_ended_is_refused(
    store: Store, status: RunStepStatus
) -> None:
    make_step(store, status)
    before = store.read_document(STEP)
    with pytest.raises(RunStepInTerminalState):
        store.patch_document(STEP, {"status": "in_progress", "usage": 1})
    assert store.read_document(STEP) == before


def test_a_patch_removes_a_known_optional_field(store: Store) -> None:
    make_run(store, RunStatus.failed, last_error=RunError(code="c", message="m"), failed_at=5)
    store.patch_document(RUN, {"last_error": None, "failed_at": None})
    assert not {"last_error", "failed_at"} & set(stored(store, RUN))


def test_a_patch_that_leaves_no_document_is_refused(store: Store) -> None:
    make_run(store)
    before = store.read_document(RUN)
    for patch in ({"model": 1}, {"last_error": {"code": "c"}}, {"started_at": "now"}):
        with pytest.raises(InvalidDocument):
            store.patch_document(RUN, patch)
    assert store.read_document(RUN) == before


@pytest.mark.parametrize("key", KEYS)
def test_a_patch_that_changes_nothing_is_no_new_version(store: Store, key: DocumentKey) -> None:
    make_step(store)
    before = store.document_info(key)
    store.patch_document(key, {"id": "another"})
    assert store.document_info(key) == before


def test_a_patch_leaves_the_object_of_the_caller_alone(store: Store) -> None:
    make_thread(store)
    patch = {"metadata": {"a": None, "b": {"c": 1}}}
    store.patch_document(THREAD, patch)
    assert patch == {"metadata": {"a": None, "b": {"c": 1}}}


def test_patches_from_many_stores_at_once_are_all_there(make_store: MakeStore) -> None:
    make_thread(make_store())
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: make_store().patch_document(THREAD, {"metadata": {str(n): n}}), range(12)))
    assert make_store().get_thread("T").metadata == {str(n): n for n in range(12)}
