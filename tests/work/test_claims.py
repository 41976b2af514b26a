"""Which runs a worker claims, in which order, and what others do to them meanwhile."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store import Run, RunError, RunStatus, Store, ThreadStore
from tests.work.running import (
    all_answered,
    answers,
    ask,
    ended,
    growing,
    has_status,
    new_thread,
    run_with,
    said,
    settings,
    wait_until,
    working,
)
from tests.work.scripted import Exchange, ScriptedEndpoint

# How soon the connection is closed when nobody wants the answer any more.
CLOSED_S = 0.2


def hold(exchange: Exchange) -> None:
    """Says something, and then nothing until it is told to go on, or the other side has gone."""
    exchange.begins()
    exchange.text("It is")
    exchange.waits()


# ── Order ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_questions_of_a_thread_are_answered_one_after_the_other(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    for number in range(3):
        ask(store, f"question {number}")
    endpoint.script = lambda exchange: exchange.says(f"answer to {exchange.messages[-1][1]}")
    all_answered(place, endpoint.url)
    assert answers(store) == [f"answer to question {number}" for number in range(3)]
    assert [len(exchange.messages) for exchange in endpoint.exchanges] == [1, 3, 5]


def test_of_all_threads_the_oldest_run_is_claimed_first(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    for number in range(5):
        ask(store, f"question {number}", f"t{9 - number}")
    all_answered(place, endpoint.url, settings(once=True, jobs=1))
    asked = [exchange.messages[-1][1] for exchange in endpoint.exchanges]
    assert asked == [f"question {number}" for number in range(5)]


def test_runs_of_several_threads_are_answered_at_once_but_no_more_than_allowed(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    endpoint.script = hold
    for number in range(4):
        ask(store, thread_id=f"t{number}")
    with working(place, endpoint.url, settings(jobs=3)):
        endpoint.exchange(2)
        time.sleep(0.1)
        assert len(endpoint.exchanges) == 3


def test_a_run_that_comes_later_is_noticed(store: Store, place: Path, endpoint: ScriptedEndpoint) -> None:
    with working(place, endpoint.url, settings(compares_s=60)):
        wait_until(store.workers)
        for thread_id in ("t", "new"):
            assert ended(store, ask(store, thread_id=thread_id)).status is RunStatus.completed


def test_a_run_of_another_program_is_noticed(store: Store, place: Path, endpoint: ScriptedEndpoint) -> None:
    new_thread(store)
    store.append_message("t", said("2 + 2?"))
    with working(place, endpoint.url, settings(compares_s=60)):
        wait_until(store.workers)
        run = store.create_run("t", run_with())
        assert ended(store, run).status is RunStatus.completed
    assert endpoint.exchange().messages == [("user", "2 + 2?")]


# ── Which runs ──────────────────────────────────────────────────────────────────────────────────────────


def test_only_runs_of_matching_models_are_claimed(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    mine = ask(store, model="llama3:8b")
    other = ask(store, model="gpt-4")
    again = ask(store, model="qwen3")
    all_answered(place, endpoint.url, settings(once=True, only=["llama*", "qwen?"]))
    assert [store.get_run("t", run.id).status for run in (mine, other, again)] == [
        RunStatus.completed,
        RunStatus.queued,
        RunStatus.completed,
    ]
    assert [exchange.body["model"] for exchange in endpoint.exchanges] == ["llama3:8b", "qwen3"]


def test_a_run_without_a_model_gets_the_only_one_of_the_endpoint_or_the_given_one(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    ask(store)
    all_answered(place, endpoint.url)
    ask(store)
    all_answered(place, endpoint.url, settings(once=True, model="given"))
    assert [exchange.body["model"] for exchange in endpoint.exchanges] == ["small", "given"]


def test_runs_that_were_queued_over_a_day_ago_are_left(
    store: Store, place: Path, endpoint: ScriptedEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = ask(store), ask(store)
    os.utime(place / "t" / "runs" / old.id / "status.json", (1, 1))
    all_answered(place, endpoint.url)
    assert store.get_run("t", old.id).status is RunStatus.queued
    assert store.get_run("t", new.id).status is RunStatus.completed
    assert "runs that were queued over a day ago, and are left: 1 (see --backlog)" in caplog.text
    all_answered(place, endpoint.url, settings(once=True, backlog=True))
    assert store.get_run("t", old.id).status is RunStatus.completed


def test_the_options_of_a_run_go_to_the_endpoint(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    options: dict[str, Any] = {
        "temperature": 0,
        "top_p": 0.5,
        "stop": ["\n"],
        "seed": 7,
        "max_completion_tokens": 9,
    }
    ask(store, instructions="Be brief.", truncation_strategy={"type": "auto"}, **options)
    all_answered(place, endpoint.url)
    body = endpoint.exchange().body
    assert {name: body[name] for name in options} == options
    assert body["max_tokens"] == options["max_completion_tokens"]  # Some servers know only this one.
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})
    assert "truncation_strategy" not in body


def test_a_run_with_options_that_are_none_fails_with_the_reason(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    run = ask(store, temperature="hot")
    all_answered(place, endpoint.url)
    error = store.get_run("t", run.id).last_error
    assert error is not None
    assert error.code == "invalid_prompt"
    assert "temperature" in error.message
    assert endpoint.exchanges == []


# ── Several workers, and other programs ─────────────────────────────────────────────────────────────────


def test_two_workers_answer_each_run_once_and_never_two_of_a_thread_at_once(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    threads = [f"t{number}" for number in range(6)]
    at_once: Counter[str] = Counter()
    lock = threading.Lock()
    clashes: list[str] = []

    def script(exchange: Exchange) -> None:
        thread = exchange.messages[0][1].split()[0]
        with lock:
            at_once[thread] += 1
            if at_once[thread] > 1:
                clashes.append(thread)
        exchange.begins()
        exchange.text(exchange.messages[-1][1])
        with lock:
            at_once[thread] -= 1
        exchange.finishes()

    endpoint.script = script
    with working(place, endpoint.url), working(place, endpoint.url):
        runs = [ask(store, f"{thread} {number}", thread) for number in range(3) for thread in threads]
        assert {ended(store, run).status for run in runs} == {RunStatus.completed}
    assert clashes == []
    for thread in threads:
        assert answers(store, thread) == [f"{thread} {number}" for number in range(3)]
    assert len(endpoint.exchanges) == len(runs)


def test_a_run_that_another_program_holds_up_is_named(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    other, run = ask(store), ask(store)
    store.update_run_status("t", other.id, RunStatus.in_progress)
    with working(place, endpoint.url):
        [worker] = wait_until(lambda: [one for one in store.workers() if one.state.notes])
        note = f"{run.id} waits for {other.id}, another program's: threadfs expire"
        assert worker.state.notes == (note,)
        store.update_run_status("t", other.id, RunStatus.completed)
        assert ended(store, run).status is RunStatus.completed
        wait_until(lambda: not store.workers()[0].state.notes)


# ── Runs that nobody wants any more ─────────────────────────────────────────────────────────────────────


def cancel(store: Store, run_id: str) -> None:
    store.cancel_run("t", run_id)


def fail(store: Store, run_id: str) -> None:
    store.update_run_status("t", run_id, RunStatus.failed, RunError(code="server_error", message="by hand"))


@pytest.mark.parametrize(("change", "status"), [(cancel, RunStatus.cancelled), (fail, RunStatus.failed)])
def test_a_run_that_somebody_ends_closes_its_connection_and_keeps_what_was_said(
    store: Store,
    place: Path,
    endpoint: ScriptedEndpoint,
    change: Callable[[Store, str], None],
    status: RunStatus,
) -> None:
    endpoint.script = hold
    run = ask(store)
    with working(place, endpoint.url, settings(checks_s=60)):
        wait_until(lambda: growing(store, run) == "It is")
        changed_s = time.monotonic()
        change(store, run.id)
        assert endpoint.exchange().hung_up.wait(5)
        assert endpoint.exchange().hung_up_s - changed_s < CLOSED_S
        wait_until(lambda: answers(store))
        stored = wait_until(lambda: _without_worker(store, run.id))
    assert stored.status is status
    message = store.list_messages("t")[-1]
    assert (message.text, message.extra("incomplete_details")) == ("It is", {"reason": "run_cancelled"})


def _without_worker(store: Store, run_id: str) -> Run | None:
    stored = store.get_run("t", run_id)
    return None if stored.worker else stored


def test_a_run_is_cancelled_where_nothing_is_watched(
    place: Path, endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.script = hold
    unwatched = ThreadStore(place)
    unwatched.is_remote = True  # As on a file system that other hosts change.
    store = ThreadStore(place)
    run = ask(store)
    with working(place, endpoint.url, store=unwatched):
        wait_until(lambda: growing(store, run) == "It is")
        cancelled_s = time.monotonic()
        cancel(store, run.id)
        assert endpoint.exchange().hung_up.wait(5)
        assert endpoint.exchange().hung_up_s - cancelled_s < CLOSED_S + 0.1
        second = ask(store, thread_id="later")
        has_status(store, second, RunStatus.in_progress)
    store.close()


@pytest.mark.parametrize("what", ["run", "thread"])
def test_a_run_that_is_deleted_closes_its_connection_and_leaves_no_message(
    store: Store, place: Path, endpoint: ScriptedEndpoint, what: str
) -> None:
    endpoint.script = hold
    run = ask(store)
    with working(place, endpoint.url, settings(checks_s=60)):
        wait_until(lambda: growing(store, run) == "It is")
        shutil.rmtree(place / "t" / "runs" / run.id if what == "run" else place / "t")
        assert endpoint.exchange().hung_up.wait(5)
        wait_until(lambda: not store.workers()[0].jobs_in_use)
        assert (place / "t").exists() == (what == "run")
        if what == "run":
            assert answers(store) == []
            assert not (place / "t" / "runs" / run.id).exists()


def test_a_run_that_somebody_queues_again_is_answered_anew(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    endpoint.first = [hold]
    run = ask(store)
    with working(place, endpoint.url):
        wait_until(lambda: growing(store, run) == "It is")
        store.update_run_status("t", run.id, RunStatus.queued)
        assert ended(store, run).status is RunStatus.completed
    assert answers(store) == ["four"]
