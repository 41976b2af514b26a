"""Whole threads, in every store."""

from __future__ import annotations

import json

import pytest

from store import (
    AlreadyExists,
    DocumentKey,
    InvalidDocument,
    Run,
    RunContents,
    RunStatus,
    Store,
    documents,
)
from tests.store.conftest import (
    META,
    RUN_DOCUMENT,
    SPELLINGS,
    STEP_DOCUMENT,
    MakeStore,
    make_thread,
    message,
    stored,
    texts,
    whole_log,
)


def test_an_imported_thread_is_there_with_all_that_it_holds(make_store: MakeStore) -> None:
    lines = [json.dumps(message(text).fields()).encode() for text in "ab"]
    runs = {"R": RunContents(RUN_DOCUMENT, {"S": STEP_DOCUMENT}), "Q": RunContents(RUN_DOCUMENT)}
    make_store().import_thread("T", b'{"created_at":1,"metadata":{"a":1}}', lines, runs)
    store = make_store()
    assert store.list_thread_ids() == ["T"]
    assert store.get_thread("T").metadata == {"a": 1}
    assert texts(store) == ["a", "b"]
    assert {found.thread_id for found in store.list_messages("T")} == {"T"}
    assert sorted(store.list_run_ids("T")) == ["Q", "R"]
    assert store.get_step("T", "R", "S").run_id == "R"
    assert store.list_step_ids("T", "Q") == []


def test_an_import_of_an_id_that_is_taken_is_refused_and_changes_nothing(store: Store) -> None:
    make_thread(store)
    with pytest.raises(AlreadyExists):
        store.import_thread("T", b'{"created_at":2}', [], {"R": RunContents(RUN_DOCUMENT)})
    assert store.get_thread("T").created_at == 1
    assert store.list_run_ids("T") == []


@pytest.mark.parametrize(
    "line",
    [b"", b"\n", b"{}", b"[]", b"\xff", b'{"id":"M","created_at":1,"role":"system","content":[]}', b"{"],
)
def test_an_import_with_a_line_that_is_no_message_is_refused(store: Store, line: bytes) -> None:
    good = json.dumps(message().fields()).encode()
    with pytest.raises(InvalidDocument):
        store.import_thread("T", META, [good, line], {})
    assert store.list_thread_ids() == []


@pytest.mark.parametrize("value", SPELLINGS)
def test_an_imported_line_in_the_layout_is_stored_byte_for_byte(store: Store, value: str) -> None:
    line = (
        '{"id":"M","object":"thread.message","created_at":5,"thread_id":"T","role":"user",'
        '"content":[{"type":"text","text":{"value":"é","annotations":[]}}],"x":' + value + "}\n"
    ).encode()
    store.import_thread("T", META, [line], {})
    assert whole_log(store) == line


@pytest.mark.parametrize("status", RunStatus)
def test_a_run_of_any_status_is_imported_as_it_is(store: Store, status: RunStatus) -> None:
    document = b'{"created_at":2,"status":"%s"}' % status.encode()
    store.import_thread("T", META, [], {"R": RunContents(document)})
    assert store.get_run("T", "R").status is status


COPIED = json.dumps(
    {
        "created_at": 2,
        "status": "in_progress",
        "worker": f"worker_{'0' * 32}",
        "attempt": "step_1",
        "tries": 1,
        "model": "m",
    }
).encode()


@pytest.mark.parametrize(
    "document", [COPIED, documents.pretty(Run.of(json.loads(COPIED)))], ids=["compact", "pretty"]
)
def test_a_copy_of_a_run_that_is_being_answered_is_nobodys(store: Store, document: bytes) -> None:
    store.import_thread("T", META, [], {"R": RunContents(document)})
    store.extend_thread("T", 0, [], {"Q": RunContents(document)})
    for run_id in "RQ":
        fields = stored(store, DocumentKey("T", run_id))
        assert fields.keys().isdisjoint({"worker", "attempt"})
        assert (fields["status"], fields["tries"], fields["model"]) == ("in_progress", 1, "m")


def test_a_copy_keeps_what_another_program_calls_a_worker(store: Store) -> None:
    document = b'{"created_at":2,"status":"in_progress","worker":"gpu-1","attempt":3}'
    store.import_thread("T", META, [], {"R": RunContents(document)})
    fields = stored(store, DocumentKey("T", "R"))
    assert (fields["worker"], fields["attempt"]) == ("gpu-1", 3)
