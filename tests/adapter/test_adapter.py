"""The pieces between kernel and nodes, by themselves: inode numbers, errnos, mount table."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

import store
from store import Run, Thread, ThreadStore
from tests.nodes.driving import Programs
from threadfs.fuse.errnos import errno_of
from threadfs.fuse.inodes import Inodes
from threadfs.mounting.mount_table import on_top
from threadfs.nodes.base import Readable
from threadfs.nodes.root import Root, root_of


@pytest.fixture
def root(tmp_path: Path) -> Root:
    threads = ThreadStore(tmp_path)
    threads.create_thread(Thread(id="T"))
    threads.create_run("T", Run(id="R"))
    return root_of(threads)


def test_equal_nodes_share_a_number_and_others_do_not(root: Root) -> None:
    inodes = Inodes(root)
    threads = root.lookup("threads")
    assert inodes.of(threads) is inodes.of(root.lookup("threads"))
    assert inodes.of(threads).number != inodes.of(root.lookup("runs")).number


def test_a_forgotten_number_of_a_file_that_is_not_stored_is_never_used_again(root: Root) -> None:
    inodes = Inodes(root)
    first = inodes.of(root.lookup("README.md"))
    first.lookups = 2
    inodes.forget([(first.number, 1)])
    assert inodes.of(root.lookup("README.md")) is first
    inodes.forget([(first.number, 1)])
    assert inodes.of(root.lookup("README.md")).number > first.number


@pytest.mark.parametrize("path", ["threads", "threads/T", "threads/T/meta.json", "threads/T/messages.jsonl"])
def test_what_is_stored_gets_its_number_again_after_it_was_forgotten(root: Root, path: str) -> None:
    programs, inodes = Programs(root), Inodes(root)
    first = inodes.of(programs.at(path))
    first.lookups = 1
    inodes.forget([(first.number, 1)])
    again = inodes.of(programs.at(path))
    assert again is not first
    assert again.number == first.number


def test_a_number_that_was_left_to_a_reader_is_not_the_one_that_the_file_gets_again(root: Root) -> None:
    programs, inodes = Programs(root), Inodes(root)
    node = programs.at("threads/T/meta.json")
    assert isinstance(node, Readable)
    old = inodes.of(node)
    old.lookups = 1
    old.readers.append(node.open_for_reading())
    inodes.detach(old)
    new = inodes.of(node)
    new.lookups = 1
    inodes.forget([(new.number, 1), (old.number, 1)])
    assert inodes.of(node).number == new.number != old.number


def test_a_directory_that_was_removed_and_made_again_gets_another_number(root: Root) -> None:
    inodes = Inodes(root)
    first = inodes.of(root.lookup("threads"))
    first.lookups = 1
    inodes.renew(first.node)
    inodes.forget([(first.number, 1)])
    assert inodes.of(root.lookup("threads")).number != first.number


def test_a_detached_number_stays_with_its_reader_and_the_node_gets_a_new_one(root: Root) -> None:
    inodes = Inodes(root)
    node = root.lookup("README.md")
    assert isinstance(node, Readable)
    old = inodes.of(node)
    old.lookups = 1
    old.readers.append(node.open_for_reading())
    inodes.detach(old)
    assert inodes.of(node).number != old.number
    assert inodes[old.number].pinned_reader is old.readers[0]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (store.ThreadNotFound("T"), errno.ENOENT),
        (store.RunInTerminalState("R", "completed"), errno.EPERM),
        (store.RunInProgress("R", "in_progress"), errno.EBUSY),
        (store.AlreadyExists("thread", "T"), errno.EEXIST),
        (store.InvalidName("x"), errno.EINVAL),
        (store.InvalidDocument("x"), errno.EINVAL),
        (store.Damaged("x", "y"), errno.EIO),
        (store.NotEmpty("x"), errno.ENOTEMPTY),
        (store.StorageFailed(errno.ENOSPC, "x"), errno.ENOSPC),
        (store.StorageFailed(errno.EINTR, "x"), errno.EIO),
    ],
)
def test_each_error_of_a_store_has_its_errno(error: store.StoreError, code: int) -> None:
    assert errno_of(error) == code


def test_what_is_mounted_is_read_from_the_mount_table() -> None:
    proc = on_top("/proc")
    assert proc is not None
    assert (proc.kind, proc.source) == ("proc", "proc")
    assert on_top("/nowhere at all") is None
