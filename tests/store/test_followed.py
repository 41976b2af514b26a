"""What is followed: lists say what the disk does, whoever changes that, and with however few watches."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from store import (
    DocumentKey,
    MessageRole,
    Run,
    RunStatus,
    RunStep,
    RunStepStatus,
    RunStepType,
    StorageFailed,
    StoreError,
    Thread,
    ThreadMessage,
    ThreadStore,
    WouldWait,
    without_waiting,
)
from store.api import Info
from store.catalogue.queries import parsed
from store.catalogue.tables import Tables
from store.disk import known, signatures, thread_times
from store.disk.followed import Followed
from store.disk.reported import Reported
from store.disk.run_lists import RunLists
from tests.conftest import inotify_limit, seeds
from tests.store.contract.test_times import let_the_clock_tick

# No watch at all; for a few threads; for all threads and some runs; for all.
WATCHES = [0, 5, 40, 1000]


@pytest.fixture
def store(tmp_path: Path) -> ThreadStore:
    """Ten threads with three runs each."""
    store = ThreadStore(tmp_path / "store")
    for number in range(10):
        store.create_thread(Thread(id=f"T{number}"))
        for status in (RunStatus.queued, RunStatus.in_progress, RunStatus.completed):
            store.create_run(f"T{number}", Run(id=f"R-{status}", status=status))
    return store


@pytest.fixture(params=WATCHES)
def followed(request: pytest.FixtureRequest, store: ThreadStore) -> Iterator[Followed]:
    with closing(store):
        yield follow(store, request.param)


def follow(store: ThreadStore, max_watches: int | None = None) -> Followed:
    """As `ThreadStore.index_runs`, with so many watches."""
    store._followed = Followed(store, store._run_lists, store._lists, max_watches)
    return store._followed


def on_disk(store: ThreadStore) -> list[tuple[str, str, str]]:
    return sorted(found for thread_id in store.list_thread_ids() for found in store.scan(thread_id))


def shown(store: ThreadStore) -> list[tuple[str, str, str]]:
    return sorted(store.runs_by_status())


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@pytest.mark.usefixtures("followed")
def test_lists_are_complete_when_asked_for_at_once(store: ThreadStore) -> None:
    assert shown(store) == on_disk(store)


def test_what_is_known_of_the_runs_of_threads_is_only_looked_at_and_not_through_links(
    store: ThreadStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(signatures, "_SETTLES_NS", -1)
    with closing(store):
        lists = store._run_lists()
        runs = {f"R-{status}": str(status) for status in ("queued", "in_progress", "completed")}
        (there,) = lists.of_threads(["T1"]).values()
        assert there is not None
        assert there.statuses == runs
        assert there.times == store.thread_times("T1")
        monkeypatch.setattr(store, "read_document", None)
        monkeypatch.setattr(store, "get_run", None)
        assert lists.of_threads(["T1"]) == {"T1": there}
        monkeypatch.undo()
        write(tmp_path / "store/T1/runs/R-queued/status.json", "failed")
        (there,) = lists.of_threads(["T1"]).values()
        assert there is not None
        assert there.statuses == runs | {"R-queued": "failed"}
        (tmp_path / "store" / "T1").rename(tmp_path / "T1")
        (tmp_path / "store" / "T1").symlink_to(tmp_path / "T1")
        assert lists.of_threads(["T1", "T2"]).keys() == {"T1", "T2"}
        assert lists.of_threads(["T1"]) == {"T1": None}


RUN = "runs/R-completed"
CHANGES_OF_OTHERS: dict[str, Callable[[Path], object]] = {
    "its document is written to": lambda thread: os.utime(thread / "meta.json", (2**31, 2**31)),
    "its log comes": lambda thread: (thread / "messages.jsonl").touch(),
    "a run comes": lambda thread: (thread / "runs" / "R-new").mkdir(),
    "a run is written to": lambda thread: write(thread / RUN / "status.json", "failed"),
    "the list of steps comes": lambda thread: (thread / RUN / "steps").mkdir(),
}


@pytest.fixture
def unfollowed(store: ThreadStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadStore]:
    """Nothing is followed; the catalogue knows all threads."""
    monkeypatch.setattr(signatures, "_SETTLES_NS", -1)
    with closing(store):
        follow(store, 0)
        store._disk_catalogue().refresh(words=False)
        yield store


def test_the_times_of_threads_that_are_as_the_catalogue_knows_them_take_no_search_for_their_parts(
    unfollowed: ThreadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {thread_id: unfollowed.thread_times(thread_id) for thread_id in unfollowed.list_thread_ids()}
    monkeypatch.setattr(thread_times, "thread_times", None)
    assert unfollowed.times_of_threads(times) == times


@pytest.mark.parametrize("change", CHANGES_OF_OTHERS)
def test_the_times_of_threads_that_are_not_followed_are_those_after_a_change_by_others(
    unfollowed: ThreadStore, change: str
) -> None:
    before = unfollowed.times_of_threads(["T1", "T2"])
    let_the_clock_tick(before["T1"].changed_ns)
    CHANGES_OF_OTHERS[change](Path(unfollowed.root, "T1"))
    after = unfollowed.times_of_threads(["T1", "T2"])
    assert after["T1"].changed_ns > before["T1"].changed_ns
    assert after == {"T1": unfollowed.thread_times("T1"), "T2": before["T2"]}


def test_the_times_of_threads_are_told_while_others_use_the_catalogue(unfollowed: ThreadStore) -> None:
    times = unfollowed.times_of_threads(["T1"])
    with unfollowed._disk_catalogue().known._turns:
        assert unfollowed.times_of_threads(["T1"]) == times


@pytest.mark.usefixtures("followed")
def test_a_list_has_the_runs_in_the_statuses_asked_for(store: ThreadStore) -> None:
    asked = {RunStatus.queued, RunStatus.completed}
    assert sorted(store.runs_by_status(asked)) == [found for found in on_disk(store) if found[2] in asked]
    assert list(store.runs_by_status({RunStatus.failed})) == []


def write(path: Path, status: str) -> None:
    path.write_text(json.dumps({"created_at": 1, "status": status}))


def another_thread(store: ThreadStore) -> None:
    store.delete_thread("T5", force=True)
    store.create_thread(Thread(id="T5"))
    store.create_run("T5", Run(id="R-queued", status=RunStatus.failed))


def another_run(store: ThreadStore) -> None:
    store.delete_run("T6", "R-queued")
    store.create_run("T6", Run(id="R-queued", status=RunStatus.expired))


def run_in_steps(store: ThreadStore) -> None:
    store.run_dir("T9", "slow").mkdir()
    time.sleep(0.05)
    write(store.run_dir("T9", "slow") / "status.json", "queued")


def thread_in_steps(store: ThreadStore) -> None:
    for make in (
        store.thread_dir("slow").mkdir,
        lambda: (store.thread_dir("slow") / "meta.json").write_text('{"created_at": 1}'),
        lambda: (store.thread_dir("slow") / "runs").mkdir(),
        lambda: store.run_dir("slow", "R").mkdir(),
        lambda: write(store.run_dir("slow", "R") / "status.json", "queued"),
    ):
        make()
        time.sleep(0.05)


def new_thread(store: ThreadStore) -> None:
    store.create_thread(Thread(id="new"))
    store.create_run("new", Run(id="R"))


CHANGES: dict[str, Callable[[ThreadStore], object]] = {
    "a run ends": lambda s: s.cancel_run("T1", "R-queued"),
    "a run comes": lambda s: s.create_run("T2", Run(id="new")),
    "a run goes": lambda s: s.delete_run("T3", "R-queued"),
    "a run is another": another_run,
    "a run is made in steps": run_in_steps,
    "a run is damaged": lambda s: write(s.run_dir("T7", "R-queued") / "status.json", "what?"),
    "a run is written in place": lambda s: write(s.run_dir("T8", "R-queued") / "status.json", "failed"),
    "a thread comes": new_thread,
    "a thread goes": lambda s: s.delete_thread("T4", force=True),
    "a thread is another": another_thread,
    "a thread is made in steps": thread_in_steps,
    "a thread is copied": lambda s: shutil.copytree(s.thread_dir("T1"), s.thread_dir("copy")),
}


@pytest.mark.parametrize("is_set_up", [True, False], ids=["set up", "not yet"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_another_program_changes_shows_soon(
    followed: Followed, store: ThreadStore, change: Callable[[ThreadStore], object], *, is_set_up: bool
) -> None:
    if is_set_up:
        followed.catch_up()
    assert shown(store) == on_disk(store)
    change(ThreadStore(store.location))
    wait_for(lambda: shown(store) == on_disk(store))


@pytest.mark.parametrize("seed", seeds(3))
@pytest.mark.usefixtures("followed")
def test_after_random_changes_lists_say_what_the_disk_does(store: ThreadStore, seed: int) -> None:
    other, dice = ThreadStore(store.location), random.Random(seed)
    for _ in range(200):
        thread_id, run_id = f"T{dice.randrange(12)}", f"R{dice.randrange(4)}"
        try:
            match dice.randrange(7):
                case 0:
                    other.create_thread(Thread(id=thread_id))
                case 1:
                    other.delete_thread(thread_id, force=True)
                case 2 | 3:
                    other.create_run(thread_id, Run(id=run_id, status=dice.choice(list(RunStatus))))
                case 4 | 5:
                    other.update_run_status(thread_id, run_id, dice.choice(list(RunStatus)))
                case 6:
                    other.delete_run(thread_id, run_id, force=True)
        except StoreError:
            continue
    wait_for(lambda: shown(store) == on_disk(store))


def is_shown(store: ThreadStore, run_id: str, status: RunStatus) -> bool:
    return ("T0", run_id, status) in list(store.runs_by_status({status}))


def test_a_store_sees_its_own_changes_at_once(store: ThreadStore) -> None:
    store.index_runs()
    try:
        for number in range(100):
            store.create_run("T0", Run(id=f"{number}"))
            assert is_shown(store, f"{number}", RunStatus.queued)
            store.cancel_run("T0", f"{number}")
            assert is_shown(store, f"{number}", RunStatus.cancelled)
            store.delete_run("T0", f"{number}")
            assert not is_shown(store, f"{number}", RunStatus.cancelled)
    finally:
        store.close()


@pytest.mark.alone
def test_a_thread_that_another_program_makes_shows_when_the_system_has_no_watch_left(
    store: ThreadStore,
) -> None:
    with inotify_limit("max_user_watches", 0):
        store.index_runs()
        try:
            assert len(list(store.runs_by_status())) == 30
            other = ThreadStore(store.location)
            other.create_thread(Thread(id="new"))
            other.create_run("new", Run(id="R"))
            wait_for(lambda: ("new", "R", RunStatus.queued) in list(store.runs_by_status({RunStatus.queued})))
        finally:
            store.close()


@pytest.mark.alone
def test_a_store_that_gets_no_watch_answers_from_the_disk(store: ThreadStore) -> None:
    with inotify_limit("max_user_instances", 0):
        store.index_runs()
    ThreadStore(store.location).cancel_run("T0", "R-queued")
    assert is_shown(store, "R-queued", RunStatus.cancelled)


def is_known(store: ThreadStore, thread_id: str = "T0") -> bool:
    """Whether the time of a thread is told without a look at the disk."""
    try:
        with without_waiting():
            store.thread_modified_ns(thread_id)
    except WouldWait:
        return False
    return True


TOUCHES: dict[str, Callable[[ThreadStore], object]] = {
    "message": lambda s: s.append_message("T0", ThreadMessage(role=MessageRole.user, content=[])),
    "document": lambda s: s.patch_document(DocumentKey("T0"), {"a": 1}),
    "run": lambda s: s.create_run("T0", Run(id="new")),
    "status": lambda s: s.force_update_run_status("T0", "R-completed", RunStatus.failed),
    "step": lambda s: s.append_step("T0", "R-queued", RunStep(id="S", step_type=RunStepType.tool_calls)),
    "step again": lambda s: s.update_step_status("T0", "R-in_progress", "S", RunStepStatus.completed),
}


@pytest.mark.parametrize("by", ["the store", "another program"])
@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES)
def test_the_time_of_a_thread_is_known_and_follows_each_change(
    store: ThreadStore, touch: Callable[[ThreadStore], object], by: str
) -> None:
    store.append_step("T0", "R-in_progress", RunStep(id="S", step_type=RunStepType.tool_calls))
    other = ThreadStore(store.location)
    store.index_runs()
    try:
        wait_for(lambda: is_known(store))
        assert store.thread_modified_ns("T0") == other.thread_modified_ns("T0")
        time.sleep(0.01)  # The clock of files has ticked.
        touch(store if by == "the store" else other)
        if by == "the store":
            assert store.thread_modified_ns("T0") == other.thread_modified_ns("T0")
        wait_for(lambda: store.thread_modified_ns("T0") == other.thread_modified_ns("T0"))
        wait_for(lambda: store.reports_all_of("T0"))
        # One change is told of more than once, and each time it is forgotten.
        wait_for(lambda: store.thread_modified_ns("T0") > 0 and is_known(store))
    finally:
        store.close()


@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES)
@pytest.mark.parametrize("is_damaged", [False, True], ids=["sound", "with a damaged run"])
def test_with_few_watches_the_time_of_a_thread_is_that_on_the_disk(
    store: ThreadStore, touch: Callable[[ThreadStore], object], *, is_damaged: bool
) -> None:
    store.append_step("T0", "R-in_progress", RunStep(id="S", step_type=RunStepType.tool_calls))
    if is_damaged:
        store.create_run("T0", Run(id="damaged"))
        write(store.run_dir("T0", "damaged") / "status.json", "what?")
    for number in range(1, 10):
        store.delete_thread(f"T{number}", force=True)
    for status in ("queued", "in_progress"):
        store.force_update_run_status("T0", f"R-{status}", RunStatus.failed)
    other = ThreadStore(store.location)
    # For the list of threads, the thread and the list of its runs.
    followed = follow(store, max_watches=3)
    try:
        followed.catch_up()
        expected = Reported.NOTHING if is_damaged else Reported.BUT_ENDED
        wait_for(lambda: store.reported_of("T0") is expected)
        touch(other)
        wait_for(lambda: store.thread_modified_ns("T0") == other.thread_modified_ns("T0"))
        if is_damaged:
            later_ns = time.time_ns() + 10**9
            os.utime(store.run_dir("T0", "damaged") / "status.json", ns=(later_ns, later_ns))
            wait_for(lambda: store.thread_modified_ns("T0") == later_ns)
    finally:
        store.close()


def test_the_time_of_a_damaged_run_that_is_not_followed_is_read_each_time(store: ThreadStore) -> None:
    for run_id in store.list_run_ids("T0"):
        store.delete_run("T0", run_id, force=True)
    store.create_run("T0", Run(id="damaged"))
    write(store.run_dir("T0", "damaged") / "status.json", "what?")
    followed = follow(store, max_watches=3)
    try:
        followed.catch_up()
        later_ns = time.time_ns() + 10**9
        os.utime(store.run_dir("T0", "damaged") / "status.json", ns=(later_ns, later_ns))
        wait_for(lambda: store.thread_modified_ns("T0") == later_ns)
    finally:
        store.close()


def test_without_enough_watches_times_are_read_each_time(store: ThreadStore) -> None:
    followed = follow(store, max_watches=20)
    try:
        followed.catch_up()
        assert None in [followed.times(f"T{number}") for number in range(10)]
    finally:
        store.close()


def test_a_store_that_cannot_be_read_is_reported_and_answers_again_later(store: ThreadStore) -> None:
    store.index_runs()
    try:
        before = on_disk(store)
        os.rename(store.location, f"{store.location}~")
        wait_for(lambda: fails(store))
        os.rename(f"{store.location}~", store.location)
        assert sorted(store.runs_by_status()) == before
        ThreadStore(store.location).cancel_run("T1", "R-queued")
        wait_for(lambda: ("T1", "R-queued", RunStatus.cancelled) in list(store.runs_by_status()))
    finally:
        store.close()


def fails(store: ThreadStore) -> bool:
    try:
        list(store.runs_by_status())
    except StorageFailed:
        return True
    return False


def test_who_closes_the_store_does_not_wait_for_what_is_being_set_up(store: ThreadStore) -> None:
    is_asked, ends = threading.Event(), threading.Event()

    def wait(_: Tables) -> None:
        is_asked.set()
        ends.wait()

    asking = threading.Thread(target=lambda: store._disk_catalogue().known.use(wait))
    asking.start()
    is_asked.wait()
    followed = follow(store)
    wait_for(lambda: followed._setting_up.locked())
    followed.close()  # Returns.
    ends.set()
    asking.join()
    store.close()


def test_what_is_being_set_up_when_the_store_is_closed_opens_no_catalogue_again(
    store: ThreadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_asked, ends = threading.Event(), threading.Event()

    def of_threads(*_: object) -> dict[str, object]:
        is_asked.set()
        ends.wait()
        return {}

    monkeypatch.setattr(RunLists, "of_threads", of_threads)
    followed = follow(store)
    is_asked.wait()
    store.close()
    ends.set()
    followed._thread.join()
    assert store._catalogue is None


def test_the_second_time_no_document_of_a_run_is_read(
    store: ThreadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signatures, "_SETTLES_NS", -1)
    with closing(store):
        follow(store).catch_up()
        assert shown(store) == on_disk(store)
    read: list[DocumentKey] = []
    read_document = ThreadStore.read_document

    def counted(self: ThreadStore, key: DocumentKey) -> tuple[bytes, Info]:
        read.append(key)
        return read_document(self, key)

    expected = on_disk(store)
    monkeypatch.setattr(ThreadStore, "read_document", counted)
    with closing(ThreadStore(store.location)) as again:
        follow(again).catch_up()
        assert (shown(again), read) == (expected, [])


def test_the_threads_that_changed_last_are_followed_first(store: ThreadStore) -> None:
    with closing(store):
        store.index_runs()
        assert shown(store) == on_disk(store)
    time.sleep(0.01)  # The clock of files has ticked.
    store.append_message("T7", ThreadMessage(role=MessageRole.user, content=[]))
    with closing(ThreadStore(store.location)) as again:
        # For the list of threads, one thread with its list, and its two runs that have not ended.
        followed = follow(again, max_watches=5)
        followed.catch_up()
        assert [one for one in again.list_thread_ids() if again.reported_of(one) is not Reported.NOTHING] == [
            "T7"
        ]
        assert not followed.follows_all_runs()


def test_what_is_forced_on_an_ended_run_that_is_not_followed_shows_soon(
    store: ThreadStore,
) -> None:
    for number in range(1, 10):
        store.delete_thread(f"T{number}", force=True)
    for status in ("queued", "in_progress"):
        store.delete_run("T0", f"R-{status}", force=True)
    with closing(store):
        followed = follow(store, max_watches=3)
        assert followed.follows_all_runs()
        assert store.reported_of("T0") is Reported.BUT_ENDED
        assert list(store.runs_by_status({RunStatus.failed})) == []
        ThreadStore(store.location).force_update_run_status("T0", "R-completed", RunStatus.failed)
        wait_for(lambda: is_shown(store, "R-completed", RunStatus.failed))


def test_for_lists_of_runs_that_have_not_ended_only_what_these_go_by_is_looked_at(
    store: ThreadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signatures, "_SETTLES_NS", -1)
    monkeypatch.setattr(known, "_FRESH_S", 0)
    looked_at: set[str] = set()

    def is_same(root: str, thread_id: str, seen: Any, is_same: Any = signatures.is_same) -> Any:
        known = [*seen]
        looked_at.update(path for path, _ in known)
        return is_same(root, thread_id, known)

    with closing(store):
        follow(store, max_watches=0)
        shown(store)
        monkeypatch.setattr(signatures, "is_same", is_same)
        queued = list(store.runs_by_status({RunStatus.queued}))
        of_lists = {"meta.json", "runs", "runs/R-queued/status.json", "runs/R-in_progress/status.json"}
        assert looked_at == of_lists
        store.run_dir("T3", "R-queued").joinpath("steps").mkdir()
        write(store.run_dir("T1", "R-queued") / "status.json", "failed")
        store.run_dir("T2", "new").mkdir()
        write(store.run_dir("T2", "new") / "status.json", "queued")
        changed = {*queued} - {("T1", "R-queued", RunStatus.queued)} | {("T2", "new", RunStatus.queued)}
        assert {*store.runs_by_status({RunStatus.queued})} == changed
        looked_at.clear()
        assert shown(store) == on_disk(store)
        assert looked_at > of_lists


def threads_looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that gets the id of each thread that is compared from now on."""
    looked_at: list[str] = []

    def is_same(root: str, thread_id: str, seen: Any, is_same: Any = signatures.is_same) -> Any:
        looked_at.append(thread_id)
        return is_same(root, thread_id, seen)

    monkeypatch.setattr(signatures, "is_same", is_same)
    return looked_at


