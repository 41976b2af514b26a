"""What the kernel has to forget when something changes, and who goes on with what they have opened."""

from __future__ import annotations

import errno
import os
from collections import Counter
from contextlib import closing

import pyfuse3
import pytest

from store import Run, RunStatus, Store, Thread, ThreadStore
from store.catalogue.values import RunSummary, Signature
from store.disk import describing, followed, known, paths
from tests.adapter.kernel import Caller, Kernel
from tests.mount.conftest import wait_until
from tests.store.conftest import message
from threadfs.fuse.kernel_cache import WATCHED_S

STATUS = "threads/T/runs/R/status"


def test_a_document_that_a_watch_covers_may_be_remembered_for_long(kernel: Kernel) -> None:
    entry = kernel.lookup(STATUS)
    assert (entry.entry_timeout, entry.attr_timeout) == (WATCHED_S, WATCHED_S)


def test_what_another_program_changes_is_forgotten(kernel: Kernel, other: ThreadStore) -> None:
    number = kernel.number(STATUS)
    other.cancel_run("T", "R")
    wait_until(lambda: (number, False) in kernel.forgotten)
    assert b"cancelled" in kernel.read(kernel.open(number))


def test_what_this_mount_changes_is_forgotten_before_it_is_acknowledged(kernel: Kernel) -> None:
    number, cancel = kernel.number(STATUS), kernel.number("threads/T/runs/R/cancel")
    handle = kernel.open(cancel, os.O_WRONLY)
    kernel.call(kernel.operations.write, handle, 0, b"1\n")
    assert (number, False) in kernel.forgotten
    assert b"cancelled" in kernel.read(kernel.open(number))


def echo_of(kernel: Kernel) -> None:
    """Returns when the watch has reported what this mount has changed."""
    watches = kernel.operations.tree.store._watches  # type: ignore[attr-defined]
    watches.catch_up()


def test_what_this_mount_changes_is_forgotten_once(kernel: Kernel) -> None:
    number, cancel = kernel.number(STATUS), kernel.number("threads/T/runs/R/cancel")
    held = [kernel.number(path) for path in ("threads/T", "threads/T/runs", "threads/T/runs/R")]
    for inode in (number, *held):
        kernel.attributes(inode)
    handle = kernel.open(cancel, os.O_WRONLY)
    kernel.forgotten.clear()
    kernel.call(kernel.operations.write, handle, 0, b"1\n")
    for inode in held:  # The kernel asks again, and so is told again if anything comes.
        kernel.attributes(inode)
    kernel.number(STATUS)
    echo_of(kernel)
    assert Counter(found for found, _ in kernel.forgotten) == Counter([number, *held])
    assert kernel.forgotten_names == []


def follow_all_runs(kernel: Kernel) -> Store:
    """Returns when nothing is read in the background any more."""
    store = kernel.operations.tree.store
    with closing(store.watch(lambda _: None)) as watch:
        assert store.follow_all_runs(watch)
    assert list(store.runs_by_status({RunStatus.queued}))
    return store


def test_a_run_that_was_cancelled_here_is_read_for_the_lists_once(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "_FRESH_S", float("inf"))
    monkeypatch.setattr(followed, "_SETTLES_S", 3600.0)
    store = follow_all_runs(kernel)
    cancel = kernel.open(kernel.number("threads/T/runs/R/cancel"), os.O_WRONLY)
    reads: list[str] = []
    run_of = describing.run_of

    def counted(
        source: describing.Documents, thread_id: str, run_id: str, document: Signature
    ) -> RunSummary | None:
        reads.append(run_id)
        return run_of(source, thread_id, run_id, document)

    monkeypatch.setattr(describing, "run_of", counted)
    kernel.call(kernel.operations.write, cancel, 0, b"1\n")
    for _ in range(2):
        assert list(store.runs_by_status({RunStatus.cancelled}))
        echo_of(kernel)
    assert reads == ["R"]


def test_an_append_makes_the_kernel_forget_the_size_of_the_log_and_not_its_name(
    kernel: Kernel, other: ThreadStore
) -> None:
    log = "threads/T/messages.jsonl"
    other.append_message("T", message("one"))
    number = kernel.number(log)
    kernel.open(number)
    for text, store in ("two", kernel.operations.tree.store), ("three", other):
        kernel.attributes(number)
        kernel.forgotten.clear()
        store.append_message("T", message(text))
        wait_until(lambda: (number, False) in kernel.forgotten)
    assert kernel.forgotten_names == []
    assert kernel.number(log) == number


