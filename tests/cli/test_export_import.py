"""`threadfs export` and `import`: strict objects of OpenAI, and the way back without loss."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from store import DocumentKey, InvalidDocument, RunContents, StoreError, ThreadStore
from tests.cli.conftest import OSLO, RUNNING, command, fails, succeeds, threadfs
from threadfs.importing.openai_lines import Import
from threadfs.openai import objects
from threadfs.openai.exporting import Export
from threadfs.openai.objects import restored


@cache
def openai_types() -> dict[str, type[BaseModel]]:
    """OpenAI's own, which take a second to import: not for each process that collects the tests."""
    from openai.types.beta import Thread
    from openai.types.beta.threads import Message, Run
    from openai.types.beta.threads.runs import RunStep

    return {"thread": Thread, "thread.message": Message, "thread.run": Run, "thread.run.step": RunStep}


@pytest.fixture(scope="module", autouse=True)
def _imported_types() -> None:
    openai_types()  # Not within the time of an example.


def refused(what: str, error: StoreError | None = None) -> None:
    raise AssertionError(f"{what}: {error}")


def exported(store: ThreadStore, *, strict: bool = False) -> list[bytes]:
    export = Export(store, strict, refused)
    return [line for thread_id in sorted(store.list_thread_ids()) for line in export.thread(thread_id)]


def imported(lines: list[bytes], directory: str | Path) -> ThreadStore:
    store = ThreadStore(directory)
    Import(store, refused).read(lines)
    return store


# What OpenAI's server adds to the usage, and no type has as a field.
DETAILS_OF_USAGE = {
    "prompt_token_details",
    "prompt_tokens_details",
    "completion_token_details",
    "completion_tokens_details",
}


def validated(line: bytes) -> None:
    """The line is what OpenAI's types accept, strictly, and nothing that they do not know."""
    made: dict[str, Any] = json.loads(line)
    made.pop("threadfs", None)
    model = openai_types()[made["object"]].model_validate(made, strict=True)
    assert {*unknown_fields(model)} <= DETAILS_OF_USAGE
    # Every value that was given is what the model holds: nothing was taken for something else.
    assert json.loads(model.model_dump_json(exclude_unset=True, by_alias=True)) == made


def unknown_fields(value: Any) -> list[str]:
    if isinstance(value, BaseModel):
        found = list(value.model_extra or {})
        return found + [name for item in value.__dict__.values() for name in unknown_fields(item)]
    if isinstance(value, list):
        return [name for item in value for name in unknown_fields(item)]
    return []


def every_file(directory: str | Path) -> dict[str, bytes]:
    root = Path(directory)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# ── Any store there can be ──────────────────────────────────────────────────────────────────────────────

