"""What a watch reports: everything that any program changes in what it follows, by name."""

from __future__ import annotations

import errno
import logging
import mmap
import os
import queue
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from store import (
    ContentBlock,
    MessageRole,
    Run,
    RunStatus,
    RunStep,
    RunStepType,
    TextContent,
    Thread,
    ThreadMessage,
    ThreadStore,
)
from store.api import DocumentKey
from store.changes import Change, Part, Watch
from store.disk.inotify import Watches
from store.disk.watching import DiskWatch
from tests.conftest import inotify_limit, open_files
from tests.mount.conftest import wait_until


class Watched:
    def __init__(self, root: Path) -> None:
        self.root = root
        # Another program with the same store, and the store that watches.
        self.store = ThreadStore(root)
        self.watcher = ThreadStore(root)
        self._changes: queue.Queue[Change] = queue.Queue()
        self.watch: Watch = self.watcher.watch(self._changes.put)
        self.watch.follow(DocumentKey(""))

    def wait_for(self, change: Change) -> None:
        deadline = time.monotonic() + 5
        while self._changes.get(timeout=max(0.01, deadline - time.monotonic())) != change:
            pass

    def nothing_comes(self) -> bool:
        """What was caused before the marker has come before it."""
        self.store.create_thread(Thread(id="marker"))
        return self._changes.get(timeout=5) == Change(Part.THREADS, "marker")

    @property
    def in_use(self) -> int:
        """How many of the system's watches."""
        assert isinstance(self.watch, DiskWatch)
        return self.watch.in_use

    def forget_what_came(self) -> None:
        thread = self.store.create_thread(Thread())
        self.wait_for(Change(Part.THREADS, thread.id))


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path / "store")
    try:
        yield watched
    finally:
        watched.watch.close()


@pytest.fixture
def with_run(watched: Watched) -> Watched:
    watched.store.create_thread(Thread(id="t"))
    watched.store.create_run("t", Run(id="r"))
    for key in (("t",), ("t", ""), ("t", "r"), ("t", "r", "")):
        assert watched.watch.follow(DocumentKey(*key))
    watched.forget_what_came()
    return watched


def message(text: str) -> ThreadMessage:
    return ThreadMessage(role=MessageRole.user, content=[ContentBlock(text=TextContent(value=text))])


def test_a_thread_that_comes_and_goes_is_reported(watched: Watched) -> None:
    watched.store.create_thread(Thread(id="t"))
    watched.wait_for(Change(Part.THREADS, "t"))
    watched.store.delete_thread("t")
    watched.wait_for(Change(Part.THREADS, "t"))


def test_a_thread_that_is_made_piece_by_piece_is_reported_when_it_is_one(watched: Watched) -> None:
    (watched.root / "t").mkdir()
    watched.wait_for(Change(Part.THREADS, "t"))
    (watched.root / "t" / ".tmpAbCdEf").write_text("{}")
    (watched.root / "t" / ".tmpAbCdEf").rename(watched.root / "t" / "meta.json")
    watched.wait_for(Change(Part.THREADS, "t"))


def test_a_replaced_document_is_reported(with_run: Watched) -> None:
    with_run.store.patch_document(DocumentKey("t"), {"metadata": {"a": "b"}})
    with_run.wait_for(Change(Part.DOCUMENT, "t"))
    with_run.store.update_run_status("t", "r", RunStatus.in_progress)
    with_run.wait_for(Change(Part.DOCUMENT, "t", "r"))


def test_a_document_written_in_place_is_reported(with_run: Watched) -> None:
    (with_run.root / "t" / "meta.json").write_text("{}")
    with_run.wait_for(Change(Part.DOCUMENT, "t"))


def test_the_first_and_a_later_message_are_reported(with_run: Watched) -> None:
    for text, grew in ("one", False), ("two", True):
        with_run.store.append_message("t", message(text))
        with_run.wait_for(Change(Part.LOG, "t", grew=grew))


def test_a_run_that_comes_and_goes_is_reported(with_run: Watched) -> None:
    with_run.store.create_run("t", Run(id="other"))
    with_run.wait_for(Change(Part.RUNS, "t", "other"))
    with_run.store.delete_run("t", "other")
    with_run.wait_for(Change(Part.RUNS, "t", "other"))


def test_the_first_run_of_a_thread_is_reported(watched: Watched) -> None:
    watched.store.create_thread(Thread(id="t"))
    watched.watch.follow(DocumentKey("t"))
    watched.store.create_run("t", Run(id="r"))
    watched.wait_for(Change(Part.RUNS, "t"))


