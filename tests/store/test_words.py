"""What is wrong with a document, in words: one line, and none of the libraries that found it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store import InvalidDocument, Run, RunStep, Thread, ThreadMessage, documents
from store.models import Document

# Words of pydantic and of Python's parser.
OF_LIBRARIES = (
    "Input should",
    "valid string",
    "Field required",
    "{{",
    "at at",
    "Expecting",
    "dict[",
    "sys.set",
)


def reason(data: bytes, model: type[Document] = Thread) -> str:
    with pytest.raises(InvalidDocument) as refused:
        model.of(documents.parse(data))
    said = str(refused.value)
    assert "\n" not in said
    assert not any(word in said for word in OF_LIBRARIES), said
    return said


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not JSON: a value is missing at column 1"),
        (b"{a:1}", "not JSON: a name in double quotes is missing at column 2"),
        (b'{"a" 1}', "not JSON: ':' is missing at column 6"),
        (b'{"a":1 "b":2}', "not JSON: ',' is missing at column 8"),
        (b'{\n  "a": 1\n  "b": 2\n}', "not JSON: ',' is missing at line 3, column 3"),
        (b'{"a":"one\ntwo"}', "not JSON: a control character that is not escaped at line 1, column 10"),
        (b'{"a":"one', "not JSON: no end of the text that begins at column 6"),
        (b'{"a":"\\x"}', "not JSON: an unknown escape at column 7"),
        (b'{"a":"\\u00"}', "not JSON: a broken escape at column 8"),
        (b'{"a":1} b', "not JSON: more follows the document at column 9"),
        (b'{"a":%s}' % (b"9" * 5000), "not JSON that can be kept: a number has too many digits"),
        (b'{"a":NaN}', "NaN is not JSON"),
    ],
)
def test_what_is_no_json_is_said_with_its_place(data: bytes, said: str) -> None:
    assert reason(data) == said


MESSAGE = {"id": "m", "created_at": 1, "role": "user", "content": []}
RUN = {"created_at": 1, "status": "queued"}
STEP = {"created_at": 1, "status": "completed", "type": "tool_calls"}


@pytest.mark.parametrize(
    ("model", "fields", "said"),
    [
        (Thread, {"created_at": "now"}, "created_at: must be a whole number"),
        (Thread, {"created_at": 2**63}, "created_at: is out of the range of a time"),
        (Thread, {}, "created_at: missing"),
        (ThreadMessage, {**MESSAGE, "role": "judge"}, "role: must be user or assistant"),
        (ThreadMessage, {**MESSAGE, "content": 7}, "content: must be a list"),
        (ThreadMessage, {**MESSAGE, "content": ["x"]}, "content.0: must be an object"),
        (
            ThreadMessage,
            {**MESSAGE, "content": [{"type": "text", "text": "x"}]},
            'content.0: a block of type text must hold "text": {"value": "…"}',
        ),
        (ThreadMessage, {**MESSAGE, "run_id": ["r"]}, "run_id: must be a text"),
        (Run, {**RUN, "last_error": {"code": "c"}}, "last_error.message: missing"),
        (Run, {**RUN, "last_error": "gone"}, "last_error: must be an object"),
        (RunStep, {**STEP, "type": "dance"}, "type: must be message_creation or tool_calls"),
        (RunStep, {**STEP, "step_details": 7}, "step_details: must be an object"),
        (RunStep, {**STEP, "created_at": -1}, "created_at: is out of the range of a time"),
    ],
)
def test_what_is_no_document_is_said_with_its_field(
    model: type[Document], fields: dict[str, Any], said: str
) -> None:
    assert reason(json.dumps(fields).encode(), model) == said


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda items: (
        st.lists(items, max_size=2)
        | st.dictionaries(st.sampled_from(["type", "text", "value", "x"]), items, max_size=2)
    ),
    max_leaves=4,
)


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from([(Thread, {"created_at": 1}), (ThreadMessage, MESSAGE), (Run, RUN), (RunStep, STEP)]),
    st.sampled_from(
        [
            "id",
            "object",
            "created_at",
            "role",
            "content",
            "run_id",
            "status",
            "model",
            "last_error",
            "step_details",
        ]
    ),
    values,
)
def test_whatever_is_wrong_is_said_in_one_line_of_our_own(
    document: tuple[type[Document], dict[str, Any]], name: str, value: Any
) -> None:
    model, fields = document
    said = ""
    try:
        model.of({**fields, name: value})
    except InvalidDocument as error:
        said = str(error)
    assert not said or said.startswith(name)
    assert not any(word in said for word in OF_LIBRARIES), said


@pytest.mark.parametrize(
    ("beginning", "said"),
    [
        (b'{"a" 1', "not JSON: ':' is missing at column 6"),
        (b'{"a":1,}', "not JSON: a name in double quotes is missing at column 8"),
        # The end of this is half a character, which is no reason.
        (b'{a:"\xc3', "not JSON: a name in double quotes is missing at column 2"),
        (b'{"a":"one\n', "not JSON: a control character that is not escaped at line 1, column 10"),
        (b'{"a":"\xff"', "not UTF-8 at byte 6"),
        (b'{"a":"\\ud800"', "a text holds half of a surrogate pair, which is not UTF-8"),
        (b'{"a":NaN', "NaN is not JSON"),
    ],
)
def test_what_no_document_begins_with_is_said_with_its_place(beginning: bytes, said: str) -> None:
    assert documents.why_no_beginning(beginning) == said
