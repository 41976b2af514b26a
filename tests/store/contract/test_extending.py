"""What is added to a thread that is there, and the times of what was imported, in every store."""

from __future__ import annotations

import json
import threading
import time

import pytest

from store import (
    DocumentKey,
    InvalidDocument,
    InvalidName,
    ModifiedSince,
    RunContents,
    RunStatus,
    Store,
    ThreadNotFound,
)
from tests.store.conftest import (
    LONG_AGO_NS,
    META,
    RUN,
    RUN_DOCUMENT,
    STEP,
    STEP_DOCUMENT,
    THREAD,
    MakeStore,
    make_thread,
    message,
    texts,
    whole_log,
)

LINES = [json.dumps(message(text).fields()).encode() for text in "ab"]
RUNS = {"R": RunContents(RUN_DOCUMENT, {"S": STEP_DOCUMENT})}


def with_one_message(store: Store) -> int:
    """The thread T; how long its log is."""
    store.import_thread("T", META, LINES[:1], {})
    return store.log_info("T").size_bytes


def test_messages_and_runs_are_added(make_store: MakeStore) -> None:
    size = with_one_message(make_store())
    make_store().extend_thread("T", size, LINES[1:], RUNS)
    store = make_store()
    assert texts(store) == ["a", "b"]
    assert store.list_run_ids("T") == ["R"]
    assert store.get_step("T", "R", "S").run_id == "R"


def test_a_thread_without_messages_is_extended_from_nothing(store: Store) -> None:
    make_thread(store)
    store.extend_thread("T", 0, LINES, {})
    assert texts(store) == ["a", "b"]


def test_a_log_that_has_another_last_message_by_then_stays_with_all_else(store: Store) -> None:
    size = with_one_message(store)
    store.append_message("T", message("mine"))
    with pytest.raises(ModifiedSince):
        store.extend_thread("T", size, LINES[1:], RUNS)
    assert texts(store) == ["a", "mine"]
    assert store.list_run_ids("T") == []


def test_of_many_that_extend_a_thread_at_once_one_does(make_store: MakeStore) -> None:
    size = with_one_message(make_store())
    refused = []

    def extend(store: Store) -> None:
        try:
            store.extend_thread("T", size, LINES[1:], RUNS)
        except ModifiedSince as error:
            refused.append(error)

    threads = [threading.Thread(target=extend, args=(make_store(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 3
    assert texts(make_store()) == ["a", "b"]


def test_a_run_that_is_there_stays_and_gets_the_steps_that_it_has_not_yet(store: Store) -> None:
    size = with_one_message(store)
    store.extend_thread("T", size, [], RUNS)
    store.update_run_status("T", "R", RunStatus.completed)
    before = store.read_document(RUN)[0], store.read_document(STEP)[0]
    steps = {"S": b'{"created_at":9,"status":"failed","type":"tool_calls"}', "S2": STEP_DOCUMENT}
    store.extend_thread(
        "T", size, [], {"R": RunContents(RUN_DOCUMENT, steps), "Q": RunContents(RUN_DOCUMENT)}
    )
    assert (store.read_document(RUN)[0], store.read_document(STEP)[0]) == before
    assert sorted(store.list_step_ids("T", "R")) == ["S", "S2"]
    assert sorted(store.list_run_ids("T")) == ["Q", "R"]


@pytest.mark.parametrize(
    ("lines", "runs", "error"),
    [
        ([b"{}"], RUNS, InvalidDocument),
        (LINES, {"R": RunContents(b"{}")}, InvalidDocument),
        (LINES, {"R": RunContents(RUN_DOCUMENT, {"S": b"{}"})}, InvalidDocument),
        (LINES, {"../R": RunContents(RUN_DOCUMENT)}, InvalidName),
    ],
)
def test_nothing_is_added_when_anything_is_wrong(
    store: Store, lines: list[bytes], runs: dict[str, RunContents], error: type[Exception]
) -> None:
    size = with_one_message(store)
    with pytest.raises(error):
        store.extend_thread("T", size, lines, runs)
    assert texts(store) == ["a"]
    assert store.list_run_ids("T") == []


def test_a_thread_that_is_not_there_is_not_extended(store: Store) -> None:
    with pytest.raises(ThreadNotFound):
        store.extend_thread("T", 0, LINES, RUNS)
    assert store.list_thread_ids() == []


def test_all_of_an_imported_thread_has_the_time_that_is_given(store: Store) -> None:
    store.import_thread("T", META, LINES, RUNS, modified_ns=LONG_AGO_NS)
    assert store.thread_modified_ns("T") == LONG_AGO_NS
    assert store.log_info("T").modified_ns == LONG_AGO_NS
    for key in (THREAD, RUN, STEP):
        assert store.document_info(key).modified_ns == LONG_AGO_NS


def test_all_that_is_added_has_the_time_that_is_given(store: Store) -> None:
    store.import_thread("T", META, LINES[:1], RUNS, modified_ns=LONG_AGO_NS)
    size, later_ns = store.log_info("T").size_bytes, LONG_AGO_NS + 10**9
    runs = {"R": RunContents(RUN_DOCUMENT, {"S2": STEP_DOCUMENT}), "Q": RunContents(RUN_DOCUMENT)}
    store.extend_thread("T", size, LINES[1:], runs, modified_ns=later_ns)
    assert store.thread_modified_ns("T") == later_ns
    assert store.log_info("T").modified_ns == later_ns
    assert store.document_info(DocumentKey("T", "R", "S2")).modified_ns == later_ns
    assert store.document_info(THREAD).modified_ns == LONG_AGO_NS
    assert whole_log(store).count(b"\n") == 2


def test_a_thread_that_was_imported_with_an_old_time_was_touched_when_it_came(store: Store) -> None:
    before_ns = time.time_ns() - 1_000_000_000
    store.import_thread("T", META, LINES, RUNS, modified_ns=LONG_AGO_NS)
    assert before_ns < store.thread_touched_ns("T") <= time.time_ns() + 1_000_000_000
    with pytest.raises(ModifiedSince):
        store.delete_thread("T", unmodified_since_ns=before_ns)
    store.delete_thread("T", unmodified_since_ns=store.thread_touched_ns("T"))


def test_a_thread_that_changed_since_it_came_was_touched_then(store: Store) -> None:
    store.import_thread("T", META, LINES, RUNS, modified_ns=LONG_AGO_NS)
    later_ns = time.time_ns() + 10**12
    store.set_document_modified(RUN, later_ns)
    assert store.thread_touched_ns("T") == later_ns
