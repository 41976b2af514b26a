"""Workers of a store in a database when their link to the server is cut."""

from __future__ import annotations

import pytest

from store import RunLost, RunStatus, StorageFailed
from store.postgres import PostgresStore
from store.working import Answer
from tests.mount.conftest import wait_until
from tests.postgres.cluster import Cluster
from tests.postgres.conftest import IMPATIENT, OpenStore
from tests.postgres.proxy import Proxy
from tests.store.conftest import texts
from tests.store.contract.working import COMPLETED, STATE, claimed, growing_text, run_of, steps_of


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
    finish_at_last(answer)
    assert texts(other) == ["question of R", "Yes."]
    assert run_of(other)["status"] == "completed"
    assert "worker" not in run_of(other)
    assert [step["status"] for step in steps_of(other)] == ["completed"]


def finish_at_last(answer: Answer) -> None:
    """Tries until the server is found to be back."""

    def is_finished() -> bool:
        try:
            answer.finish(COMPLETED)
        except StorageFailed:
            return False
        return True

    wait_until(is_finished)


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
