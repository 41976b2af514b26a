"""``runs/<run>/tools/``: the calls that a run waits for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from store import DocumentKey, RunStatus, ThreadStore
from store.tools import ToolCall
from store.working import Outcome
from tests.nodes.driving import Programs, outcome
from tests.nodes.working import Answering
from threadfs.nodes.base import Refused, Writable
from threadfs.nodes.root import root_of

CALLS = (ToolCall("call_1", "weather", '{"city":"Oslo"}'), ToolCall("call_2", "../x y", "nonsense\x1b"))


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    programs = Programs(root_of(ThreadStore(tmp_path / "store")))
    programs.mkdir("threads/T")
    programs.write("threads/T/ask", b"Why?")
    return programs


@pytest.fixture
def answering(programs: Programs, tmp_path: Path) -> Iterator[Answering]:
    answering = Answering(tmp_path / "store")
    yield answering
    answering.close()


@pytest.fixture
def run(answering: Answering) -> str:
    """The path of a run that waits for the outputs of two tools."""
    with answering.claim() as answer:
        answer.finish(Outcome(RunStatus.requires_action, tool_calls=CALLS))
    return f"threads/T/runs/{answer.run.id}"


def status(programs: Programs, run: str) -> str:
    document: dict[str, Any] = json.loads(programs.read(f"{run}/status"))
    return str(document["status"])


def test_each_call_is_a_directory_with_arguments_and_an_empty_output(programs: Programs, run: str) -> None:
    assert programs.names(run) == ["status", "cancel", "steps", "tools"]
    assert programs.names(f"{run}/tools") == ["1.weather", "2"]
    assert programs.names(f"{run}/tools/2") == ["arguments", "output"]
    assert programs.read(f"{run}/tools/1.weather/arguments") == b'{"city":"Oslo"}\n'
    assert programs.read(f"{run}/tools/2/arguments") == b"nonsense\\u001b\n"
    assert programs.read(f"{run}/tools/1.weather/output") == b""


def test_an_output_is_set_once_and_with_the_last_one_the_run_is_queued(programs: Programs, run: str) -> None:
    programs.write(f"{run}/tools/2/output", b"sun\n", pieces=2)
    assert status(programs, run) == "requires_action"
    assert programs.read(f"{run}/tools/2/output") == b"sun\n"
    assert outcome(lambda: programs.write(f"{run}/tools/2/output", b"rain")) == "EPERM"
    programs.write(f"{run}/tools/1.weather/output", b"snow")
    assert status(programs, run) == "queued"
    assert programs.names(run) == ["status", "cancel", "steps"]
    assert outcome(lambda: programs.at(f"{run}/tools")) == "ENOENT"
    store = programs.root.tree.store
    step = store.list_steps("T", run.rpartition("/")[2])[-1].fields()
    outputs = [call["function"]["output"] for call in step["step_details"]["tool_calls"]]
    assert outputs == ["snow", "sun"]


def test_of_two_who_write_an_output_the_second_is_refused_by_its_write(programs: Programs, run: str) -> None:
    node = programs.at(f"{run}/tools/2/output")
    assert isinstance(node, Writable)
    second = node.open_for_writing(truncate=True, append=False)
    programs.write(f"{run}/tools/2/output", b"first")
    assert outcome(lambda: second.write(0, b"second")) == "EPERM"
    programs.write(f"{run}/tools/1.weather/output", b"snow")
    assert outcome(lambda: second.write(0, b"second")) == "ENOENT"


def test_an_output_is_text(programs: Programs, run: str) -> None:
    assert outcome(lambda: programs.write(f"{run}/tools/2/output", b"\xff")) == "EINVAL"
    programs.write(f"{run}/tools/2/output", b"")
    assert outcome(lambda: programs.write(f"{run}/tools/2/arguments", b"{}")) == "EACCES"
    programs.write(f"{run}/tools/2/output", b"\n")
    assert status(programs, run) == "requires_action"
    assert outcome(lambda: programs.write(f"{run}/tools/2/output", b"text")) == "EPERM"


def test_a_run_that_has_ended_waits_for_nothing(programs: Programs, run: str) -> None:
    programs.write(f"{run}/cancel", b"1")
    assert programs.names(run) == ["status", "cancel", "steps"]


@pytest.mark.parametrize("of_thread", [False, True])
def test_rm_r_gets_through_the_tools_to_what_is_in_progress(
    programs: Programs, run: str, of_thread: bool
) -> None:
    with pytest.raises(Exception, match="requires_action") as refused:
        programs.remove_all("threads/T" if of_thread else run)
    assert not isinstance(refused.value, Refused)
    assert programs.names(f"{run}/tools/1.weather") == ["arguments", "output"]
    programs.write(f"{run}/cancel", b"1")
    programs.remove_all("threads/T" if of_thread else run)


def test_a_program_may_save_an_output_beside_and_rename_it(programs: Programs, run: str) -> None:
    programs.write(f"{run}/tools/2/.output.swp", b"sun")
    programs.rename(f"{run}/tools/2/.output.swp", f"{run}/tools/2/output")
    assert programs.read(f"{run}/tools/2/output") == b"sun\n"
    assert outcome(lambda: programs.write(f"{run}/tools/2/notes", b"x")) == "EACCES"


def test_a_copy_in_drafts_becomes_the_same_thread(programs: Programs, run: str) -> None:
    programs.copy("threads/T", "drafts/copy")
    programs.rename("drafts/copy", "threads/copy")
    copied = run.replace("threads/T", "threads/copy")
    assert programs.names(f"{copied}/tools") == ["1.weather", "2"]
    key = DocumentKey("T", run.rpartition("/")[2])
    assert status(programs, copied) == programs.root.tree.store.get_run("T", str(key.run_id)).status


def test_what_a_damaged_run_waits_for_is_not_known(programs: Programs, run: str, tmp_path: Path) -> None:
    (tmp_path / "store" / run.removeprefix("threads/") / "status.json").write_text("{")
    assert programs.names(run) == ["status", "cancel", "steps"]
