"""Answers while they grow, and how they end, in every store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from store import DocumentKey, Part, Run, RunError, RunLost, RunStatus, Store, names
from store.changes import Change
from store.errors import InvalidDocument
from store.names import WORKERS
from store.working import Outcome
from tests.store.conftest import TERMINAL, MakeStore, message, texts
from tests.store.contract.working import (
    CALLS,
    COMPLETED,
    STATE,
    WITH_CALLS,
    ask,
    asked,
    claimed,
    eventually,
    growing_text,
    key_of,
    run_of,
    steps_of,
)

WAITING = replace(STATE, state="waiting: connection refused since 10:15", notes=("R waits for Q",))
FAILED = RunError(code="server_error", message="the stream ended early")


# ── Growing ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_text_of_an_answer_is_read_by_others_while_it_grows(make_store: MakeStore) -> None:
    answer, reader = claimed(make_store()), make_store()
    assert reader.growing_answers("T") == []
    answer.append("Grüße ")
    assert eventually(lambda: growing_text(reader) == ["Grüße "])
    answer.append("🙂")
    assert eventually(lambda: growing_text(reader) == ["Grüße 🙂"])
    (growing,) = reader.growing_answers("T")
    assert growing == ("T", "R", answer.message_id, len("Grüße 🙂".encode()))
    assert reader.read_answer(growing, 2, 3) == "Grüße 🙂".encode()[2:5]
    assert reader.read_answer(growing, 1000, 5) == b""
    assert texts(reader) == ["question of R"]


def test_an_answer_that_ends_is_in_the_log_and_grows_no_longer(make_store: MakeStore) -> None:
    answer, reader = claimed(make_store()), make_store()
    answer.append("Yes.")
    assert eventually(lambda: growing_text(reader) == ["Yes."])
    (growing,) = reader.growing_answers("T")
    answer.finish(COMPLETED)
    assert reader.growing_answers("T") == []
    assert reader.read_answer(growing, 0, 10) is None
    last = reader.list_messages("T")[-1]
    assert (last.id, last.text, last.role, last.run_id) == (answer.message_id, "Yes.", "assistant", "R")


def test_a_watch_tells_of_a_growing_answer(make_store: MakeStore) -> None:
    answer, other = claimed(make_store()), make_store()
    told: list[Change] = []
    watch = other.watch(told.append)
    try:
        assert watch.follow(DocumentKey("T", "R"))
        answer.append("Yes.")
        assert eventually(
            lambda: any((c.part, c.thread_id, c.run_id) == (Part.ANSWER, "T", "R") for c in told)
        )
        told.clear()
        answer.finish(COMPLETED)
        assert eventually(lambda: any(change.part is Part.ANSWER for change in told))
    finally:
        watch.close()


def own_parts(told: list[Change]) -> set[Part]:
    """The parts of the store's own changes since it was last asked."""
    parts = {change.part for change in told if change.is_own}
    told.clear()
    return parts


def test_a_store_tells_of_what_its_own_worker_does_before_that_returns(store: Store) -> None:
    told: list[Change] = []
    watch = store.watch(told.append)
    try:
        asked(store, "R")
        assert {Part.LOG, Part.RUNS} <= own_parts(told)
        worker = store.register_worker(STATE)
        assert own_parts(told) == {Part.WORKERS}
        answer = worker.claim("T", "R")
        assert {Part.DOCUMENT, Part.STEPS} <= own_parts(told)
        answer.finish(COMPLETED)
        assert {Part.DOCUMENT, Part.ANSWER} <= own_parts(told)
    finally:
        watch.close()


def test_an_answer_of_a_worker_that_lost_its_run_grows_no_longer(make_store: MakeStore) -> None:
    store = make_store()
    lost = claimed(store)
    lost.append("of the first")
    assert eventually(lambda: growing_text(store) == ["of the first"])
    store.force_update_run_status("T", "R", RunStatus.queued)
    make_store().register_worker(STATE).claim("T", "R")
    assert store.growing_answers("T") == []
    lost.close()


def test_halves_of_surrogate_pairs_are_replaced(store: Store) -> None:
    answer = claimed(store)
    answer.append("a\ud800b")
    answer.finish(COMPLETED)
    assert texts(store)[-1] == "a\ufffdb"


