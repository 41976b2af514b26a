"""Exports that are imported again, by several at once, by one that is killed: nothing is lost or twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from store import DocumentKey, Store, Thread, ThreadStore
from tests.importing.conftest import (
    FIXTURES,
    Fields,
    Place,
    bytes_of,
    chatgpt,
    complaints,
    everything,
    imported,
    lines_of,
    runs_of,
    said,
    steps_of,
    written,
)
from tests.mount.conftest import start, stop, wait_until
from tests.store.conftest import message

ROOT = Path(__file__).parents[2]
THREAD = "chatgpt-c"


def texts(store: Store, thread_id: str = THREAD) -> list[str]:
    return [text for _, text in said(store, thread_id)]


def with_other_last(given: Fields, text: str, node: str) -> Fields:
    """The conversation after its last message was made anew: the old one is beside it."""
    last = given["current_node"]
    old = given["mapping"][last]
    content = {"content_type": "text", "parts": [text]}
    new = {**old, "id": node, "message": {**old["message"], "id": node, "content": content}}
    return {**given, "mapping": {**given["mapping"], node: new}, "current_node": node}


# ── Again ───────────────────────────────────────────────────────────────────────────────────────────────


def test_what_somebody_said_meanwhile_stays_and_the_newer_path_becomes_a_branch(
    place: Place, tmp_path: Path
) -> None:
    location, open_store = place
    imported(location, written(tmp_path / "old", [chatgpt("a", "b")])).has(imported=1)
    open_store().append_message(THREAD, message("mine"))
    newer = written(tmp_path / "new", [chatgpt("a", "b", "c", "d")])
    imported(location, newer).has(branch=1)
    imported(location, newer).has(left=1)
    store = open_store()
    assert texts(store) == ["a", "b", "mine"]
    (branch,) = set(store.list_thread_ids()) - {THREAD}
    assert texts(store, branch) == ["a", "b", "c", "d"]
    longest = written(tmp_path / "longest", [chatgpt("a", "b", "c", "d", "e")])
    imported(location, longest).has(extended=1)
    assert texts(open_store(), branch) == ["a", "b", "c", "d", "e"]
    assert texts(open_store()) == ["a", "b", "mine"]


def test_branches_of_branches_do_not_mix(place: Place, tmp_path: Path) -> None:
    location, open_store = place
    first = chatgpt("a", "b", "c", "d")
    imported(location, written(tmp_path / "1", [first])).has(imported=1)
    second = with_other_last(first, "D", "other-d")
    imported(location, written(tmp_path / "2", [second])).has(branch=1)
    third = with_other_last(second, "DD", "another-d")
    imported(location, written(tmp_path / "3", [third])).has(branch=1)
    for number, counts in ((1, 1), (2, 1), (3, 1)):
        imported(location, tmp_path / str(number)).has(left=counts)
    store = open_store()
    assert sorted(texts(store, thread_id)[-1] for thread_id in store.list_thread_ids()) == ["D", "DD", "d"]


def test_with_branches_the_path_that_is_stored_already_is_left(place: Place, tmp_path: Path) -> None:
    location, _ = place
    first = chatgpt("a", "b")
    imported(location, written(tmp_path / "1", [first])).has(imported=1)
    second = with_other_last(first, "B", "other-b")
    imported(location, written(tmp_path / "2", [second]), "--branches").has(branch=1, left=1)
    imported(location, tmp_path / "2", "--branches").has(left=2)


def test_what_comes_after_the_message_that_the_user_looked_at_is_a_branch(
    place: Place, tmp_path: Path
) -> None:
    location, open_store = place
    given = chatgpt("a", "b", "c", current_node="c-0")
    imported(location, written(tmp_path / "e", [given]), "--branches").has(imported=1, branch=1)
    imported(location, tmp_path / "e", "--branches").has(left=2)
    store = open_store()
    assert texts(store) == ["a"]
    (branch,) = set(store.list_thread_ids()) - {THREAD}
    assert texts(store, branch) == ["a", "b", "c"]


def test_a_shorter_export_changes_nothing(place: Place, tmp_path: Path) -> None:
    location, open_store = place
    imported(location, written(tmp_path / "new", [chatgpt("a", "b", "c")]))
    imported(location, written(tmp_path / "old", [chatgpt("a")])).has(left=1)
    assert texts(open_store()) == ["a", "b", "c"]


def test_an_empty_conversation_that_got_messages_comes_in(tmp_path: Path) -> None:
    imported(tmp_path / "s", written(tmp_path / "old", [chatgpt()])).has(empty=1)
    assert not (tmp_path / "s").exists()
    imported(tmp_path / "s", written(tmp_path / "new", [chatgpt("a")])).has(imported=1)


# ── Titles ──────────────────────────────────────────────────────────────────────────────────────────────


def title(store: Store) -> str:
    return str(store.get_thread(THREAD).metadata["title"])


def test_a_newer_export_gives_a_newer_title_and_an_older_one_does_not(place: Place, tmp_path: Path) -> None:
    location, open_store = place
    old = written(tmp_path / "old", [chatgpt("a", title="Old", update_time=1e9)])
    new = written(tmp_path / "new", [chatgpt("a", title="New", update_time=1.5e9)])
    imported(location, old).has(imported=1)
    before_ns = open_store().thread_modified_ns(THREAD)
    imported(location, new).has(left=1)
    assert title(open_store()) == "New"
    imported(location, old).has(left=1)
    assert title(open_store()) == "New"
    assert open_store().thread_modified_ns(THREAD) == before_ns


def test_a_title_that_somebody_has_changed_stays(place: Place, tmp_path: Path) -> None:
    location, open_store = place
    imported(location, written(tmp_path / "old", [chatgpt("a", title="Old", update_time=1e9)]))
    open_store().patch_document(DocumentKey(THREAD), {"metadata": {"title": "Mine", "note": "n"}})
    imported(location, written(tmp_path / "new", [chatgpt("a", "b", title="New", update_time=1.5e9)]))
    assert title(open_store()) == "Mine"
    assert open_store().get_thread(THREAD).metadata["note"] == "n"


def test_a_title_that_somebody_changes_at_that_moment_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported(tmp_path / "s", written(tmp_path / "old", [chatgpt("a", title="Old", update_time=1e9)]))
    read = ThreadStore.get_thread

    def read_before_a_change(store: ThreadStore, thread_id: str) -> Thread:
        found = read(store, thread_id)
        store.patch_document(DocumentKey(thread_id), {"metadata": {"title": "Mine"}})
        return found

    monkeypatch.setattr(ThreadStore, "get_thread", read_before_a_change)
    imported(tmp_path / "s", written(tmp_path / "new", [chatgpt("a", title="New", update_time=1.5e9)]))
    monkeypatch.undo()
    metadata = ThreadStore(tmp_path / "s").get_thread(THREAD).metadata
    assert (metadata["title"], metadata["source_updated_at"]) == ("Mine", "2017-07-14T02:40:00Z")


def test_without_times_a_longer_export_is_the_newer_one(place: Place, tmp_path: Path) -> None:
    location, open_store = place
    imported(location, written(tmp_path / "1", [chatgpt("a", title="One")]))
    imported(location, written(tmp_path / "2", [chatgpt("a", title="Two")]))
    assert title(open_store()) == "One"
    imported(location, written(tmp_path / "3", [chatgpt("a", "b", title="Three")]))
    assert title(open_store()) == "Three"
    imported(location, tmp_path / "1")
    assert title(open_store()) == "Three"


# ── Runs ────────────────────────────────────────────────────────────────────────────────────────────────


def with_calls(calls: int, *, answered: bool = False) -> Fields:
    """A question, and an answer that has called a function so often."""
    given = chatgpt("Count.", "Let me see.")
    parent = given["current_node"]
    for number in range(calls):
        node = f"call-{number}"
        message = {
            "id": node,
            "author": {"role": "assistant"},
            "create_time": 1_700_000_010,
            "content": {"content_type": "code", "text": f"count({number})"},
            "recipient": "counter",
        }
        given["mapping"][node] = {"id": node, "parent": parent, "message": message}
        parent = node
    if answered:
        message = {
            "id": "answer",
            "author": {"role": "assistant"},
            "create_time": 1_700_000_011,
            "content": {"content_type": "text", "parts": ["Done."]},
        }
        given["mapping"]["answer"] = {"id": "answer", "parent": parent, "message": message}
        parent = "answer"
    return {**given, "current_node": parent}


def calls_of(store: Store, run_id: str) -> list[str]:
    steps = [step["step_details"] for step in steps_of(store, THREAD, run_id)]
    return [step["tool_calls"][0]["function"]["arguments"] for step in steps if "tool_calls" in step]


def test_an_answer_that_goes_on_gets_the_steps_that_its_run_lacks(place: Place, tmp_path: Path) -> None:
    location, open_store = place
    imported(location, written(tmp_path / "0", [with_calls(0)])).has(imported=1)
    assert runs_of(open_store(), THREAD) == []
    imported(location, written(tmp_path / "1", [with_calls(1)])).has(extended=1)
    imported(location, tmp_path / "1").has(left=1)
    imported(location, written(tmp_path / "12", [with_calls(12)])).has(extended=1)
    imported(location, written(tmp_path / "end", [with_calls(12, answered=True)])).has(extended=1)
    imported(location, tmp_path / "end").has(left=1)
    store = open_store()
    (run,) = runs_of(store, THREAD)
    assert calls_of(store, run["id"]) == [f"count({number})" for number in range(12)]
    assert texts(store) == ["Count.", "Let me see.", "Done."]
    assert [line.get("run_id") for line in lines_of(store, THREAD)] == [None, None, run["id"]]


def test_the_ids_of_runs_and_steps_follow_from_those_of_the_source(tmp_path: Path) -> None:
    for name in "ab":
        imported(tmp_path / name, FIXTURES / "chatgpt/tools/export.zip")
    assert everything(tmp_path / "a") == everything(tmp_path / "b")


# ── Times ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_time_of_a_thread_is_that_of_its_last_message(place: Place, tmp_path: Path) -> None:
    location, open_store = place
    imported(location, written(tmp_path / "1", [chatgpt("a", "b")]))
    assert open_store().thread_modified_ns(THREAD) == 1_700_000_001 * 10**9
    imported(location, written(tmp_path / "2", [chatgpt("a", "b", "c")]))
    assert open_store().thread_modified_ns(THREAD) == 1_700_000_002 * 10**9


def test_a_conversation_without_any_time_gets_that_of_its_import(tmp_path: Path) -> None:
    before_s = int(time.time())
    imported(
        tmp_path / "s", written(tmp_path / "e", {"messages": [{"role": "user", "content": "a"}], "id": "x"})
    )
    assert before_s <= ThreadStore(tmp_path / "s").get_thread("chat-x").created_at <= time.time()
    imported(tmp_path / "s", tmp_path / "e").has(left=1)


@pytest.mark.parametrize(
    "wrong", [None, 0, -5, 1e300, "soon", True, [], "2025-13-45T99:00:00Z", float("nan")]
)
def test_a_time_that_is_none_is_that_of_the_message_before(wrong: Any, tmp_path: Path) -> None:
    given = chatgpt("a", "b")
    given["mapping"]["c-1"]["message"]["create_time"] = wrong
    imported(tmp_path / "s", written(tmp_path / "e", [given])).has(imported=1)
    times = [line["created_at"] for line in lines_of(ThreadStore(tmp_path / "s"), THREAD)]
    assert times == [1_700_000_000, 1_700_000_000]


# ── Others at the same moment ───────────────────────────────────────────────────────────────────────────


def start_import(store: str, *files: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "threadfs.cli", "import", store, *map(str, files)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def conversations(turns: int, many: int = 60) -> list[Fields]:
    return [
        chatgpt(*(f"{turn}" for turn in range(turns)), conversation_id=f"c{number}") for number in range(many)
    ]


def test_imports_at_once_bring_everything_once(place: Place, tmp_path: Path) -> None:
    location, open_store = place
    old, new = (written(tmp_path / f"{turns}", conversations(turns)) for turns in (2, 4))
    importing = [start_import(location, *files) for files in ((old, new), (new, old), (old, new))]
    for process in importing:
        _, stderr = process.communicate(timeout=60)
        assert (process.returncode, complaints(stderr.decode())) == (0, "")
    store = open_store()
    assert len(store.list_thread_ids()) == 60
    assert all(texts(store, thread_id) == ["0", "1", "2", "3"] for thread_id in store.list_thread_ids())


def messages_in(root: Path) -> int:
    return sum(log.read_bytes().count(b"\n") for log in root.glob("[!.]*/messages.jsonl"))


def test_an_import_that_is_killed_at_any_moment_is_run_again_to_the_same_store(tmp_path: Path) -> None:
    old = written(tmp_path / "old", [*conversations(2), with_calls(3)])
    new = written(tmp_path / "new", [*conversations(4), with_calls(9, answered=True)])
    imported(tmp_path / "whole", old, new)
    root = tmp_path / "store"
    for messages in sorted(random.Random(1).sample(range(1, 240), 8)):
        process = start_import(str(root), old, new)
        while process.poll() is None and messages_in(root) < messages:
            pass
        process.send_signal(signal.SIGKILL)
        process.communicate()
    imported(root, old, new)
    found = {path: data for path, data in bytes_of(root).items() if not path.startswith(".threadfs-tmp-")}
    assert found == bytes_of(tmp_path / "whole")


def test_what_comes_into_a_store_that_is_mounted_is_there_with_its_times(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    mount = start(tmp_path / "store", tmp_path / "mnt", tmp_path / "log")
    try:
        threads = tmp_path / "mnt" / "threads"
        assert os.listdir(threads) == []
        imported(tmp_path / "store", written(tmp_path / "1", [chatgpt("a", "b")])).has(imported=1)
        wait_until(lambda: os.listdir(threads) == [THREAD])
        assert (threads / THREAD).stat().st_mtime == 1_700_000_001
        transcript = tmp_path / "mnt" / "transcripts" / f"{THREAD}.md"
        assert "b" in transcript.read_text()
        newer = written(tmp_path / "2", [with_calls(2, answered=True)])
        imported(tmp_path / "store", newer).has(extended=1)
        wait_until(lambda: (threads / THREAD).stat().st_mtime == 1_700_000_011)
        wait_until(lambda: "Done." in transcript.read_text())
        log = (threads / THREAD / "messages.jsonl").read_bytes()
        assert [json.loads(line)["id"] for line in log.splitlines()] == ["c-0", "c-1", "answer"]
        (run_id,) = os.listdir(threads / THREAD / "runs")
        assert len(os.listdir(threads / THREAD / "runs" / run_id / "steps")) == 4
        assert os.listdir(tmp_path / "mnt" / "runs" / "completed") == [f"{run_id}@{THREAD}"]
    finally:
        stop(mount)
