"""What a store tells of the changes that are made through it: all, and before they are acknowledged."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from store import Change, DocumentKey, Part, Run, RunContents, RunStatus, RunStep, Store, StoreError, Thread
from store.working import Registration
from tests.store.conftest import LONG_AGO_NS, META, RUN, RUN_DOCUMENT, STEP, THREAD, make_step, message
from tests.store.contract.working import STATE

Action = Callable[[Store], object]

# What is done, and a change that is told of it.
TOLD: dict[str, tuple[Action, Change]] = {
    "create_thread": (lambda s: s.create_thread(Thread(id="U")), Change(Part.THREADS, "U")),
    "import_thread": (lambda s: s.import_thread("U", META, [], {}), Change(Part.THREADS, "U")),
    "delete_thread": (lambda s: s.delete_thread("T", force=True), Change(Part.THREADS, "T")),
    "create_run": (lambda s: s.create_run("T", Run(id="Q")), Change(Part.RUNS, "T", "Q")),
    "delete_run": (lambda s: s.delete_run("T", "R", force=True), Change(Part.RUNS, "T", "R")),
    "append_step": (lambda s: s.append_step("T", "R", RunStep(id="X")), Change(Part.STEPS, "T", "R", "X")),
    "append_message": (lambda s: s.append_message("T", message()), Change(Part.LOG, "T", grew=True)),
    "patch_document": (lambda s: s.patch_document(THREAD, {"a": 1}), Change(Part.DOCUMENT, "T")),
    "replace_document": (
        lambda s: s.replace_document(RUN, b'{"id":"R","created_at":2,"status":"failed"}'),
        Change(Part.DOCUMENT, "T", "R"),
    ),
    "patch of a step": (lambda s: s.patch_document(STEP, {"a": 1}), Change(Part.DOCUMENT, "T", "R", "S")),
    "cancel_run": (lambda s: s.cancel_run("T", "R"), Change(Part.DOCUMENT, "T", "R")),
    "extend_thread, by a message": (
        lambda s: s.extend_thread("T", s.log_info("T").size_bytes, [b'{"role":"user","content":[]}'], {}),
        Change(Part.LOG, "T"),
    ),
    "set_document_modified": (
        lambda s: s.set_document_modified(RUN, LONG_AGO_NS),
        Change(Part.DOCUMENT, "T", "R", only_times=True),
    ),
    "set_log_modified": (
        lambda s: s.set_log_modified("T", LONG_AGO_NS),
        Change(Part.LOG, "T", grew=True, only_times=True),
    ),
}


class Heard:
    def __init__(self, store: Store) -> None:
        self.changes: list[Change] = []
        self.watch = store.watch(self.changes.append)


@pytest.mark.parametrize("what", TOLD)
def test_a_change_is_told_as_an_own_one_when_it_is_acknowledged(store: Store, what: str) -> None:
    make_step(store)
    store.append_message("T", message())
    heard = Heard(store)
    try:
        change, expected = TOLD[what]
        change(store)
        found = list(heard.changes)
    finally:
        heard.watch.close()
    assert all(told.is_own for told in found)
    assert (expected.part, expected.key, expected.grew, expected.only_times) in [
        (told.part, told.key, told.grew, told.only_times) for told in found
    ]


def test_runs_that_are_added_to_a_thread_are_told(store: Store) -> None:
    make_step(store)
    heard = Heard(store)
    try:
        store.extend_thread("T", 0, [], {"new": RunContents(RUN_DOCUMENT)})
        told = [(change.part, change.thread_id) for change in heard.changes]
    finally:
        heard.watch.close()
    assert (Part.RUNS, "T") in told


REFUSED: dict[str, Action] = {
    "a thread that is there": lambda s: s.create_thread(Thread(id="T")),
    "a run of no thread": lambda s: s.create_run("none", Run(id="R")),
    "a status after the last one": lambda s: s.update_run_status("T", "R", RunStatus.queued),
    "a change to no run": lambda s: s.patch_document(DocumentKey("T", "none"), {"a": 1}),
    "a message for no thread": lambda s: s.append_message("none", message()),
}


@pytest.mark.parametrize("what", REFUSED)
def test_of_what_is_refused_nothing_is_told(store: Store, what: str) -> None:
    make_step(store)
    store.cancel_run("T", "R")
    commits, heard = store.announcer.commits, Heard(store)
    try:
        with pytest.raises(StoreError):
            REFUSED[what](store)
        assert heard.changes == []
    finally:
        heard.watch.close()
    assert store.announcer.commits == commits


def test_each_change_of_contents_is_one_commit_and_a_new_time_is_none(store: Store) -> None:
    make_step(store)
    commits = store.announcer.commits
    store.append_step("T", "R", RunStep(id="X"))
    assert store.announcer.commits == commits + 1
    store.set_document_modified(RUN, LONG_AGO_NS)
    store.set_thread_modified("T", LONG_AGO_NS)
    assert store.announcer.commits == commits + 1


def test_who_has_closed_the_watch_is_told_nothing_more(store: Store) -> None:
    make_step(store)
    heard = Heard(store)
    heard.watch.close()
    store.cancel_run("T", "R")
    assert heard.changes == []


OF_WORKERS: dict[str, Callable[[Registration], object]] = {
    "another state": lambda worker: worker.set_state(STATE),
    "its end": lambda worker: worker.close(),
}


@pytest.mark.parametrize("what", OF_WORKERS)
def test_who_is_told_of_a_worker_may_wait_for_another_thread_that_uses_it(store: Store, what: str) -> None:
    worker = store.register_worker(STATE)
    uses = [threading.Thread(target=worker.set_state, args=[STATE], daemon=True)]
    was_done: list[bool] = []

    def waits(change: Change) -> None:
        if change.part is Part.WORKERS and uses:
            use = uses.pop()
            use.start()
            use.join(5)
            was_done.append(not use.is_alive())

    watch = store.watch(waits)
    try:
        OF_WORKERS[what](worker)
    finally:
        watch.close()
    assert was_done == [True]
