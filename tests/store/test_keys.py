"""`Keys`: a dictionary whose keys are of threads, runs and the lists in these."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.api import DocumentKey
from store.keys import Keys

THREADS = [DocumentKey(""), DocumentKey("t"), DocumentKey("u")]
RUNS = [DocumentKey("t", "r"), DocumentKey("t", "s"), DocumentKey("u", "r")]
ALL = [key for one in THREADS + RUNS for key in (one, one.list_in_it)]


@given(st.lists(st.tuples(st.sampled_from(ALL), st.integers(-3, 3))))
def test_keys_hold_what_a_dictionary_holds(changes: list[tuple[DocumentKey, int]]) -> None:
    keys, expected = Keys(), dict[DocumentKey, int]()
    for key, number in changes:
        if number:
            keys[key] = expected[key] = number
        else:
            assert keys.pop(key, None) == expected.pop(key, None)
        assert dict(keys) == expected
        assert len(keys) == len(expected)
        assert [keys.get(one) for one in ALL] == [expected.get(one) for one in ALL]
        assert [one in keys for one in ALL] == [one in expected for one in ALL]


@pytest.mark.parametrize("key", ALL, ids=str)
def test_a_key_without_a_number_raises_as_in_a_dictionary(key: DocumentKey) -> None:
    keys = Keys()
    for other in ALL:
        if other != key:
            keys[other] = 1
    with pytest.raises(KeyError):
        keys[key]
    with pytest.raises(KeyError):
        del keys[key]


def test_the_key_of_a_run_is_kept_as_it_was_given() -> None:
    keys, run = Keys(), DocumentKey("t", "r")
    keys[run] = 1
    keys[run.list_in_it] = 1
    assert next(iter(keys)) is run
