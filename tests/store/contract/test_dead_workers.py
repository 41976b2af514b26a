"""What becomes of the runs of a worker that died, in every store."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from store import Run, RunStatus, Store
from store.working import MAX_TRIES, Outcome
from tests.store.conftest import MakeStore, message, texts
from tests.store.contract.working import (
    CALLS,
    COMPLETED,
    STATE,
    WITH_CALLS,
    asked,
    claimed,
    eventually,
    growing_text,
    run_of,
    steps_of,
)


def dies_with(store: Store, text: str) -> None:
    """A worker claims R, answers *text*, and dies: all that others see is that its registration ends."""
    with store.register_worker(STATE) as worker:
        answer = worker.claim("T", "R")
        if text:
            answer.append(text)
            assert eventually(lambda: growing_text(store) == [text])


def test_a_run_whose_worker_died_is_queued_again_and_its_text_is_kept_in_its_step(
    make_store: MakeStore,
) -> None:
    store, other = make_store(), make_store()
    asked(store, "R")
    dies_with(store, "half 🙂")
    assert other.workers() == []
    assert other.growing_answers("T") == []
    (run,) = other.take_over()
    assert (run.status, run.worker, run.tries) == (RunStatus.queued, None, 1)
    (step,) = steps_of(other)
    assert (step["status"], step["partial"]) == ("failed", "half 🙂")
    assert "died" in step["error"]
    assert texts(other) == ["question of R"]
    assert other.take_over() == []


def test_a_run_whose_worker_dies_the_third_time_fails(store: Store) -> None:
    asked(store, "R")
    for tries in range(1, MAX_TRIES + 1):
        assert store.get_run("T", "R").status is RunStatus.queued
        dies_with(store, "")
        (run,) = store.take_over()
        assert run.tries == tries
    assert run_of(store)["status"] == "failed"
    assert run_of(store)["last_error"]["code"] == "server_error"
    assert [step["status"] for step in steps_of(store)] == ["failed"] * MAX_TRIES


def test_a_run_that_was_handed_back_has_all_its_tries_left(store: Store) -> None:
    asked(store, "R")
    for _ in range(MAX_TRIES):
        with store.register_worker(STATE) as worker:
            worker.claim("T", "R").hand_back()
    dies_with(store, "")
    (run,) = store.take_over()
    assert (run.status, run.tries) == (RunStatus.queued, 1)


def test_a_cancelled_run_whose_worker_died_stays_cancelled(store: Store) -> None:
    with store.register_worker(STATE) as worker:
        claimed(store, worker).append("half")
        assert eventually(lambda: growing_text(store) == ["half"])
        store.cancel_run("T", "R")
    (run,) = store.take_over()
    assert (run.status, run.worker) == (RunStatus.cancelled, None)
    assert steps_of(store)[0]["partial"] == "half"


def test_a_run_that_is_deleted_after_its_worker_died_is_left_in_peace(store: Store) -> None:
    asked(store, "R")
    dies_with(store, "half")
    store.delete_run("T", "R", force=True)
    assert store.take_over() == []
    assert store.list_run_ids("T") == []


def test_runs_of_living_workers_and_of_other_programs_are_left_alone(make_store: MakeStore) -> None:
    store, other = make_store(), make_store()
    answer = claimed(store)
    asked(store, thread_id="U")
    fields = {"id": "R", "created_at": 2, "status": "in_progress", "worker": "gpu-1"}
    store.create_run("U", Run.of(fields))
    assert other.take_over() == []
    assert store.get_run("U", "R").status is RunStatus.in_progress
    answer.append("Yes.")
    assert answer.finish(COMPLETED).status is RunStatus.completed


def test_a_worker_that_leaves_a_run_as_it_is_gets_it_queued_again(store: Store) -> None:
    worker = store.register_worker(STATE)
    claimed(store, worker).close()
    assert store.get_run("T", "R").status is RunStatus.in_progress
    (run,) = store.take_over()
    assert (run.id, run.status) == ("R", RunStatus.queued)
    assert worker.claim("T", "R").run.tries == 2
    assert store.take_over() == []


def test_an_attempt_that_was_left_is_not_taken_for_a_later_one_of_the_same_worker(
    make_store: MakeStore,
) -> None:
    store, other = make_store(), make_store()
    worker = store.register_worker(STATE)
    claimed(store, worker).close()
    other.force_update_run_status("T", "R", RunStatus.queued)
    answer = worker.claim("T", "R")
    assert store.take_over() == []
    answer.append("Yes.")
    assert answer.finish(COMPLETED).status is RunStatus.completed


def test_two_programs_take_over_the_run_of_a_dead_worker_once(make_store: MakeStore) -> None:
    stores = [make_store(), make_store()]
    asked(stores[0], "R")
    dies_with(stores[0], "half")
    assert len([run for store in stores for run in store.take_over()]) == 1
    assert [step["status"] for step in steps_of(stores[0])] == ["failed"]


@pytest.mark.parametrize("outcome", [COMPLETED, WITH_CALLS], ids=["completed", "calls"])
def test_a_worker_that_is_killed_is_noticed_and_what_it_had_ended_stays(
    make_store: MakeStore, outcome: Outcome
) -> None:
    store = make_store()
    asked(store, "Q", "R")
    pid = os.fork()
    if pid == 0:
        try:
            worker = make_store().register_worker(STATE)
            ended = worker.claim("T", "Q")
            ended.append("Yes.")
            ended.finish(outcome if outcome is COMPLETED else Outcome(outcome.status, tool_calls=CALLS[:1]))
            if outcome is COMPLETED:
                worker.claim("T", "R").append("half")
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    before = run_of(store, "Q")
    assert before["status"] == outcome.status
    assert eventually(lambda: store.workers() == [])
    taken_over = store.take_over()
    assert [(run.id, run.status) for run in taken_over] == (
        [("R", RunStatus.queued)] if outcome is COMPLETED else []
    )
    assert run_of(store, "Q") == before
    assert texts(store)[-1] == "Yes."


def dies_after(store: Store, run_id: str, **fields: Any) -> None:
    """A worker claims a run, and is killed when its message is in the log."""
    asked(store, run_id)
    with store.register_worker(STATE) as worker:
        answer = worker.claim("T", run_id)
        store.append_message("T", message("Yes.", id=answer.message_id, run_id=run_id, **fields))


def test_the_message_of_a_run_is_found_whatever_its_id_is_made_of(store: Store) -> None:
    dies_after(store, 'say "\\é"')
    (run,) = store.take_over()
    assert run.status is RunStatus.completed
    assert texts(store)[1:] == ["Yes."]


@pytest.mark.parametrize(
    ("cut", "status"),
    [
        ("max_tokens", RunStatus.incomplete),
        ("run_failed", RunStatus.failed),
        ("run_cancelled", RunStatus.cancelled),
    ],
)
def test_a_message_that_is_cut_says_how_its_run_ended(store: Store, cut: str, status: RunStatus) -> None:
    dies_after(store, "R", status="incomplete", incomplete_details={"reason": cut})
    (run,) = store.take_over()
    assert run.status is status
    assert steps_of(store)[0]["status"] != "in_progress"


def test_a_message_that_another_program_wrote_for_the_run_is_not_taken_for_its_answer(store: Store) -> None:
    asked(store, "R")
    store.append_message("T", message("an old answer", id="m", run_id="R"))
    dies_with(store, "half")
    (run,) = store.take_over()
    assert run.status is RunStatus.queued
    assert steps_of(store)[0]["partial"] == "half"


def test_messages_of_other_programs_in_the_run_are_not_taken_for_its_answer(store: Store) -> None:
    asked(store, "R")
    dies_with(store, "")
    store.append_message("T", message("said meanwhile"))
    (run,) = store.take_over()
    assert run.status is RunStatus.queued
