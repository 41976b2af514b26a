"""Which run is claimed by whom, and when, in every store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from threading import Barrier

import pytest

from store import Run, RunNotFound, RunStatus, RunWaits, StatusChanged, StorageFailed, Store, StoreError
from tests.store.conftest import IN_PROGRESS, TERMINAL, MakeStore, make_run
from tests.store.contract.working import COMPLETED, STATE, ask, asked, run_of, steps_of


def test_a_claimed_run_is_in_progress_and_names_its_worker(make_store: MakeStore) -> None:
    store = make_store()
    asked(store, "R")
    worker = store.register_worker(STATE)
    answer = worker.claim("T", "R")
    assert answer.run == make_store().get_run("T", "R")
    assert (answer.run.status, answer.run.worker, answer.run.tries) == (RunStatus.in_progress, worker.id, 1)
    assert answer.run.attempt == answer.step_id
    assert answer.run.started_at is not None


def test_a_claimed_run_has_a_step_in_progress(store: Store) -> None:
    asked(store, "R")
    answer = store.register_worker(STATE).claim("T", "R")
    (step,) = steps_of(store)
    assert (step["id"], step["status"], step["step_type"]) == (
        answer.step_id,
        "in_progress",
        "message_creation",
    )


def test_a_program_without_registration_claims_a_run_that_then_has_no_worker(store: Store) -> None:
    asked(store, "R")
    run = store.claim_run("T", "R")
    assert run.status is RunStatus.in_progress
    assert store.get_run("T", "R") == run
    assert run.worker is None
    assert steps_of(store) == []


@pytest.mark.parametrize("status", [*IN_PROGRESS, *TERMINAL])
def test_a_run_that_is_not_queued_is_not_claimed(store: Store, status: RunStatus) -> None:
    make_run(store, status)
    with pytest.raises(StatusChanged):
        store.register_worker(STATE).claim("T", "R")
    assert store.get_run("T", "R").status is status
    assert steps_of(store) == []


def test_a_worker_that_has_left_claims_nothing(store: Store) -> None:
    asked(store, "R")
    with store.register_worker(STATE) as worker:
        pass
    with pytest.raises(StorageFailed, match="it has left"):
        worker.claim("T", "R")
    assert store.get_run("T", "R").status is RunStatus.queued


def test_a_run_that_is_not_there_is_not_claimed(store: Store) -> None:
    asked(store, "R")
    with pytest.raises(RunNotFound):
        store.claim_run("T", "another")


@pytest.mark.parametrize("status", IN_PROGRESS)
def test_a_run_waits_for_another_in_progress_and_the_error_names_it(store: Store, status: RunStatus) -> None:
    make_run(store, status)
    ask(store, "Q")
    with pytest.raises(RunWaits) as error:
        store.claim_run("T", "Q")
    assert (error.value.other_id, error.value.status, error.value.worker) == ("R", status, None)


def test_who_waits_for_a_worker_is_told_which(store: Store) -> None:
    asked(store, "R", "Q")
    worker = store.register_worker(STATE)
    worker.claim("T", "R")
    with pytest.raises(RunWaits) as error:
        worker.claim("T", "Q")
    assert error.value.worker == worker.id


def test_runs_of_one_second_are_claimed_in_the_order_in_which_they_were_made(store: Store) -> None:
    ids = ["d", "a", "c", "b"]
    asked(store, *ids)
    worker = store.register_worker(STATE)
    for index, run_id in enumerate(ids):
        for later in ids[index + 1 :]:
            with pytest.raises(RunWaits) as error:
                worker.claim("T", later)
            assert error.value.other_id == run_id
        worker.claim("T", run_id).finish(COMPLETED)


def test_a_run_that_was_handed_back_is_still_the_next_one(store: Store) -> None:
    asked(store, "R", "Q")
    worker = store.register_worker(STATE)
    worker.claim("T", "R").hand_back()
    with pytest.raises(RunWaits):
        worker.claim("T", "Q")
    assert worker.claim("T", "R").run.tries == 1


def test_a_run_passes_an_older_one_that_its_worker_would_not_claim(store: Store) -> None:
    asked(store, "R")
    store.create_run("T", Run(id="Q", model="llama3", created_at=3))
    worker = store.register_worker(STATE)
    answer = worker.claim("T", "Q", yields_to=lambda run: run.model == "llama3")
    assert answer.run.id == "Q"
    with pytest.raises(RunWaits):
        worker.claim("T", "R")


def test_runs_of_two_threads_do_not_wait_for_each_other(store: Store) -> None:
    asked(store, "R")
    asked(store, "R", thread_id="U")
    worker = store.register_worker(STATE)
    assert [worker.claim(thread_id, "R").run.thread_id for thread_id in "TU"] == ["T", "U"]


def test_of_many_workers_that_claim_at_once_each_run_has_one_and_a_thread_one_at_a_time(
    make_store: MakeStore,
) -> None:
    stores = [make_store() for _ in range(4)]
    runs = ["R1", "R2", "R3"]
    asked(stores[0], *runs)
    together = Barrier(len(stores))

    def work(store: Store) -> list[str]:
        done: list[str] = []
        together.wait()
        with store.register_worker(STATE) as worker:
            while any(store.get_run("T", run_id).status is not RunStatus.completed for run_id in runs):
                for run_id in runs:
                    with suppress(StoreError):
                        answer = worker.claim("T", run_id)
                        others = [other for other in runs if run_of(store, other)["status"] == "in_progress"]
                        done.append(run_id if others == [run_id] else f"{others} at once")
                        answer.finish(COMPLETED)
        return done

    with ThreadPoolExecutor(len(stores)) as pool:
        assert sorted(chain.from_iterable(pool.map(work, stores))) == runs
