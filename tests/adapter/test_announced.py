"""The requests of the thread that wakes watchers: none of them reaches the store."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pyfuse3
import pytest

from store import DocumentKey, Run, RunStatus, ThreadStore
from tests.adapter.kernel import Caller, Kernel
from tests.mount.conftest import wait_until
from tests.store.conftest import message
from threadfs.fuse.waking.announced import HANDLE
from threadfs.fuse.waking.calls import Call, Make, Modify, Move, Remove, Touch
from threadfs.fuse.waking.subjects import Name
from threadfs.nodes.base import Node
from threadfs.nodes.runs_by_status import RunLink, StatusDirectory
from threadfs.nodes.threads import RunDirectory, RunsDirectory, ThreadDirectory

WAKER = Caller(pid=4711)
ROOT = pyfuse3.ROOT_INODE


class Times:
    """The fields of a utimensat(2)."""

    update_uid = update_gid = update_mode = update_size = False


class Size(Times):
    update_size = True


@pytest.fixture
def waking(kernel: Kernel) -> Kernel:
    """A kernel that knows T, its run R and the lists, and a waker that announces nothing yet."""
    for path in ("threads/T/runs/R/status", "runs/queued/R@T"):
        kernel.lookup(path)
    kernel.operations.waker.announced.thread_id = WAKER.pid
    return kernel


def announce(kernel: Kernel, call: Call | None) -> None:
    kernel.operations.waker.announced.call = call


def refused(kernel: Kernel, operation: str, *arguments: Any) -> int:
    """The errno with which a request of the waker is refused."""
    with pytest.raises(pyfuse3.FUSEError) as raised:
        asked(kernel, operation, *arguments)
    return int(raised.value.errno)


def asked(kernel: Kernel, operation: str, *arguments: Any) -> Any:
    return kernel.call(getattr(kernel.operations, operation), *arguments, WAKER)


def test_what_was_not_announced_is_refused(waking: Kernel, other: ThreadStore) -> None:
    threads, run = waking.number("threads"), waking.number("threads/T/runs/R")
    status, queued = waking.number("threads/T/runs/R/status"), waking.number("runs/queued")
    requests: list[tuple[Any, ...]] = [
        ("mkdir", threads, b"U", 0o755),
        ("mknod", run, b".x", stat.S_IFREG | 0o644, 0),
        ("symlink", queued, b"x", b"y"),
        ("unlink", run, b"status"),
        ("rmdir", threads, b"T"),
        ("rename", threads, b"T", threads, b"U", 0),
        ("open", status, os.O_WRONLY),
        ("open", status, os.O_RDONLY),
        ("create", run, b".x", 0o644, os.O_WRONLY),
        ("opendir", threads),
        ("setattr", status, pyfuse3.EntryAttributes(), Times(), None),
    ]
    for call in (
        None,
        Modify("elsewhere"),
        Touch("elsewhere"),
        Make("threads/V", ThreadDirectory(waking.operations.tree, "V")),
    ):
        announce(waking, call)
        for request in requests:
            assert refused(waking, *request) == errno.EPERM
    assert other.list_thread_ids() == ["T"]
    assert waking.operations.tree.store.announcer.commits == 0


def test_other_fields_than_times_are_not_set(waking: Kernel) -> None:
    announce(waking, Touch("threads/T/runs/R/status"))
    status = waking.number("threads/T/runs/R/status")
    assert refused(waking, "setattr", status, pyfuse3.EntryAttributes(), Size(), None) == errno.EPERM
    assert asked(waking, "setattr", status, pyfuse3.EntryAttributes(), Times(), None).st_ino == status


def test_a_byte_is_taken_and_dropped(waking: Kernel, other: ThreadStore) -> None:
    before = other.read_document(DocumentKey("T", "R"))
    announce(waking, Modify("threads/T/runs/R/status"))
    opened = asked(waking, "open", waking.number("threads/T/runs/R/status"), os.O_WRONLY)
    assert opened.fh == HANDLE
    operations = waking.operations
    assert waking.call(operations.write, HANDLE, 0, b"\n") == 1
    waking.call(operations.flush, HANDLE)
    waking.call(operations.release, HANDLE)
    assert other.read_document(DocumentKey("T", "R")) == before


def test_the_requests_of_others_are_answered_as_ever(waking: Kernel, other: ThreadStore) -> None:
    announce(waking, Make("threads/U", ThreadDirectory(waking.operations.tree, "U")))
    waking.call(waking.operations.mkdir, waking.number("threads"), b"U", 0o755, Caller())
    assert sorted(other.list_thread_ids()) == ["T", "U"]


def test_a_thread_that_has_come_is_made_under_its_number_and_not_again(
    waking: Kernel, other: ThreadStore
) -> None:
    other.import_thread("U", b'{"created_at":1}', [], {})
    announce(waking, Make("threads/U", ThreadDirectory(waking.operations.tree, "U")))
    threads = waking.number("threads")
    assert refused(waking, "lookup", threads, b"U") == errno.ENOENT
    number = asked(waking, "mkdir", threads, b"U", 0o755).st_ino
    assert number == waking.number("threads/U")
    assert asked(waking, "lookup", threads, b"U").st_ino == number  # The kernel ends with EEXIST.


def test_a_thread_that_has_gone_meanwhile_is_not_made(waking: Kernel) -> None:
    announce(waking, Make("threads/U", ThreadDirectory(waking.operations.tree, "U")))
    assert refused(waking, "mkdir", waking.number("threads"), b"U", 0o755) == errno.ENOENT


def test_a_run_that_has_gone_is_there_for_the_waker_alone_until_it_has_removed_it(
    waking: Kernel, other: ThreadStore
) -> None:
    tree = waking.operations.tree
    runs, number = waking.number("threads/T/runs"), waking.number("threads/T/runs/R")
    other.delete_run("T", "R", force=True)
    waking.waits_for_name(runs, "R")
    node = RunDirectory(tree, "T", "R")
    announce(waking, Remove(node.path, node, Name(RunsDirectory(tree, "T"), "R")))
    assert asked(waking, "lookup", runs, b"R").st_ino == number
    with pytest.raises(pyfuse3.FUSEError):
        waking.call(waking.operations.lookup, runs, b"R", Caller())
    asked(waking, "rmdir", runs, b"R")
    other.create_run("T", Run(id="R"))
    assert waking.number("threads/T/runs/R") != number


def test_what_has_come_again_is_not_removed(waking: Kernel) -> None:
    tree = waking.operations.tree
    node = RunDirectory(tree, "T", "R")
    announce(waking, Remove(node.path, node, Name(RunsDirectory(tree, "T"), "R")))
    number = waking.number("threads/T/runs/R")
    assert refused(waking, "rmdir", waking.number("threads/T/runs"), b"R") == errno.EPERM
    assert waking.number("threads/T/runs/R") == number


def test_what_somebody_finds_while_it_is_removed_is_not_removed(
    waking: Kernel, other: ThreadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = waking.operations.tree
    runs, number = waking.number("threads/T/runs"), waking.number("threads/T/runs/R")
    other.delete_run("T", "R", force=True)
    waking.waits_for_name(runs, "R")
    node = RunDirectory(tree, "T", "R")
    announce(waking, Remove(node.path, node, Name(RunsDirectory(tree, "T"), "R")))
    looking_up = RunsDirectory.lookup

    def comes_meanwhile(self: RunsDirectory, name: str) -> Node:
        try:
            return looking_up(self, name)
        finally:
            waking.operations.inodes.of(node).lookups += 1  # By a program, which gets this number.

    monkeypatch.setattr(RunsDirectory, "lookup", comes_meanwhile)
    assert refused(waking, "rmdir", runs, b"R") == errno.EPERM
    assert waking.operations.inodes[number].removed_ns is None


def test_a_file_that_the_kernel_has_forgotten_meanwhile_is_not_touched(waking: Kernel) -> None:
    run, number = waking.number("threads/T/runs/R"), waking.number("threads/T/runs/R/status")
    earlier = waking.operations.inodes[number]
    announce(waking, Touch("threads/T/runs/R/status", earlier))
    waking.call(waking.operations.forget, [(number, earlier.lookups)])
    assert refused(waking, "lookup", run, b"status") == errno.ENOENT


def test_a_request_of_which_nothing_is_known_ends_with_an_error(waking: Kernel) -> None:
    announce(waking, Touch("threads/T/runs/R/status"))
    assert refused(waking, "setattr", 4711, pyfuse3.EntryAttributes(), Times(), None) == errno.EIO


def test_a_link_is_moved_and_the_next_one_of_its_name_gets_another_number(waking: Kernel) -> None:
    tree = waking.operations.tree
    old = RunLink(tree, "T", "R", RunStatus.queued)
    new = RunLink(tree, "T", "R", RunStatus.failed)
    announce(waking, Move(old.path, old, new.path, new))
    queued, failed = waking.number("runs/queued"), waking.number("runs/failed")
    number = asked(waking, "lookup", queued, b"R@T").st_ino
    assert refused(waking, "lookup", failed, b"R@T") == errno.ENOENT
    asked(waking, "rename", queued, b"R@T", failed, b"R@T", 0)
    assert waking.number("runs/queued/R@T") != number
    assert StatusDirectory(tree, RunStatus.queued).lookup("R@T") == old


def test_where_the_mount_is_not_found_nothing_is_called(
    kernel: Kernel, other: ThreadStore, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "threads").mkdir(parents=True)
    kernel.lookup("threads")
    waker = kernel.operations.waker
    waker.start(str(elsewhere))
    wait_until(lambda: not any(thread.name == "plan wake-ups" for thread in threading.enumerate()))
    assert not waker.is_on
    other.append_message("T", message("hi"))
    waker.close()
    assert list((elsewhere / "threads").iterdir()) == []
