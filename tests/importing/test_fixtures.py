"""Each case of ``fixtures/``: what must come out of it stands beside it."""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from store import DocumentKey, Store, ThreadStore
from tests.importing.conftest import (
    CASES,
    FIXTURES,
    Fields,
    Place,
    Result,
    bytes_of,
    everything,
    imported,
    lines_of,
    runs_of,
    said,
    steps_of,
)
from threadfs.cli import main
from threadfs.commands import import_
from threadfs.importing import SOURCES

BY_NAME = {f"{case.parent.name}/{case.name}": case for case in CASES}
PLAIN = {name: case for name, case in BY_NAME.items() if "newer" not in name}


def expectation(case: Path) -> Fields:
    found: Fields = json.loads((case / "expected.json").read_text())
    return found


def files_of(case: Path) -> list[Path]:
    expected = expectation(case)
    if "run" in expected:
        words = expected["run"].partition(";")[0].partition("STORE")[2].split()
        return [case / word for word in words]
    return sorted(path for path in case.iterdir() if path.name != "expected.json")


def check_result(expected: Fields, result: Result) -> None:
    assert result.status == expected["exit"], result.stderr
    for name, number in expected.get("counts", {}).items():
        assert result.counts[name] == number, name
    lines = result.stderr.splitlines()
    for skipped in expected.get("skipped", ()):
        words = [skipped.get("where", ""), skipped.get("title", ""), skipped["reason_contains"]]
        assert [line for line in lines if all(word in line for word in words)], skipped


def found_id(store: Store, wanted: str) -> str:
    """The thread that is meant: by its id, or by how that begins."""
    if "<" not in wanted and not wanted.endswith("*"):
        return wanted
    beginning = wanted.partition("<")[0].rstrip("*")
    (found,) = [
        thread_id
        for thread_id in store.list_thread_ids()
        if thread_id.startswith(beginning) and ("~" in wanted or len(thread_id) == len(beginning) + 32)
    ]
    return found


