"""Whole threads, in every store."""

from __future__ import annotations

import json

import pytest

from store import (
    AlreadyExists,
    InvalidDocument,
    RunContents,
    RunStatus,
    Store,
)
from tests.store.conftest import (
    META,
    RUN_DOCUMENT,
    SPELLINGS,
    STEP_DOCUMENT,
    MakeStore,
    make_thread,
    message,
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
