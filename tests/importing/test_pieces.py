"""Large JSON, one value after the other: whatever the file is cut into, and whatever is wrong with it."""

from __future__ import annotations

import io
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from threadfs.importing import pieces
from threadfs.importing.pieces import CUT_OFF, Item, Pieces

TEXTS = st.text(st.sampled_from('a"\\[]{},:\n é😀\ud83d'), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=4)


# On a machine that has much else to do, nothing here is slow by itself.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def read(data: bytes, chunk_bytes: int = 1 << 20) -> list[Item]:
    stream = io.BytesIO(data)
    return list(Pieces(lambda size: stream.read(min(size, chunk_bytes)), chunk_bytes))


def values(data: bytes, chunk_bytes: int = 1 << 20) -> list[Any]:
    found = read(data, chunk_bytes)
    assert not [item.error for item in found if item.error]
    return [item.value for item in found]


def errors(data: bytes) -> list[tuple[str, str]]:
    return [(item.where, item.error) for item in read(data) if item.error]


def whole(value: Any) -> Any:
    """With U+FFFD for halves of surrogate pairs."""
    if isinstance(value, str):
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in value)
    if isinstance(value, list):
        return [whole(entry) for entry in value]
    if isinstance(value, dict):
        return {whole(name): whole(entry) for name, entry in value.items()}
    return value


@patient
@given(st.lists(VALUES, max_size=4), st.integers(1, 9), st.sampled_from([None, 1]), st.booleans())
@example([{"c": "}]"}], 3, None, True)
def test_an_array_gives_its_values_however_it_is_read(
    given_values: list[Any], chunk_bytes: int, indent: int | None, is_ascii: bool
) -> None:
    if not is_ascii:
        given_values = whole(given_values)
    data = json.dumps(given_values, indent=indent, ensure_ascii=is_ascii).encode()
    assert values(data, chunk_bytes) == whole(given_values)


@patient
@given(st.lists(OBJECTS, min_size=1, max_size=4), st.integers(1, 9), st.booleans())
def test_lines_give_their_values_however_they_are_read(
    given_values: list[Any], chunk_bytes: int, ends: bool
) -> None:
    data = "\n".join(json.dumps(value) for value in given_values).encode() + b"\n" * ends
    assert values(data, chunk_bytes) == whole(given_values)


@patient
@given(st.lists(OBJECTS, min_size=1, max_size=3), st.integers(1, 9), st.sampled_from(["utf-16", "utf-8-sig"]))
def test_other_encodings_of_unicode_are_read(
    given_values: list[Any], chunk_bytes: int, encoding: str
) -> None:
    data = json.dumps(whole(given_values), ensure_ascii=False).encode(encoding)
    assert values(data, chunk_bytes) == whole(given_values)


@patient
@given(st.lists(OBJECTS, min_size=1, max_size=4), st.data(), st.integers(1, 9))
def test_an_array_that_is_cut_off_gives_the_first_values_and_says_so(
    given_values: list[Any], data: st.DataObject, chunk_bytes: int
) -> None:
    encoded = json.dumps(given_values).encode()
    cut = data.draw(st.integers(1, len(encoded) - 1))
    found = read(encoded[:cut], chunk_bytes)
    *first, last = found
    assert [item.value for item in first] == whole(given_values)[: len(first)]
    assert last.error == CUT_OFF


@pytest.mark.parametrize(
    "broken", ["{'a': 1}", '{"a": tru}', '{"a": "\\q"}', '{"a": 1,}', '{"a": [1}', "nonsense"]
)
@pytest.mark.parametrize("chunk_bytes", [1, 3, 1 << 20])
def test_a_broken_value_in_an_array_costs_itself(broken: str, chunk_bytes: int) -> None:
    found = read(f'[{{"n": 1}}, {broken}, {{"n": "]}}"}}]'.encode(), chunk_bytes)
    assert [bool(item.error) for item in found] == [False, True, False]
    assert found[2].value == {"n": "]}"}
    assert found[1].where == "number 2"


@pytest.mark.parametrize("broken", ["{'a': 1}", '{"a": [', '"', "[[[", '{"a": tru}'])
@pytest.mark.parametrize("at", [0, 1])
def test_a_broken_line_costs_itself(broken: str, at: int) -> None:
    lines = ['{"n": 1}', '{"n": 2}']
    lines.insert(at, broken)
    if broken[0] != "{" and at == 0:
        lines.insert(0, '{"n": 0}')
    found = read("\n".join(lines).encode() + b"\n")
    assert sum(bool(item.error) for item in found) == 1
    assert [item.value["n"] for item in found if not item.error][-2:] == [1, 2]


def test_a_last_line_without_newline_that_is_no_json_is_not_there_yet() -> None:
    assert values(b'{"n": 1}\n{"n": 2') == [{"n": 1}]
    assert values(b'{"n": 1}\n{"n": 2}') == [{"n": 1}, {"n": 2}]


def test_a_value_that_is_nested_200000_levels_deep_costs_itself() -> None:
    deep = '{"a":' * 200_000 + "1" + "}" * 200_000
    assert errors(f'[{{"n": 1}}, {deep}, {{"n": 2}}]'.encode()) == [("number 2", "nested too deeply")]
    assert errors(f'{{"n": 1}}\n{deep}\n{{"n": 2}}\n'.encode()) == [("line 2", "nested too deeply")]


def test_a_value_that_is_too_large_costs_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "MAX_VALUE", 1000)
    large = json.dumps({"a": "x" * 5000})
    for data in (f'[{{"n": 1}}, {large}, {{"n": 2}}]', f'{{"n": 1}}\n{large}\n{{"n": 2}}\n'):
        for chunk_bytes in (100, 1 << 20):
            found = read(data.encode(), chunk_bytes)
            assert [item.value for item in found if not item.error] == [{"n": 1}, {"n": 2}]
            assert sum("larger than" in item.error for item in found) == 1


@pytest.mark.parametrize("number", ["1e999", "NaN", "-Infinity", "9" * 30, "9" * 5000])
def test_a_number_that_nobody_can_keep_does_not_end_the_file(number: str) -> None:
    found = read(f'[{{"n": 1}}, {{"n": {number}}}, {{"n": 2}}]'.encode())
    assert [item.value for item in found][::2] == [{"n": 1}, {"n": 2}]


def test_bytes_that_are_no_utf_8_do_not_end_the_file() -> None:
    assert values(b'[{"n": "\xff\xfe"}, {"n": 2}]') == [{"n": "\ufffd\ufffd"}, {"n": 2}]


def test_memory_does_not_grow_with_the_file() -> None:
    value = json.dumps({"text": "x" * 1000}).encode()
    chunks = [b"["] + [value + b","] * 30_000 + [value + b"]", b""]
    position = iter(chunks)
    tracemalloc.start()
    try:
        count = sum(1 for _ in Pieces(lambda size: next(position, b"")))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 30_001
    assert peak_bytes < 8 << 20