def holds(part: Any, whole: Any) -> bool:
    """Whether all of *part* is in *whole*."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(holds(value, whole.get(name)) for name, value in part.items())
    return bool(part == whole)


def check_thread(store: Store, expected: Fields) -> None:
    thread_id = found_id(store, expected["id"])
    thread = store.get_thread(thread_id)
    if "created_at" in expected:
        assert thread.created_at == expected["created_at"]
    if "title" in expected:
        assert thread.metadata["title"] == expected["title"]
    assert holds(expected.get("metadata", {}), thread.metadata)
    assert said(store, thread_id) == expected["messages"]
    lines = lines_of(store, thread_id)
    if "message_ids" in expected:
        assert [line["id"] for line in lines] == expected["message_ids"]
    if "message_times" in expected:
        assert [line["created_at"] for line in lines] == expected["message_times"]
    for name, value in expected.items():
        what, _, number = name.partition("_of_message_")
        if number:
            field = {"blocks": "content"}.get(what, what)
            found = lines[int(number) - 1][field]
            if isinstance(value, int):
                assert len(found) == value
            elif isinstance(value, list):
                assert len(found) == len(value)
                shown = [block["type"] for block in found] if isinstance(value[0], str) else found
                assert all(holds(one, other) for one, other in zip(value, shown, strict=True)), found
            else:
                assert holds(value, found)
    check_runs(store, thread_id, expected)


def check_runs(store: Store, thread_id: str, expected: Fields) -> None:
    runs = runs_of(store, thread_id)
    if "runs" in expected:
        assert len(runs) == expected["runs"]
    if "run_models" in expected:
        assert [run["model"] for run in runs] == expected["run_models"]
    if "run_status" in expected:
        assert {run["status"] for run in runs} == {expected["run_status"]}
    for run, wanted in zip(runs, expected.get("steps", ()), strict=False):
        steps = steps_of(store, thread_id, run["id"])
        assert len(steps) == len(wanted)
        for step, shown in zip(steps, wanted, strict=True):
            check_step(step, shown)


def check_step(step: Fields, expected: Fields | str) -> None:
    if isinstance(expected, str):
        assert step["id"] == expected
        return
    assert step["step_type"] == expected["step_type"]
    if "reasoning_contains" in expected:
        assert expected["reasoning_contains"] in "\n".join(step["reasoning"])
    else:
        assert step.get("reasoning") == expected.get("reasoning")
    assert step["status"] == expected.get("status", "completed")
    details = step["step_details"]
    if "message_id" in expected:
        assert details["message_id"] == expected["message_id"]
    (call,) = details.get("tool_calls", [{}])
    if "function" in expected:
        wanted = dict(expected["function"])
        part = wanted.pop("output_contains", "")
        assert holds(wanted, call["function"])
        assert part in call["function"].get("output", "")
    if "code_interpreter" in expected:
        wanted = expected["code_interpreter"]
        assert call["code_interpreter"]["input"] == wanted["input"]
        assert [output["logs"] for output in call["code_interpreter"]["outputs"]] == wanted["logs"]


@pytest.mark.parametrize("name", PLAIN)
def test_what_must_come_out_comes_out(name: str, place: Place) -> None:
    location, open_store = place
    case = BY_NAME[name]
    expected = expectation(case)
    result = imported(location, *files_of(case))
    check_result(expected, result)
    store = open_store()
    assert len(store.list_thread_ids()) == len(expected["threads"])
    for thread in expected["threads"]:
        check_thread(store, thread)
    texts = [
        message.text for thread_id in store.list_thread_ids() for message in store.list_messages(thread_id)
    ]
    for nowhere in expected.get("nowhere_in_messages", ()):
        assert not any(nowhere in text for text in texts)


@pytest.mark.parametrize("name", PLAIN)
def test_fsck_finds_nothing_in_what_came_in(
    name: str, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    location, _ = place
    imported(location, *files_of(BY_NAME[name]), "--branches")
    assert main(["fsck", location]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", PLAIN)
def test_nothing_of_the_account_is_stored(name: str, tmp_path: Path) -> None:
    imported(tmp_path / "store", *files_of(BY_NAME[name]))
    for nowhere in expectation(BY_NAME[name]).get("nowhere_in_the_store", ()):
        assert not any(nowhere.encode() in data for data in bytes_of(tmp_path / "store").values())


@pytest.mark.parametrize("name", PLAIN)
def test_a_second_import_leaves_all_as_it_is(name: str, tmp_path: Path) -> None:
    case, root = BY_NAME[name], tmp_path / "store"
    first = imported(root, *files_of(case))
    before = everything(root)
    second = imported(root, *files_of(case))
    assert everything(root) == before
    assert second.status == first.status
    assert second.stderr == first.stderr
    there = first.counts["imported"] + first.counts["left"]
    assert second.counts == first.counts | {"imported": 0, "left": there}


@pytest.mark.parametrize("name", PLAIN)
def test_a_dry_run_says_the_same_and_makes_no_store(name: str, tmp_path: Path) -> None:
    case, root = BY_NAME[name], tmp_path / "store"
    rehearsed = imported(root, *files_of(case), "--dry-run")
    assert not root.exists()
    assert imported(root, *files_of(case)) == rehearsed


@pytest.mark.parametrize("name", [name for name, case in PLAIN.items() if (case / "export.zip").exists()])
def test_an_export_that_was_unpacked_gives_the_same_bytes_as_its_zip(name: str, tmp_path: Path) -> None:
    archive = BY_NAME[name] / "export.zip"
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "unpacked")
    one = imported(tmp_path / "one", archive)
    other = imported(tmp_path / "other", tmp_path / "unpacked")
    assert (one.status, one.stdout) == (other.status, other.stdout)
    assert everything(tmp_path / "one") == everything(tmp_path / "other")


@pytest.mark.parametrize("name", [name for name, case in PLAIN.items() if (case / "export.zip").exists()])
def test_an_export_on_stdin_gives_the_same_bytes_as_the_file(name: str, tmp_path: Path) -> None:
    archive = BY_NAME[name] / "export.zip"
    one = imported(tmp_path / "one", archive)
    other = imported(tmp_path / "other", stdin=archive.read_bytes())
    assert (one.status, one.stdout) == (other.status, other.stdout)
    assert everything(tmp_path / "one") == everything(tmp_path / "other")


def test_shards_that_are_given_one_by_one_give_the_same_bytes_and_miss_nothing(tmp_path: Path) -> None:
    archive = FIXTURES / "chatgpt/shards/export.zip"
    imported(tmp_path / "one", archive)
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "unpacked")
    result = imported(tmp_path / "other", *sorted(tmp_path.glob("unpacked/conversations-*.json")))
    assert (result.status, result.stderr) == (0, "")
    assert everything(tmp_path / "one") == everything(tmp_path / "other")


def test_saved_pages_are_found_in_a_directory_too(tmp_path: Path) -> None:
    pages = FIXTURES / "openai/pages"
    imported(tmp_path / "one", *files_of(pages))
    copied = shutil.copytree(pages, tmp_path / "pages")
    result = imported(tmp_path / "other", copied)
    result.has(imported=1)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "other")


def test_saved_objects_keep_every_field(tmp_path: Path) -> None:
    imported(tmp_path, *files_of(FIXTURES / "openai/pages"))
    store = ThreadStore(tmp_path)
    given = json.loads((FIXTURES / "openai/pages/runs.json").read_text())["data"][0]
    assert holds(given, json.loads(store.read_document(DocumentKey("thread_abc", "run_1"))[0]))
    assert store.get_thread("thread_abc").metadata == {"user": "7"}


# ── A newer export ──────────────────────────────────────────────────────────────────────────────────────


def test_newer_and_older_exports_extend_and_leave(place: Place) -> None:
    location, open_store = place
    case = FIXTURES / "chatgpt/newer"
    logs: dict[str, Fields] = {}
    for step in expectation(case)["sequence"]:
        result = imported(location, case / step["run"].split()[1])
        assert result.status == step["exit"]
        for name, number in step["counts"].items():
            assert result.counts[name] == number, (step["run"], name)
        store = open_store()
        before, logs = logs, everything_in(store)
        if "store" in step:
            assert logs == before
        for thread_id, expected in step.get("then", {}).items():
            if expected.get("unchanged"):
                assert logs[thread_id] == before[thread_id]
            else:
                check_thread(store, {"id": thread_id, **expected})
            if "log" in expected:
                assert logs[thread_id]["log"][: len(before[thread_id]["log"])] == before[thread_id]["log"]


def everything_in(store: Store) -> dict[str, Fields]:
    return {
        thread_id: {
            "log": lines_of(store, thread_id),
            "thread": store.read_document(DocumentKey(thread_id)),
            "time": store.thread_modified_ns(thread_id),
        }
        for thread_id in store.list_thread_ids()
    }


# ── Branches and files ──────────────────────────────────────────────────────────────────────────────────


def test_other_branches_come_as_threads_of_their_own(place: Place) -> None:
    location, open_store = place
    case = FIXTURES / "chatgpt/branches"
    expected = expectation(case)["with_branches"]
    imported(location, case / "export.zip", expected["option"]).has(imported=2, branch=2, empty=1)
    store = open_store()
    assert len(store.list_thread_ids()) == expected["threads"]
    branches = [thread_id for thread_id in store.list_thread_ids() if "~" in thread_id]
    texts = [[text for _, text in said(store, thread_id)] for thread_id in branches]
    assert sorted(texts) == sorted(expected["texts_of_the_additional_ones"])
    for branch in branches:
        assert store.get_thread(branch).metadata["branch_of"] == branch.partition("~")[0]
    imported(location, case / "export.zip", "--branches").has(left=4, empty=1)


@pytest.mark.parametrize("name", ["chatgpt/shards", "chatgpt/tools"])
def test_files_are_written_under_their_ids_and_nothing_else_is(name: str, tmp_path: Path) -> None:
    expected = expectation(BY_NAME[name])["with_files"]
    archive = BY_NAME[name] / "export.zip"
    for _ in range(2):  # Once more changes nothing.
        imported(tmp_path / "store", archive, "--files", tmp_path / "files")
        (path,) = (tmp_path / "files").iterdir()
        (wanted,) = expected["written"]
        assert path.name.endswith(wanted.get("name_ends", ""))
        assert path.name.startswith(wanted.get("name_begins", ""))
    with zipfile.ZipFile(archive) as opened:
        kept = {opened.read(member) for member in opened.namelist() if member.startswith("file")}
    assert {path.read_bytes()} == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files", "store"]


def test_files_are_not_written_into_the_store(tmp_path: Path) -> None:
    archive = BY_NAME["chatgpt/shards"] / "export.zip"
    for files in (tmp_path / "store", tmp_path / "store" / "files"):
        refused = imported(tmp_path / "store", archive, "--files", files)
        assert (refused.status, refused.stdout) == (2, "")
        assert f"--files: {files} is in the store: give a directory outside of" in refused.stderr
    assert not list(tmp_path.iterdir())


PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("name", ["claude-code/session", "openwebui/export"])
def test_pictures_that_are_in_a_file_of_conversations_are_written_too(name: str, tmp_path: Path) -> None:
    for _ in range(2):
        imported(tmp_path / "store", *files_of(BY_NAME[name]), "--files", tmp_path / "files")
        (picture,) = (tmp_path / "files").iterdir()
        assert picture.read_bytes() == PNG
    store = ThreadStore(tmp_path / "store")
    blocks = [
        block
        for thread_id in store.list_thread_ids()
        for line in lines_of(store, thread_id)
        for block in line["content"]
    ]
    assert [block["image_file"]["file_id"] for block in blocks if "image_file" in block] == [picture.stem]
    assert picture.suffix == ".png"


# ── What is nothing ─────────────────────────────────────────────────────────────────────────────────────

NOTHING = sorted(
    path for path in (FIXTURES / "detect").iterdir() if path.name not in ("expected.json", "empty-array.json")
)


@pytest.mark.parametrize("path", NOTHING, ids=lambda path: path.name)
def test_what_is_nothing_is_named_and_no_store_is_made(path: Path, tmp_path: Path) -> None:
    result = imported(tmp_path / "store", path)
    assert result.status == 1
    (line,) = result.stderr.splitlines()
    assert path.name in line
    assert ("is empty" if path.name == "empty.json" else "not recognised") in line
    assert not (tmp_path / "store").exists()


def test_an_empty_list_is_no_error_and_makes_no_store(tmp_path: Path) -> None:
    result = imported(tmp_path / "store", FIXTURES / "detect/empty-array.json")
    assert (result.status, result.stderr) == (0, "")
    result.has()
    assert not (tmp_path / "store").exists()


def test_an_empty_stdin_is_no_error_and_makes_no_store(tmp_path: Path) -> None:
    result = imported(tmp_path / "store")
    assert (result.status, result.stderr) == (0, "")
    assert not (tmp_path / "store").exists()


def test_what_is_recognised_comes_in_beside_what_is_nothing_and_what_is_not_there(tmp_path: Path) -> None:
    files = [FIXTURES / "detect/unknown.json", tmp_path / "nowhere", FIXTURES / "chatgpt/branches/export.zip"]
    result = imported(tmp_path / "store", *files)
    assert result.status == 1
    assert ["unknown.json" in line or "nowhere" in line for line in result.stderr.splitlines()] == [
        True,
        True,
    ]
    result.has(imported=2, empty=1, skipped=2)


def test_the_help_names_every_source() -> None:
    words = set(re.findall(r"[\w-]+", import_.__doc__ or ""))
    assert words >= SOURCES.keys()


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_that_is_insisted_on_is_named_with_what_is_none_of_it(source: str, tmp_path: Path) -> None:
    result = imported("--from", source, tmp_path / "store", FIXTURES / "detect/unknown.json")
    assert result.status == 1
    assert source in result.stderr


def test_with_from_the_others_are_not_imported(tmp_path: Path) -> None:
    result = imported("--from", "claude", tmp_path / "store", FIXTURES / "chatgpt/branches/export.zip")
    assert result.status == 1
    assert not (tmp_path / "store").exists()


def test_the_numbers_are_said_as_json_with_what_was_skipped(tmp_path: Path) -> None:
    result = imported(tmp_path / "store", FIXTURES / "sharegpt/array/data.json", "--json")
    told = json.loads(result.stdout)
    assert {name: told[name] for name in ("imported", "extended", "branches", "left", "empty")} == {
        "imported": 2,
        "extended": 0,
        "branches": 0,
        "left": 0,
        "empty": 1,
    }
    (skipped,) = told["skipped"]
    assert skipped["file"].endswith("data.json")
    assert "narrator" in skipped["reason"]
    assert set(skipped) == {"file", "where", "title", "reason"}


def test_a_member_that_is_damaged_costs_itself(tmp_path: Path) -> None:
    archive = io.BytesIO((FIXTURES / "chatgpt/shards/export.zip").read_bytes())
    data = bytearray(archive.getvalue())
    with zipfile.ZipFile(archive) as opened:
        start = opened.getinfo("conversations-001.json").header_offset
    data[start + 60 : start + 70] = b"\xff" * 10
    (tmp_path / "damaged.zip").write_bytes(data)
    result = imported(tmp_path / "store", tmp_path / "damaged.zip")
    assert result.status == 1
    assert any("conversations-001.json" in line for line in result.stderr.splitlines())
    assert ThreadStore(tmp_path / "store").list_thread_ids() == [
        "chatgpt-7a1c0000-0000-4000-8000-000000000398"
    ]
