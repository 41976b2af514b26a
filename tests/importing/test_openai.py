"""OpenAI's objects: saved pages, arrays and lines, which may be spread over several files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from store import ThreadStore
from tests.importing.conftest import FIXTURES, imported, lines_of, written

PAGES = ("messages-2.json", "steps.json", "messages-1.json", "runs.json", "thread.json")


def pages() -> dict[str, Any]:
    return {name: json.loads((FIXTURES / "openai/pages" / name).read_text()) for name in PAGES}


def order_of(root: Path) -> list[str]:
    return [line["id"] for line in lines_of(ThreadStore(root), "thread_abc")]


def test_pages_that_are_given_in_any_order_make_the_same_thread(tmp_path: Path) -> None:
    imported(tmp_path / "s", *(FIXTURES / "openai/pages" / name for name in PAGES)).has(imported=1)
    assert order_of(tmp_path / "s") == ["msg_1", "msg_2", "msg_3", "msg_4"]


def test_lines_of_objects_in_files_of_their_own_have_the_newest_first_too(tmp_path: Path) -> None:
    found = pages()
    messages = found["messages-1.json"]["data"] + found["messages-2.json"]["data"]
    files = {"threads": [found["thread.json"]], "messages": messages, "runs": found["runs.json"]["data"]}
    for name, objects in files.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(made) + "\n" for made in objects))
    imported(tmp_path / "s", *sorted(tmp_path.glob("*.jsonl"))).has(imported=1)
    assert order_of(tmp_path / "s") == ["msg_1", "msg_2", "msg_3", "msg_4"]


def test_an_array_of_objects_is_read(tmp_path: Path) -> None:
    found = pages()
    lists = [found[name]["data"] for name in ("messages-1.json", "messages-2.json", "runs.json")]
    everything = [found["thread.json"], *(made for listed in lists for made in listed)]
    imported(tmp_path / "s", written(tmp_path / "all.json", everything)).has(imported=1)
    assert order_of(tmp_path / "s") == ["msg_1", "msg_2", "msg_3", "msg_4"]


def test_messages_without_their_thread_are_refused_and_named_by_their_file(tmp_path: Path) -> None:
    result = imported(tmp_path / "s", FIXTURES / "openai/pages/messages-1.json")
    assert result.status == 1
    assert "messages-1.json:1: the export does not begin with a thread" in result.stderr
    assert not (tmp_path / "s").exists()


def test_pages_that_differ_from_what_is_stored_are_refused(tmp_path: Path) -> None:
    imported(tmp_path / "s", FIXTURES / "openai/pages/thread.json").has(imported=1)
    result = imported(tmp_path / "s", FIXTURES / "openai/pages")
    result.has(skipped=1)
    assert "there is another 'thread_abc'" in result.stderr
    assert order_of(tmp_path / "s") == []


def test_what_is_no_object_in_a_page_costs_itself(tmp_path: Path) -> None:
    found = pages()
    page = found["messages-1.json"]
    page["data"].insert(0, {"object": ["x"]})
    result = imported(tmp_path / "s", FIXTURES / "openai/pages/thread.json", written(tmp_path / "p", page))
    assert (result.counts["imported"], result.counts["skipped"]) == (1, 1)
    assert order_of(tmp_path / "s") == ["msg_3", "msg_4"]


def test_a_rehearsal_of_the_same_export_twice_says_what_the_import_says(tmp_path: Path) -> None:
    imported(tmp_path / "s", FIXTURES / "openai/pages")
    lines = [json.dumps(pages()["thread.json"])] * 2
    (tmp_path / "e.jsonl").write_text("\n".join(lines) + "\n")
    files = [tmp_path / "e.jsonl", FIXTURES / "openai/pages"]
    rehearsed, real = imported(tmp_path / "t", *files, "--dry-run"), imported(tmp_path / "t", *files)
    assert (rehearsed.status, rehearsed.counts) == (real.status, real.counts)