def test_titles_and_a_search_look_at_no_thread_of_which_all_but_runs_that_have_ended_is_reported(
    store: ThreadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signatures, "_SETTLES_NS", -1)
    monkeypatch.setattr(known, "_FRESH_S", 0)
    for number in range(10):
        for status in ("queued", "in_progress"):
            store.delete_run(f"T{number}", f"R-{status}", force=True)

    with closing(store):
        assert follow(store, max_watches=21).follows_all_runs()
        assert store.reported_of("T9") is Reported.BUT_ENDED
        catalogue = store.catalogue()
        catalogue.refresh(words=True)
        looked_at = threads_looked_at(monkeypatch)
        assert catalogue.search(parsed("honey", 0)).links == []
        assert [one.thread_id for one in catalogue.titles()] == sorted(store.list_thread_ids())
        assert looked_at == []
        ThreadStore(store.location).force_update_run_status("T9", "R-completed", RunStatus.failed)
        assert [link.thread_id for link in catalogue.search(parsed("status:failed", 0)).links] == ["T9"]
        assert looked_at != []


def test_runs_that_have_ended_are_followed_while_there_are_watches_for_all_threads(
    store: ThreadStore,
) -> None:
    with closing(store):
        # One for the list of threads; two for each of ten, and one for each of its three runs.
        follow(store, max_watches=51).catch_up()
        assert {store.reported_of(one) for one in store.list_thread_ids()} == {Reported.ALL}


