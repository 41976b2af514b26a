"""Who holds an inode, for how long it lives, and what is remembered with it while nothing changes."""

from __future__ import annotations

from pathlib import Path

import pyfuse3
import pytest

from store import Run, Thread, ThreadStore
from tests.nodes.driving import Programs
from threadfs.fuse import inodes as inodes_module
from threadfs.fuse.inodes import Inode, Inodes
from threadfs.fuse.listing import Listing
from threadfs.nodes.base import Reader, is_readable
from threadfs.nodes.root import Root, root_of

STATUS, META = "threads/T/runs/R/status", "threads/T/meta.json"


@pytest.fixture
def root(tmp_path: Path) -> Root:
    store = ThreadStore(tmp_path)
    for thread_id in ("T", "U"):
        store.create_thread(Thread(id=thread_id))
        for run_id in ("R", "S"):
            store.create_run(thread_id, Run(id=run_id))
    return root_of(store)


@pytest.fixture
def inodes(root: Root) -> Inodes:
    return Inodes(root)


def held(inodes: Inodes, root: Root, path: str, lookups: int = 1) -> Inode:
    """The inode of a path that the kernel has looked up so often."""
    inode = inodes.of(Programs(root).at(path))
    inode.lookups += lookups
    return inode


def reader_of(inode: Inode) -> Reader:
    assert is_readable(inode.node)
    return inode.node.open_for_reading()


# ── Who holds it ────────────────────────────────────────────────────────────────────────────────────────


def test_an_inode_lives_until_each_lookup_is_given_back(inodes: Inodes, root: Root) -> None:
    inode = held(inodes, root, STATUS, lookups=3)
    inodes.forget([(inode.number, 2)])
    assert inodes[inode.number] is inode
    inodes.forget([(inode.number, 1)])
    assert inode not in inodes.held()


@pytest.mark.parametrize("use", ["reads", "writes"])
def test_an_inode_that_somebody_uses_outlives_its_lookups(inodes: Inodes, root: Root, use: str) -> None:
    inode = held(inodes, root, STATUS)
    if use == "reads":
        inode.readers.append(reader_of(inode))
    else:
        inode.writers += 1
    inodes.forget([(inode.number, 1)])
    assert inodes[inode.number] is inode
    inode.readers.clear()
    inode.writers = 0
    inodes.release(inode)
    assert inode not in inodes.held()


def test_giving_back_what_is_not_held_changes_nothing(inodes: Inodes) -> None:
    before = inodes.held()
    inodes.forget([(4711, 1)])
    assert inodes.held() == before


def test_the_root_is_always_held(inodes: Inodes, root: Root) -> None:
    assert inodes[pyfuse3.ROOT_INODE].node == root
    assert inodes[pyfuse3.ROOT_INODE].lookups == 1


def test_whoever_asked_hears_once_of_each_inode_that_is_dropped(inodes: Inodes, root: Root) -> None:
    dropped: list[Inode] = []
    inodes.when_dropped(dropped.append)
    inode = held(inodes, root, STATUS, lookups=2)
    for _ in range(3):
        inodes.forget([(inode.number, 1)])
    assert dropped == [inode]


# ── Which numbers ───────────────────────────────────────────────────────────────────────────────────────


def test_an_inode_that_is_held_keeps_its_number_while_others_come_and_go(inodes: Inodes, root: Root) -> None:
    kept, other = held(inodes, root, META), held(inodes, root, STATUS)
    inodes.forget([(other.number, 1)])
    assert held(inodes, root, META).number == kept.number
    assert held(inodes, root, STATUS).number == other.number != kept.number


def test_the_numbers_of_the_files_that_were_forgotten_first_are_given_up_first(
    inodes: Inodes, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inodes_module, "_MAX_FILES", 1)
    first, second = held(inodes, root, META), held(inodes, root, STATUS)
    inodes.forget([(first.number, 1), (second.number, 1)])
    assert held(inodes, root, STATUS).number == second.number
    assert held(inodes, root, META).number > second.number


def test_many_files_do_not_drive_out_the_numbers_of_directories(
    inodes: Inodes, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inodes_module, "_MAX_FILES", 1)
    directory = held(inodes, root, "threads/T")
    inodes.forget([(directory.number, 1)])
    for path in (META, STATUS, "threads/T/messages.jsonl"):
        inodes.forget([(held(inodes, root, path).number, 1)])
    assert held(inodes, root, "threads/T").number == directory.number


