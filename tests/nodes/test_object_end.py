"""Where an object ends, in whatever pieces it arrives."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from threadfs.nodes.object_end import ObjectEnd, object_end

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
CUTS = st.lists(st.integers(0, 400), max_size=8)


OBJECTS = st.dictionaries(st.text(max_size=4), JSON, max_size=4)


@given(OBJECTS, st.sampled_from(["", "\n", " x}", "{"]), CUTS)
def test_it_is_found_in_the_piece_that_holds_it(
    fields: dict[str, object], rest: str, cuts: list[int]
) -> None:
    document = json.dumps(fields, ensure_ascii=False).encode()
    text = document + rest.encode()
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    end = ObjectEnd()
    for start, stop in pairwise(edges):
        found = end.copy().find(text[start:stop])
        assert found == end.find(text[start:stop])
        if start < len(document) <= stop:
            assert found == len(document) - start
            return
        assert found is None


@given(OBJECTS, st.integers(0))
def test_half_an_object_has_no_end(fields: dict[str, object], cut: int) -> None:
    document = json.dumps(fields).encode()
    assert object_end(document[: cut % len(document)]) is None


def test_what_stands_in_a_text_opens_and_closes_nothing() -> None:
    for text in (b'{"a":"}', b'{"a":"\\"}', b'{"a":"\\\\\\"}'):
        assert object_end(text) is None
        assert object_end(text + b'"}') == len(text) + 2