def test_runs_that_have_ended_are_not_followed_where_all_threads_need_the_watches(
    store: ThreadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signatures, "_SETTLES_NS", -1)
    monkeypatch.setattr(known, "_FRESH_S", 0)
    for number in range(10):
        for status in ("queued", "in_progress"):
            store.delete_run(f"T{number}", f"R-{status}", force=True)
    freed: list[Any] = []
    monkeypatch.setattr(Followed, "_free_runs", lambda *these: freed.append(these))

    with closing(store):
        # For the list of threads, each thread, and the list of its runs.
        followed = follow(store, max_watches=21)
        assert shown(store) == on_disk(store)
        assert followed.follows_all_runs()
        assert {store.reported_of(one) for one in store.list_thread_ids()} == {Reported.BUT_ENDED}
        assert freed == []
        # They were compared when they were followed.
        looked_at = threads_looked_at(monkeypatch)
        assert list(store.runs_by_status({RunStatus.queued})) == []
        assert looked_at == []
        ThreadStore(store.location).create_run("T7", Run(id="new"))
        assert list(store.runs_by_status({RunStatus.queued})) == [("T7", "new", RunStatus.queued)]


def test_runs_that_have_ended_make_room_for_those_that_have_not(store: ThreadStore) -> None:
    for number in range(1, 10):
        store.delete_thread(f"T{number}", force=True)
    with closing(store):
        # For the list of threads, the thread, the list of its runs and these three.
        followed = follow(store, max_watches=12)
        followed.catch_up()
        assert store.reported_of("T0") is Reported.ALL
        followed._budget.max_watches = 6
        other = ThreadStore(store.location)
        other.create_run("T0", Run(id="new"))
        wait_for(lambda: store.reported_of("T0") is Reported.NOTHING)
        assert followed.follows_all_runs()
        assert store.reported_of("T0") is Reported.BUT_ENDED
        other.cancel_run("T0", "new")
        wait_for(lambda: is_shown(store, "new", RunStatus.cancelled))


