"""What becomes of a run, by what the endpoint does: each row of the table in docs/work.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store import Run, RunStatus, RunStepStatus, Store
from store.tools import calls_of
from tests.work.running import (
    all_answered,
    answers,
    ask,
    ended,
    error_of,
    growing,
    settings,
    unused_port,
    wait_until,
    working,
)
from tests.work.scripted import Exchange, Script, ScriptedEndpoint
from threadfs.work import conversations
from threadfs.work.endpoint import Limits

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def answered(store: Store, place: Path, endpoint: ScriptedEndpoint, **options: Any) -> Run:
    """A run that is asked, and answered by a worker; as it is then."""
    run = ask(store, **options)
    all_answered(place, endpoint.url)
    return store.get_run("t", run.id)


def last_message(store: Store) -> dict[str, object]:
    return store.list_messages("t")[-1].fields()


def begun(then: Script) -> Callable[[Exchange], None]:
    def script(exchange: Exchange) -> None:
        exchange.begins()
        exchange.text("It is")
        then(exchange)

    return script


# ── Answers ─────────────────────────────────────────────────────────────────────────────────────────────


def test_an_answer_completes_its_run(store: Store, place: Path, endpoint: ScriptedEndpoint) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "prompt_tokens_details": {}}
    endpoint.script = lambda exchange: exchange.says("fo", "ur", usage=usage)
    run = answered(store, place, endpoint)
    assert (run.status, run.worker, run.last_error) == (RunStatus.completed, None, None)
    assert run.extra("usage") == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    message = store.list_messages("t")[-1]
    assert (message.text, message.run_id, message.is_incomplete) == ("four", run.id, False)
    [step] = store.list_steps("t", run.id)
    assert step.status is RunStepStatus.completed
    assert step.fields()["step_details"] == {"message_id": message.id}


def test_done_without_a_reason_completes_the_run(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    endpoint.script = lambda exchange: exchange.says("four", reason=None)
    assert answered(store, place, endpoint).status is RunStatus.completed
    assert answers(store) == ["four"]


def test_an_empty_answer_is_no_message(store: Store, place: Path, endpoint: ScriptedEndpoint) -> None:
    endpoint.script = lambda exchange: exchange.says()
    assert answered(store, place, endpoint).status is RunStatus.completed
    assert answers(store) == []


@pytest.mark.parametrize(
    ("reason", "of_run", "of_message"),
    [
        ("length", "max_completion_tokens", "max_tokens"),
        ("content_filter", "content_filter", "content_filter"),
    ],
)
def test_an_answer_that_is_cut_leaves_its_run_incomplete(
    store: Store, place: Path, endpoint: ScriptedEndpoint, reason: str, of_run: str, of_message: str
) -> None:
    endpoint.script = lambda exchange: exchange.says("It is", reason=reason)
    run = answered(store, place, endpoint)
    assert (run.status, run.extra("incomplete_details")) == (RunStatus.incomplete, {"reason": of_run})
    message = last_message(store)
    assert (message["status"], message["incomplete_details"]) == ("incomplete", {"reason": of_message})
    assert answers(store) == ["It is"]


def test_an_answer_that_is_longer_than_allowed_is_cut(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    endpoint.script = begun(lambda exchange: exchange.waits())
    run = ask(store)
    all_answered(place, endpoint.url, limits=Limits(answer_bytes=4))
    assert endpoint.exchange().hung_up.wait(1)
    assert store.get_run("t", run.id).extra("incomplete_details") == {"reason": "max_completion_tokens"}
    assert answers(store) == ["It i"]


# ── Tools ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_call_of_a_tool_waits_for_its_output_and_then_is_part_of_the_prompt(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    endpoint.first = [
        lambda exchange: exchange.calls(("c1", "weather", '{"city": "Oslo"}'), text="Let me look.")
    ]
    run = ask(store, "Is it cold?", tools=[WEATHER])
    with working(place, endpoint.url):
        wait_until(lambda: store.get_run("t", run.id).status is RunStatus.requires_action)
        step = store.list_steps("t", run.id)[-1]
        assert [(call.id, call.arguments) for call in calls_of(step)] == [("c1", '{"city": "Oslo"}')]
        store.set_tool_output("t", run.id, "c1", "-4")
        assert ended(store, run).status is RunStatus.completed
    assert endpoint.exchange(0).body["tools"] == [WEATHER]
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    assert endpoint.exchange(1).body["messages"] == [
        {"role": "user", "content": "Is it cold?"},
        {"role": "assistant", "content": "Let me look.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "-4"},
    ]
    assert answers(store) == ["Let me look.", "four"]


def test_a_call_of_a_tool_that_the_run_does_not_have_fails_the_run(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    endpoint.script = lambda exchange: exchange.calls(("c1", "delete", "{}"))
    run = answered(store, place, endpoint, tools=[WEATHER])
    assert error_of(run) == ("server_error", "the model called 'delete', which is no tool of the run")


# ── Refusals ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_conversation_fails_its_run_at_once(
    store: Store, place: Path, endpoint: ScriptedEndpoint, status: int
) -> None:
    endpoint.script = lambda exchange: exchange.refuses(status, "3031 tokens exceed 1024")
    run = answered(store, place, endpoint)
    why = f"the endpoint refuses the conversation ({status}): 3031 tokens exceed 1024"
    assert (run.status, *error_of(run)) == (RunStatus.failed, "invalid_prompt", why)
    assert (answers(store), len(endpoint.exchanges)) == ([], 1)


def test_a_model_that_the_endpoint_lacks_is_told_with_those_that_it_has(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    endpoint.has("small", "large")
    endpoint.script = lambda exchange: exchange.refuses(404)
    ask(store, model="huge")
    all_answered(place, endpoint.url, settings(once=True, model="small"))
    [run] = [store.get_run("t", run_id) for run_id in store.list_run_ids("t")]
    assert error_of(run) == ("server_error", "the endpoint has no model 'huge'; it has large, small")


def test_a_long_list_of_models_is_cut(store: Store, place: Path, endpoint: ScriptedEndpoint) -> None:
    endpoint.has(*(f"model-{number}" for number in range(1000)))
    endpoint.script = lambda exchange: exchange.refuses(404)
    ask(store, model="huge\x1b[2J")
    all_answered(place, endpoint.url, settings(once=True, model="small"))
    [run] = [store.get_run("t", run_id) for run_id in store.list_run_ids("t")]
    message = error_of(run)[1]
    assert len(message.encode()) < 1200
    assert "\x1b" not in message


def test_too_many_requests_are_made_again_when_the_endpoint_wants(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    endpoint.first = [
        lambda exchange: exchange.refuses(429, Retry_After="0"),
        lambda exchange: exchange.refuses(429),
        lambda exchange: exchange.refuses(429, Retry_After="9999"),
    ]
    assert answered(store, place, endpoint).status is RunStatus.completed
    assert len(endpoint.exchanges) == 4


def test_a_run_that_is_one_request_too_many_four_times_fails(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    endpoint.script = lambda exchange: exchange.refuses(429, "slow down")
    run = answered(store, place, endpoint)
    assert error_of(run) == ("rate_limit_exceeded", "the endpoint has had too many requests (429): slow down")
    assert len(endpoint.exchanges) == 4


def test_an_endpoint_that_has_gone_to_another_place_is_waited_for(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    def gone(exchange: Exchange) -> None:
        endpoint.models = lambda exchange: exchange.refuses(404)
        exchange.refuses(404)

    endpoint.script = gone
    run = ask(store)
    # The list of models is not remembered for longer than a request takes.
    with working(place, endpoint.url, settings(probes_s=0.001)):
        [worker] = wait_until(lambda: [one for one in store.workers() if one.state.state != "ready"])
        assert f"there is no endpoint at {endpoint.url} any more" in worker.state.state
        endpoint.script = lambda exchange: exchange.says("four")
        endpoint.has("small")
        assert ended(store, run).status is RunStatus.completed


def test_a_conversation_that_no_endpoint_could_take_is_not_sent(
    store: Store, place: Path, endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "MAX_BYTES", 1000)
    ask(store, "x" * 600)
    all_answered(place, endpoint.url)
    run = ask(store, "x" * 600)
    cut = ask(store, "x" * 600, truncation_strategy={"type": "last_messages", "last_messages": 1})
    all_answered(place, endpoint.url)
    assert error_of(store.get_run("t", run.id))[0] == "invalid_prompt"
    assert store.get_run("t", cut.id).status is RunStatus.completed
    assert [len(exchange.messages) for exchange in endpoint.exchanges] == [1, 1]


# ── An endpoint that fails ──────────────────────────────────────────────────────────────────────────────

FAILING: dict[str, Script] = {
    "500": lambda exchange: exchange.refuses(500),
    "408": lambda exchange: exchange.refuses(408),
    "401": lambda exchange: exchange.refuses(401),
    "403": lambda exchange: exchange.refuses(403),
    "redirect": lambda exchange: exchange.refuses(301, Location="http://127.0.0.1:9/v1/chat/completions"),
    "html": lambda exchange: exchange.replies(200, "<html>", Content_Type="text/html"),
    "closed": lambda exchange: exchange.drops(),
    "silence": lambda exchange: exchange.waits(),
    "silence after the headers": lambda exchange: exchange.is_silent(),
    "an empty stream": lambda exchange: exchange.is_empty(),
}


@pytest.mark.parametrize("what", FAILING)
def test_an_endpoint_that_fails_is_asked_four_times_and_the_run_is_handed_back_until_it_is_well(
    store: Store, place: Path, endpoint: ScriptedEndpoint, what: str
) -> None:
    endpoint.first = [FAILING[what]] * 4
    run = ask(store)
    with working(place, endpoint.url, limits=Limits(idle_s=0.1)):
        done = ended(store, run)
    assert (done.status, done.tries, len(endpoint.exchanges)) == (RunStatus.completed, 1, 5)
    assert answers(store) == ["four"]


def test_an_endpoint_that_fails_once_is_not_noticed(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    endpoint.first = [lambda exchange: exchange.refuses(503)]
    assert answered(store, place, endpoint).status is RunStatus.completed
    assert [step.status for step in store.list_steps("t", store.list_run_ids("t")[0])] == [
        RunStepStatus.completed
    ]


def test_runs_fail_when_the_endpoint_has_failed_for_long(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    endpoint.script = lambda exchange: exchange.refuses(500, "out of memory")
    run = ask(store)
    with working(place, endpoint.url, settings(patience_s=0.3)):
        assert error_of(ended(store, run)) == ("server_error", "the endpoint fails (500): out of memory")
    assert answers(store) == []


def test_nothing_is_claimed_while_the_endpoint_is_not_there(store: Store, place: Path) -> None:
    port = unused_port()
    run = ask(store)
    with working(place, f"http://127.0.0.1:{port}/v1"):
        [worker] = wait_until(lambda: [one for one in store.workers() if one.state.state != "ready"])
        assert worker.state.state.startswith(
            f"waiting: no answer from 127.0.0.1:{port}: connection refused, since "
        )
        assert worker.state.endpoint == f"127.0.0.1:{port}"
    stored = store.get_run("t", run.id)
    assert (stored.status, stored.tries, stored.started_at) == (RunStatus.queued, 0, None)


def test_an_endpoint_may_come_after_the_worker(store: Store, place: Path, endpoint: ScriptedEndpoint) -> None:
    endpoint.models = lambda exchange: exchange.drops()
    run = ask(store)
    with working(place, endpoint.url):
        wait_until(lambda: endpoint.models_asked > 1)
        endpoint.has("small")
        assert ended(store, run).status is RunStatus.completed
    assert endpoint.exchange().body["model"] == "small"


# ── An answer that breaks off ───────────────────────────────────────────────────────────────────────────

BREAKING: dict[str, Script] = {
    "it ends early": lambda exchange: exchange.ends(),
    "it is closed": lambda exchange: exchange.drops(),
    "it is silent": lambda exchange: exchange.waits(),
    "an event is malformed": lambda exchange: exchange.event("{"),
    "an event is too long": lambda exchange: exchange.event("x" * (2 << 20)),
    "an event is an error": lambda exchange: exchange.event({"error": {"message": "out of memory"}}),
}


@pytest.mark.parametrize("what", BREAKING)
def test_an_answer_that_breaks_off_fails_its_run_and_is_kept_as_far_as_it_came(
    store: Store, place: Path, endpoint: ScriptedEndpoint, what: str
) -> None:
    endpoint.script = begun(BREAKING[what])
    run = answered(store, place, endpoint)
    assert (run.status, error_of(run)[0]) == (RunStatus.failed, "server_error")
    message = last_message(store)
    assert (message["status"], message["incomplete_details"]) == ("incomplete", {"reason": "run_failed"})
    assert (answers(store), len(endpoint.exchanges)) == (["It is"], 1)
    [step] = store.list_steps("t", run.id)
    assert step.status is RunStepStatus.failed


def test_halves_of_surrogate_pairs_become_replacement_characters_in_the_log(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    endpoint.script = lambda exchange: exchange.says("a\ud83dz", "\ud83d", "\ude00")
    assert answered(store, place, endpoint).status is RunStatus.completed
    assert answers(store) == ["a\ufffdz\ufffd\ufffd"]
    json.loads((place / "t" / "messages.jsonl").read_text(encoding="utf-8").splitlines()[-1])


# ── Growing ─────────────────────────────────────────────────────────────────────────────────────────────


def test_an_answer_can_be_read_while_it_grows(store: Store, place: Path, endpoint: ScriptedEndpoint) -> None:
    def in_two_steps(exchange: Exchange) -> None:
        exchange.go_on.wait(10)
        exchange.text(" 4.")
        exchange.finishes()

    endpoint.script = begun(in_two_steps)
    run = ask(store)
    with working(place, endpoint.url):
        wait_until(lambda: growing(store, run) == "It is")
        assert answers(store) == []
        endpoint.exchange().go_on.set()
        ended(store, run)
    assert (growing(store, run), answers(store)) == ("", ["It is 4."])
