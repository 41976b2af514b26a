"""`threadfs import` of lines in which anything may be wrong, and of those that come in another order."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store import Thread, ThreadStore
from tests.cli.conftest import succeeds, threadfs
from tests.cli.test_export_import import anything, as_json, exported, imported
from threadfs.importing.openai_lines import Import

THREAD = {"object": "thread", "id": "T", "created_at": 1, "metadata": {}}
MESSAGE = {
    "object": "thread.message",
    "id": "M",
    "thread_id": "T",
    "created_at": 2,
    "role": "user",
    "content": [{"type": "text", "text": {"value": "Hello", "annotations": []}}],
    "run_id": "R",
}
RUN = {
    "object": "thread.run",
    "id": "R",
    "thread_id": "T",
    "created_at": 3,
    "status": "failed",
    "model": "m",
    "last_error": {"code": "server_error", "message": "gone"},
}
STEP = {
    "object": "thread.run.step",
    "id": "S",
    "thread_id": "T",
    "run_id": "R",
    "created_at": 4,
    "type": "message_creation",
    "status": "failed",
    "step_details": {"type": "message_creation", "message_creation": {"message_id": "M"}},
    "threadfs": {"fields": ["id"], "as_stored": {"id": "S"}},
}
OBJECTS = [THREAD, MESSAGE, RUN, STEP]


def read(lines: list[bytes], directory: str) -> tuple[ThreadStore, list[str]]:
    """The store that an import of *lines* makes, and what it refuses."""
    refused: list[str] = []
    store = ThreadStore(directory)
    Import(store, refused.append).read(lines)
    return store, refused


def places_in(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The way to each value in a value of JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, item in inner for place in places_in(item, (*path, name)))]


def put(made: Any, place: tuple[str | int, ...], value: Any) -> Any:
    if not place:
        return value
    whole = json.loads(json.dumps(made))
    inner = whole
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    return whole


@st.composite
def with_something_wrong(draw: st.DrawFn) -> tuple[int, Any]:
    """One of the objects, by its number, with any value in any place."""
    number = draw(st.integers(0, len(OBJECTS) - 1))
    place = draw(st.sampled_from(places_in(OBJECTS[number])))
    return number, put(OBJECTS[number], place, draw(anything))


@settings(deadline=None, max_examples=100)
@given(with_something_wrong())
def test_a_thread_after_one_in_which_anything_is_wrong_is_imported(wrong: tuple[int, Any]) -> None:
    number, made = wrong
    objects: list[Any] = [*OBJECTS[:number], made, *OBJECTS[number + 1 :]]
    with tempfile.TemporaryDirectory() as directory:
        store, refused = read([as_json(one) for one in [*objects, {**THREAD, "id": "good"}]], directory)
        assert "good" in store.list_thread_ids()
        assert all(line.startswith("line ") and "\n" not in line for line in refused)


@pytest.mark.parametrize("value", [None, True, ["x"], {"x": 1}])
@pytest.mark.parametrize(
    ("number", "name"),
    [
        *((number, name) for number in range(4) for name in ("object", "id", "created_at")),
        *((number, "thread_id") for number in (1, 2, 3)),
        *((number, "status") for number in (2, 3)),
        (1, "role"),
        (1, "content"),
        (2, "model"),
        (3, "run_id"),
        (3, "type"),
    ],
)
def test_a_field_of_a_wrong_type_is_named_with_its_line(
    tmp_path: Path, number: int, name: str, value: Any
) -> None:
    objects: list[Any] = [*OBJECTS[:3], {key: STEP[key] for key in STEP if key != "threadfs"}]
    objects[number] = {**objects[number], name: value}
    store, refused = read([as_json(one) for one in [*objects, {**THREAD, "id": "good"}]], str(tmp_path))
    assert store.list_thread_ids() == ["good"]
    assert refused[0].startswith((f"line {number + 1}: {name}: ", f"line {number + 1}: {name}.0: "))


def test_of_lines_that_are_of_no_thread_each_is_named(tmp_path: Path) -> None:
    lines = ['{"object":["x"]}', '{"object":7}', "[]", "?", json.dumps(THREAD)]
    ThreadStore(tmp_path / "store").create_thread(Thread(id="other"))
    result = threadfs("import", tmp_path / "store", given="\n".join(lines))
    assert result.returncode == 1
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == [
        f"line {number}" for number in (1, 2, 3, 4)
    ]
    assert result.stdout == "1 imported, 0 extended, 0 branches, 0 were there already, 0 empty, 4 skipped\n"


# ── The newest first ────────────────────────────────────────────────────────────────────────────────────


def thread_with(*messages: tuple[str, int]) -> list[bytes]:
    """An export of other origin with messages of these ids and times."""
    return [
        as_json(THREAD),
        *(as_json({**MESSAGE, "id": message_id, "created_at": at}) for message_id, at in messages),
    ]


def ids_in(store: ThreadStore) -> list[str]:
    return [message.id for message in store.iter_messages("T")]


@pytest.mark.parametrize(
    ("given_order", "stored_order"),
    [
        ([("d", 9), ("c", 9), ("b", 4), ("a", 2)], "abcd"),
        ([("b", 3), ("a", 2)], "ab"),
        ([("a", 2), ("b", 4), ("c", 9), ("d", 9)], "abcd"),
        ([("a", 9), ("b", 2), ("c", 4)], "abc"),
        ([("a", 2), ("b", 9), ("c", 4)], "abc"),
        ([("a", 5), ("b", 5), ("c", 5)], "abc"),
        ([("a", 5)], "a"),
    ],
)
def test_messages_are_turned_round_where_all_of_them_come_with_the_newest_first(
    tmp_path: Path, given_order: list[tuple[str, int]], stored_order: str
) -> None:
    assert "".join(ids_in(imported(thread_with(*given_order), tmp_path))) == stored_order


def test_an_import_of_the_newest_first_that_is_run_again_changes_nothing(tmp_path: Path) -> None:
    export = b"\n".join(thread_with(("c", 9), ("b", 4), ("a", 2)))
    ThreadStore(tmp_path / "store").create_thread(Thread(id="other"))
    succeeds(threadfs("import", tmp_path / "store", given=export))
    before = (tmp_path / "store" / "T" / "messages.jsonl").read_bytes()
    succeeds(threadfs("import", tmp_path / "store", given=export))
    assert (tmp_path / "store" / "T" / "messages.jsonl").read_bytes() == before


def test_our_own_exports_keep_the_order_of_the_log_whatever_the_times_are(tmp_path: Path) -> None:
    store = ThreadStore(tmp_path / "one")
    messages = [
        as_json({**MESSAGE, "id": name, "created_at": at}) for name, at in (("a", 9), ("b", 4), ("c", 2))
    ]
    store.import_thread("T", as_json(THREAD), messages, {})
    assert ids_in(imported(exported(store), tmp_path / "other")) == ["a", "b", "c"]


def test_more_messages_than_memory_is_for_are_turned_round_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("threadfs.importing.message_spool._IN_MEMORY_BYTES", 100)
    lines = thread_with(*((f"m{number}", number) for number in range(50, 0, -1)))
    assert ids_in(imported(lines, tmp_path)) == [f"m{number}" for number in range(1, 51)]