def test_threads_that_cannot_be_compared_hide_no_other(
    store: ThreadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(root: str, thread_id: str, known: Any, look: Any = signatures.look) -> Any:
        if thread_id == "T1":
            raise StorageFailed(errno.EACCES, thread_id)
        return look(root, thread_id, known)

    monkeypatch.setattr(signatures, "look", look)
    with closing(store):
        for most in (100, 0):
            monkeypatch.setattr(known, "_MAX_UNREADABLE", most)
            store.index_runs()
            assert shown(store) == on_disk(store)
            store.close()


def test_the_time_of_a_list_is_when_its_change_was_heard_of_and_not_when_it_is_asked_for(
    store: ThreadStore,
) -> None:
    with closing(store):
        store.index_runs()
        before_ns = store.list_changed_ns(RunStatus.queued)
        store.create_run("T0", Run(id="new"))
        heard_ns = time.time_ns()
        time.sleep(0.01)
        assert before_ns < store.list_changed_ns(RunStatus.queued) <= heard_ns


@pytest.mark.usefixtures("followed")
def test_a_directory_that_is_a_thread_no_longer_and_then_again_shows_so(store: ThreadStore) -> None:
    document, aside = store.thread_dir("T5") / "meta.json", store.thread_dir("T5") / "aside"
    for source, target in ((document, aside), (aside, document)):
        assert shown(store) == on_disk(store)
        source.rename(target)
        wait_for(lambda: shown(store) == on_disk(store))
