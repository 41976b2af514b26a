"""What the kernel is told of a file, and for how long it may remember that."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Any

import pyfuse3
import pytest

from store import Change, DocumentKey, Part, StorageFailed, ThreadStore, WouldWait
from tests.adapter.kernel import Caller, Kernel
from threadfs.fuse.kernel_cache import UNWATCHED_S, WATCHED_S

THREAD, RUN, STATUS = "threads/T", "threads/T/runs/R", "threads/T/runs/R/status"
META = "threads/T/meta.json"


def patch(store: ThreadStore, note: str) -> None:
    store.patch_document(DocumentKey("T", "R"), {"note": note})


def counted(kernel: Kernel, monkeypatch: pytest.MonkeyPatch, method: str) -> list[object]:
    """A list that gets an item with each call of a *method* of the store."""
    calls: list[object] = []
    original: Callable[..., Any] = getattr(kernel.operations.tree.store, method)

    def call(*arguments: Any) -> Any:
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(kernel.operations.tree.store, method, call)
    return calls


# ── For how long ────────────────────────────────────────────────────────────────────────────────────────


def test_attributes_that_a_watch_covers_are_read_once(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = kernel.number(STATUS)
    kernel.attributes(number)
    reads = counted(kernel, monkeypatch, "document_info")
    assert kernel.attributes(number).attr_timeout == WATCHED_S
    assert reads == []


@pytest.mark.parametrize("name", ["say", "start", "runs/R/cancel"])
def test_a_control_file_has_its_time_also_while_it_is_read(kernel: Kernel, name: str) -> None:
    number = kernel.number(f"{THREAD}/{name}")
    before = kernel.attributes(number).st_mtime_ns
    kernel.open(number)
    kernel.operations.inodes[number].lose_reader()  # As when its thread may be another one.
    kernel.operations.inodes[number].lose_entry()
    assert kernel.attributes(number).st_mtime_ns == before > 0


def test_attributes_that_no_watch_covers_are_asked_for_each_time(
    unwatched: Kernel, other: ThreadStore
) -> None:
    number = unwatched.number(STATUS)
    before = unwatched.attributes(number)
    patch(other, "a longer one")
    after = unwatched.attributes(number)
    assert (before.attr_timeout, after.attr_timeout) == (0, 0)
    assert after.st_size > before.st_size


@pytest.mark.parametrize("path", [THREAD, RUN, STATUS])
def test_a_name_that_no_watch_covers_is_remembered_for_less_than_a_second(
    unwatched: Kernel, path: str
) -> None:
    assert unwatched.lookup(path).entry_timeout == UNWATCHED_S < 1


@pytest.mark.parametrize("path", ["README.md", ".threadfs", "threads", "runs/queued"])
def test_the_names_of_the_mount_itself_are_remembered_without_a_watch(unwatched: Kernel, path: str) -> None:
    assert unwatched.lookup(path).entry_timeout == WATCHED_S


def test_attributes_read_while_they_change_are_not_remembered(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = kernel.number(RUN)
    store = kernel.operations.tree.store
    read = store.document_info

    def changing(key: DocumentKey) -> object:
        info = read(key)
        kernel.operations.kernel_cache.changed(Change(Part.DOCUMENT, "T", "R"))
        return info

    with monkeypatch.context() as during_the_lookup:
        during_the_lookup.setattr(store, "document_info", changing)
        entry = kernel.call(kernel.operations.lookup, number, b"status", Caller())
    assert entry.attr_timeout == 0
    assert kernel.attributes(entry.st_ino).attr_timeout == WATCHED_S


# ── What a lookup tells ─────────────────────────────────────────────────────────────────────────────────


def test_a_lookup_does_not_wait_for_attributes_that_are_not_at_hand(
    unwatched: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waits(status: object) -> int:
        raise WouldWait

    monkeypatch.setattr(unwatched.operations.tree.store, "list_changed_ns", waits)
    entry = unwatched.lookup("runs/queued")
    assert (entry.st_mode, entry.attr_timeout) == (stat.S_IFDIR | 0o755, 0)


def test_a_lookup_that_fails_counts_for_nothing(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    run = kernel.number(RUN)
    held = len(kernel.operations.inodes)

    def fails(key: object) -> None:
        raise StorageFailed(errno.EIO, "the disk")

    for method in ("document_info", "read_document"):
        monkeypatch.setattr(kernel.operations.tree.store, method, fails)
    with pytest.raises(pyfuse3.FUSEError) as failed:
        kernel.call(kernel.operations.lookup, run, b"status", Caller())
    assert failed.value.errno == errno.EIO
    assert len(kernel.operations.inodes) == held


def test_each_lookup_counts_once(kernel: Kernel) -> None:
    numbers = [kernel.number(STATUS) for _ in range(3)]
    assert kernel.operations.inodes[numbers[0]].lookups == 3
    assert len(set(numbers)) == 1


# ── A file that somebody reads, and that has changed ────────────────────────────────────────────────────


def test_a_document_that_is_read_keeps_its_size_and_its_name_leads_to_another_number(
    unwatched: Kernel, other: ThreadStore
) -> None:
    number = unwatched.number(STATUS)
    handle = unwatched.open(number)
    size = len(unwatched.read(handle))
    patch(other, "a longer one")
    old = unwatched.attributes(number)
    assert (old.st_size, old.st_nlink, old.attr_timeout) == (size, 0, 0)
    new = unwatched.lookup(STATUS)
    assert new.st_ino != number
    assert new.st_size > size


def test_a_document_that_is_read_and_has_gone_keeps_its_size(unwatched: Kernel, other: ThreadStore) -> None:
    number = unwatched.number(STATUS)
    size = len(unwatched.read(unwatched.open(number)))
    other.delete_thread("T", force=True)
    assert (unwatched.attributes(number).st_size, unwatched.attributes(number).st_nlink) == (size, 0)


def test_a_document_that_nobody_reads_any_more_keeps_its_number_when_it_changes(
    unwatched: Kernel, other: ThreadStore
) -> None:
    number = unwatched.number(STATUS)
    unwatched.call(unwatched.operations.release, unwatched.open(number))
    patch(other, "a longer one")
    assert unwatched.attributes(number).st_nlink == 1
    assert unwatched.number(STATUS) == number


def test_a_listing_tells_of_the_version_that_somebody_reads(unwatched: Kernel, other: ThreadStore) -> None:
    number = unwatched.number(STATUS)
    size = len(unwatched.read(unwatched.open(number)))
    patch(other, "a longer one")
    handle = unwatched.call(unwatched.operations.opendir, unwatched.number(RUN), Caller())
    listed = {name: told for name, told, _ in unwatched.entries(handle)}
    assert listed[b"status"] == (number, 0, 0)
    assert unwatched.sizes[number] == size


# ── Owner, permissions, times ───────────────────────────────────────────────────────────────────────────


def test_a_file_of_the_store_has_the_owner_and_the_time_of_its_document(
    kernel: Kernel, other: ThreadStore
) -> None:
    other.set_document_modified(DocumentKey("T"), 5_000_000_123)
    entry = kernel.attributes(kernel.number(META))
    assert (entry.st_uid, entry.st_gid) == (os.getuid(), os.getgid())
    assert entry.st_mtime_ns == entry.st_atime_ns == 5_000_000_123


def test_blocks_are_those_of_the_size(kernel: Kernel) -> None:
    entry = kernel.attributes(kernel.number(META))
    assert entry.st_blocks * 512 >= entry.st_size > (entry.st_blocks - 1) * 512


def test_a_removed_directory_has_no_name_and_the_time_of_its_removal(kernel: Kernel) -> None:
    number = kernel.number(THREAD)
    made_ns = kernel.attributes(number).st_ctime_ns
    for path in (RUN, THREAD):
        parent, _, name = path.rpartition("/")
        kernel.call(kernel.operations.rmdir, kernel.number(parent), name.encode(), Caller())
    removed = kernel.attributes(number)
    assert removed.st_nlink == 0
    assert removed.st_ctime_ns > made_ns


@pytest.mark.parametrize("path", ["transcripts/T.md", "search/hello/hits.txt", ".threadfs/metrics"])
def test_a_lookup_tells_no_smaller_size_than_whoever_has_the_text_open_knows(
    kernel: Kernel, other: ThreadStore, path: str
) -> None:
    other.append_lines("T", [b'{"role":"user","content":"hello"}'])
    number = kernel.number(path)
    kernel.open(number)
    opened = kernel.lookup(path)
    assert opened.st_ino == number
    assert opened.st_size == kernel.attributes(number).st_size > 0
