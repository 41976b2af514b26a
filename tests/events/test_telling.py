"""What is told of the changes of a store, whoever makes them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from store import (
    Change,
    DocumentKey,
    Part,
    Run,
    RunContents,
    RunError,
    RunStatus,
    RunStep,
    RunStepStatus,
    Store,
    Thread,
    ThreadStore,
)
from store.changes import change_of
from tests.events.conftest import Listener, shown
from tests.store.conftest import message
from threadfs.events import known, new_messages
from threadfs.events.telling import Telling

WRITERS = pytest.mark.parametrize("writer", ["itself", "another program"])


@pytest.fixture
def by(writer: str, store: Store, other: Store) -> Store:
    """Through which the changes are made."""
    return store if writer == "itself" else other


@pytest.fixture
def before(store: Store) -> None:
    """What was there before anybody listened: T with a message and the queued run R with the step S."""
    store.create_thread(Thread(id="T", created_at=1))
    store.append_lines("T", [b'{"id":"old","role":"user","content":"x","created_at":1}\n'])
    store.create_run("T", Run(id="R", created_at=1))
    store.append_step("T", "R", RunStep(id="S", created_at=1))


@WRITERS
def test_a_thread_that_comes_changes_and_goes_is_told(listener: Listener, by: Store) -> None:
    by.create_thread(Thread(id="U"))
    listener.tells(("thread.created", "U"))
    by.patch_document(DocumentKey("U"), {"metadata": {"title": "x"}})
    listener.tells(("thread.updated", "U"))
    by.delete_thread("U")
    listener.tells(("thread.deleted", "U"))
    by.create_thread(Thread(id="U"))
    listener.tells(("thread.created", "U"))


@WRITERS
@pytest.mark.usefixtures("before")
def test_a_thread_of_before_that_changes_and_goes_is_told(store: Store, by: Store) -> None:
    listener = Listener(store)
    by.patch_document(DocumentKey("T"), {"metadata": {"title": "x"}})
    listener.tells(("thread.updated", "T"))
    by.delete_thread("T", force=True)
    listener.tells(("thread.deleted", "T"))
    listener.watch.close()


@WRITERS
@pytest.mark.usefixtures("before")
def test_each_new_message_is_told_once(store: Store, by: Store) -> None:
    listener = Listener(store)
    for number in range(3):
        written = by.append_message("T", message(f"{number}"))
        listener.tells(("message.created", "T", written.id))
    several = [b'{"id":"%d","role":"user","content":"x"}\n' % number for number in range(3)]
    by.append_lines("T", several)
    listener.tells(*(("message.created", "T", str(number)) for number in range(3)))
    listener.watch.close()


def test_a_message_of_a_run_names_the_run(listener: Listener, store: Store) -> None:
    store.create_thread(Thread(id="U"))
    store.append_lines("U", [b'{"id":"m","role":"assistant","content":"x","run_id":"Q"}\n'])
    listener.tells(("thread.created", "U"), ("message.created", "U", "Q", "m"))


@WRITERS
@pytest.mark.usefixtures("before")
def test_a_run_is_told_with_each_status_until_it_is_deleted(store: Store, by: Store) -> None:
    listener = Listener(store)
    by.create_run("T", Run(id="Q"))
    listener.tells(("run.queued", "T", "Q", "queued"))
    by.update_run_status("T", "Q", RunStatus.in_progress)
    listener.tells(("run.in_progress", "T", "Q", "in_progress"))
    by.patch_document(DocumentKey("T", "Q"), {"metadata": {"a": "b"}})
    listener.tells(("run.updated", "T", "Q", "in_progress"))
    by.update_run_status("T", "Q", RunStatus.failed, RunError(code="server_error", message="x"))
    listener.tells(("run.failed", "T", "Q", "failed"))
    by.delete_run("T", "Q")
    listener.tells(("run.deleted", "T", "Q"))
    listener.watch.close()


@WRITERS
@pytest.mark.usefixtures("before")
def test_a_run_of_before_that_ends_is_told(store: Store, by: Store) -> None:
    listener = Listener(store)
    by.cancel_run("T", "R")
    listener.tells(("run.cancelled", "T", "R", "cancelled"))
    by.delete_run("T", "R", force=True)
    listener.tells(("run.deleted", "T", "R"))
    listener.watch.close()


@pytest.mark.parametrize("status", [RunStatus.expired, RunStatus.incomplete])
@pytest.mark.usefixtures("before")
def test_the_end_of_a_run_of_which_nothing_was_known_is_told_though_it_has_no_time(
    store: Store, status: RunStatus
) -> None:
    telling = Telling(store)
    store.update_run_status("T", "R", status)
    heard = telling.heard(change_of(Part.DOCUMENT, DocumentKey("T", "R")))
    assert heard is not None
    told = [shown(event.line()) for event in telling.events(heard)]
    assert told == [(f"run.{status}", "T", "R", status.value)]


@pytest.mark.usefixtures("before")
def test_another_field_of_a_run_that_had_ended_before_is_no_new_end(store: Store) -> None:
    store.replace_document(
        DocumentKey("T", "R"), b'{"id":"R","created_at":1,"status":"completed","completed_at":2}'
    )
    listener = Listener(store)
    store.patch_document(DocumentKey("T", "R"), {"metadata": {"a": "b"}})
    listener.tells(("run.updated", "T", "R", "completed"))
    listener.watch.close()


@WRITERS
@pytest.mark.usefixtures("before")
def test_a_step_is_told_with_its_end_until_it_goes(store: Store, by: Store) -> None:
    listener = Listener(store)
    by.update_step_status("T", "R", "S", RunStepStatus.completed)
    listener.tells(("step.completed", "T", "R", "S", "completed"))
    by.append_step("T", "R", RunStep(id="X"))
    listener.tells(("step.created", "T", "R", "X", "in_progress"))
    by.update_step_status("T", "R", "X", RunStepStatus.failed)
    listener.tells(("step.failed", "T", "R", "X", "failed"))
    by.patch_document(DocumentKey("T", "R", "X"), {"metadata": {"a": "b"}})
    listener.tells(("step.updated", "T", "R", "X", "failed"))
    listener.watch.close()


@WRITERS
def test_all_that_comes_with_an_imported_thread_is_told(listener: Listener, by: Store) -> None:
    by.import_thread(
        "U",
        b'{"created_at":1}',
        [b'{"id":"m","role":"user","content":"x","created_at":1}'],
        {
            "Q": RunContents(
                b'{"created_at":2,"status":"completed"}',
                {"S": b'{"created_at":3,"status":"completed","step_type":"tool_calls"}'},
            )
        },
    )
    listener.tells(
        ("thread.created", "U"),
        ("message.created", "U", "m"),
        ("run.completed", "U", "Q", "completed"),
        ("step.created", "U", "Q", "S", "completed"),
    )


def test_each_status_that_is_heard_is_told_however_fast_they_follow(tmp_path: Path) -> None:
    store = ThreadStore(tmp_path)
    store.create_thread(Thread(id="T"))
    listener = Listener(store)
    store.create_run("T", Run(id="R"))
    store.update_run_status("T", "R", RunStatus.in_progress)
    store.update_run_status("T", "R", RunStatus.completed)
    listener.tells(*((f"run.{word}", "T", "R", word) for word in ("queued", "in_progress", "completed")))
    listener.watch.close()
    store.close()


def test_a_list_of_runs_is_told_as_it_was_when_it_was_heard_of(on_disk: Listener, disk: ThreadStore) -> None:
    disk.create_run("T", Run(id="Q"))
    heard = on_disk.telling.heard(Change(Part.RUNS, "T"))
    assert heard is not None
    disk.cancel_run("T", "Q")
    assert [event.name for event in on_disk.telling.events(heard)] == ["run.queued"]


@pytest.mark.usefixtures("before")
def test_what_was_heard_of_a_run_is_told_before_its_list_is_looked_at(store: Store) -> None:
    telling = Telling(store)
    of_list = telling.heard(Change(Part.RUNS, "T"))
    store.create_run("T", Run(id="Q"))
    came = telling.heard(Change(Part.RUNS, "T", "Q"))
    store.update_run_status("T", "Q", RunStatus.in_progress)
    claimed = telling.heard(Change(Part.DOCUMENT, "T", "Q"))
    told = [
        shown(event.line()) for heard in (of_list, came, claimed) if heard for event in telling.events(heard)
    ]
    # A store in a database is read when it is told.
    words = ("in_progress",) if store.is_remote else ("queued", "in_progress")
    assert told == [(f"run.{word}", "T", "Q", word) for word in words]


def test_the_time_of_a_document_alone_is_no_event(listener: Listener, store: Store) -> None:
    store.create_thread(Thread(id="U"))
    store.set_document_modified(DocumentKey("U"), 1_000_000_000)
    store.create_run("U", Run(id="Q"))
    listener.tells(("thread.created", "U"), ("run.queued", "U", "Q", "queued"))


def test_when_changes_were_missed_that_is_told(listener: Listener) -> None:
    assert listener.hear(Change(Part.EVERYTHING)) == [("changes.missed",)]


def test_what_was_created_since_is_told_though_little_is_remembered(
    listener: Listener, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create_thread(Thread(id="U"))
    listener.tells(("thread.created", "U"))
    monkeypatch.setattr(known, "_MAX_THREADS", 1)
    store.create_thread(Thread(id="V"))
    listener.tells(("thread.created", "V"))
    written = store.append_message("U", message("x"))
    listener.tells(("message.created", "U", written.id))


def test_of_what_was_never_a_thread_or_run_nothing_is_told(on_disk: Listener, disk: ThreadStore) -> None:
    disk.create_run("T", Run(id="R"))
    on_disk.tells(("run.queued", "T", "R", "queued"))
    for place in (disk.thread_dir("T").parent, disk.thread_dir("T") / "runs"):
        place.joinpath("notes").mkdir()
        place.joinpath("notes").rmdir()
        place.joinpath("notes.txt").write_text("mine")
        place.joinpath("notes.txt").unlink()
        place.joinpath("other.txt").write_text("mine")
    disk.create_run("T", Run(id="Q"))
    disk.create_thread(Thread(id="last"))
    on_disk.tells(("run.queued", "T", "Q", "queued"), ("thread.created", "last"))


def test_what_comes_in_large_numbers_is_told_once_though_little_is_remembered(
    listener: Listener, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "_MAX_THREADS", 1)
    names = [f"N{number}" for number in range(5)]
    for name in names:
        other.create_thread(Thread(id=name))
    listener.tells(*(("thread.created", name) for name in names))
    other.create_thread(Thread(id="last"))
    listener.tells(("thread.created", "last"))


def test_new_messages_are_found_at_the_end_of_a_long_log(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new_messages, "_WINDOW_BYTES", 100)
    store.create_thread(Thread(id="T"))
    old = b'{"id":"o","role":"user","content":"x","created_at":1}\n'
    store.append_lines("T", [old] * 5)
    listener = Listener(store)
    new = [b'{"id":"%d","role":"user","content":"%s"}\n' % (number, b"x" * 300) for number in range(5)]
    store.append_lines("T", new)
    listener.tells(*(("message.created", "T", str(number)) for number in range(5)))
    listener.watch.close()


def test_what_was_heard_and_has_gone_since_raises_nothing(listener: Listener, store: Store) -> None:
    store.create_thread(Thread(id="U"))
    listener.tells(("thread.created", "U"))
    store.delete_thread("U")
    for part in (Part.LOG, Part.RUNS):
        assert listener.hear(Change(part, "U")) == []
    assert listener.hear(Change(Part.STEPS, "U", "Q")) == []
    listener.tells(("thread.deleted", "U"))


# ── Programs that write the files of a store themselves ────────────────────────────────────────────────────


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[ThreadStore]:
    opened = ThreadStore(tmp_path / "disk")
    opened.create_thread(Thread(id="T"))
    yield opened
    opened.close()


@pytest.fixture
def on_disk(disk: ThreadStore) -> Iterator[Listener]:
    listening = Listener(disk)
    yield listening
    listening.watch.close()


def test_a_first_run_whose_list_comes_with_it_is_told(
    on_disk: Listener, disk: ThreadStore, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "R").mkdir()
    (made / "R" / "status.json").write_text(
        f'{{"id":"R","created_at":{int(time.time()) + 1},"status":"queued"}}'
    )
    runs = Path(disk.location, "T", "runs")
    shutil.rmtree(runs, ignore_errors=True)
    made.rename(runs)
    on_disk.tells(("run.queued", "T", "R", "queued"))


def test_a_thread_that_is_made_file_by_file_is_told_when_it_is_one(
    on_disk: Listener, disk: ThreadStore
) -> None:
    place = Path(disk.location, "new")
    place.mkdir()
    on_disk.hear(Change(Part.THREADS, "new"))
    written = Path(f"{disk.location}.written")  # Not seen half written.
    written.write_text('{"id":"new","created_at":1,"object":"thread"}')
    written.rename(place / "meta.json")
    on_disk.tells(("thread.created", "new"))


def test_a_directory_that_never_was_a_thread_comes_and_goes_without_a_word(
    on_disk: Listener, disk: ThreadStore
) -> None:
    place = Path(disk.location, "new folder")
    place.mkdir()
    assert on_disk.hear(Change(Part.THREADS, "new folder")) == []
    place.rmdir()
    assert on_disk.hear(Change(Part.THREADS, "new folder")) == []


def test_a_thread_that_is_removed_file_by_file_is_told_once(on_disk: Listener, disk: ThreadStore) -> None:
    shutil.rmtree(Path(disk.location, "T"))
    on_disk.tells(("thread.deleted", "T"))
    disk.create_thread(Thread(id="U"))
    on_disk.tells(("thread.created", "U"))
