"""Threads, in every store."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from store import (
    AlreadyExists,
    DocumentKey,
    ModifiedSince,
    NotEmpty,
    NotFound,
    RunInProgress,
    RunStatus,
    Store,
    Thread,
    ThreadNotFound,
)
from tests.store.conftest import (
    IN_PROGRESS,
    RUN,
    TERMINAL,
    THREAD,
    MakeStore,
    make_run,
    make_step,
    make_thread,
    message,
    texts,
)


def test_a_created_thread_is_there_for_another_store_on_the_same_data(make_store: MakeStore) -> None:
    thread = Thread(id="T", created_at=7, metadata={"a": [1, None]})
    assert make_store().create_thread(thread) == thread
    assert make_store().get_thread("T") == thread


def test_a_thread_made_without_arguments_gets_an_id_a_time_and_empty_metadata(store: Store) -> None:
    before_s = int(time.time())
    thread = store.create_thread(Thread())
    assert thread.id.startswith("thread_")
    assert len(thread.id) == len("thread_") + 32
    assert before_s <= thread.created_at <= time.time()
    assert store.get_thread(thread.id).metadata == {}


def test_creating_a_thread_that_exists_is_refused_and_changes_nothing(store: Store) -> None:
    make_thread(store)
    with pytest.raises(AlreadyExists):
        store.create_thread(Thread(id="T", created_at=99))
    assert store.get_thread("T").created_at == 1


def test_a_new_store_lists_no_threads(store: Store) -> None:
    assert store.list_thread_ids() == []


def test_all_threads_are_listed_once(store: Store) -> None:
    ids = [f"T{number}" for number in range(20)]
    for thread_id in ids:
        store.create_thread(Thread(id=thread_id))
    assert sorted(store.list_thread_ids()) == sorted(ids)


def test_a_listing_sees_what_another_store_made_and_deleted(make_store: MakeStore) -> None:
    one, other = make_store(), make_store()
    one.create_thread(Thread(id="A"))
    assert other.list_thread_ids() == ["A"]
    other.create_thread(Thread(id="B"))
    one.delete_thread("A")
    assert one.list_thread_ids() == other.list_thread_ids() == ["B"]


def test_a_deleted_thread_is_gone_with_all_that_it_held(make_store: MakeStore) -> None:
    store = make_store()
    make_run(store)
    store.append_message("T", message())
    store.delete_thread("T")
    for seen_by in (store, make_store()):
        assert seen_by.list_thread_ids() == []
        with pytest.raises(ThreadNotFound):
            seen_by.get_thread("T")
        with pytest.raises(NotFound):
            seen_by.get_run("T", "R")


def test_the_id_of_a_deleted_thread_can_be_used_again_and_holds_nothing(store: Store) -> None:
    make_step(store)
    store.append_message("T", message())
    store.delete_thread("T", force=True)
    make_thread(store)
    assert store.list_messages("T") == []
    assert store.list_run_ids("T") == []


@pytest.mark.parametrize("status", IN_PROGRESS)
def test_a_thread_with_a_run_in_progress_is_not_deleted(store: Store, status: RunStatus) -> None:
    make_run(store, status)
    with pytest.raises(RunInProgress):
        store.delete_thread("T")
    assert store.get_run("T", "R").status is status


@pytest.mark.parametrize("status", IN_PROGRESS)
def test_a_thread_with_a_run_in_progress_is_deleted_by_force(store: Store, status: RunStatus) -> None:
    make_run(store, status)
    store.delete_thread("T", force=True)
    assert store.list_thread_ids() == []


@pytest.mark.parametrize("status", [RunStatus.queued, *TERMINAL])
def test_a_thread_whose_runs_wait_or_have_ended_is_deleted(store: Store, status: RunStatus) -> None:
    make_run(store, status)
    store.delete_thread("T")
    assert store.list_thread_ids() == []


def test_only_empty_deletes_an_empty_thread(store: Store) -> None:
    make_thread(store)
    store.delete_thread("T", only_empty=True)
    assert store.list_thread_ids() == []


def test_only_empty_keeps_a_thread_with_messages(store: Store) -> None:
    make_thread(store)
    store.append_message("T", message())
    with pytest.raises(NotEmpty):
        store.delete_thread("T", only_empty=True)
    assert texts(store) == ["Hello"]


@pytest.mark.parametrize("status", [RunStatus.queued, RunStatus.completed])
def test_only_empty_keeps_a_thread_with_runs(store: Store, status: RunStatus) -> None:
    make_run(store, status)
    with pytest.raises(NotEmpty):
        store.delete_thread("T", only_empty=True)
    assert store.list_run_ids("T") == ["R"]


def test_only_empty_deletes_a_thread_whose_only_run_was_deleted(store: Store) -> None:
    make_run(store)
    store.delete_run("T", "R")
    store.delete_thread("T", only_empty=True)
    assert store.list_thread_ids() == []


def test_a_thread_that_has_changed_since_is_not_deleted(store: Store) -> None:
    make_thread(store)
    looked_at_ns = store.thread_touched_ns("T")
    store.append_message("T", message())
    with pytest.raises(ModifiedSince):
        store.delete_thread("T", unmodified_since_ns=looked_at_ns)
    store.delete_thread("T", unmodified_since_ns=store.thread_touched_ns("T"))
    assert store.list_thread_ids() == []


def test_of_many_creating_one_thread_at_once_one_succeeds(make_store: MakeStore) -> None:
    stores = [make_store() for _ in range(8)]
    barrier = Barrier(len(stores))

    def create(number: int) -> int | None:
        barrier.wait()
        try:
            stores[number].create_thread(Thread(id="T", created_at=number))
        except AlreadyExists:
            return None
        return number

    with ThreadPoolExecutor(len(stores)) as pool:
        winners = [winner for winner in pool.map(create, range(len(stores))) if winner is not None]
    assert winners == [stores[0].get_thread("T").created_at]


def test_what_a_store_has_made_is_surely_its_own(store: Store) -> None:
    make_run(store)
    for key in (DocumentKey("T"), DocumentKey("T", "R")):
        store.check_ours(key)
    with pytest.raises(NotFound):
        store.check_ours(DocumentKey("T", "none"))
    with pytest.raises(NotFound):
        store.check_ours(DocumentKey("none"))


def test_a_thread_that_is_deleted_may_have_been_said_to_hold_more(store: Store) -> None:
    make_run(store)
    store.delete_run("T", "R", with_foreign=True, with_damaged=True)
    store.delete_thread("T", with_foreign=True, with_damaged=True)
    assert store.list_thread_ids() == []


def test_a_thread_or_run_that_is_there_has_a_place(store: Store) -> None:
    make_run(store)
    assert store.has_place(THREAD)
    assert store.has_place(RUN)
    assert not store.has_place(DocumentKey("none"))
    assert not store.has_place(DocumentKey("T", "none"))
