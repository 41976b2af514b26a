"""Bad input for every file that can be written: the errno, and that nothing has changed in the store."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.documents import MAX_DOCUMENT_BYTES, MAX_LINE_BYTES
from tests.mount.conftest import Mount
from tests.mount.scripts import document, new_run, new_thread
from tests.mount.unchanged import CONTROLS, DOCUMENTS, WRITABLE, refusal, unchanged
from threadfs.nodes.controls import MAX_START_BYTES


@pytest.fixture
def thread(shared_mount: Mount) -> Iterator[Path]:
    with unchanged(shared_mount) as found:
        yield found


NO_DOCUMENT = {
    "blank": b" \n\t\n",
    "not UTF-8": b'{"a":"\xff"}',
    "not UTF-8 in a word": b"\xff\xfe\n",
    "nonsense": b"nonsense\n",
    "half": b'{"metadata":',
    "half a text": b'{"metadata":"a',
    "a list": b"[1]",
    "a text": b'"completed"',
    "a number": b"5\n",
    "null": b"null\n",
    "true": b"true",
    "NaN": b'{"metadata":NaN}',
    "too large a number": b'{"metadata":1e999}',
    "two documents": b'{"metadata":1} {"metadata":2}',
    "a trailing comma": b'{"metadata":1,}',
    "single quotes": b"{'metadata':1}",
    "nested too deeply": b'{"metadata":' + b"[" * 200 + b"]" * 200 + b"}",
    "half a surrogate pair": b'{"metadata":"\\ud800"}',
    "a byte order mark": b'\xef\xbb\xbf{"metadata":1}',
    "zeros": bytes(100),
    "a newline in a text": b'{"metadata":"a\nb"}',
}


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("what", NO_DOCUMENT)
def test_what_is_no_document_is_refused(thread: Path, name: str, what: str) -> None:
    assert refusal(thread / DOCUMENTS[name], NO_DOCUMENT[what]) == "EINVAL"


WRONG_TYPES = {
    "meta.json": [
        b'{"object":"thread"}',
        b'{"created_at":1}',
        b'{"id":"T","created_at":"now"}',
        b'{"id":"T"}',
    ],
    "status": [
        b"unknown\n",
        b"Completed\n",
        b"completed in_progress\n",
        b'{"status":"unknown"}',
        b'{"status":5}',
        b'{"status":null}',
        b'{"model":5}',
        b'{"last_error":"text"}',
        b'{"last_error":{"code":5,"message":[]}}',
        b'{"started_at":"now"}',
        b'{"object":"thread.run"}',
        b'{"id":"R","created_at":1,"status":"unknown"}',
    ],
    "step": [
        b"queued\n",
        b'{"status":"queued"}',
        b'{"status":null}',
        b'{"step_type":5}',
        b'{"completed_at":"now"}',
        b'{"created_at":1}',
    ],
    "new step": [b"completed\n", b'{"step_type":5}', b'{"step_type":"tool_calls","status":"queued"}'],
    "messages.jsonl": [
        b"nonsense\n",
        b"[]\n",
        b"{}\n",
        b'{"role":"robot","content":"x"}\n',
        b'{"role":"user"}\n',
        b'{"role":"user","content":5}\n',
        b'{"role":"user","content":[{"type":"text","text":"x"}]}\n',
        b'{"role":"user","content":"\xff"}\n',
        b'{"role":"user","content":"x","created_at":"now"}\n',
        b'{"role":"user","content":"x"} {}\n',
        b'{"role":"user","content":"\\ud800"}\n',
        b'{"role":"user",\n"content":"two lines"}\n',
        bytes(100),
    ],
    "say": [b"\xff\n", b"gr\xc3", b"\xed\xa0\x80"],
    "ask": [b"\xff\n", b"gr\xc3", b"\xed\xa0\x80"],
    "start": [
        b"\xff\n",
        b"two\nlines\n",
        b"a\tb\n",
        b"a\x00b\n",
        b"[1]",
        b'{"model":5}',
        b'{"model":"m"',
        b'{"status":"completed"}',
        b'{"id":"a@b"}',
        b'{"id":"../../x"}',
        b'{"id":5}',
        b'{"temperature":"hot"}',
        b'{"temperature":3}',
        b'{"top_p":-0.1}',
        b'{"stop":[1]}',
        b'{"seed":1.5}',
        b'{"instructions":["x"]}',
        b'{"max_completion_tokens":0}',
        b'{"truncation_strategy":{"type":"all"}}',
        b'{"truncation_strategy":{"type":"last_messages","last_messages":0}}',
        b'{"tools":{}}',
        b'{"tools":[{"type":"function"}]}',
    ],
}


@pytest.mark.parametrize(
    ("name", "data"), [(name, data) for name, all_ in WRONG_TYPES.items() for data in all_]
)
def test_what_the_file_does_not_take_is_refused(thread: Path, name: str, data: bytes) -> None:
    flags = os.O_APPEND if name == "messages.jsonl" else os.O_TRUNC | os.O_CREAT
    assert refusal(thread / WRITABLE[name], data, flags=flags) == "EINVAL"


@pytest.mark.parametrize("name", WRITABLE)
def test_opening_without_writing_changes_nothing(thread: Path, name: str) -> None:
    if name != "messages.jsonl":
        assert refusal(thread / WRITABLE[name], b"") == "accepted"
    assert refusal(thread / WRITABLE[name], b"", flags=os.O_CREAT) == "accepted"
    assert refusal(thread / WRITABLE[name], b"", flags=os.O_CREAT | os.O_APPEND) == "accepted"
    assert not (thread / DOCUMENTS["new step"]).exists()


def test_an_emptied_log_is_not_written(thread: Path) -> None:
    refusal(thread / "messages.jsonl", b"")


def test_a_run_whose_id_is_taken_is_refused(thread: Path) -> None:
    assert refusal(thread / "start", b'{"id":"R","model":"m"}') == "EEXIST"


def test_a_message_of_nothing_is_none(thread: Path) -> None:
    assert refusal(thread / "say", b"\n") == "accepted"
    assert refusal(thread / "ask", b"\n") == "accepted"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_beyond_the_limit_is_too_large(thread: Path, name: str) -> None:
    path = thread / DOCUMENTS[name]
    assert refusal(path, b"x", at=MAX_DOCUMENT_BYTES) == "EFBIG"
    assert refusal(path, b"x", at=1 << 60) == "EFBIG"
    if name != "new step":
        assert refusal(path, b" ", at=MAX_DOCUMENT_BYTES, flags=0) == "EFBIG"
        with path.open("r+b") as file, pytest.raises(OSError, match="too large"):
            os.ftruncate(file.fileno(), MAX_DOCUMENT_BYTES + 1)


@pytest.mark.parametrize(
    ("name", "limit"), [("start", MAX_START_BYTES), ("say", MAX_LINE_BYTES), ("ask", MAX_LINE_BYTES)]
)
def test_nothing_counts_of_a_text_beyond_the_limit(thread: Path, name: str, limit: int) -> None:
    with (thread / CONTROLS[name]).open("wb", buffering=0) as file:
        for _ in range(limit // 100_000):
            file.write(b"x" * 100_000)
        for size in (100_000, 1):
            with pytest.raises(OSError, match="too large"):
                file.write(b"x" * size)


def test_a_line_beyond_the_limit_is_too_large(thread: Path) -> None:
    data = b'{"role":"user","content":"' + b"x" * MAX_LINE_BYTES
    assert refusal(thread / "messages.jsonl", data, flags=os.O_APPEND) == "EFBIG"


@pytest.mark.parametrize("name", ["meta.json", "status"])
@pytest.mark.parametrize("is_patch", [False, True])
def test_the_ids_stay_those_of_the_path(shared_mount: Mount, name: str, is_patch: bool) -> None:
    thread = new_thread(shared_mount)
    path = thread / name if name == "meta.json" else new_run(thread) / name
    before = document(path)
    others = {"thread_id": "other", "run_id": "other"} if is_patch else {"id": "other", "thread_id": "other"}
    path.write_text(json.dumps(others if is_patch else {**before, **others}))
    after = document(path)
    assert {field: after[field] for field in before} == before
