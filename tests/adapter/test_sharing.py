"""Opens that the shim answers: with which handle, until when, and who closes it."""

from __future__ import annotations

import json

import pytest

from store import DocumentKey, ThreadStore
from tests.adapter.kernel import Caller, Kernel
from tests.mount.conftest import wait_until
from threadfs.fuse import shim

META, STATUS = "threads/T/meta.json", "threads/T/runs/R/status"


class Shim:
    """As ``shim.c`` counts opens, with *room* for so many files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 1000
        # By place: the number of the inode, the handle, how many opens.
        self.shared: dict[int, tuple[int, int, int]] = {}
        for name in ("share", "shared_in_place_of", "opens_shared", "end_sharing"):
            monkeypatch.setattr(shim, name, getattr(self, name))

    def share(self, inode_number: int, handle: int, opens: int) -> bool:
        self.shared[inode_number % self.room] = inode_number, handle, opens
        return True

    def shared_in_place_of(self, inode_number: int) -> int:
        other = self.shared.get(inode_number % self.room, (0, 0, 0))[0]
        return other if other != inode_number else 0

    def opens_shared(self, inode_number: int) -> int:
        return self.shared[inode_number % self.room][2]

    def end_sharing(self, inode_number: int) -> int:
        return self.shared.pop(inode_number % self.room)[2]

    # ── As the kernel asks ──────────────────────────────────────────────────────────────────────────

    def open(self, number: int) -> int | None:
        """The handle, if the open is answered here."""
        return self._changed(number, +1)

    def close(self, kernel: Kernel, number: int, handle: int) -> None:
        if self.shared.get(number % self.room, (0, 0, 0))[:2] == (number, handle):
            self._changed(number, -1)
        else:
            kernel.call(kernel.operations.release, handle)

    def _changed(self, number: int, opens: int) -> int | None:
        found, handle, before = self.shared.get(number % self.room, (0, 0, 0))
        if found != number:
            return None
        self.shared[number % self.room] = number, handle, before + opens
        return handle


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Shim:
    return Shim(monkeypatch)


def shared(kernel: Kernel, answering: Shim, path: str) -> tuple[int, int]:
    """The number of a file that is shared, and its handle."""
    number = kernel.number(path)
    handle = kernel.open(number)
    assert answering.open(number) == handle
    answering.close(kernel, number, handle)
    return number, handle


class Handle:
    """As `pyfuse3.PollHandle`."""

    def notify(self) -> None:
        pass


def is_open(kernel: Kernel, handle: int) -> bool:
    return kernel.operations.files.get(handle) is not None


def change(other: ThreadStore, kernel: Kernel, number: int) -> None:
    """Has another program change the status, and the mount hear of it."""
    seen = kernel.operations.inodes[number].changes_seen
    other.patch_document(DocumentKey("T", "R"), {"note": "changed"})
    wait_until(lambda: kernel.operations.inodes[number].changes_seen > seen)


def test_a_file_that_nobody_has_open_is_shared_still_and_has_no_readers(
    kernel: Kernel, answering: Shim
) -> None:
    number, handle = shared(kernel, answering, STATUS)
    answering.close(kernel, number, handle)
    assert answering.open(number) == handle
    answering.close(kernel, number, handle)
    assert kernel.operations.inodes[number].readers_now == []


def test_whoever_has_it_open_is_a_reader(kernel: Kernel, answering: Shim) -> None:
    number, _ = shared(kernel, answering, STATUS)
    assert len(kernel.operations.inodes[number].readers_now) == 1


def test_a_change_ends_it_and_the_handle_if_nobody_has_it_open(
    kernel: Kernel, answering: Shim, other: ThreadStore
) -> None:
    number, handle = shared(kernel, answering, STATUS)
    answering.close(kernel, number, handle)
    change(other, kernel, number)
    assert answering.open(number) is None
    assert not is_open(kernel, handle)
    assert kernel.number(STATUS) == number  # Nobody reads the version of before.


def test_after_a_change_each_who_has_it_open_reads_on_until_the_last_closes(
    kernel: Kernel, answering: Shim, other: ThreadStore
) -> None:
    number, handle = shared(kernel, answering, STATUS)
    answering.open(number)
    before = kernel.read(handle)
    change(other, kernel, number)
    assert json.loads(kernel.read(kernel.open(kernel.number(STATUS))))["note"] == "changed"
    answering.close(kernel, number, handle)
    assert kernel.read(handle) == before
    answering.close(kernel, number, handle)
    assert not is_open(kernel, handle)


def test_a_size_of_another_version_ends_it(kernel: Kernel, answering: Shim) -> None:
    number, handle = shared(kernel, answering, STATUS)
    answering.close(kernel, number, handle)
    inode = kernel.operations.inodes[number]
    inode.told_version = "another"  # As after a change that is not reported yet.
    inode.entry = None
    kernel.attributes(number)
    assert answering.open(number) is None


def test_a_file_that_is_opened_to_be_written_is_shared_no_longer(kernel: Kernel, answering: Shim) -> None:
    number, handle = shared(kernel, answering, STATUS)
    answering.close(kernel, number, handle)
    kernel.open(number, 1)
    assert answering.open(number) is None


def test_another_file_takes_the_place_of_one_that_nobody_needs(kernel: Kernel, answering: Shim) -> None:
    answering.room = 1
    number, handle = shared(kernel, answering, STATUS)
    answering.close(kernel, number, handle)
    another, _ = shared(kernel, answering, META)
    assert answering.open(number) is None
    assert answering.open(another) is not None
    assert not is_open(kernel, handle)


def test_a_file_whose_bytes_are_given_back_is_shared_no_longer(
    kernel: Kernel, answering: Shim, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, handle = shared(kernel, answering, STATUS)
    answering.close(kernel, number, handle)
    monkeypatch.setattr(kernel.operations.files._recent, "_bytes", 32 << 20)  # As if there were many others.
    kernel.open(kernel.number(META))
    assert answering.open(number) is None
    assert not is_open(kernel, handle)


def test_a_file_that_the_kernel_forgets_is_shared_no_longer(kernel: Kernel, answering: Shim) -> None:
    number, handle = shared(kernel, answering, STATUS)
    answering.close(kernel, number, handle)
    lookups = kernel.operations.inodes[number].lookups
    kernel.call(kernel.operations.forget, [(number, lookups)])
    assert not is_open(kernel, handle)
    assert answering.shared == {}


def test_who_waits_for_a_change_gets_a_handle_that_others_do_not_share(
    kernel: Kernel, answering: Shim
) -> None:
    number, handle = shared(kernel, answering, STATUS)
    kernel.call(kernel.operations.poll, number, handle, Handle(), Caller())
    assert answering.open(number) is None
