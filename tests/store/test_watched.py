"""`Directories`: which directory has which inotify watch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from store.api import DocumentKey
from store.disk.watched import Directories
from tests.store.test_keys import ALL

DESCRIPTORS = [1, 2, 255, 256, 257, 70_000, (1 << 31) - 1]


@given(st.lists(st.tuples(st.sampled_from(ALL), st.sampled_from(DESCRIPTORS), st.booleans())))
def test_a_directory_has_the_descriptor_that_it_got_last(
    changes: list[tuple[DocumentKey, int, bool]],
) -> None:
    directories, expected = Directories(), dict[DocumentKey, int]()
    for key, descriptor, comes in changes:
        if comes:
            directories.put_descriptor(key, descriptor)
            expected[key] = descriptor
        else:
            assert directories.remove(key) == expected.pop(key, None)
        assert [directories.descriptor(one) for one in ALL] == [expected.get(one) for one in ALL]
        assert len(directories) == 0


@given(st.lists(st.tuples(st.sampled_from(ALL), st.sampled_from(DESCRIPTORS), st.booleans())))
def test_a_descriptor_has_the_directory_that_it_got_last(
    changes: list[tuple[DocumentKey, int, bool]],
) -> None:
    directories, expected = Directories(), dict[int, DocumentKey]()
    for key, descriptor, comes in changes:
        if comes:
            directories.put_key(descriptor, key)
            expected[descriptor] = key
        else:
            directories.remove_descriptor(descriptor)
            expected.pop(descriptor, None)
        assert [directories.key(one) for one in DESCRIPTORS] == [expected.get(one) for one in DESCRIPTORS]
        assert len(directories) == len(expected)