def opened_in_the_store(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that the store opens from now on."""
    opened: list[str] = []
    openat2 = paths._openat2

    def noted(directory: int, path: str, flags: int, *, is_cached: bool) -> int:
        opened.append(path.removeprefix(kernel.operations.tree.store.location + "/"))
        return openat2(directory, path, flags, is_cached=is_cached)

    monkeypatch.setattr(paths, "_openat2", noted)
    return opened


def test_a_first_read_of_a_status_opens_three_files_at_most(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow_all_runs(kernel)
    opened = opened_in_the_store(kernel, monkeypatch)
    handle = kernel.open(kernel.number(STATUS))
    assert b"queued" in kernel.read(handle)
    # Looked at, unless that was done a moment ago; then read.
    assert opened[-1] == "T/runs/R/status.json"
    assert Counter(opened) <= Counter({"T/meta.json": 1, "T/runs/R/status.json": 2})


def test_the_attributes_of_a_log_that_is_read_take_one_opening_of_it(
    kernel: Kernel, other: ThreadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.append_message("T", message("one"))
    number = kernel.number("threads/T/messages.jsonl")
    kernel.open(number)
    other.append_message("T", message("two"))
    wait_until(lambda: kernel.operations.inodes[number].entry is None)
    opened = opened_in_the_store(kernel, monkeypatch)
    kernel.attributes(number)
    assert opened.count("T/messages.jsonl") == 1


def test_a_name_that_is_looked_up_and_not_there_leaves_nothing_behind(kernel: Kernel) -> None:
    runs = kernel.number("threads/T/runs")
    before = kernel.operations.kernel_cache.stats()
    with pytest.raises(pyfuse3.FUSEError) as refused:
        kernel.call(kernel.operations.lookup, runs, b"none", Caller())
    assert refused.value.errno == errno.ENOENT
    assert kernel.operations.kernel_cache.stats() == before


def test_a_reader_keeps_number_and_version_and_the_name_leads_to_another_number(
    kernel: Kernel, other: ThreadStore
) -> None:
    number = kernel.number(STATUS)
    run = kernel.number("threads/T/runs/R")
    old = kernel.open(number)
    other.cancel_run("T", "R")
    kernel.waits_for_name(run, "status")
    new = kernel.number(STATUS)
    assert new != number
    assert b"queued" in kernel.read(old)
    assert b"cancelled" in kernel.read(kernel.open(new))
    assert kernel.attributes(number).st_size == len(kernel.read(old))


def test_an_open_between_the_change_and_the_lookup_is_answered_estale(
    kernel: Kernel, other: ThreadStore
) -> None:
    number = kernel.number(STATUS)
    kernel.open(number)
    other.cancel_run("T", "R")
    wait_until(lambda: (number, False) in kernel.forgotten)
    with pytest.raises(pyfuse3.FUSEError) as refused:
        kernel.open(number)
    assert refused.value.errno == errno.ESTALE


def test_a_thread_that_another_program_deletes_loses_its_name(kernel: Kernel, other: ThreadStore) -> None:
    threads = kernel.number("threads")
    kernel.number("threads/T")
    other.delete_thread("T", force=True)
    kernel.waits_for_name(threads, "T")


def test_a_name_is_forgotten_again_as_a_lookup_may_have_been_under_way(
    kernel: Kernel, other: ThreadStore
) -> None:
    threads = kernel.number("threads")
    kernel.number("threads/T")
    other.delete_thread("T", force=True)
    wait_until(lambda: kernel.forgotten_names.count((threads, b"T")) == 2, 5)


def test_what_the_kernel_does_not_know_yet_it_is_told_to_forget_again(
    kernel: Kernel, other: ThreadStore
) -> None:
    number = kernel.number(STATUS)
    kernel.unknown.add(number)
    other.cancel_run("T", "R")
    wait_until(lambda: kernel.operations.inodes[number].changes_seen > 0)
    kernel.unknown.clear()
    wait_until(lambda: any(found == number for found, _ in kernel.forgotten), 5)


def test_a_thread_made_here_keeps_its_name_whatever_the_watch_says_of_it(kernel: Kernel) -> None:
    threads, number = kernel.number("threads"), kernel.number("threads/T/runs")
    kernel.call(kernel.operations.mkdir, threads, b"new", 0o755, Caller())
    other = ThreadStore(kernel.operations.tree.store.location)
    other.create_run("T", Run(id="later"))  # By the time this is heard of, so is the thread.
    wait_until(lambda: kernel.operations.inodes[number].changes_seen > 0)
    assert (threads, b"new") not in kernel.forgotten_names


def test_a_thread_that_is_found_before_it_is_heard_of_keeps_its_name(
    kernel: Kernel, other: ThreadStore
) -> None:
    threads, number = kernel.number("threads"), kernel.number("threads/T/runs")
    other.create_thread(Thread(id="new"))
    kernel.number("threads/new")  # A program works in it from now on.
    other.create_run("T", Run(id="later"))
    wait_until(lambda: kernel.operations.inodes[number].changes_seen > 0)
    assert (threads, b"new") not in kernel.forgotten_names


def test_without_readers_a_changed_document_keeps_its_number(kernel: Kernel, other: ThreadStore) -> None:
    number = kernel.number(STATUS)
    handle = kernel.open(number)
    kernel.call(kernel.operations.release, handle)
    other.update_run_status("T", "R", RunStatus.in_progress)
    wait_until(lambda: (number, False) in kernel.forgotten)
    assert kernel.number(STATUS) == number


def test_what_the_kernel_has_forgotten_is_not_followed_any_more(kernel: Kernel, other: ThreadStore) -> None:
    number = kernel.number(STATUS)
    followed = kernel.operations.kernel_cache.stats()["followed"]
    inodes = kernel.operations.inodes
    kernel.call(
        kernel.operations.forget, [(held.number, held.lookups) for held in inodes.held() if held.number > 1]
    )
    assert kernel.operations.kernel_cache.stats()["followed"] < followed
    other.cancel_run("T", "R")
    assert number not in [found for found, _ in kernel.forgotten]