# ── Ends ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_completed_run_has_its_message_step_and_usage_and_no_worker(store: Store) -> None:
    answer = claimed(store)
    answer.append("Yes.")
    run = answer.finish(Outcome(RunStatus.completed, usage={"total_tokens": 7}))
    assert run == store.get_run("T", "R")
    fields = run_of(store)
    assert (fields["status"], fields["usage"]) == ("completed", {"total_tokens": 7})
    assert fields.keys().isdisjoint({"worker", "attempt"})
    assert fields["completed_at"]
    (step,) = steps_of(store)
    assert (step["status"], step["usage"]) == ("completed", {"total_tokens": 7})
    assert step["step_details"] == {"message_id": answer.message_id}
    assert "status" not in store.list_messages("T")[-1].fields()


def test_an_answer_without_text_makes_no_message(store: Store) -> None:
    assert claimed(store).finish(COMPLETED).status is RunStatus.completed
    assert texts(store) == ["question of R"]
    (step,) = steps_of(store)
    assert step["status"] == "completed"
    assert "step_details" not in step


@pytest.mark.parametrize(
    ("outcome", "status_of_step"),
    [
        (Outcome(RunStatus.failed, "run_failed", error=FAILED), "failed"),
        (Outcome(RunStatus.incomplete, "max_tokens", run_is_cut="max_completion_tokens"), "completed"),
        (Outcome(RunStatus.incomplete, "content_filter", run_is_cut="content_filter"), "completed"),
    ],
    ids=["failed", "length", "filter"],
)
def test_what_came_of_an_answer_that_is_cut_is_kept(
    store: Store, outcome: Outcome, status_of_step: str
) -> None:
    answer = claimed(store)
    answer.append("Ye")
    answer.finish(outcome)
    fields, last, (step,) = run_of(store), store.list_messages("T")[-1], steps_of(store)
    assert fields["status"] == outcome.status
    assert fields.get("incomplete_details") == (
        {"reason": outcome.run_is_cut} if outcome.run_is_cut else None
    )
    assert fields.get("last_error") == (FAILED.fields() if outcome.error else None)
    assert last.text == "Ye"
    assert last.is_incomplete
    assert last.fields()["incomplete_details"] == {"reason": outcome.message_is_cut}
    assert step["status"] == status_of_step
    assert step.get("error") == (FAILED.message if outcome.error else None)


def test_a_text_that_is_not_to_be_kept_makes_no_message(store: Store) -> None:
    answer = claimed(store)
    answer.append("half")
    answer.finish(Outcome(RunStatus.failed, error=FAILED, keeps_text=False))
    assert texts(store) == ["question of R"]
    assert store.growing_answers("T") == []


def test_an_answer_too_long_for_a_line_is_cut_and_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = claimed(store)
    monkeypatch.setattr("store.documents.MAX_LINE_BYTES", 2000)
    answer.append("é" * 1000)
    assert answer.finish(COMPLETED).status is RunStatus.completed
    last = store.list_messages("T")[-1]
    assert len(last.text) > 500
    assert last.is_incomplete


@pytest.mark.parametrize("status", TERMINAL)
def test_a_run_that_was_ended_meanwhile_keeps_that_and_gets_the_message(
    store: Store, status: RunStatus
) -> None:
    answer = claimed(store)
    answer.append("Ye")
    store.update_run_status("T", "R", status)
    run = answer.finish(Outcome(RunStatus.cancelled, "run_cancelled"))
    assert (run.status, run.worker) == (status, None)
    assert texts(store)[-1] == "Ye"
    assert steps_of(store)[0]["status"] == "cancelled"


def test_a_run_that_is_being_cancelled_is_cancelled_at_its_end(store: Store) -> None:
    answer = claimed(store)
    store.update_run_status("T", "R", RunStatus.cancelling)
    assert answer.finish(Outcome(RunStatus.cancelled, "run_cancelled")).status is RunStatus.cancelled


# ── Handed back, or lost ────────────────────────────────────────────────────────────────────────────────