text = st.text(st.characters(codec="utf-8"), max_size=12)
whole = st.integers(0, 2**40)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda items: st.lists(items, max_size=3) | st.dictionaries(text, items, max_size=3),
    max_leaves=6,
)
EXTRA_NAMES = (
    *(
        "color",
        "threadfs",
        "type_",
        "instructions",
        "tools",
        "usage",
        "metadata",
        "tool_choice",
        "temperature",
    ),
    *(
        "attachments",
        "assistant_id",
        "expires_at",
        "required_action",
        "truncation_strategy",
        "tool_resources",
    ),
    *("response_format", "incomplete_details", "parallel_tool_calls"),
)
# Fields of our own, and OpenAI's, with values that fit and values that do not.
extra_fields = st.dictionaries(
    st.sampled_from(EXTRA_NAMES),
    anything
    | st.sampled_from(
        [
            "auto",
            {"type": "auto", "last_messages": None},
            {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
            [{"type": "function", "function": {"name": "f", "parameters": {}}}],
            {"type": "function", "function": {"name": "f"}},
            [{"file_id": "f", "tools": [{"type": "file_search"}]}],
            {"reason": "max_prompt_tokens"},
            {"code_interpreter": {"file_ids": ["f"]}},
        ]
    ),
    max_size=4,
)
blocks = st.one_of(
    st.builds(lambda value: {"type": "text", "text": {"value": value, "annotations": []}}, text),
    st.builds(
        lambda value, noted: {"type": "text", "text": {"value": value, "annotations": noted, "x": 1}},
        text,
        st.lists(anything, max_size=2),
    ),
    st.sampled_from(
        [
            {"type": "image_file", "image_file": {"file_id": "f", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "u", "detail": "huge"}},
            {"type": "refusal", "refusal": "no"},
            {"type": "hologram", "depth": [1.5]},
        ]
    ),
)
messages = st.builds(
    lambda fields, extra: {**extra, **fields},
    st.fixed_dictionaries(
        {
            "id": text,
            "object": st.just("thread.message"),
            "created_at": whole,
            "role": st.sampled_from(["user", "assistant"]),
            "content": st.lists(blocks, max_size=3),
        },
        optional={"run_id": text},
    ),
    extra_fields,
)
steps = st.builds(
    lambda fields, kind, details, extra: {**extra, **fields, **kind, **details},
    st.fixed_dictionaries(
        {"created_at": whole, "status": st.sampled_from(["in_progress", "failed", "expired"])},
        optional={"error": anything, "completed_at": whole},
    ),
    st.sampled_from([{"step_type": "tool_calls"}, {"type": "tool_calls"}, {"step_type": "message_creation"}]),
    st.sampled_from(
        [
            {},
            {"step_details": {"message_id": "m"}},
            {"step_details": {"type": "message_creation", "message_creation": {"message_id": "m"}}},
            {"step_details": {"tool_calls": [{"id": "c", "type": "file_search", "file_search": {}}, 7]}},
            {
                "step_details": {
                    "type": "tool_calls",
                    "tool_calls": [
                        {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                    ],
                }
            },
        ]
    ),
    extra_fields,
)
runs = st.builds(
    lambda fields, extra: {**extra, **fields},
    st.fixed_dictionaries(
        {"created_at": whole, "status": st.sampled_from(["queued", "failed", "incomplete", "cancelling"])},
        optional={
            "model": text,
            "started_at": whole,
            "last_error": st.fixed_dictionaries({"code": text, "message": text}),
        },
    ),
    extra_fields,
)
threads = st.builds(
    lambda created_at, metadata, extra: {**extra, "created_at": created_at, "metadata": metadata},
    whole,
    anything,
    extra_fields,
)
ids = st.sampled_from(["a", "Trip to Oslo", "日本", "x" * 127])
stores = st.dictionaries(
    ids,
    st.tuples(
        threads,
        st.lists(messages, max_size=3),
        st.dictionaries(ids, st.tuples(runs, st.dictionaries(ids, steps, max_size=2)), max_size=2),
    ),
    max_size=2,
)


def filled(directory: str, contents: dict[str, Any]) -> ThreadStore:
    store = ThreadStore(directory)
    for thread_id, (document, log, of_thread) in contents.items():
        store.import_thread(
            thread_id,
            as_json(document),
            [as_json(message) for message in log],
            {
                run_id: RunContents(as_json(run), {step_id: as_json(step) for step_id, step in found.items()})
                for run_id, (run, found) in of_thread.items()
            },
        )
    return store


def as_json(document: Any) -> bytes:
    return json.dumps(document).encode()


any_store = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@any_store
@given(stores)
def test_an_import_of_an_export_is_the_same_store_byte_by_byte(contents: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        lines = exported(filled(one, contents))
        imported(lines, other)
        assert every_file(other) == every_file(one)


@any_store
@given(stores)
def test_every_object_is_valid_under_openais_types_strictly(contents: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        for line in exported(filled(directory, contents)):
            validated(line)


@any_store
@given(stores)
def test_a_strict_export_has_nothing_but_openais_fields_and_can_be_imported(contents: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        lines = exported(filled(one, contents), strict=True)
        assert all("threadfs" not in json.loads(line) for line in lines)
        assert sorted(imported(lines, other).list_thread_ids()) == sorted(contents)


# ── Values that are easy to lose ────────────────────────────────────────────────────────────────────────


SPELLINGS = [
    "1e16",
    "1E+2",
    "0.10",
    "-0.0",
    "1.0",
    "9" * 30,
    '"\\u00e9"',
    "null",
    "[[], {}]",
    "[" * 120 + "]" * 120,
]


@pytest.mark.parametrize("spelled", SPELLINGS)
def test_any_spelling_of_a_value_comes_back(tmp_path: Path, spelled: str) -> None:
    store = ThreadStore(tmp_path / "one")
    store.import_thread(
        "T", b'{"created_at":1,"metadata":{"a":%s},"x":%s}' % ((spelled.encode(),) * 2), [], {}
    )
    imported(exported(store), tmp_path / "other")
    assert every_file(tmp_path / "other") == every_file(tmp_path / "one")


def test_metadata_are_texts_and_codes_of_errors_are_openais(tmp_path: Path) -> None:
    store = ThreadStore(tmp_path)
    run = b'{"created_at":1,"status":"failed","last_error":{"code":"no_gpu","message":"none left"}}'
    step = b'{"created_at":1,"status":"failed","step_type":"tool_calls","error":{"code":1,"message":"gone"}}'
    store.import_thread(
        "T", b'{"created_at":1,"metadata":{"n":5,"t":"x"}}', [], {"R": RunContents(run, {"S": step})}
    )
    thread, of_run, of_step = map(json.loads, exported(store))
    assert thread["metadata"] == {"n": "5", "t": "x"}
    assert of_run["last_error"] == {"code": "server_error", "message": "none left"}
    assert of_step["last_error"] == {"code": "server_error", "message": "gone"}


# ── The commands ────────────────────────────────────────────────────────────────────────────────────────


def test_a_store_is_exported_thread_by_thread_in_one_order_always(household: Path) -> None:
    result = threadfs("export", household)
    objects = [json.loads(line) for line in succeeds(result).splitlines()]
    kinds = ["thread", "thread.message", "thread.run", "thread.run.step"]
    order = [(made.get("thread_id", made["id"]), kinds.index(made["object"])) for made in objects]
    assert order == sorted(order)
    assert len({thread_id for thread_id, _ in order}) == 5
    assert threadfs("export", household).stdout == result.stdout


def test_only_the_threads_that_are_named_are_exported(household: Path) -> None:
    lines = succeeds(threadfs("export", household, OSLO, "--strict")).splitlines()
    assert {json.loads(line).get("thread_id", OSLO) for line in lines} == {OSLO}
    assert "threadfs" not in json.loads(lines[0])


def test_a_thread_that_is_not_there_is_not_exported(household: Path) -> None:
    result = threadfs("export", household, OSLO, "none")
    fails(result, 1, "no thread 'none'")
    assert result.stdout == ""


def test_what_is_damaged_is_named_and_the_rest_exported(household: Path) -> None:
    (household / OSLO / "runs" / "run_74710763d50d067d8ffe929ab97605f0" / "status.json").write_text("{")
    result = threadfs("export", household)
    assert result.returncode == 1
    assert "run run_74710763d50d067d8ffe929ab97605f0 of thread Trip to Oslo" in result.stderr
    assert len(result.stdout.splitlines()) == 49  # all but the run and its step


def test_who_stops_reading_an_export_is_not_told_of_it(household: Path) -> None:
    process = subprocess.Popen(
        command("export", household), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    process.wait()


def test_a_backup_restores_the_store_as_it_was(household: Path, tmp_path: Path) -> None:
    backup = succeeds(threadfs("export", household))
    said = threadfs("import", tmp_path / "new", given=backup).stdout
    assert said == "5 imported, 0 extended, 0 branches, 0 were there already, 0 empty, 0 skipped\n"
    assert every_file(tmp_path / "new") == every_file(household)


def test_an_import_that_is_run_again_changes_nothing(household: Path, tmp_path: Path) -> None:
    backup = succeeds(threadfs("export", household))
    for _ in range(2):
        assert threadfs("import", tmp_path / "new", given=backup).returncode == 0
    assert every_file(tmp_path / "new") == every_file(household)


def test_an_import_that_was_interrupted_can_be_run_again(household: Path, tmp_path: Path) -> None:
    backup = succeeds(threadfs("export", household))
    fails_in_the_middle = "".join(backup.splitlines(keepends=True)[:30]) + '{"object": "thread'
    assert threadfs("import", tmp_path / "new", given=fails_in_the_middle).returncode == 1
    succeeds(threadfs("import", tmp_path / "new", given=backup))
    assert every_file(tmp_path / "new") == every_file(household)


def test_a_thread_that_differs_is_refused_and_the_others_go_on(household: Path, tmp_path: Path) -> None:
    backup = succeeds(threadfs("export", household))
    thread_id, run_id = RUNNING
    ThreadStore(household).cancel_run(thread_id, run_id)
    shutil.rmtree(household / OSLO)
    before = (household / thread_id / "runs" / run_id / "status.json").read_bytes()
    result = threadfs("import", household, given=backup)
    assert result.returncode == 1
    (refusal,) = result.stderr.splitlines()
    line = 1 + backup.splitlines().index(next(x for x in backup.splitlines() if f'"id":"{thread_id}"' in x))
    assert refusal.startswith(
        f"threadfs: line {line}: there is another {thread_id!r} (run {run_id!r} differs)"
    )
    assert result.stdout == "1 imported, 0 extended, 0 branches, 3 were there already, 0 empty, 1 skipped\n"
    assert (household / OSLO / "meta.json").exists()
    assert (household / thread_id / "runs" / run_id / "status.json").read_bytes() == before


@pytest.mark.parametrize(
    ("number", "line", "words"),
    [
        (3, "{", "not JSON"),
        (3, '{"object": "assistant"}', "object: 'assistant'"),
        (3, '{"object": "thread.message"}', "thread_id: missing"),
        (3, '{"object": "thread.message", "id": "m", "thread_id": "other"}', "of thread 'other'"),
        (
            3,
            json.dumps(
                {"object": "thread.message", "id": "m", "thread_id": OSLO, "created_at": 1, "role": "x"}
            ),
            "content: missing",
        ),
        (3, json.dumps({"object": "thread.run", "id": "a/b", "thread_id": OSLO}), "'a/b' is not a possible"),
        (
            3,
            json.dumps({"object": "thread.run.step", "id": "s", "run_id": "r", "thread_id": OSLO}),
            "no run 'r'",
        ),
        (
            3,
            json.dumps({"object": "thread.run", "id": "r", "thread_id": OSLO, "threadfs": {"fields": ["x"]}}),
            "threadfs: not as an export writes it",
        ),
    ],
)
def test_an_error_is_named_by_its_line_and_nothing_of_its_thread_is_imported(
    household: Path, tmp_path: Path, number: int, line: str, words: str
) -> None:
    lines = succeeds(threadfs("export", household)).splitlines()
    lines[number - 1] = line
    result = threadfs("import", tmp_path / "new", given="\n".join(lines))
    assert result.returncode == 1
    first = result.stderr.splitlines()[0]
    assert first.startswith(f"threadfs: line {number}: ")
    assert words in first
    assert not (tmp_path / "new" / OSLO).exists()
    assert len(os.listdir(tmp_path / "new")) == 4


def test_an_export_without_its_first_thread_line_is_refused(tmp_path: Path) -> None:
    line = json.dumps({"object": "thread.run", "id": "r", "thread_id": "T"})
    result = threadfs("import", tmp_path / "new", given=line)
    assert result.returncode == 1
    assert "line 1: the export does not begin with a thread" in result.stderr


def test_an_export_that_was_cut_off_anywhere_imports_whole_threads_only(
    household: Path, tmp_path: Path
) -> None:
    lines = exported(ThreadStore(household))
    ends = [number for number, line in enumerate(lines, 1) if objects.is_last(json.loads(line))]
    assert len(ends) == 5
    for kept in range(1, len(lines)):
        said: list[str] = []
        store = ThreadStore(tmp_path / str(kept))
        Import(store, said.append).read(lines[:kept])
        assert len(store.list_thread_ids()) == sum(end <= kept for end in ends)
        assert len(said) == (kept not in ends)


def test_a_thread_that_was_cut_off_is_named_and_comes_with_the_whole_export(
    household: Path, tmp_path: Path
) -> None:
    backup = succeeds(threadfs("export", household))
    result = threadfs("import", tmp_path / "new", given="".join(backup.splitlines(keepends=True)[:3]))
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "threadfs: line 1: the end of this thread is missing: the export was cut off, "
        f"so thread {OSLO!r} is not imported",
    ]
    assert result.stdout == "0 imported, 0 extended, 0 branches, 0 were there already, 0 empty, 1 skipped\n"
    assert not (tmp_path / "new").exists()
    assert threadfs("import", tmp_path / "new", given=backup).returncode == 0
    assert every_file(tmp_path / "new") == every_file(household)


def test_a_thread_that_is_deleted_while_it_is_exported_is_not_taken_for_whole(
    household: Path, tmp_path: Path
) -> None:
    store = ThreadStore(household)
    lines = Export(store, False, refused).thread(OSLO)
    came = [next(lines)]
    store.delete_thread(OSLO)
    said: list[str] = []
    Import(ThreadStore(tmp_path / "new"), said.append).read([*came, *lines])
    assert len(said) == 1


@pytest.mark.parametrize("strict", [False, True])
def test_a_damaged_line_of_a_thread_costs_that_thread_alone_which_is_named(
    household: Path, tmp_path: Path, strict: bool
) -> None:
    lines = exported(ThreadStore(household), strict=strict)
    objects = [json.loads(line) for line in lines]
    (number,) = [number for number, made in enumerate(objects) if made["id"] == RUNNING[0]]
    lines[number] = lines[number][:20] + b"\n"
    said: list[str] = []
    store = ThreadStore(tmp_path / "new")
    Import(store, said.append).read(lines)
    assert len(said) == 1
    assert said[0].startswith(f"line {number + 1}: not JSON")
    assert said[0].endswith(f"so thread {RUNNING[0]!r} is not imported")
    assert set(store.list_thread_ids()) == set(os.listdir(household)) - {RUNNING[0]}


def test_of_two_damaged_lines_where_a_thread_ends_and_one_begins_each_costs_its_thread(
    household: Path, tmp_path: Path
) -> None:
    lines = exported(ThreadStore(household))
    last = next(number for number, line in enumerate(lines) if objects.is_last(json.loads(line)))
    lines[last : last + 2] = [b"{\n", b"{\n"]
    said: list[str] = []
    store = ThreadStore(tmp_path / "new")
    Import(store, said.append).read(lines)
    assert [line.split(":")[0] for line in said] == [f"line {last + 1}", f"line {last + 2}"]
    assert len(store.list_thread_ids()) == 3


def test_lines_after_the_end_of_a_thread_are_of_one_whose_own_line_is_missing(
    household: Path, tmp_path: Path
) -> None:
    lines = exported(ThreadStore(household))
    last = next(number for number, line in enumerate(lines) if objects.is_last(json.loads(line)))
    lost = json.loads(lines.pop(last + 1))["id"]
    said: list[str] = []
    store = ThreadStore(tmp_path / "new")
    Import(store, said.append).read(lines)
    reason = "the line of its thread is missing"
    assert said == [f"line {last + 2}: {reason}, so thread {lost!r} is not imported"]
    assert len(store.list_thread_ids()) == 4


def test_objects_that_openai_made_are_imported_with_all_their_fields(tmp_path: Path) -> None:
    thread = {"id": "T", "object": "thread", "created_at": 1, "metadata": {}, "tool_resources": None}
    run = {"id": "R", "object": "thread.run", "created_at": 2, "thread_id": "T", "status": "incomplete"}
    run |= {"assistant_id": "asst_1", "model": "gpt-4o", "last_error": None, "tools": []}
    store = imported([as_json(thread), as_json(run)], tmp_path)
    assert json.loads(store.read_document(DocumentKey("T", "R"))[0])["assistant_id"] == "asst_1"


def test_an_own_field_that_is_not_ours_is_refused() -> None:
    with pytest.raises(InvalidDocument):
        restored({"id": "T", "threadfs": 7}, is_line=False)
