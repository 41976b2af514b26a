"""What inotify's events mean: each event is made here, by hand, and no kernel is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from inotify_simple import flags

from store.api import DocumentKey
from store.changes import Change, Part
from store.disk.layout import WORKERS, Parts
from store.disk.meanings import changes_of, directory_of, document_in, key_of, list_in

STORE, THREAD, RUNS, RUN, STEPS = (), ("t",), ("t", "runs"), ("t", "runs", "r"), ("t", "runs", "r", "steps")
DIRECTORIES: list[Parts] = [STORE, THREAD, RUNS, RUN, STEPS]

THE_THREAD, THE_RUN = Change(Part.THREADS, "t"), Change(Part.RUNS, "t", "r")
ITS_DOCUMENT, THE_RUNS_DOCUMENT = Change(Part.DOCUMENT, "t"), Change(Part.DOCUMENT, "t", "r")
THE_STEP, THE_STEPS_DOCUMENT = Change(Part.STEPS, "t", "r", "s"), Change(Part.DOCUMENT, "t", "r", "s")
ONLY_TIMES = Change(Part.TIMES, "t")
EVERYTHING = Change(Part.EVERYTHING)


def meaning(parts: Parts, name: str, mask: int, *, has_document: bool = True) -> list[Change]:
    return changes_of(parts, name, mask, has_document=has_document)


MASKS = [flags.CREATE, flags.MOVED_TO, flags.MOVED_FROM, flags.DELETE]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(
    ("parts", "name", "change"),
    [(STORE, "t", THE_THREAD), (RUNS, "r", THE_RUN)],
    ids=["thread", "run"],
)
def test_a_directory_that_comes_into_a_list_or_goes_changes_the_list(
    parts: Parts, name: str, change: Change, mask: int
) -> None:
    (found,) = meaning(parts, name, mask | flags.ISDIR)
    assert found == change
    assert found.has_come == bool(mask & (flags.CREATE | flags.MOVED_TO))


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("parts", "changes"), [(STORE, []), (RUNS, [ONLY_TIMES])], ids=["thread", "run"])
def test_a_file_where_threads_and_runs_are_is_none_of_them(
    parts: Parts, changes: list[Change], mask: int
) -> None:
    assert meaning(parts, "notes.txt", mask) == changes


@pytest.mark.parametrize("mask", MASKS)
def test_a_step_that_comes_or_goes_changes_the_list(mask: int) -> None:
    assert THE_STEP in meaning(STEPS, "s.json", mask)


@pytest.mark.parametrize(("parts", "name"), [(STORE, WORKERS), ((WORKERS,), "worker_1")])
def test_the_first_worker_comes_with_the_directory_of_workers(parts: Parts, name: str) -> None:
    assert meaning(parts, name, flags.CREATE) == [Change(Part.WORKERS, WORKERS)]


@pytest.mark.parametrize(
    ("parts", "name", "document"),
    [(THREAD, "meta.json", ITS_DOCUMENT), (RUN, "status.json", THE_RUNS_DOCUMENT)],
    ids=["thread", "run"],
)
@pytest.mark.parametrize("mask", [flags.MOVED_TO, flags.MODIFY, flags.CLOSE_WRITE])
def test_a_document_that_is_replaced_or_written_changes_nothing_but_itself(
    parts: Parts, name: str, document: Change, mask: int
) -> None:
    assert meaning(parts, name, mask) == [document]


@pytest.mark.parametrize(
    ("parts", "name", "changes"),
    [
        (THREAD, "meta.json", [THE_THREAD, ITS_DOCUMENT]),
        (RUN, "status.json", [THE_RUN, THE_RUNS_DOCUMENT]),
    ],
    ids=["thread", "run"],
)
def test_a_directory_is_a_thread_or_run_from_its_first_document_to_the_last(
    parts: Parts, name: str, changes: list[Change]
) -> None:
    assert meaning(parts, name, flags.MOVED_TO, has_document=False) == changes
    assert meaning(parts, name, flags.CREATE) == changes
    assert meaning(parts, name, flags.DELETE) == changes
    assert meaning(parts, name, flags.MOVED_FROM) == changes


def test_a_step_that_is_moved_into_place_may_be_a_new_one() -> None:
    assert meaning(STEPS, "s.json", flags.MOVED_TO) == [THE_STEP, THE_STEPS_DOCUMENT]
    assert meaning(STEPS, "s.json", flags.MODIFY) == [THE_STEPS_DOCUMENT]


@pytest.mark.parametrize("mask", [flags.CREATE, flags.MOVED_TO, flags.MOVED_FROM, flags.DELETE])
def test_a_log_that_comes_or_goes_is_another_log(mask: int) -> None:
    assert meaning(THREAD, "messages.jsonl", mask) == [Change(Part.LOG, "t")]


@pytest.mark.parametrize("mask", [flags.MODIFY, flags.CLOSE_WRITE])
def test_a_log_that_is_written_stays_the_same_log(mask: int) -> None:
    assert meaning(THREAD, "messages.jsonl", mask) == [Change(Part.LOG, "t", grew=True)]


@pytest.mark.parametrize(
    ("parts", "name", "change"),
    [
        (THREAD, "meta.json", ITS_DOCUMENT),
        (RUN, "status.json", THE_RUNS_DOCUMENT),
        (STEPS, "s.json", THE_STEPS_DOCUMENT),
        (THREAD, "messages.jsonl", Change(Part.LOG, "t", grew=True)),
    ],
    ids=["thread", "run", "step", "log"],
)
def test_new_times_of_a_file_leave_its_bytes_the_same(parts: Parts, name: str, change: Change) -> None:
    assert meaning(parts, name, flags.ATTRIB) == [replace(change, only_times=True)]


def test_a_list_that_comes_into_a_thread_or_run_is_a_change_of_that_list() -> None:
    assert meaning(THREAD, "runs", flags.CREATE | flags.ISDIR) == [Change(Part.RUNS, "t")]
    assert meaning(RUN, "steps", flags.CREATE | flags.ISDIR) == [Change(Part.STEPS, "t", "r")]


@pytest.mark.parametrize(
    ("parts", "change"),
    [(THREAD, THE_THREAD), (RUNS, Change(Part.RUNS, "t")), (RUN, THE_RUN)],
    ids=["thread", "runs", "run"],
)
@pytest.mark.parametrize("mask", [flags.DELETE_SELF, flags.MOVE_SELF, flags.UNMOUNT])
def test_a_directory_that_goes_itself_has_gone_from_its_parent(
    parts: Parts, change: Change, mask: int
) -> None:
    assert meaning(parts, "", mask) == [change]


@pytest.mark.parametrize("mask", [flags.DELETE_SELF, flags.MOVE_SELF, flags.UNMOUNT])
def test_a_store_that_goes_may_have_changed_in_everything(mask: int) -> None:
    assert meaning(STORE, "", mask) == [EVERYTHING]


@pytest.mark.parametrize("name", [".tmpAbCdEf", "not an id@"])
@pytest.mark.parametrize("parts", [RUNS, STEPS], ids=["runs", "steps"])
def test_a_name_that_is_nothing_changes_the_time_of_a_list(parts: Parts, name: str) -> None:
    assert meaning(parts, name, flags.CREATE) == [ONLY_TIMES]


@pytest.mark.parametrize("parts", [STORE, THREAD, RUN], ids=["store", "thread", "run"])
@pytest.mark.parametrize("name", [".tmpAbCdEf", "not an id@"])
def test_a_name_that_is_nothing_changes_nothing_elsewhere(parts: Parts, name: str) -> None:
    assert meaning(parts, name, flags.CREATE) == []


@pytest.mark.parametrize("parts", DIRECTORIES, ids=["store", "thread", "runs", "run", "steps"])
def test_each_directory_has_one_key_and_each_key_one_directory(parts: Parts) -> None:
    assert directory_of(key_of(parts)) == parts


def test_a_last_id_that_is_empty_stands_for_a_list() -> None:
    assert directory_of(DocumentKey("")) == STORE
    assert directory_of(DocumentKey("t", "")) == RUNS
    assert directory_of(DocumentKey("t", "r", "")) == STEPS


def test_threads_and_runs_hold_a_document_and_a_list_and_lists_hold_neither() -> None:
    assert [document_in(parts) for parts in DIRECTORIES] == ["", "meta.json", "", "status.json", ""]
    assert [list_in(parts) for parts in DIRECTORIES] == [None, RUNS, None, STEPS, None]