def test_a_run_that_is_handed_back_is_as_if_it_had_not_been_tried(store: Store) -> None:
    answer = claimed(store)
    answer.append("half")
    answer.hand_back()
    fields = run_of(store)
    assert fields["status"] == "queued"
    assert fields.keys().isdisjoint({"worker", "attempt", "tries"})
    assert [step["status"] for step in steps_of(store)] == ["cancelled"]
    assert store.growing_answers("T") == []
    assert texts(store) == ["question of R"]


def test_a_block_that_fails_hands_its_run_back(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), claimed(store) as answer:
        answer.append(str(1 / 0))
    assert store.get_run("T", "R").status is RunStatus.queued


def test_a_cancelled_run_that_is_handed_back_stays_cancelled(store: Store) -> None:
    answer = claimed(store)
    store.cancel_run("T", "R")
    answer.hand_back()
    assert (store.get_run("T", "R").status, store.get_run("T", "R").worker) == (RunStatus.cancelled, None)


def test_a_worker_that_lost_its_run_to_another_writes_nothing(make_store: MakeStore) -> None:
    store = make_store()
    lost = claimed(store)
    lost.append("of the first")
    store.force_update_run_status("T", "R", RunStatus.queued)
    answer = make_store().register_worker(STATE).claim("T", "R")
    with pytest.raises(RunLost):
        lost.finish(COMPLETED)
    assert texts(store) == ["question of R"]
    answer.append("of the second")
    assert answer.finish(COMPLETED).status is RunStatus.completed
    assert texts(store) == ["question of R", "of the second"]


def test_an_attempt_of_the_same_worker_that_was_given_up_writes_nothing(store: Store) -> None:
    worker = store.register_worker(STATE)
    lost = claimed(store, worker)
    lost.append("of the first")
    store.force_update_run_status("T", "R", RunStatus.queued)
    answer = worker.claim("T", "R")
    with pytest.raises(RunLost):
        lost.finish(COMPLETED)
    assert answer.finish(COMPLETED).status is RunStatus.completed
    assert texts(store) == ["question of R"]


@pytest.mark.parametrize("what", ["run", "thread"])
def test_an_answer_whose_run_or_thread_was_deleted_is_lost(store: Store, what: str) -> None:
    answer = claimed(store)
    answer.append("half")
    if what == "run":
        store.delete_run("T", "R", force=True)
    else:
        store.delete_thread("T", force=True)
    with pytest.raises(RunLost):
        answer.finish(COMPLETED)
    assert store.list_thread_ids() == (["T"] if what == "run" else [])


@pytest.mark.parametrize("what", ["run", "thread"])
def test_an_answer_is_lost_whose_run_is_deleted_between_two_tries_to_end_it(store: Store, what: str) -> None:
    answer = claimed(store)
    with pytest.raises(InvalidDocument):
        answer.finish(Outcome(RunStatus.completed, usage={"cost": object()}))
    if what == "run":
        store.delete_run("T", "R", force=True)
    else:
        store.delete_thread("T", force=True)
    with pytest.raises(RunLost):
        answer.hand_back()


def test_a_run_with_a_growing_answer_is_deleted_like_any_other(store: Store) -> None:
    answer = claimed(store)
    answer.append("half")
    assert eventually(lambda: growing_text(store) == ["half"])
    store.delete_thread("T", force=True)
    assert store.growing_answers("T") == []
    answer.close()


# ── Tools ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_that_calls_tools_waits_for_their_outputs(store: Store) -> None:
    answer = claimed(store)
    run = answer.finish(WITH_CALLS)
    assert (run.status, run.worker, run.tries) == (RunStatus.requires_action, None, 0)
    required = run_of(store)["required_action"]["submit_tool_outputs"]["tool_calls"]
    assert [call["function"]["name"] for call in required] == ["weather", "time"]
    (step,) = steps_of(store)
    assert (step["step_type"], step["status"]) == ("tool_calls", "in_progress")
    assert step["step_details"]["tool_calls"] == [call.fields() for call in CALLS]


def test_calls_of_a_run_that_was_cancelled_meanwhile_are_dropped(store: Store) -> None:
    answer = claimed(store)
    answer.append("Let me look.")
    store.cancel_run("T", "R")
    assert answer.finish(WITH_CALLS).status is RunStatus.cancelled
    assert texts(store)[-1] == "Let me look."
    assert [step["status"] for step in steps_of(store)] == ["cancelled"]
    assert "required_action" not in run_of(store)


