"""``ask``, and what ``start`` takes."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from store import Run, RunStatus, StorageFailed, ThreadStore
from store.disk.system_calls import SystemCalls
from tests.nodes.driving import Programs, outcome
from tests.nodes.working import Answering
from threadfs.nodes.root import root_of


class FailingCalls(SystemCalls):
    """Calls of a disk that does not put the last of a run in place."""

    fails = False

    def rename(self, *arguments: Any, **named: Any) -> None:
        if self.fails:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().rename(*arguments, **named)


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    programs = Programs(root_of(ThreadStore(tmp_path / "store")))
    programs.mkdir("threads/T")
    return programs


def messages(programs: Programs) -> list[dict[str, Any]]:
    return [json.loads(line) for line in programs.read("threads/T/messages.jsonl").splitlines()]


def runs(programs: Programs) -> list[Run]:
    store = programs.root.tree.store
    return [store.get_run("T", run_id) for run_id in store.list_run_ids("T")]


def test_ask_is_a_message_and_a_run_that_answers_it(programs: Programs) -> None:
    programs.write("threads/T/ask", b"Why?\n", pieces=3)
    (message,), (run,) = messages(programs), runs(programs)
    assert (message["role"], message["content"][0]["text"]["value"]) == ("user", "Why?")
    assert (run.status, run.model, run.asked) == (RunStatus.queued, "", message["id"])
    assert programs.read("threads/T/ask") == b""


@pytest.mark.parametrize("text", [b"", b"\n"])
def test_to_ask_nothing_does_nothing(programs: Programs, text: bytes) -> None:
    programs.write("threads/T/ask", text)
    assert (messages(programs), runs(programs)) == ([], [])


@pytest.mark.parametrize(
    ("metadata", "model"),
    [
        ({}, ""),
        ({"model": "llama3"}, "llama3"),
        ({"model": 7}, ""),
        ([], ""),
        ({"source": "x", "model": "y"}, ""),
    ],
)
def test_the_model_that_is_asked_is_that_of_the_thread_but_of_no_other_place(
    programs: Programs, metadata: object, model: str
) -> None:
    programs.write("threads/T/meta.json", json.dumps({"metadata": metadata}).encode())
    programs.write("threads/T/ask", b"Why?")
    assert [run.model for run in runs(programs)] == [model]


def test_the_model_that_is_asked_in_an_imported_thread_is_the_one_that_answered_here_last(
    programs: Programs, tmp_path: Path
) -> None:
    programs.write("threads/T/meta.json", b'{"metadata":{"source":"chatgpt","model":"gpt-4o"}}')
    imported = {"id": "old", "status": "completed", "model": "gpt-4o", "created_at": 1, "completed_at": 2}
    programs.mkdir("threads/T/runs/old")
    programs.write("threads/T/runs/old/status", json.dumps(imported).encode())
    programs.write("threads/T/start", b"llama3\n")
    answering = Answering(tmp_path / "store")
    answering.answer("Because.")
    answering.close()
    programs.write("threads/T/ask", b"Why?")
    assert [run.model for run in runs(programs) if run.status is RunStatus.queued] == ["llama3"]


def test_of_a_thread_whose_document_is_damaged_nothing_is_asked_and_the_first_write_says_so(
    programs: Programs, tmp_path: Path
) -> None:
    (tmp_path / "store" / "T" / "meta.json").write_text("{")
    assert outcome(lambda: programs.write("threads/T/ask", b"Why?")) == "EIO"
    assert (messages(programs), runs(programs)) == ([], [])


def test_a_text_that_is_refused_asks_nothing(programs: Programs) -> None:
    assert outcome(lambda: programs.write("threads/T/ask", b"Why\xff")) == "EINVAL"
    assert outcome(lambda: programs.write("threads/T/ask", b"\x01" * (3 << 20))) == "EFBIG"
    assert (messages(programs), runs(programs)) == ([], [])


def test_if_only_the_run_fails_the_reason_says_that_the_message_is_stored(tmp_path: Path) -> None:
    calls = FailingCalls()
    programs = Programs(root_of(ThreadStore(tmp_path / "store", calls=calls)))
    programs.mkdir("threads/T")
    calls.fails = True
    with pytest.raises(StorageFailed, match="the message is stored"):
        programs.write("threads/T/ask", b"Why?")
    assert (len(messages(programs)), runs(programs)) == (1, [])


OPTIONS: dict[str, Any] = {
    "model": "llama3",
    "instructions": "Be brief.",
    "temperature": 0.2,
    "top_p": 1,
    "stop": ["\n", "END"],
    "seed": 7,
    "max_completion_tokens": 100,
    "truncation_strategy": {"type": "last_messages", "last_messages": 3},
    "tools": [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}
    ],
    "metadata": {"priority": "low"},
}


def test_what_start_is_given_stays_in_the_run(programs: Programs) -> None:
    programs.write("threads/T/start", json.dumps(OPTIONS).encode())
    (run,) = runs(programs)
    document = json.loads(programs.read(f"threads/T/runs/{run.id}/status"))
    assert {name: document[name] for name in OPTIONS} == OPTIONS


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ({"temperature": 3}, "temperature: "),
        ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name: missing"),
        ({"truncation_strategy": {"type": "none"}}, "truncation_strategy.type: must be"),
    ],
)
def test_a_field_that_start_cannot_take_is_named(programs: Programs, field: object, reason: str) -> None:
    data = json.dumps(field).encode()
    with pytest.raises(Exception, match=reason.replace(".", r"\.")):
        programs.write("threads/T/start", data)
    assert runs(programs) == []
