"""What a store on a disk answers without waiting, and what it does not even begin there."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from store import (
    AlreadyExists,
    Damaged,
    DocumentKey,
    Info,
    MessageRole,
    Run,
    RunStatus,
    RunStep,
    RunStepType,
    Thread,
    ThreadMessage,
    ThreadNotFound,
    ThreadStore,
    WouldWait,
    without_waiting,
)
from store.disk import paths, reading

THREAD, RUN = DocumentKey("T"), DocumentKey("T", "R")
MESSAGE = ThreadMessage(role=MessageRole.user, content=[])


@pytest.fixture
def store(tmp_path: Path) -> ThreadStore:
    store = ThreadStore(tmp_path / "store")
    store.create_thread(Thread(id="T"))
    store.create_run("T", Run(id="R"))
    store.append_message("T", MESSAGE)
    return store


ANSWERED: dict[str, Callable[[ThreadStore], object]] = {
    "document_info": lambda s: s.document_info(RUN),
    "read_document": lambda s: s.read_document(RUN),
    "get_run": lambda s: s.get_run("T", "R"),
    "log_info": lambda s: s.log_info("T"),
    "list_messages": lambda s: s.list_messages("T"),
    "check_writable": lambda s: s.check_writable("T"),
}


@pytest.mark.parametrize("ask", ANSWERED.values(), ids=ANSWERED)
def test_what_is_in_memory_is_answered(store: ThreadStore, ask: Callable[[ThreadStore], object]) -> None:
    expected = ask(store)
    with without_waiting():
        assert ask(store) == expected


def test_what_is_known_not_to_be_there_is_not_found(store: ThreadStore) -> None:
    for _ in range(2):
        with pytest.raises((ThreadNotFound, WouldWait)) as said, without_waiting():
            store.document_info(DocumentKey("gone"))
        with pytest.raises(ThreadNotFound):
            store.document_info(DocumentKey("gone"))
    assert said.type is ThreadNotFound  # The second time.


def test_bytes_that_only_the_disk_has_would_wait(store: ThreadStore) -> None:
    data, _ = store.read_document(RUN)
    file = os.open(store.run_dir("T", "R") / "status.json", os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
    with pytest.raises(WouldWait), without_waiting():
        store.read_document(RUN)
    assert store.read_document(RUN)[0] == data
    with without_waiting():
        assert store.read_document(RUN)[0] == data


REFUSED: dict[str, Callable[[ThreadStore], object]] = {
    "create_thread": lambda s: s.create_thread(Thread(id="U")),
    "import_thread": lambda s: s.import_thread("U", b'{"created_at":1}', [], {}),
    "extend_thread": lambda s: s.extend_thread("T", 0, [], {}),
    "delete_thread": lambda s: s.delete_thread("T"),
    "append_message": lambda s: s.append_message("T", MESSAGE),
    "create_run": lambda s: s.create_run("T", Run(id="Q")),
    "delete_run": lambda s: s.delete_run("T", "R"),
    "cancel_run": lambda s: s.cancel_run("T", "R"),
    "update_run_status": lambda s: s.update_run_status("T", "R", RunStatus.in_progress),
    "patch_document": lambda s: s.patch_document(THREAD, {"a": 1}),
    "append_step": lambda s: s.append_step("T", "R", RunStep(step_type=RunStepType.tool_calls)),
    "set_document_modified": lambda s: s.set_document_modified(RUN, 1),
    "list_thread_ids": lambda s: s.list_thread_ids(),
    "list_run_ids": lambda s: s.list_run_ids("T"),
    "thread_modified_ns": lambda s: s.thread_modified_ns("T"),
    "thread_touched_ns": lambda s: s.thread_touched_ns("T"),
    "runs_by_status": lambda s: list(s.runs_by_status()),
}


@pytest.mark.parametrize("ask", REFUSED.values(), ids=REFUSED)
def test_what_syncs_or_scans_does_not_begin(store: ThreadStore, ask: Callable[[ThreadStore], object]) -> None:
    def files() -> list[tuple[Path, os.stat_result]]:
        return [(path, path.stat()) for path in sorted(Path(store.location).rglob("*"))]

    before = files()
    with pytest.raises(WouldWait), without_waiting():
        ask(store)
    assert [(path, stat.st_mtime_ns, stat.st_size) for path, stat in files()] == [
        (path, stat.st_mtime_ns, stat.st_size) for path, stat in before
    ]


def test_other_threads_may_wait_meanwhile(store: ThreadStore) -> None:
    found: list[Run] = []
    with without_waiting():
        thread = threading.Thread(target=lambda: found.append(store.cancel_run("T", "R")))
        thread.start()
        thread.join()
    assert [run.status for run in found] == [RunStatus.cancelled]


def fails_with(error: Exception) -> Callable[..., int]:
    def preadv(*arguments: object) -> int:
        raise error

    return preadv


PYTHONS_AND_SANDBOXES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "no flag": lambda patch: patch.setattr(reading, "_NOWAIT", None),
    "no call": lambda patch: patch.setattr(os, "preadv", fails_with(NotImplementedError())),
    "refused": lambda patch: patch.setattr(os, "preadv", fails_with(PermissionError())),
}


@pytest.mark.parametrize("lacks", PYTHONS_AND_SANDBOXES.values(), ids=PYTHONS_AND_SANDBOXES)
def test_where_memory_cannot_be_read_alone_a_document_is_read_in_a_thread(
    store: ThreadStore, monkeypatch: pytest.MonkeyPatch, lacks: Callable[[pytest.MonkeyPatch], None]
) -> None:
    lacks(monkeypatch)
    with pytest.raises(WouldWait), without_waiting():
        store.read_document(RUN)
    assert b"queued" in store.read_document(RUN)[0]


# ── Where the kernel does not know openat2 ──────────────────────────────────────────────────────────────


@pytest.fixture
def old_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "_available", {False: False, True: False})


def test_an_old_kernel_gives_the_same_answers(store: ThreadStore, old_kernel: None) -> None:
    store.update_run_status("T", "R", RunStatus.in_progress)
    assert store.get_run("T", "R").status is RunStatus.in_progress
    assert store.list_thread_ids() == ["T"]
    assert len(store.list_messages("T")) == 1
    with pytest.raises(AlreadyExists):
        store.create_run("T", Run(id="R"))
    with pytest.raises(ThreadNotFound):
        store.document_info(DocumentKey("gone"))


def test_on_an_old_kernel_no_link_is_followed_either(
    store: ThreadStore, old_kernel: None, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "meta.json").write_text('{"created_at": 1}')
    (store.thread_dir("linked")).symlink_to(tmp_path / "outside")
    with pytest.raises(ThreadNotFound):
        store.document_info(DocumentKey("linked"))
    status = store.run_dir("T", "R") / "status.json"
    status.rename(status.with_name("elsewhere"))
    status.symlink_to("elsewhere")
    with pytest.raises(Damaged):
        store.read_document(RUN)


def test_an_old_kernel_is_asked_in_a_thread(store: ThreadStore, old_kernel: None) -> None:
    with pytest.raises(WouldWait), without_waiting():
        store.document_info(RUN)
    assert isinstance(store.document_info(RUN), Info)
