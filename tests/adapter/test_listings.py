"""What a listing tells: in which order, with which attributes, from which place on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from store import Thread, ThreadStore
from tests.adapter.kernel import Caller, Kernel, kernel_on
from threadfs.fuse import listing, shim

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
    # The new one comes last, if it is known by now.
    assert len(before) + len([name for name in after if name != b"a new one"]) == COUNT
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


# ── What the kernel may keep ────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def ends_not_kept(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """An item for each end of a listing that the kernel was told not to keep."""
    told: list[None] = []
    kernel.operations.kernel_cache.keeps_listings = True
    monkeypatch.setattr(shim, "keep_no_listing", lambda: told.append(None))
    return told


def walked(kernel: Kernel, path: str) -> int:
    """Lists a directory to its end; returns its number."""
    number = kernel.number(path)
    handle = kernel.call(kernel.operations.opendir, number, Caller())
    last = 0
    while entries := kernel.entries(handle, last):
        last = entries[-1][2]
    return number


def test_a_listing_is_kept_where_each_name_is_reported(kernel: Kernel, ends_not_kept: list[None]) -> None:
    for path in ("threads", "transcripts", "threads/thread 1", "threads/thread 1/runs"):
        walked(kernel, path)
    assert not ends_not_kept


def test_a_listing_is_not_kept_where_names_may_change_without_a_report(
    kernel: Kernel, ends_not_kept: list[None]
) -> None:
    paths = ("drafts", "by-title", "search", "runs", "runs/queued")
    for path in paths:
        walked(kernel, path)
    assert len(ends_not_kept) == len(paths)


def test_a_listing_is_not_kept_when_a_name_has_come_since_it_began(
    kernel: Kernel, ends_not_kept: list[None]
) -> None:
    handle = opened(kernel)
    (*_, (_, _, last)) = kernel.entries(handle)
    kernel.call(kernel.operations.mkdir, kernel.number("threads"), b"a new one", 0o755, Caller())
    while entries := kernel.entries(handle, last):
        last = entries[-1][2]
    assert len(ends_not_kept) == 1


def test_after_a_change_none_is_kept_until_what_was_told_before_has_arrived_and_is_dropped(
    kernel: Kernel, ends_not_kept: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    number = walked(kernel, "threads")
    kernel.call(kernel.operations.mkdir, number, b"a new one", 0o755, Caller())
    assert (number, False) in kernel.forgotten
    walked(kernel, "threads")
    assert len(ends_not_kept) == 1
    kernel.forgotten.clear()
    monkeypatch.setattr(listing, "_TAKEN_S", 0)
    walked(kernel, "threads")
    assert kernel.forgotten == [(number, False)]
    assert len(ends_not_kept) == 1


def test_an_empty_listing_that_is_kept_is_forgotten_when_a_name_comes(
    kernel: Kernel, ends_not_kept: list[None]
) -> None:
    kernel.call(kernel.operations.mkdir, kernel.number("threads"), b"empty", 0o755, Caller())
    number = walked(kernel, "threads/empty/runs")
    assert not ends_not_kept
    kernel.forgotten.clear()
    kernel.call(kernel.operations.mkdir, number, b"R", 0o755, Caller())
    assert (number, False) in kernel.forgotten