def test_a_file_made_again_under_the_name_of_one_that_is_read_gets_another_number(
    inodes: Inodes, root: Root
) -> None:
    old = held(inodes, root, META)
    old.readers.append(reader_of(old))
    inodes.renew(old.node)
    assert inodes.detached(old.node) == [old]
    new = inodes.of(old.node)
    assert new.number != old.number
    old.readers.clear()
    inodes.forget([(old.number, 1)])
    assert inodes.detached(old.node) == []
    assert inodes.existing(new.node) is new


def test_a_removed_directory_is_left_to_its_holders(inodes: Inodes, root: Root) -> None:
    old = held(inodes, root, "threads/T")
    inodes.remove(old.node)
    assert old.removed_ns is not None
    assert inodes[old.number] is old
    again = inodes.of(old.node)
    assert (again.number != old.number, again.removed_ns) == (True, None)


# ── What is in a thread ─────────────────────────────────────────────────────────────────────────────────


def test_what_is_held_of_a_thread_or_run_is_found_by_its_ids(inodes: Inodes, root: Root) -> None:
    paths = [META, STATUS, "threads/T/runs/S/status", "threads/U/meta.json"]
    meta, status, other_run, _ = (held(inodes, root, path) for path in paths)
    assert {meta.number, status.number, other_run.number} <= {found.number for found in inodes.within("T")}
    assert all(found.node.path.startswith("threads/T/") for found in inodes.within("T"))
    assert status in inodes.within("T", "R")
    assert other_run not in inodes.within("T", "R")


def test_what_is_not_held_any_more_is_not_found_in_its_thread(inodes: Inodes, root: Root) -> None:
    inode = held(inodes, root, STATUS)
    assert inodes.within("T") == [inode]
    inodes.forget([(inode.number, 1)])
    assert inodes.within("T") == []


# ── What is remembered with it ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
def inode(inodes: Inodes, root: Root) -> Inode:
    return held(inodes, root, STATUS)


def root_directory(inode: Inode) -> Root:
    return root_of(inode.node.store)


def test_what_was_read_before_a_change_is_not_remembered_after_it(inode: Inode) -> None:
    entry, reader = pyfuse3.EntryAttributes(), reader_of(inode)
    inode.listing = Listing(root_directory(inode), None)
    changes_seen = inode.changes_seen
    inode.lose_reader()
    assert not inode.remember_entry(entry, changes_seen)
    inode.remember_listing(inode.listing, changes_seen)
    inode.remember_reader(reader, changes_seen)
    assert (inode.entry, inode.listing.is_current, inode.latest_reader) == (None, False, None)


def test_what_was_read_since_the_last_change_is_remembered(inode: Inode) -> None:
    entry, reader = pyfuse3.EntryAttributes(), reader_of(inode)
    inode.listing = Listing(root_directory(inode), None)
    inode.lose_reader()
    assert inode.remember_entry(entry, inode.changes_seen)
    inode.remember_listing(inode.listing, inode.changes_seen)
    inode.remember_reader(reader, inode.changes_seen)
    assert (inode.entry, inode.listing.is_current, inode.latest_reader) == (entry, True, reader)


def test_the_entry_of_a_thread_is_right_until_a_change_and_takes_no_memory(
    inodes: Inodes, root: Root
) -> None:
    thread = held(inodes, root, "threads/T")
    changes_seen = thread.changes_seen
    assert thread.remember_entry(pyfuse3.EntryAttributes(), changes_seen)
    assert thread.entry is None
    thread.lose_entry()
    assert not thread.remember_entry(pyfuse3.EntryAttributes(), changes_seen)


def test_a_directory_holds_nothing_of_what_files_need(inodes: Inodes, root: Root) -> None:
    thread = held(inodes, root, "threads/T")
    thread.lose_reader()
    assert (*thread.readers_now, thread.writers, thread.latest_reader) == (0, None)
    with pytest.raises(AttributeError):
        thread.readers.append(reader_of(held(inodes, root, META)))


def test_a_change_takes_the_reader_of_the_version_before(inode: Inode) -> None:
    inode.remember_reader(reader_of(inode), inode.changes_seen)
    inode.lose_reader()
    assert inode.latest_reader is None
