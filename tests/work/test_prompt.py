"""What a model is asked: the order of messages, and their form."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import MessageRole, Run, RunStep, Thread, ThreadMessage
from store.tools import ToolCall, details_of
from tests.work.running import run_with, said
from threadfs.work.failures import PromptRefused
from threadfs.work.prompt import Conversation, prompt

ASSISTANT = MessageRole.assistant


def asked(
    messages: Sequence[ThreadMessage],
    run: Run | None = None,
    others: Sequence[Run] = (),
    steps: dict[str, list[RunStep]] | None = None,
    metadata: Any = None,
    **options: Any,
) -> list[tuple[str, Any]]:
    """The prompt, as pairs of a role and a text."""
    run = run or Run(id="r")
    conversation = Conversation(Thread(metadata=metadata or {}), messages, [run, *others], steps or {})
    return [(message["role"], message["content"]) for message in prompt(conversation, run, **options)]


def calling(run_id: str, *calls: ToolCall, **fields: Any) -> RunStep:
    return RunStep.of(
        {
            **RunStep(run_id=run_id).fields(),
            "step_type": "tool_calls",
            "step_details": details_of(list(calls)),
            **fields,
        }
    )


def naming(run_id: str, message_id: str, **fields: Any) -> RunStep:
    return RunStep.of(
        {**RunStep(run_id=run_id).fields(), "step_details": {"message_id": message_id}, **fields}
    )


# ── The log ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_log_is_asked_oldest_first() -> None:
    log = [said("1"), said("2", ASSISTANT), said("3")]
    assert asked(log) == [("user", "1"), ("assistant", "2"), ("user", "3")]


def test_neighbours_of_one_role_are_joined_by_a_blank_line() -> None:
    log = [said("1"), said("2"), said("3", ASSISTANT), said("4", ASSISTANT), said("5")]
    assert asked(log) == [("user", "1\n\n2"), ("assistant", "3\n\n4"), ("user", "5")]


def test_messages_without_a_text_are_left_out() -> None:
    assert asked([said("1"), said("", ASSISTANT), said("2")]) == [("user", "1\n\n2")]


@pytest.mark.parametrize("log", [[], [said("1"), said("2", ASSISTANT)], [said("")]])
def test_a_run_without_a_question_is_refused(log: list[ThreadMessage]) -> None:
    with pytest.raises(PromptRefused, match="nothing to answer"):
        asked(log)


def test_the_last_messages_of_the_log_may_be_wanted_only() -> None:
    log = [said("1"), said("2", ASSISTANT), said("3"), said("4", ASSISTANT), said("5")]
    assert asked(log, last_messages=2) == [("assistant", "4"), ("user", "5")]
    assert asked(log, last_messages=9) == asked(log)


# ── Instructions ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("of_run", "of_thread", "of_worker", "text"),
    [
        ("run", "thread", "worker", "run"),
        (None, "thread", "worker", "thread"),
        (None, None, "worker", "worker"),
        ("", "", "worker", "worker"),
        (7, ["x"], "worker", "worker"),
    ],
)
def test_the_instructions_of_the_run_go_before_those_of_the_thread_and_of_the_worker(
    of_run: object, of_thread: object, of_worker: str, text: str
) -> None:
    run = run_with(id="r", instructions=of_run)
    found = asked([said("1")], run, metadata={"instructions": of_thread}, instructions=of_worker)
    assert found == [("system", text), ("user", "1")]


def test_without_instructions_there_is_no_system_text() -> None:
    assert asked([said("1")], metadata="of any form") == [("user", "1")]


# ── Several questions ───────────────────────────────────────────────────────────────────────────────────


def question(number: int, **fields: Any) -> tuple[ThreadMessage, Run]:
    """A message that is asked, and its run."""
    message = said(f"question {number}", id=f"m{number}")
    return message, run_with(id=f"r{number}", asked=message.id, **fields)


def answer(number: int, **fields: Any) -> ThreadMessage:
    return said(f"answer {number}", ASSISTANT, id=f"a{number}", run_id=f"r{number}", **fields)


def test_each_answer_stands_after_its_question_and_later_questions_are_left_out() -> None:
    (one, first), (two, second), (three, third) = question(1), question(2), question(3)
    log = [one, two, three, answer(1), answer(2)]
    runs = [first, second, third]
    assert asked([one, two, three], first, runs[1:]) == [("user", "question 1")]
    assert asked(log[:-1], second, [first, third]) == [
        ("user", "question 1"),
        ("assistant", "answer 1"),
        ("user", "question 2"),
    ]
    assert asked(log, third, [first, second])[-2:] == [("assistant", "answer 2"), ("user", "question 3")]


def test_what_is_said_after_a_question_is_for_the_next_run() -> None:
    one, run = question(1)
    assert asked([one, said("and later")], run) == [("user", "question 1")]


def test_a_run_without_a_question_leaves_out_those_that_wait() -> None:
    one, first = question(1, status="queued")
    two, second = question(2, status="completed")
    log = [two, answer(2), said("now"), one]
    assert asked(log, Run(id="r"), [first, second])[-1] == ("user", "now")


def test_a_question_that_is_no_longer_in_the_log_is_that_of_its_end() -> None:
    assert asked([said("1")], run_with(id="r", asked="gone")) == [("user", "1")]


def test_an_answer_of_a_run_without_a_question_stays_before_the_question_that_it_came_after() -> None:
    one, run = question(1)
    log = [said("0"), one, said("answer 0", ASSISTANT, run_id="r0")]
    assert asked(log, run, [Run(id="r0")]) == [
        ("user", "0"),
        ("assistant", "answer 0"),
        ("user", "question 1"),
    ]


# ── Tools ───────────────────────────────────────────────────────────────────────────────────────────────


def test_calls_stand_where_they_were_made_with_their_outputs() -> None:
    one, run = question(1)
    two, second = question(2)
    log = [one, said("Let me look.", ASSISTANT, id="a0", run_id="r1", created_at=1), answer(1), two]
    call = ToolCall("c", "weather", "{}", "-4")
    steps = [naming("r1", "a0"), calling("r1", call), naming("r1", "a1")]
    conversation = Conversation(Thread(), log, [run, second], {"r1": steps})
    assert prompt(conversation, second) == [
        {"role": "user", "content": "question 1"},
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": "-4"},
        {"role": "assistant", "content": "answer 1"},
        {"role": "user", "content": "question 2"},
    ]


def test_calls_without_outputs_are_left_out() -> None:
    (one, run), (two, second) = question(1), question(2)
    steps = {"r1": [calling("r1", ToolCall("c", "weather", "{}"))]}
    assert asked([one, answer(1), two], second, [run], steps) == [
        ("user", "question 1"),
        ("assistant", "answer 1"),
        ("user", "question 2"),
    ]


def test_names_of_tools_that_endpoints_refuse_are_spelled_anew() -> None:
    (one, run), (two, second) = question(1), question(2)
    steps = {"r1": [calling("r1", ToolCall("c", "web.search é", "{}", ""))]}
    conversation = Conversation(Thread(), [one, two], [run, second], steps)
    [call] = prompt(conversation, second)[1]["tool_calls"]
    assert call["function"]["name"] == "web_search__"


# ── Images ──────────────────────────────────────────────────────────────────────────────────────────────


def with_image(url: str) -> ThreadMessage:
    return ThreadMessage.of(
        {
            **said("").fields(),
            "content": [
                {"type": "text", "text": {"value": "What is this?", "annotations": []}},
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "image_file", "image_file": {"file_id": "file-1"}},
            ],
        }
    )


@pytest.mark.parametrize("url", ["https://a.example/b.png", "data:image/png;base64,AA=="])
def test_images_go_as_they_are_and_files_by_their_type(url: str) -> None:
    assert asked([said("Hi"), with_image(url)]) == [
        (
            "user",
            [
                {"type": "text", "text": "Hi"},
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": "[image_file]"},
            ],
        )
    ]


@pytest.mark.parametrize("url", ["http://a.example/b.png", "file:///etc/passwd"])
def test_other_places_of_images_are_not_passed_on(url: str) -> None:
    assert asked([with_image(url)]) == [("user", "What is this?\n[image_url]\n[image_file]")]


# ── Any log ─────────────────────────────────────────────────────────────────────────────────────────────


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[ThreadMessage], list[Run]]:
    """Questions and other messages, and answers of some of the runs in any order after their questions."""
    log: list[ThreadMessage] = []
    runs: list[Run] = []
    for number in range(draw(st.integers(1, 5))):
        message, run = question(number)
        log.append(message)
        runs.append(run)
        if draw(st.booleans()):
            log.append(said(f"note {number}"))
        for other in draw(st.lists(st.sampled_from(range(len(runs))), unique=True, max_size=2)):
            if not any(message.id == f"a{other}" for message in log):
                log.append(answer(other))
    return log, runs


@given(logs())
def test_every_prompt_ends_with_its_question_and_has_each_answer_right_after_its_own(
    made: tuple[list[ThreadMessage], list[Run]],
) -> None:
    log, runs = made
    answered = {message.run_id for message in log if message.run_id}
    for number, run in enumerate(runs):
        unanswered = [message for message in log if message.run_id != run.id]
        found = asked(unanswered, run, [other for other in runs if other is not run])
        assert found[-1][0] == "user"
        assert found[-1][1].endswith(f"question {number}")
        whole = "\n".join(text for _, text in found)
        assert [f"question {other}" in whole for other in range(len(runs))] == [
            other <= number for other in range(len(runs))
        ]
        for other in range(number):
            if f"r{other}" in answered:
                place = next(index for index, (_, text) in enumerate(found) if text == f"answer {other}")
                assert found[place - 1][1].endswith(f"question {other}")
        assert all(one[0] != next_one[0] for one, next_one in itertools.pairwise(found))
