"""Workers of a store in a database when their link to the server is cut."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing, suppress
from typing import TypeVar

import psycopg
import pytest

from store import Change, Part, Run, RunLost, RunStatus, StorageFailed, Thread, documents, names
from store.postgres import PostgresStore
from store.postgres.held_thread import LockedRow
from store.working import Answer
from tests.mount.conftest import wait_until
from tests.postgres.cluster import Cluster
from tests.postgres.fixtures import IMPATIENT, OpenStore
from tests.postgres.proxy import Proxy
from tests.store.conftest import RUN, RUN_DOCUMENT, texts
from tests.store.contract.working import (
    COMPLETED,
    STATE,
    WITH_CALLS,
    asked,
    claimed,
    growing_text,
    run_of,
    steps_of,
)

T = TypeVar("T")


@pytest.fixture
def store(open_store: OpenStore, url_through_proxy: str) -> PostgresStore:
    """The store of a worker, behind a link that can be cut."""
    return open_store(url_through_proxy, IMPATIENT)


@pytest.fixture
def other(open_store: OpenStore) -> PostgresStore:
    return open_store()


def end_of_session(cluster: Cluster) -> None:
    """The server ends the sessions that hold a lock, as it does when a host is cut off."""
    cluster.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'", database="contract"
    )


def sessions_with_a_lock(cluster: Cluster) -> list[tuple[object, ...]]:
    return cluster.sql("SELECT pid FROM pg_locks WHERE locktype = 'advisory'", database="contract")


def test_a_worker_that_lost_its_session_loses_its_run_and_then_works_on(
    cluster: Cluster, store: PostgresStore, other: PostgresStore
) -> None:
    worker = store.register_worker(STATE)
    lost = claimed(store, worker)
    lost.append("half")
    wait_until(lambda: growing_text(other) == ["half"])
    end_of_session(cluster)
    wait_until(lambda: other.workers() == [])
    (run,) = other.take_over()
    assert run.status is RunStatus.queued
    assert steps_of(other)[0]["partial"] == "half"
    with pytest.raises(RunLost):
        lost.finish(COMPLETED)
    answer = worker.claim("T", "R")
    assert [found.id for found in other.workers()] == [worker.id]
    assert other.take_over() == []
    answer.append("Yes.")
    answer.finish(COMPLETED)
    assert texts(other) == ["question of R", "Yes."]


def test_a_worker_that_is_back_before_others_looked_keeps_its_run(
    cluster: Cluster, store: PostgresStore, other: PostgresStore
) -> None:
    worker = store.register_worker(STATE)
    answer = claimed(store, worker)
    end_of_session(cluster)
    wait_until(lambda: other.workers() == [])
    assert store.take_over() == []
    assert other.take_over() == []
    answer.append("Yes.")
    assert answer.finish(COMPLETED).status is RunStatus.completed


@pytest.mark.parametrize("was_committed", [False, True])
def test_an_end_whose_commit_is_not_answered_is_written_once(
    store: PostgresStore, other: PostgresStore, proxy: Proxy, *, was_committed: bool
) -> None:
    answer = claimed(store)
    answer.append("Yes.")
    wait_until(lambda: growing_text(other) == ["Yes."])
    proxy.cut_at(b"COMMIT", pass_it_on=was_committed, refuse=True)
    with pytest.raises(StorageFailed):
        answer.finish(COMPLETED)
    proxy.go_on()
    at_last(lambda: answer.finish(COMPLETED))
    assert texts(other) == ["question of R", "Yes."]
    assert run_of(other)["status"] == "completed"
    assert "worker" not in run_of(other)
    assert [step["status"] for step in steps_of(other)] == ["completed"]


def at_last(do: Callable[[], T]) -> T:
    """Tries until the server is found to be back."""
    done: list[T] = []

    def is_done() -> bool:
        with suppress(StorageFailed):
            done.append(do())
        return bool(done)

    wait_until(is_done)
    return done[0]


def test_text_that_comes_while_the_link_is_cut_is_shown_when_it_is_back(
    store: PostgresStore, other: PostgresStore, proxy: Proxy
) -> None:
    answer = claimed(store)
    answer.append("a")
    wait_until(lambda: growing_text(other) == ["a"])
    proxy.cut(refuse=True)
    answer.append("b")
    answer.append("c")
    proxy.go_on()
    answer.append("d")
    assert store.take_over() == []
    wait_until(lambda: growing_text(other) == ["abcd"])
    answer.finish(COMPLETED)
    assert texts(other)[-1] == "abcd"


def test_a_worker_that_could_not_tell_of_its_new_session_tells_when_the_link_is_back(
    cluster: Cluster, store: PostgresStore, other: PostgresStore, proxy: Proxy
) -> None:
    asked(store, "R")
    worker = store.register_worker(STATE)
    end_of_session(cluster)
    wait_until(lambda: other.workers() == [])
    proxy.cut_at(b"INTO workers", pass_it_on=False, refuse=True)
    with pytest.raises(StorageFailed):
        worker.set_state(STATE)
    assert proxy.cuts == 1
    proxy.go_on()
    answer = at_last(lambda: worker.claim("T", "R"))
    assert [found.id for found in other.workers()] == [worker.id]
    assert other.take_over() == []
    assert answer.finish(COMPLETED).status is RunStatus.completed


def test_a_worker_that_could_not_register_holds_no_session(
    cluster: Cluster, store: PostgresStore, proxy: Proxy
) -> None:
    proxy.cut_at(b"INTO workers", pass_it_on=False, refuse=True)
    with pytest.raises(StorageFailed) as refused:
        store.register_worker(STATE)
    wait_until(lambda: sessions_with_a_lock(cluster) == [])
    assert proxy.cuts == 1
    assert refused.traceback  # What it holds is not yet collected, which would have closed the session.


def test_an_answer_ends_while_others_are_still_being_told_of_its_text(store: PostgresStore) -> None:
    answer = claimed(store)
    is_told, has_ended = threading.Event(), threading.Event()
    had_ended: list[bool] = []

    def waits(change: Change) -> None:
        if change.part is Part.ANSWER and threading.current_thread() is not threading.main_thread():
            is_told.set()
            had_ended.append(has_ended.wait(5))

    with closing(store.watch(waits)):
        answer.append("Yes.")
        assert is_told.wait(5)
        answer.finish(COMPLETED)
        has_ended.set()
        wait_until(lambda: had_ended == [True])


def test_all_that_changes_at_the_end_of_an_attempt_is_told_however_long_the_ids_are(
    store: PostgresStore,
) -> None:
    long_id = '"' * names.MAX_ID_BYTES  # JSON doubles it.
    store.create_thread(Thread(id=long_id))
    store.create_run(long_id, Run(id=long_id))
    answer = store.register_worker(STATE).claim(long_id, long_id)
    answer.append("Let me look.")
    told: list[Change] = []
    with closing(store.watch(told.append)):
        assert answer.finish(WITH_CALLS).status is RunStatus.requires_action
    assert len({change.part for change in told}) > 3


# ── Attempts that were left ─────────────────────────────────────────────────────────────────────────────


def test_an_attempt_that_begins_while_the_one_before_is_taken_over_goes_on(
    cluster: Cluster,
    store: PostgresStore,
    other: PostgresStore,
    open_store: OpenStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker, slow = store.register_worker(STATE), open_store()
    claimed(store, worker)
    end_of_session(cluster)
    wait_until(lambda: other.workers() == [])
    hold_row, later = slow.hold_row, list[Answer]()

    def held_later(thread_id: str, work: Callable[[LockedRow], Run | None]) -> Run | None:
        assert len(other.take_over()) == 1
        later.append(worker.claim("T", "R"))
        return hold_row(thread_id, work)

    monkeypatch.setattr(slow, "hold_row", held_later)
    assert slow.take_over() == []
    (answer,) = later
    answer.append("Yes.")
    wait_until(lambda: growing_text(other) == ["Yes."])
    assert answer.finish(COMPLETED).status is RunStatus.completed


def test_a_claim_whose_commit_is_not_answered_is_given_up_though_it_is_tried_again(
    store: PostgresStore, other: PostgresStore, proxy: Proxy
) -> None:
    asked(store, "R")
    worker = store.register_worker(STATE)
    proxy.cut_at(b"COMMIT", pass_it_on=True, refuse=True)
    for _ in range(2):
        with pytest.raises(StorageFailed):
            worker.claim("T", "R")
    assert other.get_run("T", "R").status is RunStatus.in_progress
    proxy.go_on()
    (run,) = at_last(store.take_over)
    assert run.status is RunStatus.queued
    assert worker.claim("T", "R").finish(COMPLETED).status is RunStatus.completed


def test_a_claim_that_is_interrupted_is_given_up(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked(store, "R")
    worker, hold_row = store.register_worker(STATE), store.hold_row

    def interrupted(thread_id: str, work: Callable[[LockedRow], Run]) -> None:
        hold_row(thread_id, work)
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "hold_row", interrupted)
    with pytest.raises(KeyboardInterrupt):
        worker.claim("T", "R")
    monkeypatch.undo()
    (run,) = store.take_over()
    assert run.status is RunStatus.queued


def test_a_run_that_cannot_be_taken_over_does_not_hold_up_the_others(
    url: str, store: PostgresStore, other: PostgresStore
) -> None:
    with other.register_worker(STATE) as worker:
        for thread_id in "TUV":
            asked(other, "R", thread_id=thread_id)
            worker.claim(thread_id, "R")
    with psycopg.connect(url, options="-csearch_path=threadfs") as busy:
        busy.execute("SELECT FROM threads WHERE thread_id = 'U' FOR UPDATE")
        with pytest.raises(StorageFailed):
            store.take_over()
        statuses = [other.get_run(thread_id, "R").status for thread_id in "TUV"]
        assert statuses == ["queued", "in_progress", "queued"]
    assert [run.thread_id for run in store.take_over()] == ["U"]


def test_a_run_whose_text_is_too_long_for_its_step_does_not_hold_up_the_others(
    store: PostgresStore, other: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with other.register_worker(STATE) as worker:
        for thread_id in "TUV":
            asked(other, "R", thread_id=thread_id)
        worker.claim("T", "R")
        worker.claim("U", "R").append("x" * 5000)
        worker.claim("V", "R")
        wait_until(lambda: growing_text(store, "U") == ["x" * 5000])
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 2000)
    with pytest.raises(StorageFailed, match="R@U cannot be taken over"):
        store.take_over()
    statuses = [other.get_run(thread_id, "R").status for thread_id in "TUV"]
    assert statuses == ["queued", "in_progress", "queued"]


def test_an_attempt_whose_thread_is_deleted_is_remembered_no_longer(store: PostgresStore) -> None:
    claimed(store).close()
    store.delete_thread("T", force=True)
    assert store.take_over() == []
    assert store.own_workers.left() == []


def test_the_text_of_an_attempt_ends_when_another_program_has_taken_its_run_away(
    store: PostgresStore, other: PostgresStore
) -> None:
    answer = claimed(store)
    answer.append("half")
    wait_until(lambda: growing_text(other) == ["half"])
    answer.close()
    other.replace_document(RUN, RUN_DOCUMENT)
    assert store.take_over() == []
    assert other.growing_answers("T") == []
