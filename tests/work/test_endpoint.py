"""What an endpoint may do, and what is made of it: without a store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial

import pytest
import trio

from tests.work.running import unused_port
from tests.work.scripted import Exchange, Script, ScriptedEndpoint
from threadfs.work.completions import Completion
from threadfs.work.endpoint import Endpoint, Limits, base_url
from threadfs.work.failures import (
    BrokenOff,
    EndpointAtFault,
    Failure,
    KeyRefused,
    NotThere,
    PromptRefused,
    RateLimited,
    retry_after_s,
)

LIMITS = Limits(connect_s=2, idle_s=0.3, answer_s=5, answer_bytes=1000)
MIB = 1 << 20


def asks(
    url: str, limits: Limits = LIMITS, key: str | None = None
) -> tuple[str, Completion | None, Failure | None]:
    """Asks once: the text, and the completion or why there is none."""
    pieces: list[str] = []

    async def ask() -> Completion:
        async with Endpoint(base_url(url), key, limits) as endpoint:
            return await endpoint.complete(b'{"messages": []}', pieces.append)

    try:
        return "", trio.run(ask), None
    except Failure as failure:
        return "".join(pieces), None, failure
    finally:
        pieces.insert(0, "")


def answers(endpoint: ScriptedEndpoint, limits: Limits = LIMITS) -> tuple[str, Completion]:
    """The text and the completion of a request that succeeds."""
    pieces: list[str] = []

    async def ask() -> Completion:
        async with Endpoint(base_url(endpoint.url), None, limits) as asked:
            return await asked.complete(b"{}", pieces.append)

    completion = trio.run(ask)
    return "".join(pieces), completion


def fails(
    endpoint: ScriptedEndpoint, kind: type[Failure], limits: Limits = LIMITS, key: str | None = None
) -> str:
    """Why a request fails, and with which failure; *text* is what was said before."""
    _, _, failure = asks(endpoint.url, limits, key)
    assert type(failure) is kind, failure
    assert "\n" not in str(failure)
    return str(failure)


# ── Answers ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_text_of_an_answer_comes_piece_by_piece(endpoint: ScriptedEndpoint) -> None:
    endpoint.script = lambda exchange: exchange.says("Hel", "lo", usage={"completion_tokens": 2})
    text, completion = answers(endpoint)
    assert (text, completion.finish_reason, completion.usage) == ("Hello", "stop", {"completion_tokens": 2})


def test_an_answer_may_end_with_done_alone_or_with_a_reason_alone(endpoint: ScriptedEndpoint) -> None:
    def without_done(exchange: Exchange) -> None:
        exchange.begins()
        exchange.text("b")
        exchange.finishes(is_done=False)

    endpoint.first = [lambda exchange: exchange.says("a", reason=None), without_done]
    assert answers(endpoint)[0] == "a"
    assert answers(endpoint)[0] == "b"


def test_a_server_that_keeps_the_connection_open_after_done_is_not_waited_for(
    endpoint: ScriptedEndpoint,
) -> None:
    def keeps_open(exchange: Exchange) -> None:
        exchange.begins()
        exchange.text("a")
        exchange.event("[DONE]")
        exchange.waits()

    endpoint.script = keeps_open
    began_s = time.monotonic()
    assert answers(endpoint, Limits(idle_s=30))[0] == "a"
    assert time.monotonic() - began_s < 2


def test_events_may_leave_out_what_they_do_not_have(endpoint: ScriptedEndpoint) -> None:
    def sparse(exchange: Exchange) -> None:
        exchange.begins()
        exchange.sends(b": ping\n\n")
        exchange.event({})
        exchange.event({"choices": None})
        exchange.event({"choices": [{"delta": None}]})
        exchange.event(
            {"choices": [{"delta": {"role": "assistant", "content": None}, "finish_reason": None}]}
        )
        exchange.text("a")
        exchange.event({"choices": [{"finish_reason": ""}]})
        exchange.finishes()

    endpoint.script = sparse
    assert answers(endpoint)[0] == "a"


def test_a_whole_answer_of_a_server_that_ignores_stream_is_taken(endpoint: ScriptedEndpoint) -> None:
    body = {"choices": [{"message": {"role": "assistant", "content": "four"}, "finish_reason": "stop"}]}
    endpoint.script = lambda exchange: exchange.replies(200, body)
    assert answers(endpoint)[0] == "four"


def test_halves_of_surrogate_pairs_and_bytes_that_are_no_utf8_are_replaced(
    endpoint: ScriptedEndpoint,
) -> None:
    def broken(exchange: Exchange) -> None:
        exchange.begins()
        exchange.sends(b'data: {"choices":[{"delta":{"content":"a\\ud83dz \\ud83d\\ude00 \xff"}}]}\n\n')
        exchange.finishes()

    endpoint.script = broken
    assert answers(endpoint)[0] == "a\ufffdz \U0001f600 \ufffd"


def test_a_character_that_is_split_between_two_chunks_is_whole(endpoint: ScriptedEndpoint) -> None:
    def split(exchange: Exchange) -> None:
        exchange.begins()
        event = 'data: {"choices":[{"delta":{"content":"é"}}]}\n\n'.encode()
        middle = event.index("é".encode()) + 1
        exchange.sends(event[:middle])
        exchange.sends(event[middle:])
        exchange.finishes()

    endpoint.script = split
    assert answers(endpoint)[0] == "é"


def test_an_answer_that_is_too_long_is_cut_between_characters_and_its_connection_closed(
    endpoint: ScriptedEndpoint,
) -> None:
    def endless(exchange: Exchange) -> None:
        exchange.begins()
        exchange.text("é" * 300, "é" * 300)
        exchange.waits()

    endpoint.script = endless
    text, completion = answers(endpoint, Limits(answer_bytes=1001))
    assert (text, completion.finish_reason) == ("é" * 500, "length")
    assert endpoint.exchange().hung_up.wait(1)


def test_calls_of_tools_are_put_together_from_their_pieces(endpoint: ScriptedEndpoint) -> None:
    endpoint.script = lambda exchange: exchange.calls(
        ("1", "weather", '{"city":"Oslo"}'), ("2", "clock", "{}"), text="Let me look."
    )
    text, completion = answers(endpoint)
    found = [(call.id, call.name, call.arguments) for call in completion.calls.values()]
    assert found == [("1", "weather", '{"city":"Oslo"}'), ("2", "clock", "{}")]
    assert (text, completion.finish_reason) == ("Let me look.", "tool_calls")


# ── What the endpoint is asked ──────────────────────────────────────────────────────────────────────────


def test_a_request_asks_for_events_that_are_not_compressed_and_carries_the_key(
    endpoint: ScriptedEndpoint,
) -> None:
    asks(endpoint.url, key="sk-1")
    headers = endpoint.exchange().headers
    assert headers["accept"] == "text/event-stream"
    assert headers["accept-encoding"] == "identity"
    assert headers["authorization"] == "Bearer sk-1"


def test_a_server_on_this_machine_is_asked_without_the_proxy_of_the_environment(
    endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert answers(endpoint)[0] == "four"


def test_another_host_is_asked_through_the_proxy_of_the_environment(
    endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{endpoint.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    _, _, failure = asks("http://model.invalid/v1")
    assert "(404)" in str(failure)  # The endpoint, which took the whole URL for a path.


# ── Failures before anything was said ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "kind", "word"),
    [
        (400, PromptRefused, "so it is"),
        (413, PromptRefused, "so it is"),
        (422, PromptRefused, "so it is"),
        (401, KeyRefused, "refuses the key"),
        (403, KeyRefused, "refuses the key"),
        (404, NotThere, "so it is"),
        (408, EndpointAtFault, "so it is"),
        (429, RateLimited, "so it is"),
        (500, EndpointAtFault, "so it is"),
        (503, EndpointAtFault, "so it is"),
        (302, EndpointAtFault, "redirects"),
        (307, EndpointAtFault, "redirects"),
    ],
)
def test_each_status_is_the_failure_that_it_means(
    endpoint: ScriptedEndpoint, status: int, kind: type[Failure], word: str
) -> None:
    endpoint.script = lambda exchange: exchange.refuses(status, Location=f"{endpoint.url}/elsewhere")
    assert word in fails(endpoint, kind, key="sk-secret")
    assert len(endpoint.exchanges) == 1


def test_an_endpoint_that_wants_a_key_is_told_in_our_words(endpoint: ScriptedEndpoint) -> None:
    endpoint.script = lambda exchange: exchange.refuses(401, "Incorrect API key provided: sk-secret")
    assert fails(endpoint, KeyRefused) == "the endpoint wants a key (--key-file FILE), with status 401"
    assert "sk-secret" not in fails(endpoint, KeyRefused, key="sk-secret")


def test_the_key_is_in_no_error(endpoint: ScriptedEndpoint) -> None:
    endpoint.script = lambda exchange: exchange.refuses(400, "bad header Bearer sk-secret")
    assert fails(endpoint, PromptRefused, key="sk-secret").endswith("bad header Bearer [key]")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": "too long"}}, ": too long"),
        ({"error": "too long"}, ": too long"),
        ({"detail": "too long"}, ": too long"),
        ({"object": "error", "message": "too long"}, ": too long"),
        ("<html>too long</html>", ""),
        ("", ""),
        ({"error": {"message": "a\x1b[2J\nb" + "x" * 5000}}, ": a\\x1b[2J\\nbxxxx"),
    ],
)
def test_what_an_endpoint_explains_is_one_printable_line_of_a_kib(
    endpoint: ScriptedEndpoint, body: object, said: str
) -> None:
    endpoint.script = lambda exchange: exchange.replies(400, body)
    told = fails(endpoint, PromptRefused)
    assert told.startswith(f"the endpoint refuses the conversation (400){said}")
    assert len(told.encode()) < 1100


def test_a_long_body_of_an_error_is_not_read_to_its_end(endpoint: ScriptedEndpoint) -> None:
    endpoint.script = lambda exchange: exchange.replies(500, {"error": "x" * (1 << 20)})
    assert fails(endpoint, EndpointAtFault) == "the endpoint fails (500)"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), (" 0 ", 0.0), (None, None), ("soon", None), ("-3", None), ("1e9", None)],
)
def test_retry_after_is_a_number_of_seconds(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header) == seconds


def test_retry_after_may_be_a_date(endpoint: ScriptedEndpoint) -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    endpoint.script = lambda exchange: exchange.refuses(429, Retry_After=when)
    _, _, failure = asks(endpoint.url)
    assert isinstance(failure, RateLimited)
    assert failure.after_s is not None
    assert 25 < failure.after_s <= 30
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    assert retry_after_s(past) == 0


def test_a_refused_connection_is_told_as_such() -> None:
    port = unused_port()
    _, _, failure = asks(f"http://127.0.0.1:{port}/v1")
    assert str(failure) == f"no answer from 127.0.0.1:{port}: connection refused"
    assert isinstance(failure, EndpointAtFault)


def test_a_host_that_does_not_exist_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    _, _, failure = asks("http://model.invalid/v1")
    assert str(failure) == "no answer from model.invalid: there is no such host, or no name server answers"


@pytest.mark.parametrize(
    ("script", "word"),
    [
        (lambda exchange: exchange.replies(200, "<html>", Content_Type="text/html"), "a page of HTML"),
        (lambda exchange: exchange.replies(200, "hello", Content_Type="text/plain"), "no stream of events"),
        (lambda exchange: exchange.begins(Content_Encoding="gzip"), "compresses"),
        (lambda exchange: exchange.drops(), "no answer from"),
        (lambda exchange: exchange.is_silent(), "said nothing for 0.3 seconds"),
        (lambda exchange: exchange.waits(), "said nothing for 0.3 seconds"),
        (lambda exchange: exchange.is_empty(), "broke off"),
    ],
)
def test_what_is_no_answer_at_all_is_the_fault_of_the_endpoint(
    endpoint: ScriptedEndpoint, script: Script, word: str
) -> None:
    endpoint.script = script
    assert word in fails(endpoint, EndpointAtFault)


# ── Failures within an answer ───────────────────────────────────────────────────────────────────────────


def begun(then: Script) -> Callable[[Exchange], None]:
    def script(exchange: Exchange) -> None:
        exchange.begins()
        exchange.text("It is")
        then(exchange)

    return script


@pytest.mark.parametrize(
    ("then", "word"),
    [
        (lambda exchange: exchange.ends(), "broke off"),
        (lambda exchange: exchange.drops(), "no answer from"),
        (lambda exchange: exchange.waits(), "said nothing for 0.3 seconds"),
        (lambda exchange: exchange.event("{"), "it is no JSON object"),
        (lambda exchange: exchange.event("[" * 100_000), "it is no JSON object"),
        (lambda exchange: exchange.event([1]), "it is no JSON object"),
        (lambda exchange: exchange.event({"choices": [1]}), "no objects"),
        (lambda exchange: exchange.event({"choices": [{"delta": {"content": 4}}]}), "no text"),
        (lambda exchange: exchange.event({"choices": [{"delta": {"tool_calls": [1]}}]}), "no function"),
        (lambda exchange: exchange.event({"error": {"message": "out of memory"}}), "error: out of memory"),
        (lambda exchange: exchange.event({"message": "out of memory"}, "error"), "error: out of memory"),
    ],
)
def test_an_answer_that_breaks_off_keeps_what_was_said(
    endpoint: ScriptedEndpoint, then: Script, word: str
) -> None:
    endpoint.script = begun(then)
    pieces: list[str] = []

    async def ask() -> None:
        async with Endpoint(base_url(endpoint.url), None, LIMITS) as asked:
            await asked.complete(b"{}", pieces.append)

    with pytest.raises(BrokenOff, match=word):
        trio.run(ask)
    assert pieces == ["It is"]


def test_an_event_of_64_mib_is_not_read_to_its_end(endpoint: ScriptedEndpoint) -> None:
    sent = 0

    def huge(exchange: Exchange) -> None:
        nonlocal sent
        exchange.begins()
        exchange.sends(b'data: {"choices":[{"delta":{"content":"')
        for _ in range(64):
            exchange.sends(b"x" * MIB)
            sent += 1

    endpoint.script = huge
    assert "an event of over 1 MiB" in fails(endpoint, BrokenOff)


def test_an_error_event_before_any_text_means_what_its_status_means(endpoint: ScriptedEndpoint) -> None:
    for code, kind in ((400, PromptRefused), (429, RateLimited), (503, EndpointAtFault), ("x", BrokenOff)):
        endpoint.script = partial(error_event, code=code)
        assert "too long" in fails(endpoint, kind)


def error_event(exchange: Exchange, code: object) -> None:
    exchange.begins()
    exchange.event({"error": {"code": code, "message": "too long"}})
    exchange.ends()


def test_an_answer_has_a_time_to_end(endpoint: ScriptedEndpoint) -> None:
    def slow(exchange: Exchange) -> None:
        exchange.begins()
        while not exchange.hung_up.wait(0.02):
            exchange.text("a")

    endpoint.script = slow
    assert "had no end" in fails(endpoint, BrokenOff, Limits(answer_s=0.3)).replace(
        "answer no", "answer had no"
    )
    endpoint.exchange().hung_up.set()


# ── Models ──────────────────────────────────────────────────────────────────────────────────────────────


def models(endpoint: ScriptedEndpoint) -> list[str]:
    async def ask() -> list[str]:
        async with Endpoint(base_url(endpoint.url), None, LIMITS) as asked:
            return await asked.models()

    return trio.run(ask)


def test_the_models_of_an_endpoint_are_listed(endpoint: ScriptedEndpoint) -> None:
    endpoint.has("a", "b")
    assert models(endpoint) == ["a", "b"]
    endpoint.models = lambda exchange: exchange.replies(200, {"data": None})
    assert models(endpoint) == []


@pytest.mark.parametrize("body", ["<html>", {"data": 1}, {"data": [1]}, {}, []])
def test_what_is_no_list_of_models_is_the_fault_of_the_endpoint(
    endpoint: ScriptedEndpoint, body: object
) -> None:
    endpoint.models = lambda exchange: exchange.replies(200, body)
    with pytest.raises(EndpointAtFault, match="no list of models"):
        models(endpoint)
