"""In which thread the kernel is told to forget, in what order, and who waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyfuse3
import pytest
import trio

from store import Thread, ThreadStore
from tests.mount.conftest import wait_until
from tests.nodes.driving import Programs
from threadfs.fuse import forgetting as forgetting_module
from threadfs.fuse.forgetting import Forgetting
from threadfs.fuse.inodes import FileInode
from threadfs.nodes.base import is_readable
from threadfs.nodes.root import root_of


class Kernel:
    """Takes note of what it is to forget, and by which thread; may hold the lock of its directories."""

    def __init__(self) -> None:
        self.names: list[tuple[int, bytes]] = []
        self.inodes: list[tuple[int, bool]] = []
        self.threads: set[str] = set()
        self.lock = threading.Lock()

    def forget_name(self, number: int, name: bytes) -> None:
        with self.lock:
            self.threads.add(threading.current_thread().name)
            self.names.append((number, name))

    def forget_inode(self, number: int, attributes_only: bool) -> None:
        self.threads.add(threading.current_thread().name)
        self.inodes.append((number, attributes_only))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(pyfuse3, "invalidate_entry", kernel.forget_name)
    monkeypatch.setattr(pyfuse3, "invalidate_inode", kernel.forget_inode)
    return kernel


@pytest.fixture
def forgetting(kernel: Kernel) -> Iterator[Forgetting]:
    forgetting = Forgetting()
    forgetting.start()
    yield forgetting
    trio.run(forgetting.end)


@pytest.fixture
def inode(tmp_path: Path) -> FileInode:
    """Of a document."""
    store = ThreadStore(tmp_path)
    store.create_thread(Thread(id="T"))
    return FileInode(7, Programs(root_of(store)).at("threads/T/meta.json"))


HERE = threading.main_thread().name


def test_an_inode_is_forgotten_at_once_by_whoever_asks(
    kernel: Kernel, forgetting: Forgetting, inode: FileInode
) -> None:
    forgetting.forget_inode(inode, attributes_only=False)
    assert (kernel.inodes, kernel.threads) == ([(7, False)], {HERE})


def test_pages_that_may_be_locked_are_forgotten_by_another_thread_before_the_call_returns(
    kernel: Kernel, forgetting: Forgetting, inode: FileInode
) -> None:
    assert is_readable(inode.node)
    inode.readers.append(inode.node.open_for_reading())
    forgetting.forget_inode(inode, attributes_only=False)
    assert kernel.inodes == [(7, False)]
    assert HERE not in kernel.threads


def test_a_name_is_forgotten_by_another_thread_as_a_handler_may_hold_its_directory(
    kernel: Kernel, forgetting: Forgetting, inode: FileInode
) -> None:
    with kernel.lock:
        forgetting.forget_name(inode, b"name")
        assert kernel.names == []
    wait_until(lambda: kernel.names == [(7, b"name")])
    assert HERE not in kernel.threads


def test_a_name_is_forgotten_twice_as_a_lookup_may_be_under_way(
    kernel: Kernel, forgetting: Forgetting, inode: FileInode
) -> None:
    for name in (b"one", b"two"):
        forgetting.forget_name(inode, name)
    wait_until(lambda: len(kernel.names) == 4)
    assert kernel.names == [(7, b"one"), (7, b"two")] * 2


def test_a_change_is_acknowledged_when_each_name_was_forgotten_once(
    kernel: Kernel, forgetting: Forgetting, inode: FileInode
) -> None:
    for number in range(20):
        forgetting.forget_name(inode, b"%d" % number)
    trio.run(forgetting.names_are_forgotten)
    assert kernel.names[:20] == [(7, b"%d" % number) for number in range(20)]


def test_a_change_does_not_wait_for_long_for_a_directory_that_is_held(
    kernel: Kernel, forgetting: Forgetting, inode: FileInode
) -> None:
    with kernel.lock:
        forgetting.forget_name(inode, b"name")
        trio.run(forgetting.names_are_forgotten)
        assert kernel.names == []


def test_a_name_that_the_kernel_does_not_know_does_not_keep_the_others(
    kernel: Kernel, forgetting: Forgetting, inode: FileInode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def knows_one(number: int, name: bytes) -> None:
        if name != b"known":
            raise FileNotFoundError
        kernel.forget_name(number, name)

    monkeypatch.setattr(pyfuse3, "invalidate_entry", knows_one)
    for name in (b"unknown", b"known"):
        forgetting.forget_name(inode, name)
    wait_until(lambda: kernel.names == [(7, b"known")])


def test_after_the_end_nothing_is_told_any_more(
    kernel: Kernel, forgetting: Forgetting, inode: FileInode
) -> None:
    trio.run(forgetting.end)
    forgetting.forget_inode(inode, attributes_only=True)
    forgetting.forget_name(inode, b"name")
    trio.run(forgetting.names_are_forgotten)
    assert (kernel.inodes, kernel.names) == ([], [])


def test_the_end_waits_for_the_kernel_to_have_forgotten_what_it_was_told(
    kernel: Kernel, forgetting: Forgetting, inode: FileInode
) -> None:
    kernel.lock.acquire()
    forgetting.forget_name(inode, b"name")
    trio.run(forgetting.names_are_forgotten)
    threading.Timer(0.05, kernel.lock.release).start()
    trio.run(forgetting.end)
    assert kernel.names == [(7, b"name")]


def test_the_end_does_not_wait_for_ever(
    kernel: Kernel, forgetting: Forgetting, inode: FileInode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting_module, "_ENDS_S", 0.1)
    with kernel.lock:
        forgetting.forget_name(inode, b"name")
        trio.run(forgetting.names_are_forgotten)
        began_s = time.monotonic()
        trio.run(forgetting.end)
        assert time.monotonic() - began_s < 10