def test_text_beside_calls_is_a_message_with_a_step_of_its_own(store: Store) -> None:
    answer = claimed(store)
    answer.append("Let me look.")
    answer.finish(WITH_CALLS)
    assert texts(store)[-1] == "Let me look."
    by_type = {step["step_type"]: step for step in steps_of(store)}
    assert by_type["message_creation"]["step_details"] == {"message_id": answer.message_id}
    assert by_type["tool_calls"]["status"] == "in_progress"


def test_with_the_last_output_the_run_is_queued_and_any_worker_goes_on(make_store: MakeStore) -> None:
    store = make_store()
    claimed(store).finish(WITH_CALLS)
    assert make_store().set_tool_output("T", "R", "call_2", "noon").status is RunStatus.requires_action
    assert make_store().set_tool_output("T", "R", "call_1", "rain").status is RunStatus.queued
    (step,) = steps_of(store)
    assert step["status"] == "completed"
    assert [call["function"]["output"] for call in step["step_details"]["tool_calls"]] == ["rain", "noon"]
    assert "required_action" not in run_of(store)
    answer = make_store().register_worker(STATE).claim("T", "R")
    answer.append("Rain at noon.")
    answer.finish(Outcome(RunStatus.completed, usage={"total_tokens": 1}))
    assert texts(store)[-1] == "Rain at noon."
    assert len(steps_of(store)) == 2


def test_the_usage_of_all_attempts_is_added_up(store: Store) -> None:
    worker = store.register_worker(STATE)
    usage = {"total_tokens": 5, "details": {"cached": 1}}
    claimed(store, worker).finish(Outcome(RunStatus.requires_action, tool_calls=CALLS[:1], usage=usage))
    store.set_tool_output("T", "R", "call_1", "rain")
    worker.claim("T", "R").finish(Outcome(RunStatus.completed, usage=usage))
    assert run_of(store)["usage"] == {"total_tokens": 10, "details": {"cached": 1}}


# ── Workers ─────────────────────────────────────────────────────────────────────────────────────────────


def test_living_workers_are_listed_with_what_they_tell_and_how_much_they_do(make_store: MakeStore) -> None:
    store, other = make_store(), make_store()
    with store.register_worker(STATE) as worker:
        (found,) = other.workers()
        assert (found.id, found.state, found.jobs_in_use) == (worker.id, STATE, 0)
        assert names.is_worker_id(worker.id)
        answer = claimed(store, worker)
        assert [found.jobs_in_use for found in other.workers()] == [1]
        answer.finish(COMPLETED)
        worker.set_state(WAITING)
        (found,) = other.workers()
        assert (found.state, found.jobs_in_use) == (WAITING, 0)
    assert other.workers() == []
    assert other.list_thread_ids() == ["T"]


def test_a_watch_tells_of_workers(make_store: MakeStore) -> None:
    store, other = make_store(), make_store()
    told: list[Change] = []
    with store.register_worker(STATE):
        watch = other.watch(told.append)
        try:
            assert watch.follow(WORKERS)
        except BaseException:
            watch.close()
            raise
    try:
        assert eventually(lambda: any(change.part is Part.WORKERS for change in told))
    finally:
        watch.close()


def test_a_run_of_a_living_worker_is_not_stale(store: Store) -> None:
    asked(store, "R")
    ask(store, "Q")
    store.create_run("T", Run(id="P", created_at=9, status=RunStatus.in_progress))
    assert {found[1] for found in store.stale_runs(0)} == {"R", "Q", "P"}
    store.delete_run("T", "P", force=True)
    store.register_worker(STATE).claim("T", "R")
    assert {found[1] for found in store.stale_runs(0)} == {"Q"}


def test_messages_may_be_said_while_a_run_is_answered(store: Store) -> None:
    answer = claimed(store)
    store.append_message("T", message("and quickly"))
    answer.append("Yes.")
    answer.finish(COMPLETED)
    assert texts(store) == ["question of R", "and quickly", "Yes."]
    assert key_of(answer).step_id == steps_of(store)[0]["id"]