def test_the_first_step_of_a_run_and_its_next_version_are_reported(with_run: Watched) -> None:
    with_run.store.append_step("t", "r", RunStep(id="s", step_type=RunStepType.tool_calls))
    with_run.wait_for(Change(Part.STEPS, "t", "r"))
    with_run.store.patch_document(DocumentKey("t", "r", "s"), {"note": "seen"})
    with_run.wait_for(Change(Part.DOCUMENT, "t", "r", "s"))


def test_a_thread_made_again_is_followed_again(with_run: Watched) -> None:
    shutil.rmtree(with_run.root / "t")
    with_run.store.create_thread(Thread(id="t"))
    with_run.forget_what_came()
    with_run.store.append_message("t", message("here"))
    with_run.wait_for(Change(Part.LOG, "t"))


def test_what_is_forgotten_is_not_reported(with_run: Watched) -> None:
    with_run.watch.forget(DocumentKey("t"))
    with_run.store.append_message("t", message("unseen"))
    assert with_run.nothing_comes()


def test_a_thread_behind_a_link_is_not_followed(watched: Watched, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (watched.root / "t").symlink_to(outside)
    watched.forget_what_came()
    watched.watch.follow(DocumentKey("t"))
    (outside / "meta.json").write_text("{}")
    assert watched.nothing_comes()


def test_a_thread_whose_runs_come_before_its_document_is_reported(watched: Watched) -> None:
    store = watched.watcher
    store.index_runs()
    try:
        (watched.root / "t").mkdir()
        (watched.root / "t" / "runs").mkdir()
        watched.wait_for(Change(Part.THREADS, "t"))
        list(store.runs_by_status())  # The index has looked at it, and found no thread.
        watched.forget_what_came()
        (watched.root / "t" / "meta.json").write_text('{"created_at": 1}')
        watched.wait_for(Change(Part.THREADS, "t"))
    finally:
        store.close()


def test_a_thread_that_gets_another_name_is_followed_by_that(with_run: Watched) -> None:
    (with_run.root / "t").rename(with_run.root / "u")
    assert with_run.watch.follow(DocumentKey("u"))
    with_run.watch.forget(DocumentKey("t"))
    with_run.forget_what_came()
    with_run.store.append_message("u", message("here"))
    with_run.wait_for(Change(Part.LOG, "u"))


def test_what_the_store_remembers_is_right_before_others_hear_of_a_change(with_run: Watched) -> None:
    store, heard = with_run.watcher, []
    other = with_run.store
    watch = store.watch(lambda change: heard.append((change, store.reports_all_of("t"))))
    store.index_runs()
    try:
        wait_until(lambda: store.reports_all_of("t"))
        other.create_run("t", Run(id="new"))
        with_run.wait_for(Change(Part.RUNS, "t", "new"))
        wait_until(lambda: bool(heard))
        assert (Change(Part.RUNS, "t", "new"), True) not in heard, "asked then, it would tell the old list"
    finally:
        watch.close()
        store.close()


def test_a_failure_of_who_is_told_is_not_the_end_of_the_watch(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [RuntimeError("a bug")]

    def fails_once(change: Change) -> None:
        if failures and change.part is Part.THREADS:
            raise failures.pop()

    with caplog.at_level(logging.CRITICAL, "threadfs"):
        failing = watched.watcher.watch(fails_once)
        try:
            watched.store.create_thread(Thread(id="t"))
            watched.wait_for(Change(Part.EVERYTHING))
            watched.store.create_thread(Thread(id="u"))
            watched.wait_for(Change(Part.THREADS, "u"))
        finally:
            failing.close()


def test_what_two_follow_one_of_them_can_forget(with_run: Watched) -> None:
    other = with_run.watcher.watch(lambda change: None)
    other.follow(DocumentKey("t"))
    other.forget(DocumentKey("t"))
    with_run.store.append_message("t", message("here"))
    with_run.wait_for(Change(Part.LOG, "t"))
    other.close()
    with_run.store.append_message("t", message("still here"))
    with_run.wait_for(Change(Part.LOG, "t", grew=True))


def test_a_list_of_runs_or_steps_that_is_replaced_as_a_whole_is_reported_and_followed(
    watched: Watched,
) -> None:
    watched.store.create_thread(Thread(id="t"))
    watched.store.create_run("t", Run(id="r"))
    watched.store.append_step("t", "r", RunStep(id="s", step_type=RunStepType.tool_calls))
    watched.watch.follow(DocumentKey("t", ""))
    watched.watch.follow(DocumentKey("t", "r", ""))
    watched.forget_what_came()
    for name, change in (
        ("t/runs/r/steps", Change(Part.STEPS, "t", "r")),
        ("t/runs", Change(Part.RUNS, "t")),
    ):
        shutil.copytree(watched.root / name, watched.root.parent / "copy")
        (watched.root / name).rename(watched.root.parent / f"old {change.part.name}")
        (watched.root.parent / "copy").rename(watched.root / name)
        watched.wait_for(change)
    watched.store.create_run("t", Run(id="other"))
    watched.wait_for(Change(Part.RUNS, "t", "other"))


def test_what_is_followed_in_a_thread_is_followed_in_the_one_that_takes_its_place(with_run: Watched) -> None:
    shutil.copytree(with_run.root / "t", with_run.root.parent / "copy")
    (with_run.root / "t").rename(with_run.root.parent / "old")
    (with_run.root.parent / "copy").rename(with_run.root / "t")
    with_run.wait_for(Change(Part.THREADS, "t"))
    with_run.forget_what_came()
    with_run.store.update_run_status("t", "r", RunStatus.in_progress)
    with_run.wait_for(Change(Part.DOCUMENT, "t", "r"))


def test_the_first_run_of_a_thread_that_took_the_place_of_another_is_reported(watched: Watched) -> None:
    for thread_id in ("t", "new"):
        watched.store.create_thread(Thread(id=thread_id))
    watched.watch.follow(DocumentKey("t", ""))
    watched.forget_what_came()
    (watched.root / "t").rename(watched.root.parent / "old")
    (watched.root / "new").rename(watched.root / "t")
    watched.wait_for(Change(Part.THREADS, "t"))
    watched.store.create_run("t", Run(id="r"))
    watched.wait_for(Change(Part.RUNS, "t"))


@pytest.mark.parametrize("with_list", [False, True])
def test_a_thread_that_is_replaced_in_the_moment_in_which_it_is_watched_is_followed(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, *, with_list: bool
) -> None:
    for thread_id in ("t", "new"):
        watched.store.create_thread(Thread(id=thread_id))
    watched.forget_what_came()
    set_watch = Watches._watched
    is_replaced = False

    def replaced_before(self: Watches, directory: int, place: DocumentKey, key: DocumentKey | None) -> bool:
        nonlocal is_replaced
        if not is_replaced:
            is_replaced = True
            (watched.root / "t").rename(watched.root.parent / "old")
            (watched.root / "new").rename(watched.root / "t")
            self.catch_up()
        return set_watch(self, directory, place, key)

    monkeypatch.setattr(Watches, "_watched", replaced_before)
    watched.watch.follow(DocumentKey("t"), with_list=with_list)
    watched.forget_what_came()
    watched.store.append_message("t", message("here"))
    watched.wait_for(Change(Part.LOG, "t"))


def test_a_run_made_piece_by_piece_is_reported_when_it_is_one(watched: Watched) -> None:
    watched.store.create_thread(Thread(id="t"))
    watched.watch.follow(DocumentKey("t", ""))
    watched.forget_what_came()
    run = watched.root / "t" / "runs" / "r"
    run.mkdir(parents=True)
    watched.wait_for(Change(Part.RUNS, "t"))
    watched.forget_what_came()
    (run / "status.json").write_text('{"status": "queued"}')
    watched.wait_for(Change(Part.RUNS, "t", "r"))


def test_a_directory_that_was_there_before_is_reported_when_it_becomes_a_thread_or_run(
    tmp_path: Path,
) -> None:
    store = ThreadStore(tmp_path / "store")
    store.create_thread(Thread(id="t"))
    for directory in ("later", "t/runs/r"):
        (tmp_path / "store" / directory).mkdir(parents=True)
    watched = Watched(tmp_path / "store")
    try:
        watched.watch.follow(DocumentKey("t", ""))
        assert watched.watcher.list_thread_ids() == ["t"]
        assert watched.watcher.list_run_ids("t") == []
        watched.forget_what_came()
        (watched.root / "later" / "meta.json").write_text('{"created_at": 1}')
        watched.wait_for(Change(Part.THREADS, "later"))
        (watched.root / "t" / "runs" / "r" / "status.json").write_text('{"status": "queued"}')
        watched.wait_for(Change(Part.RUNS, "t", "r"))
    finally:
        watched.watch.close()


@pytest.mark.parametrize("is_followed", [False, True])
def test_a_document_that_goes_and_comes_back_is_a_thread_that_goes_and_comes(
    watched: Watched, is_followed: bool
) -> None:
    watched.store.create_thread(Thread(id="t"))
    watched.store.create_run("t", Run(id="r"))
    watched.watch.follow(DocumentKey("t", ""))
    watched.watch.follow(DocumentKey("t"))
    watched.forget_what_came()
    aside = watched.root / "aside"
    (watched.root / "t" / "meta.json").rename(aside)
    watched.wait_for(Change(Part.THREADS, "t"))
    if not is_followed:
        watched.watch.forget(DocumentKey("t"))
    watched.forget_what_came()
    aside.rename(watched.root / "t" / "meta.json")
    watched.wait_for(Change(Part.THREADS, "t"))


def test_a_run_that_is_replaced_as_a_whole_is_reported_also_where_its_list_is_not_followed(
    watched: Watched,
) -> None:
    watched.store.create_thread(Thread(id="t"))
    watched.store.create_run("t", Run(id="r"))
    watched.watch.follow(DocumentKey("t", "r"))
    watched.forget_what_came()
    run = watched.root / "t" / "runs" / "r"
    shutil.copytree(run, watched.root.parent / "copy")
    run.rename(watched.root.parent / "old")
    (watched.root.parent / "copy").rename(run)
    watched.wait_for(Change(Part.RUNS, "t", "r"))
    watched.store.update_run_status("t", "r", RunStatus.in_progress)
    watched.wait_for(Change(Part.DOCUMENT, "t", "r"))


def test_a_store_that_is_replaced_is_followed_again_by_who_asks_for_it(with_run: Watched) -> None:
    copy = with_run.root.parent / "copy"
    shutil.copytree(with_run.root, copy)
    with_run.root.rename(with_run.root.parent / "old")
    copy.rename(with_run.root)
    with_run.wait_for(Change(Part.EVERYTHING))
    for key in ("",), ("t", "r"):
        assert with_run.watch.follow(DocumentKey(*key))
    with_run.forget_what_came()
    with_run.store.update_run_status("t", "r", RunStatus.in_progress)
    with_run.wait_for(Change(Part.DOCUMENT, "t", "r"))


@pytest.mark.alone
def test_what_was_followed_and_comes_again_when_no_watch_is_left_may_be_anything(with_run: Watched) -> None:
    with inotify_limit("max_user_watches", 0):
        (with_run.root / "t").rename(with_run.root.parent / "old")
        shutil.copytree(with_run.root.parent / "old", with_run.root / "t")
        with_run.wait_for(Change(Part.EVERYTHING))
        assert not with_run.watch.follow(DocumentKey("t"))


def test_a_directory_in_a_list_of_steps_takes_no_watch(with_run: Watched) -> None:
    steps = with_run.store.steps_dir("t", "r")
    steps.mkdir()
    with_run.forget_what_came()
    before = with_run.in_use
    (steps / "directory").mkdir()
    with_run.forget_what_came()
    assert with_run.in_use == before


@pytest.mark.alone
def test_who_follows_again_what_may_be_lost_loses_nothing_by_that(tmp_path: Path) -> None:
    store = ThreadStore(tmp_path / "store")
    keys = [DocumentKey(store.create_thread(Thread()).id) for _ in range(50)]
    losses: list[Change] = []

    def are_lost() -> bool:
        for key in keys * 20:  # Faster than anybody can read of it.
            os.utime(tmp_path / "store" / key.thread_id / "meta.json")
        return losses != []

    def follow_again(change: Change) -> None:
        if change.part is Part.EVERYTHING:
            losses.append(change)
            for key in keys:
                watch.follow(key)

    def is_quiet() -> bool:
        before = len(losses)
        time.sleep(0.5)
        return len(losses) == before

    with inotify_limit("max_queued_events", 16):
        watch = store.watch(follow_again)
        watch.follow(DocumentKey(""))  # Now the queue is made.
    try:
        for key in keys:
            watch.follow(key)
        wait_until(are_lost)
        wait_until(is_quiet)
    finally:
        watch.close()


@pytest.mark.parametrize("with_thread", [False, True])
def test_a_list_that_comes_in_the_moment_in_which_it_is_waited_for_is_followed(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, *, with_thread: bool
) -> None:
    watched.store.create_thread(Thread(id="t"))
    watched.forget_what_came()
    set_watch = Watches._watched

    def made_before(self: Watches, directory: int, place: DocumentKey, key: DocumentKey | None) -> bool:
        if place == DocumentKey("t") and not (watched.root / "t" / "runs").exists():
            watched.store.create_run("t", Run(id="r"))
        return set_watch(self, directory, place, key)

    monkeypatch.setattr(Watches, "_watched", made_before)
    if with_thread:
        watched.watch.follow(DocumentKey("t"), with_list=True)
    else:
        watched.watch.follow(DocumentKey("t", ""))
    watched.forget_what_came()
    watched.store.create_run("t", Run(id="other"))
    watched.wait_for(Change(Part.RUNS, "t", "other"))


def test_the_first_and_the_next_runs_and_steps_are_reported_where_lists_are_followed_as_well(
    watched: Watched,
) -> None:
    watched.store.create_thread(Thread(id="t"))
    assert watched.watch.follow(DocumentKey("t"), with_list=True)
    watched.store.create_run("t", Run(id="r"))
    watched.wait_for(Change(Part.RUNS, "t"))
    watched.store.create_run("t", Run(id="other"))
    watched.wait_for(Change(Part.RUNS, "t", "other"))
    assert watched.watch.follow(DocumentKey("t", "r"), with_list=True)
    watched.store.append_step("t", "r", RunStep(id="s1", step_type=RunStepType.message_creation))
    watched.wait_for(Change(Part.STEPS, "t", "r"))
    watched.store.append_step("t", "r", RunStep(id="s2", step_type=RunStepType.message_creation))
    watched.wait_for(Change(Part.STEPS, "t", "r", "s2"))


def test_what_is_written_through_memory_is_reported(with_run: Watched) -> None:
    with (with_run.root / "t" / "meta.json").open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        with_run.forget_what_came()
        memory[:1] = b" "
    with_run.wait_for(Change(Part.DOCUMENT, "t"))


def test_a_name_that_means_nothing_changes_the_time_of_its_list(with_run: Watched) -> None:
    with_run.store.append_step("t", "r", RunStep(id="s", step_type=RunStepType.tool_calls))
    with_run.forget_what_came()
    (with_run.root / "t" / "runs" / "r" / "steps" / "notes").write_text("")
    with_run.wait_for(Change(Part.TIMES, "t"))


def test_a_directory_that_has_gone_again_is_not_waited_for(watched: Watched) -> None:
    (watched.root / "gone").mkdir()
    (watched.root / "gone").rmdir()
    watched.forget_what_came()
    watched.store.create_thread(Thread(id="t"))
    watched.watch.follow(DocumentKey("t"))
    watched.store.delete_thread("t")
    watched.forget_what_came()
    watches = watched.watcher._watches
    assert watches is not None
    assert watches._awaited == set()


def watching() -> list[str]:
    """The descriptors of all watches of this process, and the threads that wait for them."""
    kinds = ("anon_inode:inotify", "anon_inode:[eventfd]")
    threads = [thread.name for thread in threading.enumerate() if thread.name == "watch"]
    return sorted(file for file in open_files() if file in kinds) + threads


def test_closing_ends_the_thread_and_its_descriptors(tmp_path: Path) -> None:
    store = ThreadStore(tmp_path / "store")
    before = watching()
    watch = store.watch(lambda change: None)
    watch.follow(DocumentKey(""))
    assert len(watching()) == len(before) + 3
    watch.close()
    assert watching() == before


def test_who_follows_by_a_watch_that_was_closed_leaves_nothing_open(tmp_path: Path) -> None:
    store = ThreadStore(tmp_path / "store")
    before = watching()
    watch = store.watch(lambda change: None)
    watch.close()
    assert not watch.follow(DocumentKey(""))
    assert watching() == before


@pytest.mark.parametrize(
    ("lacking", "error"),
    [
        ("os.eventfd", OSError(errno.EMFILE, os.strerror(errno.EMFILE))),
        ("threading.Thread.start", RuntimeError("can't start new thread")),
    ],
    ids=["descriptor", "thread"],
)
def test_a_watch_for_which_something_is_lacking_leaves_nothing_open_and_begins_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str, error: Exception
) -> None:
    def refused(*_: object) -> None:
        raise error

    store = ThreadStore(tmp_path / "store")
    before = watching()
    watch = store.watch(lambda change: None)
    with monkeypatch.context() as refusing:
        refusing.setattr(f"store.disk.inotify.{lacking}", refused)
        assert not watch.follow(DocumentKey(""))
        assert watch.lack
    assert watching() == before
    assert watch.follow(DocumentKey(""))
    watch.close()
    assert watching() == before
