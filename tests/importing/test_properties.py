"""What holds for every fixture: however it is cut, ordered and read, the same comes out, or a named skip."""

from __future__ import annotations

import json
import random
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from store import DocumentKey, ThreadStore
from tests.importing.conftest import FIXTURES, bytes_of, imported, said
from tests.importing.test_fixtures import files_of
from threadfs.importing import pieces
from threadfs.openai.exporting import Export

# The files of each case that hold conversations, as they are in it.
TEXTS: dict[str, bytes] = {
    "chat": (FIXTURES / "chat-completions/lines/train.jsonl").read_bytes(),
    "sharegpt": (FIXTURES / "sharegpt/array/data.json").read_bytes(),
}
for name in ("chatgpt/branches", "chatgpt/tools", "claude/basic"):
    with zipfile.ZipFile(FIXTURES / name / "export.zip") as archive:
        TEXTS[name] = archive.read("conversations.json")
(webui,) = (FIXTURES / "openwebui/export").glob("chat-export-*.json")
TEXTS["openwebui"] = webui.read_bytes()
# Files that are one conversation, in lines.
SESSIONS = {
    name: next((FIXTURES / name).glob("**/*.jsonl")).read_bytes() for name in ("claude-code", "codex")
}
CASES = (
    "chatgpt/branches",
    "chatgpt/shards",
    "chatgpt/tools",
    "claude/basic",
    "claude-code/session",
    "codex/rollout",
    "librechat/export",
    "llm/responses",
    "lmstudio/conversations",
    "openai/pages",
    "openwebui/export",
)


def threads_of(root: Path) -> dict[str, dict[str, bytes]]:
    """The files of each thread, without the times of those that have none of their own."""
    found: dict[str, dict[str, bytes]] = {}
    for path, data in bytes_of(root).items():
        found.setdefault(path.partition("/")[0], {})[path] = data
    return found


