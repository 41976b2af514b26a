"""Links that a listing tells with their attributes: for how long the kernel remembers them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from store import DocumentKey, MessageRole, RunStatus, ThreadMessage, ThreadStore
from tests.adapter.kernel import Caller, Kernel
from threadfs.fuse import lent as lent_module
from threadfs.fuse.inodes import Inode
from threadfs.fuse.lent import Lent
from threadfs.nodes.by_date import DayDirectory

# More than are looked for again while they are listed.
LINKS = 150


class Told(NamedTuple):
    number: int
    attr_timeout_s: float
    entry_timeout_s: float


@pytest.fixture
def other(other: ThreadStore) -> ThreadStore:
    for number in range(LINKS):
        place = Path(other.root, f"t{number:03}")
        (place / "runs" / "R").mkdir(parents=True)
        thread = {"id": place.name, "object": "thread", "metadata": {"title": f"About {number:03}"}}
        run = {"id": "R", "object": "thread.run", "thread_id": place.name, "status": "queued"}
        for path, document in ((place / "meta.json", thread), (place / "runs" / "R" / "status.json", run)):
            path.write_text(json.dumps(document | {"created_at": 1}))
    return other


@pytest.fixture
def store(kernel: Kernel) -> Any:
    """That of the mount."""
    return kernel.operations.tree.store


class Listed:
    """A directory of links, of which a program has read some, and wants the attributes."""

    def __init__(self, kernel: Kernel, path: str) -> None:
        self.kernel, self.number = kernel, kernel.number(path)
        self._handle = kernel.call(kernel.operations.opendir, self.number, Caller())
        *_, (_, (number, *_), self._last) = kernel.entries(self._handle, room=10)
        kernel.attributes(number)

    def rest(self) -> dict[str, Told]:
        return {name.decode(): Told(*told) for name, told, _ in self.kernel.entries(self._handle, self._last)}


@pytest.mark.parametrize(
    ("path", "name"), [("by-title", "About 149"), ("by-date", "About 149"), ("runs/queued", "R@t149")]
)
def test_a_link_that_is_told_with_its_attributes_is_remembered_for_a_moment(
    kernel: Kernel, store: Any, path: str, name: str
) -> None:
    if path == "by-date":
        path = DayDirectory(kernel.operations.tree, min(store.catalogue().days())).path
    told = Listed(kernel, path).rest()[name]
    assert 0 < told.attr_timeout_s <= 1
    assert told.entry_timeout_s == told.attr_timeout_s


def test_a_link_that_is_looked_up_is_asked_for_again(kernel: Kernel) -> None:
    entry = kernel.lookup("by-title/About 149")
    assert (entry.attr_timeout, entry.entry_timeout) == (0, 0)


@pytest.mark.parametrize("is_own", [True, False])
def test_a_thread_that_changes_takes_its_links_back(
    kernel: Kernel, store: Any, other: ThreadStore, *, is_own: bool
) -> None:
    kernel.lookup("threads/t149")  # It is followed.
    listed = Listed(kernel, "by-title")
    told = listed.rest()
    changed = store if is_own else other
    changed.patch_document(DocumentKey("t149"), {"metadata": {"title": "Another one"}})
    kernel.waits_for_name(listed.number, "About 149")
    assert (told["About 149"].number, True) in kernel.forgotten
    assert (listed.number, b"About 148") not in kernel.forgotten_names


def test_a_run_that_changes_takes_its_link_back(kernel: Kernel, store: Any) -> None:
    listed = Listed(kernel, "runs/queued")
    listed.rest()
    store.update_run_status("t149", "R", RunStatus.in_progress)
    kernel.waits_for_name(listed.number, "R@t149")


def test_a_link_to_a_thread_that_has_changed_since_it_was_listed_is_asked_for_again(
    kernel: Kernel, store: Any
) -> None:
    listed = Listed(kernel, "by-title")
    store.append_message("t149", ThreadMessage(role=MessageRole.user, content=[]))
    told = listed.rest()
    assert (told["About 149"].attr_timeout_s, told["About 149"].entry_timeout_s) == (0, 0)
    assert told["About 148"].attr_timeout_s > 0


# ── The moment ──────────────────────────────────────────────────────────────────────────────────────────


class Clock:
    now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(lent_module, "time", made)
    return made


@pytest.fixture
def inode(kernel: Kernel) -> Inode:
    return kernel.operations.inodes[kernel.number("threads/T")]


def test_what_was_looked_at_long_ago_is_not_lent(clock: Clock, inode: Inode) -> None:
    assert Lent().lend(inode, "T", listed_s=99.9, looked_s=99.1) == 0


def test_what_is_lent_is_taken_back_once(clock: Clock, inode: Inode) -> None:
    lent = Lent()
    assert lent.lend(inode, "T", listed_s=99.9, looked_s=99.9) == pytest.approx(0.7)
    assert lent.take_back("other") == []
    assert lent.take_back("T") == [inode]
    assert lent.take_back("T") == []


def test_what_the_kernel_has_forgotten_by_itself_is_not_taken_back(clock: Clock, inode: Inode) -> None:
    lent = Lent()
    lent.lend(inode, "T", listed_s=100, looked_s=100)
    clock.now_s += 1
    lent.lend(inode, "other", listed_s=101, looked_s=101)
    assert lent.take_back("T") == []


def test_of_many_threads_that_change_none_is_lent_that_may_have(
    clock: Clock, inode: Inode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lent_module, "_MAX_CHANGED", 2)
    lent = Lent()
    for thread_id in ("T", "others", "and more"):
        lent.take_back(thread_id)
        clock.now_s += 0.1
    assert lent.lend(inode, "T", listed_s=100, looked_s=clock.now_s) == 0
    assert lent.lend(inode, "T", listed_s=100.05, looked_s=clock.now_s) > 0


def test_after_a_loss_of_events_only_what_is_listed_anew_is_lent(clock: Clock, inode: Inode) -> None:
    lent = Lent()
    lent.lend(inode, "T", listed_s=100, looked_s=100)
    lent.take_all_back()
    assert lent.take_back("other") == []
    assert lent.lend(inode, "T", listed_s=100, looked_s=100) == 0
    clock.now_s += 0.1
    assert lent.lend(inode, "T", listed_s=100.1, looked_s=100.1) > 0
