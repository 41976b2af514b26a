"""What of the store is followed, as far as the system has watches, without a kernel."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest
import trio
import trio.testing

from store import Change, Part, Thread, ThreadStore
from tests.conftest import inotify_limit
from threadfs.fuse.following import Following
from threadfs.fuse.inodes import Inode
from threadfs.nodes.root import root_of
from threadfs.nodes.threads import ThreadDirectory

NONE_LEFT = {
    "max_user_instances": "no inotify instance is left",
    "max_user_watches": "no inotify watch is left",
}


class Kernel:
    """Holds two threads, and hears of changes."""

    def __init__(self, place: Path) -> None:
        self.store = ThreadStore(place)
        self.changes: SimpleQueue[Change] = SimpleQueue()
        self.following = Following(self.store, self._heard)
        tree = root_of(self.store).tree
        for thread_id in ("a", "b"):
            self.store.create_thread(Thread(id=thread_id))
        self.inodes = [Inode(2, ThreadDirectory(tree, "a")), Inode(3, ThreadDirectory(tree, "b"))]

    def _heard(self, change: Change) -> None:
        if change.part is Part.EVERYTHING:
            self.following.begin_again()
        self.changes.put(change)

    def start(self) -> None:
        self.following.start()
        for inode in self.inodes:
            self.following.hold(inode)

    def hears_that_a_document_is_replaced(self, place: Path) -> bool:
        meta = place / "a" / "meta.json"
        meta.write_text(meta.read_text().replace("{}", '{"by": "another"}'))
        deadline_s = time.monotonic() + 10
        while time.monotonic() < deadline_s:
            try:
                if self.changes.get(timeout=1) == Change(Part.DOCUMENT, "a"):
                    return True
            except Empty:
                continue
        return False


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    kernel = Kernel(tmp_path)
    try:
        yield kernel
    finally:
        kernel.following.close()
        kernel.store.close()


def test_what_the_kernel_holds_is_followed(kernel: Kernel, tmp_path: Path) -> None:
    kernel.start()
    assert kernel.following.stats() == {"followed": 3, "not_followed": 0}
    assert kernel.following.lack == ""
    assert kernel.hears_that_a_document_is_replaced(tmp_path)


def test_nothing_waits_for_a_time_while_all_is_followed(kernel: Kernel) -> None:
    async def seconds_to_next_deadline() -> float:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kernel.following.keep_trying)
            await trio.testing.wait_all_tasks_blocked()
            found = trio.lowlevel.current_statistics().seconds_to_next_deadline
            nursery.cancel_scope.cancel()
        return found

    kernel.start()
    assert trio.run(seconds_to_next_deadline) == math.inf


@pytest.mark.alone
@pytest.mark.parametrize("limit", NONE_LEFT)
def test_what_cannot_be_followed_is_said_and_followed_as_soon_as_it_can_be(
    kernel: Kernel, tmp_path: Path, limit: str, caplog: pytest.LogCaptureFixture
) -> None:
    with inotify_limit(limit, 0):
        kernel.start()
        kernel.following.try_again()
        assert kernel.following.stats() == {"followed": 0, "not_followed": 3}
    assert NONE_LEFT[limit] in kernel.following.lack
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        kernel.following.lack
    ]
    kernel.following.try_again()
    assert kernel.following.stats() == {"followed": 3, "not_followed": 0}
    assert kernel.following.lack == ""
    # What the kernel was told meanwhile may have changed unheard.
    assert kernel.changes.get(timeout=1) == Change(Part.EVERYTHING)
    assert kernel.hears_that_a_document_is_replaced(tmp_path)


@pytest.mark.alone
def test_threads_for_which_no_watch_was_left_are_followed_when_there_is_one(
    kernel: Kernel, tmp_path: Path
) -> None:
    kernel.following.start()
    with inotify_limit("max_user_watches", 0):
        for inode in kernel.inodes:
            kernel.following.hold(inode)
        kernel.following.try_again()
        assert kernel.following.stats() == {"followed": 1, "not_followed": 2}
    kernel.following.try_again()
    assert kernel.following.stats() == {"followed": 3, "not_followed": 0}
    assert kernel.hears_that_a_document_is_replaced(tmp_path)


@pytest.mark.alone
def test_what_the_kernel_has_forgotten_is_not_followed_later(kernel: Kernel) -> None:
    with inotify_limit("max_user_instances", 0):
        kernel.start()
        kernel.following.release(kernel.inodes[0])
    kernel.following.try_again()
    assert kernel.following.stats() == {"followed": 2, "not_followed": 0}
