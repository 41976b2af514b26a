"""What was seen in a thread that is followed is looked at once, until something in it changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from store import DocumentKey, Run, RunStatus, RunStep, RunStepType, Thread, ThreadStore, without_waiting
from store.disk import files
from store.disk.seen import Seen, SeenInThread
from store.errors import NotEmpty

THREAD, RUN = DocumentKey("T"), DocumentKey("T", "R")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"


def step(step_id: str) -> RunStep:
    return RunStep(id=step_id, step_type=RunStepType.tool_calls)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ThreadStore]:
    """A store with a run, that is followed."""
    store = ThreadStore(tmp_path / "store")
    store.create_thread(Thread(id="T"))
    store.create_run("T", Run(id="R"))
    store.append_step("T", "R", step("S"))
    store.index_runs()
    wait_for(lambda: store.reports_all_of("T"))
    yield store
    store.close()


def test_a_document_that_was_seen_is_not_looked_at_again(
    store: ThreadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [store.document_info(key) for key in (THREAD, RUN)]
    monkeypatch.delattr(files, "stat_path")
    assert [store.document_info(key) for key in (THREAD, RUN)] == before


def test_a_list_of_steps_that_was_seen_waits_for_nothing(store: ThreadStore) -> None:
    assert store.list_step_ids("T", "R") == ["S"]
    with without_waiting():
        found = store.list_step_ids("T", "R")
        found.append("the caller's own")
        assert store.list_step_ids("T", "R") == ["S"]


def test_own_changes_are_seen_at_once(store: ThreadStore) -> None:
    store.document_info(RUN), store.list_step_ids("T", "R")
    store.update_run_status("T", "R", RunStatus.in_progress)
    store.append_step("T", "R", step("S2"))
    other = ThreadStore(store.location)
    assert store.document_info(RUN) == other.document_info(RUN)
    assert sorted(store.list_step_ids("T", "R")) == ["S", "S2"]


def test_changes_by_others_are_seen_soon(store: ThreadStore) -> None:
    store.document_info(RUN), store.list_step_ids("T", "R")
    other = ThreadStore(store.location)
    other.update_run_status("T", "R", RunStatus.in_progress)
    other.append_step("T", "R", step("S2"))
    wait_for(lambda: store.document_info(RUN) == other.document_info(RUN))
    wait_for(lambda: sorted(store.list_step_ids("T", "R")) == ["S", "S2"])


def test_a_run_is_not_removed_as_empty_when_another_program_has_just_added_a_step(store: ThreadStore) -> None:
    store.create_run("T", Run(id="new"))
    assert store.list_step_ids("T", "new") == []
    ThreadStore(store.location).append_step("T", "new", step("S"))
    with pytest.raises(NotEmpty):
        store.delete_run("T", "new", only_empty=True)


def test_what_is_read_during_a_change_is_not_found_after_it(
    store: ThreadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat_path = files.stat_path

    def changed_meanwhile(root: str, parts: tuple[str, ...]) -> object:
        before = stat_path(root, parts)
        monkeypatch.undo()
        store.update_run_status("T", "R", RunStatus.in_progress)
        return before

    store.patch_document(THREAD, {"metadata": {"a": "b"}})
    monkeypatch.setattr(files, "stat_path", changed_meanwhile)
    before = store.document_info(RUN)
    assert store.document_info(RUN) == ThreadStore(store.location).document_info(RUN) != before


def test_little_is_remembered() -> None:
    info = files.info_of(Path("/").stat())
    seen, of_thread = Seen(), SeenInThread()
    for number in range(1000):
        of_thread.remember_info(DocumentKey("T", f"R{number}"), info)
        of_thread.remember_step_ids(f"R{number}", ["S"])
        seen.made(f"T{number}")
    of_thread.remember_step_ids("R", ["S"] * 1000)
    assert max(len(of_thread.infos), len(of_thread.step_ids)) <= 100
    assert "R" not in of_thread.step_ids
    assert (seen.get("T0"), seen.get("T999") is None) == (None, False)