@pytest.fixture(autouse=True)
def _same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the import, where a conversation has none."""
    monkeypatch.setattr("time.time", lambda: 1_800_000_000.0)


@pytest.mark.parametrize("name", TEXTS)
def test_a_file_that_is_cut_anywhere_gives_some_of_the_same_threads_or_a_named_skip(
    name: str, tmp_path: Path
) -> None:
    data = TEXTS[name]
    (tmp_path / "whole.json").write_bytes(data)
    imported(tmp_path / "whole", tmp_path / "whole.json")
    whole = threads_of(tmp_path / "whole")
    rest = random.Random(1)
    is_array = data.startswith(b"[")
    for cut in rest.sample(range(len(data)), 60):
        shutil.rmtree(tmp_path / "cut", ignore_errors=True)
        (tmp_path / "cut.json").write_bytes(data[:cut])
        result = imported(tmp_path / "cut", tmp_path / "cut.json")
        found = threads_of(tmp_path / "cut") if (tmp_path / "cut").exists() else {}
        assert found.items() <= whole.items(), cut
        if is_array:
            assert result.status == 1, cut
            assert "cut.json" in result.stderr


@pytest.mark.parametrize("name", SESSIONS)
def test_a_session_that_is_cut_anywhere_is_a_beginning_of_it(name: str, tmp_path: Path) -> None:
    data = SESSIONS[name]
    (tmp_path / "whole.jsonl").write_bytes(data)
    imported(tmp_path / "whole", tmp_path / "whole.jsonl")
    whole = ThreadStore(tmp_path / "whole")
    (thread_id,) = whole.list_thread_ids()
    first_line = data.index(b"\n") + 1
    for cut in random.Random(1).sample(range(first_line, len(data)), 30):
        shutil.rmtree(tmp_path / "cut", ignore_errors=True)
        (tmp_path / "cut.jsonl").write_bytes(data[:cut])
        result = imported(tmp_path / "cut", tmp_path / "cut.jsonl")
        assert (result.status, result.stderr) == (0, ""), cut
        assert result.counts["imported"] + result.counts["empty"] == 1
        if result.counts["imported"]:
            found = said(ThreadStore(tmp_path / "cut"), thread_id)
            assert found == said(whole, thread_id)[: len(found)]


@pytest.mark.parametrize("name", SESSIONS)
def test_neither_the_order_of_fields_in_lines_nor_how_they_are_read_matters(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "e.jsonl").write_bytes(SESSIONS[name])
    imported(tmp_path / "one", tmp_path / "e.jsonl")
    lines = [line for line in SESSIONS[name].splitlines() if line.endswith(b"}")]
    for seed, chunk_bytes in enumerate((1, 3, 64)):
        rest = random.Random(seed)
        # What a call is given is kept in the order in which it stands.
        shuffled_lines = [
            json.dumps(dict(rest.sample(list(given.items()), len(given)))).encode()
            for given in map(json.loads, lines)
        ]
        (tmp_path / "e.jsonl").write_bytes(b"\n".join(shuffled_lines) + b"\n")
        monkeypatch.setattr(pieces, "_CHUNK_BYTES", chunk_bytes)
        imported(tmp_path / str(seed), tmp_path / "e.jsonl").has(imported=1)
        assert bytes_of(tmp_path / str(seed)) == bytes_of(tmp_path / "one")


def test_a_zip_that_is_cut_anywhere_is_named(tmp_path: Path) -> None:
    data = (FIXTURES / "chatgpt/tools/export.zip").read_bytes()
    for cut in random.Random(1).sample(range(len(data)), 40):
        (tmp_path / "cut.zip").write_bytes(data[:cut])
        result = imported(tmp_path / "store", tmp_path / "cut.zip")
        assert result.status == 1, cut
        assert "cut.zip" in result.stderr
    assert not (tmp_path / "store").exists()


def shuffled(value: Any, rest: random.Random) -> Any:
    """With the fields of all objects in another order."""
    if isinstance(value, list):
        return [shuffled(entry, rest) for entry in value]
    if isinstance(value, dict):
        names = rest.sample(list(value), len(value))
        return {name: shuffled(value[name], rest) for name in names}
    return value


@pytest.mark.parametrize("name", [name for name in TEXTS if name != "chat"])
def test_the_order_of_fields_does_not_matter(name: str, tmp_path: Path) -> None:
    (tmp_path / "e.json").write_bytes(TEXTS[name])
    imported(tmp_path / "one", tmp_path / "e.json", "--branches")
    for seed in range(5):
        value = shuffled(json.loads(TEXTS[name]), random.Random(seed))
        (tmp_path / "e.json").write_text(json.dumps(value))
        imported(tmp_path / str(seed), tmp_path / "e.json", "--branches")
        assert bytes_of(tmp_path / str(seed)) == bytes_of(tmp_path / "one")


def test_lines_whose_fields_are_in_another_order_are_the_same_conversations(tmp_path: Path) -> None:
    lines = [line for line in TEXTS["chat"].splitlines() if line.endswith(b"}")]
    (tmp_path / "e.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    imported(tmp_path / "one", tmp_path / "e.jsonl")
    rest = random.Random(1)
    shuffled_lines = [json.dumps(shuffled(json.loads(line), rest)).encode() for line in lines]
    (tmp_path / "e.jsonl").write_bytes(b"\n".join(shuffled_lines) + b"\n")
    result = imported(tmp_path / "one", tmp_path / "e.jsonl")
    assert (result.counts["imported"], result.counts["branch"], result.counts["left"]) == (0, 0, 3)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("chunk_bytes", [1, 3, 64])
def test_reading_few_bytes_at_a_time_gives_the_same(
    name: str, chunk_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "e.json").write_bytes(TEXTS[name])
    one = imported(tmp_path / "one", tmp_path / "e.json")
    monkeypatch.setattr(pieces, "_CHUNK_BYTES", chunk_bytes)
    other = imported(tmp_path / "other", tmp_path / "e.json")
    assert one == other
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "other")


@pytest.mark.parametrize("form", ["array", "lines", "indented", "utf-16"])
@pytest.mark.parametrize("name", [name for name in TEXTS if name != "chat"])
def test_the_form_of_the_json_does_not_matter(name: str, form: str, tmp_path: Path) -> None:
    (tmp_path / "e.json").write_bytes(TEXTS[name])
    imported(tmp_path / "one", tmp_path / "e.json")
    value = json.loads(TEXTS[name])
    forms = {
        "array": json.dumps(value, separators=(",", ":")).encode(),
        "lines": "".join(json.dumps(entry) + "\n" for entry in value).encode(),
        "indented": json.dumps(value, indent=4, ensure_ascii=False).encode(),
        "utf-16": json.dumps(value).encode("utf-16"),
    }
    (tmp_path / "e.json").write_bytes(forms[form])
    imported(tmp_path / "other", tmp_path / "e.json")
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "other")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("strict", [False, True])
def test_what_came_in_goes_out_and_comes_back(name: str, strict: bool, tmp_path: Path) -> None:
    imported(tmp_path / "one", *files_of(FIXTURES / name), "--branches")
    store = ThreadStore(tmp_path / "one")

    def missed(what: str, error: Exception) -> None:
        raise AssertionError(f"{what}: {error}")

    export = Export(store, strict, missed)
    lines = [line for thread_id in sorted(store.list_thread_ids()) for line in export.thread(thread_id)]
    imported(tmp_path / "other", stdin=b"".join(lines)).has(imported=len(store.list_thread_ids()))
    if not strict:
        assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "other")
    other = ThreadStore(tmp_path / "other")
    for thread_id in store.list_thread_ids():
        assert said(other, thread_id) == said(store, thread_id)
        assert sorted(other.list_run_ids(thread_id)) == sorted(store.list_run_ids(thread_id))
        assert other.get_thread(thread_id).metadata == store.get_thread(thread_id).metadata
    # It is the same to an import of the export that it came from.
    if name != "openai/pages":
        result = imported(tmp_path / "other", *files_of(FIXTURES / name), "--branches")
        assert result.counts["imported"] + result.counts["branch"] + result.counts["extended"] == 0


def test_calls_survive_a_strict_export(tmp_path: Path) -> None:
    imported(tmp_path / "s", *files_of(FIXTURES / "chatgpt/tools"))
    store = ThreadStore(tmp_path / "s")
    (thread_id,) = store.list_thread_ids()
    lines = [json.loads(line) for line in Export(store, True, lambda what, error: None).thread(thread_id)]
    calls = [call for line in lines for call in line.get("step_details", {}).get("tool_calls", ())]
    assert [call["type"] for call in calls] == ["code_interpreter", "function", "function"]
    assert json.loads(store.read_document(DocumentKey(thread_id))[0])["metadata"] == lines[0]["metadata"]
