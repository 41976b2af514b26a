"""``export --to chat`` and ``--to sharegpt``: conversations as lines for other programs, and back."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store import Store, ThreadStore
from tests.cli.conftest import command, fails, threadfs
from tests.exporting.conftest import CREATED_S, add, export, exported, function, message, run
from tests.importing.conftest import CASES, imported, runs_of, said, steps_of
from tests.importing.test_fixtures import files_of


def chat_of(store: Path) -> list[dict[str, Any]]:
    """The messages of the one thread."""
    messages: list[dict[str, Any]] = json.loads(exported(store, "--to", "chat"))["messages"]
    return messages


def test_a_conversation_has_its_instructions_messages_and_calls_in_their_order(tmp_path: Path) -> None:
    add(
        tmp_path,
        "thread_1",
        message("user", "Price?"),
        message("assistant", "Let me look.", CREATED_S + 1, run_id="run_1"),
        message("assistant", "Seven.", CREATED_S + 2, run_id="run_1"),
        runs=run(
            "run_1",
            f"assistant-{CREATED_S + 1}",
            [function("look", '{"of":"honey"}', "7"), function("add", "{}", call_id="call_2")],
            f"assistant-{CREATED_S + 2}",
        ),
        instructions="Be short.",
    )
    assert chat_of(tmp_path) == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Price?"},
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"of":"honey"}'},
                },
                {"id": "call_2", "type": "function", "function": {"name": "add", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "7"},
        {"role": "tool", "tool_call_id": "call_2", "content": ""},
        {"role": "assistant", "content": "Seven."},
    ]


def test_a_program_of_the_interpreter_is_a_call_with_its_logs_as_the_output(tmp_path: Path) -> None:
    outputs = [{"type": "logs", "logs": "4"}, {"type": "image", "image": {"file_id": "f"}}]
    call = {"id": "c", "type": "code_interpreter", "code_interpreter": {"input": "2+2", "outputs": outputs}}
    add(tmp_path, "thread_1", message("user", "Add."), runs=run("run_1", [call]))
    _, asked, answered = chat_of(tmp_path)
    assert asked["content"] is None
    assert asked["tool_calls"][0]["function"] == {"name": "code_interpreter", "arguments": '{"input": "2+2"}'}
    assert answered["content"] == "4\n"


def test_calls_without_a_message_stand_after_the_question_that_nobody_answered(tmp_path: Path) -> None:
    add(
        tmp_path,
        "thread_1",
        message("user", "One?", CREATED_S),
        message("user", "Two?", CREATED_S + 10),
        message("assistant", "2", CREATED_S + 11),
        runs=run("run_1", [function("count", "{}", "1")], at_s=CREATED_S + 10),
    )
    roles = [one["role"] for one in chat_of(tmp_path)]
    assert roles == ["user", "assistant", "tool", "user", "assistant"]


def test_calls_before_the_first_message_come_first(tmp_path: Path) -> None:
    early = run("run_1", [function("wake", "{}")], at_s=CREATED_S - 5)
    add(tmp_path, "thread_1", message("user", "Awake?"), runs=early)
    assert [one["role"] for one in chat_of(tmp_path)] == ["assistant", "tool", "user"]


def test_pictures_by_their_address_stay_and_those_by_a_file_are_left_out(tmp_path: Path) -> None:
    url = {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}}
    file = {"type": "image_file", "image_file": {"file_id": "file-1"}}
    text = {"type": "text", "text": {"value": "What is it?", "annotations": []}}
    add(tmp_path, "thread_1", message("user", [text, url, file]), message("user", [file], CREATED_S + 1))
    (only,) = chat_of(tmp_path)
    assert only["content"] == [{"type": "text", "text": "What is it?"}, url]


def test_a_refusal_stays_one(tmp_path: Path) -> None:
    refusal = [{"type": "refusal", "refusal": "I cannot."}]
    add(tmp_path, "thread_1", message("user", "Do!"), message("assistant", refusal, CREATED_S + 1))
    assert chat_of(tmp_path)[1] == {"role": "assistant", "content": None, "refusal": "I cannot."}
    imported(tmp_path / "other", stdin=exported(tmp_path, "--to", "chat").encode()).has(imported=1)
    assert chat_of(tmp_path / "other") == chat_of(tmp_path)


def test_a_thread_in_which_nothing_was_said_has_no_line(tmp_path: Path) -> None:
    add(tmp_path, "thread_1", message("user", "  "), instructions="Be short.")
    assert exported(tmp_path, "--to", "chat") == exported(tmp_path, "--to", "sharegpt") == ""


def test_sharegpt_has_turns_with_calls_and_observations(tmp_path: Path) -> None:
    calls = [function("look", '{"of": "honey"}', "7"), function("odd", '["\\ud800"]', call_id="call_2")]
    add(tmp_path, "thread_1", message("user", "Price?"), runs=run("run_1", calls), instructions="Be short.")
    line = json.loads(exported(tmp_path, "--to", "sharegpt"))
    assert (line["id"], line["system"]) == ("thread_1", "Be short.")
    assert [turn["from"] for turn in line["conversations"]] == [
        "human",
        "function_call",
        "observation",
        "function_call",
        "observation",
    ]
    assert json.loads(line["conversations"][1]["value"]) == {"name": "look", "arguments": {"of": "honey"}}
    assert json.loads(line["conversations"][3]["value"]) == {"name": "odd", "arguments": '["\\ud800"]'}


def test_what_is_damaged_is_named_and_the_rest_comes(tmp_path: Path) -> None:
    add(tmp_path, "thread_1", message("user", "One."))
    add(tmp_path, "thread_2", message("user", "Two."))
    with (tmp_path / "thread_1" / "messages.jsonl").open("ab") as log:
        log.write(b"{\n")
    (tmp_path / "thread_2" / "meta.json").write_bytes(b"{")
    status, stdout, stderr = export(tmp_path, "--to", "chat")
    assert status == 1
    assert [json.loads(line)["messages"][0]["content"] for line in stdout.splitlines()] == ["One."]
    assert "line 2 of the messages of thread thread_1" in stderr
    assert "thread thread_2" in stderr
    assert "not exported: 2 damaged" in stderr


def test_only_the_named_threads_come_wherever_the_option_stands(tmp_path: Path) -> None:
    for number in "123":
        add(tmp_path, f"thread_{number}", message("user", number))
    one = exported(tmp_path, "--to", "chat", "thread_2")
    assert (
        one == exported("--to", "chat", tmp_path, "thread_2") == exported(tmp_path, "thread_2", "--to=chat")
    )
    assert one.count("\n") == 1


def test_a_form_that_nobody_knows_is_refused_with_those_that_there_are() -> None:
    fails(threadfs("export", "/tmp", "--to", "pdf"), 2, "chat", "sharegpt", "markdown")
    fails(threadfs("export", "/tmp", "--to", "chat", "--strict"), 2, "not allowed")


def test_a_full_disk_and_a_closed_pipe_end_an_export(tmp_path: Path) -> None:
    add(tmp_path, "thread_1", message("user", "x" * 200_000))
    asked = command("export", tmp_path, "--to", "chat")
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(asked, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "threadfs: No space left on device\n")
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


def calls_of(store: Store, thread_id: str) -> list[list[str]]:
    """Name, arguments and output of each call, run by run."""
    found = []
    for made in runs_of(store, thread_id):
        for step in steps_of(store, thread_id, made["id"]):
            for call in step["step_details"].get("tool_calls", ()):
                own = call[call["type"]]
                logs = "\n".join(output["logs"] for output in own.get("outputs", ()))
                arguments = own.get("arguments") or json.dumps(
                    {"input": own.get("input")}, ensure_ascii=False
                )
                found.append([own.get("name", call["type"]), arguments, own.get("output", logs)])
    return found


@pytest.mark.parametrize("case", CASES, ids=[f"{case.parent.name}/{case.name}" for case in CASES])
def test_texts_roles_and_calls_of_every_source_come_back(case: Path, tmp_path: Path) -> None:
    imported(tmp_path / "one", *files_of(case), "--branches")
    if not (tmp_path / "one").exists():
        pytest.skip("nothing is imported in this case")
    one = ThreadStore(tmp_path / "one")
    lines = exported(tmp_path / "one", "--to", "chat").splitlines()
    told = [thread_id for thread_id in sorted(one.list_thread_ids()) if texts(one, thread_id)]
    assert len(lines) == len(told)
    for number, (thread_id, line) in enumerate(zip(told, lines, strict=True)):
        imported(tmp_path / str(number), stdin=line.encode() + b"\n").has(imported=1)
        other = ThreadStore(tmp_path / str(number))
        (copy,) = other.list_thread_ids()
        assert texts(other, copy) == texts(one, thread_id)
        assert sorted(calls_of(other, copy)) == sorted(calls_of(one, thread_id))


def texts(store: Store, thread_id: str) -> list[list[str]]:
    return [[role, text] for role, text in said(store, thread_id) if text.strip()]


_TEXTS = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: bool(text.strip()))
_CALLS = st.lists(
    st.fixed_dictionaries(
        {"id": st.text("abc", min_size=1), "name": st.text("xyz", min_size=1), "arguments": st.text("{}é")}
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda call: call["id"],
)
_ANSWERS = st.lists(st.one_of(_TEXTS, _CALLS), max_size=4)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Messages of chat-completions, in which each answer ends with a word."""
    messages: list[dict[str, Any]] = []
    for answer in draw(st.lists(_ANSWERS, min_size=1, max_size=4)):
        messages.append({"role": "user", "content": draw(_TEXTS)})
        for part in [*answer, draw(_TEXTS)]:
            if isinstance(part, str):
                messages.append({"role": "assistant", "content": part})
                continue
            tools = [
                {
                    "id": one["id"],
                    "type": "function",
                    "function": {name: one[name] for name in ("name", "arguments")},
                }
                for one in part
            ]
            if messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1]:
                messages[-1]["tool_calls"] = tools
            else:
                messages.append({"role": "assistant", "content": None, "tool_calls": tools})
            for one in part:
                output = draw(st.text(st.characters(codec="utf-8")))
                messages.append({"role": "tool", "tool_call_id": one["id"], "content": output})
    return messages


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=conversations())
def test_any_conversation_goes_in_and_comes_out_as_it_was(
    messages: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("store")
    given_line = json.dumps({"messages": messages}).encode() + b"\n"
    imported(root / "one", stdin=given_line).has(imported=1)
    assert chat_of(root / "one") == one_call_each(messages)
    imported(root / "other", stdin=exported(root / "one", "--to", "chat").encode()).has(imported=1)
    assert chat_of(root / "other") == chat_of(root / "one")


def one_call_each(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As an import keeps calls that were made at once: one after the other, each with its output."""
    found: list[dict[str, Any]] = []
    outputs = iter([one["content"] for one in messages if one["role"] == "tool"])
    for one in messages:
        if one["role"] == "tool":
            continue
        calls = one.get("tool_calls", [])
        if one["content"] is not None:
            found.append({name: value for name, value in one.items() if name != "tool_calls"})
        for call in calls:
            is_continued = found[-1]["role"] == "assistant" and "tool_calls" not in found[-1]
            if not is_continued:
                found.append({"role": "assistant", "content": None})
            found[-1]["tool_calls"] = [call]
            output = next(outputs)
            found.append({"role": "tool", "tool_call_id": call["id"], "content": output})
    return found
