"""What a listing tells: in which order, with which attributes, from which place on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from store import Thread, ThreadStore
from tests.adapter.kernel import Caller, Kernel, kernel_on

COUNT = 12


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    store = ThreadStore(tmp_path / "store")
    for number in range(COUNT):
        store.create_thread(Thread(id=f"thread {number}"))
    with kernel_on(tmp_path / "store", monkeypatch) as mounted:
        yield mounted


def opened(kernel: Kernel) -> int:
    return kernel.call(kernel.operations.opendir, kernel.number("threads"), Caller())


def test_a_listing_in_pieces_gives_each_name_once(kernel: Kernel) -> None:
    handle = opened(kernel)
    found: list[bytes] = []
    last = 0
    while entries := kernel.entries(handle, last, room=5):
        found += [name for name, _, _ in entries]
        last = entries[-1][2]
    assert len(found) == len(set(found)) == COUNT + 2


def test_an_entry_that_has_no_room_is_not_counted_as_looked_up(kernel: Kernel) -> None:
    handle = opened(kernel)
    (*_, (_, (number, _, _), last)) = kernel.entries(handle, room=5)
    assert kernel.operations.inodes[number].lookups == 1
    ((_, (refused, _, _), _),) = kernel.entries(handle, last, room=1)
    assert kernel.operations.inodes[refused].lookups == 1
    assert len([held for held in kernel.operations.inodes.held() if held.lookups]) == 2 + 4


def test_names_stay_in_their_order_while_threads_come(kernel: Kernel) -> None:
    handle = opened(kernel)
    before = kernel.names(handle, room=6)
    ThreadStore(kernel.operations.tree.store.location).create_thread(Thread(id="a new one"))
    after = kernel.names(handle, start=6)
    assert len(before) + len(after) == COUNT
    assert not set(before) & set(after)


def test_rewinding_shows_what_there_is_now(kernel: Kernel) -> None:
    handle = opened(kernel)
    assert len(kernel.names(handle)) == COUNT
    kernel.call(kernel.operations.mkdir, kernel.number("threads"), b"a new one", 0o755, Caller())
    assert b"a new one" in kernel.names(handle)


def test_attributes_that_cost_something_come_once_one_of_them_was_wanted(kernel: Kernel) -> None:
    handle = opened(kernel)
    first = kernel.entries(handle, room=4)
    without = [number for name, (number, timeout, _), _ in first if timeout == 0 and name[:1] != b"."]
    if without:  # The others were at hand.
        kernel.attributes(without[0])
    rest = kernel.entries(handle, first[-1][2])
    assert all(timeout > 0 for _, (_, timeout, _), _ in rest)


def test_a_directory_is_listed_with_itself_and_the_one_above(kernel: Kernel) -> None:
    entries = kernel.entries(opened(kernel))
    assert [name for name, _, _ in entries[:2]] == [b".", b".."]
    assert entries[0][1][0] == kernel.number("threads")
