"""Drafts that were built by hand: what can be filled in is filled in, what cannot be read is refused."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from store import ThreadStore
from tests.nodes.driving import Programs, outcome
from threadfs.nodes.base import Refused
from threadfs.nodes.loose_files import LooseFile
from threadfs.nodes.root import root_of


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(root_of(ThreadStore(tmp_path / "store")))


def build(programs: Programs, files: Mapping[str, bytes]) -> None:
    """The draft ``drafts/x`` with *files*; a path that ends with a slash is an empty directory."""
    programs.mkdir("drafts/x")
    for path, data in files.items():
        above = "drafts/x"
        for name in path.split("/")[:-1]:
            above = f"{above}/{name}"
            if name and name not in programs.names(above.rpartition("/")[0]):
                programs.mkdir(above)
        if not path.endswith("/"):
            programs.write(f"drafts/x/{path}", data)


def move(programs: Programs) -> str:
    return outcome(lambda: programs.rename("drafts/x", "threads/x"))


def document(programs: Programs, path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(programs.read(f"threads/x/{path}"))
    assert found.pop("created_at") >= int(time.time()) - 60
    return found


THREAD = {"id": "x", "object": "thread", "metadata": {}}
RUN = {"id": "R", "object": "thread.run", "thread_id": "x", "status": "queued", "model": ""}


@pytest.mark.parametrize(
    ("files", "added"),
    [
        ({}, {}),
        ({"meta.json": b"{}"}, {}),
        ({"meta.json": b'{"id":"other","title":"short"}'}, {"title": "short"}),
        ({"meta.json": b'{"metadata":{"a":1}}'}, {"metadata": {"a": 1}}),
    ],
)
def test_the_document_of_a_thread_may_be_short_or_missing(
    programs: Programs, files: Mapping[str, bytes], added: dict[str, Any]
) -> None:
    build(programs, files)
    assert move(programs) == "ok"
    assert document(programs, "meta.json") == {**THREAD, **added}


@pytest.mark.parametrize(
    ("status", "added"),
    [
        (b"{}", {}),
        (b'{"model":"llama3"}', {"model": "llama3"}),
        (b'{"status":"completed"}', {"status": "completed"}),
    ],
)
def test_a_run_may_be_short_and_is_queued_where_it_says_nothing_else(
    programs: Programs, status: bytes, added: dict[str, Any]
) -> None:
    build(programs, {"runs/R/status": status})
    assert move(programs) == "ok"
    assert document(programs, "runs/R/status") == {**RUN, **added}
    assert programs.names(f"runs/{({**RUN, **added})['status']}") == ["R@x"]


def test_a_step_may_be_short(programs: Programs) -> None:
    build(programs, {"runs/R/status": b"{}", "runs/R/steps/S.json": b'{"step_type":"tool_calls"}'})
    assert move(programs) == "ok"
    step = document(programs, "runs/R/steps/S.json")
    assert (step["id"], step["run_id"], step["thread_id"], step["status"]) == ("S", "R", "x", "in_progress")


def test_messages_may_be_short(programs: Programs) -> None:
    build(
        programs, {"messages.jsonl": b'{"role":"user","content":"hi"}\n\n{"role":"assistant","content":"ho"}'}
    )
    assert move(programs) == "ok"
    lines = [json.loads(line) for line in programs.read("threads/x/messages.jsonl").splitlines()]
    assert [(line["role"], line["thread_id"]) for line in lines] == [("user", "x"), ("assistant", "x")]


def test_control_files_that_are_empty_tools_and_growing_answers_are_taken_as_nothing(
    programs: Programs,
) -> None:
    nothing = ["say", "start", "ask", "runs/R/cancel", "runs/R/tools/", ".threadfs-answer-1"]
    filled = {"runs/R/tools/0.search/arguments": b"{}", "runs/R/.threadfs-answer-2": b"text"}
    build(programs, {"runs/R/status": b"{}", **dict.fromkeys(nothing, b""), **filled})
    assert move(programs) == "ok"
    assert programs.names("threads/x") == ["meta.json", "messages.jsonl", "say", "ask", "start", "runs"]
    assert programs.names("threads/x/runs/R") == ["status", "cancel", "steps"]
    assert programs.names("drafts") == []


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("meta.json", b""),
        ("meta.json", b"nonsense"),
        ("meta.json", b'{"created_at":"yesterday"}'),
        ("messages.jsonl", b"{}\n"),
        ("messages.jsonl", b'{"role":"user","content":"hi"}\nhi\n'),
        ("runs/R/", b""),
        ("runs/R/steps/", b""),
        ("runs/R/status", b""),
        ("runs/R/status", b'{"status":"bogus"}'),
        ("runs/R/status", b'{"status":null}'),
        ("runs/R", b"{}"),
        ("runs/a@b/status", b"{}"),
        ("say", b"Hello"),
        ("ask", b"Hello"),
        ("notes", b""),
        ("tools", b""),
        ("runs/R/notes", b""),
    ],
)
def test_what_does_not_parse_or_has_no_place_is_refused_and_the_draft_stays(
    programs: Programs, path: str, data: bytes
) -> None:
    build(programs, {path: data})
    assert move(programs) == "EBADMSG"
    assert programs.names("threads") == []
    if not path.endswith("/"):
        assert programs.read(f"drafts/x/{path}") == data


def test_what_is_wrong_is_named_with_its_place(programs: Programs) -> None:
    build(programs, {"runs/R/status": b'{"model":7}'})
    try:
        programs.rename("drafts/x", "threads/x")
    except Exception as error:
        said = str(error)
    assert said.startswith("drafts/x/runs/R/status: model: ")


@pytest.mark.parametrize("path", ["meta.json", "messages.jsonl"])
def test_what_is_too_large_is_named_with_its_place_in_the_draft(programs: Programs, path: str) -> None:
    build(programs, {})
    file = programs.directory("drafts/x").make_file(path)
    assert isinstance(file, LooseFile)
    file.truncate(1 << 30)
    with pytest.raises(Refused, match=f"^drafts/x/{path}: ") as refused:
        programs.rename("drafts/x", "threads/x")
    assert refused.value.errno == errno.EFBIG
    assert programs.names("drafts/x") == [path]
