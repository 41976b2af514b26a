"""What `prune`, `expire` and `wait` look at: what the catalogue names, right or wrong, and what it could not
read."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from store import DocumentKey, Run, RunStatus, StorageFailed, Thread, ThreadStore
from store.catalogue import place
from store.catalogue.tables import NUMBERS
from store.disk import signatures
from tests.cli.conftest import fails, succeeds, threadfs
from threadfs import cli
from threadfs.commands.statuses import STATUSES

DAY_S = 86400
PRUNE = ("prune", "--older-than", "2d")


def make_thread(store: ThreadStore, thread_id: str, status: RunStatus, age_s: float) -> None:
    """A thread with a run "R", everything so old."""
    store.create_thread(Thread(id=thread_id))
    store.create_run(thread_id, Run(id="R", status=status))
    make_old(store, thread_id, age_s)


def make_old(store: ThreadStore, thread_id: str, age_s: float = 3 * DAY_S) -> None:
    then = time.time() - age_s
    for root, directories, files in os.walk(store.thread_dir(thread_id), topdown=False):
        for name in [*directories, *files, "."]:
            os.utime(Path(root, name), (then, then))


def known(store: ThreadStore) -> None:
    """Has the catalogue take over everything, in a process of its own."""
    succeeds(threadfs("ls", store.location))


def prune(store: ThreadStore, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    status = cli.main([PRUNE[0], store.location, *PRUNE[1:], *options])
    return status, *capsys.readouterr()


@pytest.mark.parametrize("options", [[], ["--status", "failed"]], ids=["threads", "runs"])
def test_what_the_catalogue_says_is_newer_is_not_read(
    store: ThreadStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
) -> None:
    make_thread(store, "old", RunStatus.failed, 3 * DAY_S)
    make_thread(store, "new", RunStatus.failed, DAY_S)
    make_thread(store, "other", RunStatus.completed, DAY_S)
    monkeypatch.setattr(signatures, "_SETTLES_NS", -1)
    assert cli.main(["ls", store.location]) == 0
    capsys.readouterr()
    read = []

    def info(self: ThreadStore, key: DocumentKey, info: Any = ThreadStore.document_info) -> Any:
        read.append(key.thread_id)
        return info(self, key)

    monkeypatch.setattr(ThreadStore, "document_info", info)
    expected = "R@old\n" if options else "old\n"
    assert prune(store, capsys, *options) == (0, expected, "")
    assert {*read} == {"old"}


@pytest.mark.parametrize("options", [[], ["--status", "failed"]], ids=["threads", "runs"])
def test_what_has_changed_unseen_since_the_catalogue_was_made_is_seen(
    store: ThreadStore, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    make_thread(store, "used", RunStatus.failed, 3 * DAY_S)
    make_thread(store, "left", RunStatus.in_progress, 0)
    known(store)
    store.force_update_run_status("used", "R", RunStatus.cancelled)
    store.force_update_run_status("left", "R", RunStatus.failed)
    make_old(store, "left")
    expected = "R@left\n" if options else "left\n"
    assert prune(store, capsys, *options) == (0, expected, "")


def catalogue_of(caches: Path, store: ThreadStore) -> Path:
    return caches / "threadfs" / place.digest_of(place.identity_of(store.root)) / "catalogue.sqlite"


@pytest.mark.parametrize("options", [[], ["--status", "failed"]], ids=["threads", "runs"])
def test_nothing_is_deleted_for_what_a_catalogue_says_that_is_wrong(
    store: ThreadStore, caches: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    make_thread(store, "T", RunStatus.completed, 0)
    known(store)
    with closing(sqlite3.connect(catalogue_of(caches, store))) as connection, connection:
        connection.execute("UPDATE threads SET changed_ns = 0")
        connection.execute("UPDATE runs SET changed_ns = 0, status = 'failed'")
        settle(connection)
    assert "failed" in succeeds(threadfs("ls", store.location))
    assert prune(store, capsys, *options) == (0, "", "")
    assert store.list_run_ids("T") == ["R"]


def settle(connection: sqlite3.Connection) -> None:
    """Has the catalogue believe that nothing has changed too shortly before it was looked at."""
    for thread, numbers in connection.execute("SELECT thread, numbers FROM signatures").fetchall():
        settled = b"".join(NUMBERS.pack(*one[:4], 1) for one in NUMBERS.iter_unpack(numbers))
        connection.execute("UPDATE signatures SET numbers = ? WHERE thread = ?", (settled, thread))


def damage(catalogue: Path) -> None:
    catalogue.write_bytes(os.urandom(8192))


def no_place(catalogue: Path) -> None:
    caches = catalogue.parents[2]
    caches.rename(caches.with_name("before"))
    caches.write_text("")


@pytest.mark.parametrize("spoil", [damage, no_place])
@pytest.mark.parametrize("options", [[], ["--status", "failed"]], ids=["threads", "runs"])
def test_without_a_catalogue_the_same_is_deleted(
    store: ThreadStore, caches: Path, capsys: pytest.CaptureFixture[str], spoil: Any, options: list[str]
) -> None:
    make_thread(store, "old", RunStatus.failed, 3 * DAY_S)
    make_thread(store, "new", RunStatus.failed, DAY_S)
    known(store)
    spoil(catalogue_of(caches, store))
    assert prune(store, capsys, *options) == (0, "R@old\n" if options else "old\n", "")


def cannot_read(monkeypatch: pytest.MonkeyPatch, unreadable: str, most: int) -> None:
    """The catalogue cannot look at a thread; of more than *most* it says that the disk fails."""

    def look(root: str, thread_id: str, known: Any, look: Any = signatures.look) -> Any:
        if thread_id == unreadable:
            raise StorageFailed(errno.EIO, thread_id)
        return look(root, thread_id, known)

    monkeypatch.setattr(signatures, "look", look)
    monkeypatch.setattr("store.disk.known._MAX_UNREADABLE", most)


@pytest.mark.parametrize("most", [100, 0], ids=["one is left out", "all are left out"])
@pytest.mark.parametrize("options", [[], ["--status", "failed"]], ids=["threads", "runs"])
def test_what_the_catalogue_could_not_read_is_looked_at(
    store: ThreadStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    most: int,
    options: list[str],
) -> None:
    for thread_id in ("even", "odd"):
        make_thread(store, thread_id, RunStatus.failed, 3 * DAY_S)
    cannot_read(monkeypatch, "odd", most)
    expected = "R@even\nR@odd\n" if options else "even\nodd\n"
    assert prune(store, capsys, *options) == (0, expected, "")


def test_the_statuses_on_the_command_line_are_those_that_runs_have() -> None:
    assert sorted(STATUSES) == sorted(RunStatus)


def test_runs_in_progress_are_never_pruned(store: ThreadStore) -> None:
    said = threadfs("prune", store.location, "--older-than", "1d", "--status", "failed", "cancelling")
    fails(said, 2, "no run that is cancelling is deleted")


# ── expire ──────────────────────────────────────────────────────────────────────────────────────────────


def expire(store: ThreadStore, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = cli.main(["expire", store.location, "--older-than", "2d"])
    return status, *capsys.readouterr()


def test_runs_that_the_catalogue_says_have_ended_or_are_newer_are_not_read(
    store: ThreadStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_thread(store, "old", RunStatus.queued, 3 * DAY_S)
    make_thread(store, "new", RunStatus.queued, DAY_S)
    make_thread(store, "ended", RunStatus.completed, 3 * DAY_S)
    monkeypatch.setattr(signatures, "_SETTLES_NS", -1)
    assert cli.main(["ls", store.location]) == 0
    capsys.readouterr()
    read = []

    def get_run(self: ThreadStore, thread_id: str, run_id: str, get: Any = ThreadStore.get_run) -> Run:
        read.append(thread_id)
        return get(self, thread_id, run_id)  # type: ignore[no-any-return]

    monkeypatch.setattr(ThreadStore, "get_run", get_run)
    assert expire(store, capsys) == (0, "R@old\n", "")
    assert {*read} == {"old"}


def test_runs_that_have_changed_unseen_since_the_catalogue_was_made_are_expired_as_they_are(
    store: ThreadStore, capsys: pytest.CaptureFixture[str]
) -> None:
    make_thread(store, "ended", RunStatus.queued, 3 * DAY_S)
    make_thread(store, "left", RunStatus.completed, 0)
    known(store)
    store.cancel_run("ended", "R")
    make_old(store, "ended")
    store.force_update_run_status("left", "R", RunStatus.in_progress)
    make_old(store, "left")
    assert expire(store, capsys) == (0, "R@left\n", "")
    assert store.get_run("ended", "R").status is RunStatus.cancelled


def test_nothing_is_expired_for_what_a_catalogue_says_that_is_wrong(
    store: ThreadStore, caches: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_thread(store, "new", RunStatus.queued, 0)
    make_thread(store, "ended", RunStatus.completed, 3 * DAY_S)
    known(store)
    with closing(sqlite3.connect(catalogue_of(caches, store))) as connection, connection:
        connection.execute("UPDATE runs SET changed_ns = 0, status = 'queued'")
        settle(connection)
    assert expire(store, capsys) == (0, "", "")
    assert [store.get_run(one, "R").status for one in ("new", "ended")] == ["queued", "completed"]


@pytest.mark.parametrize("spoil", [damage, no_place])
def test_without_a_catalogue_the_same_is_expired(
    store: ThreadStore, caches: Path, capsys: pytest.CaptureFixture[str], spoil: Any
) -> None:
    make_thread(store, "old", RunStatus.queued, 3 * DAY_S)
    make_thread(store, "new", RunStatus.queued, DAY_S)
    known(store)
    spoil(catalogue_of(caches, store))
    assert expire(store, capsys) == (0, "R@old\n", "")


@pytest.mark.parametrize("most", [100, 0], ids=["one is left out", "all are left out"])
def test_runs_that_the_catalogue_could_not_read_are_expired(
    store: ThreadStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], most: int
) -> None:
    for thread_id in ("even", "odd"):
        make_thread(store, thread_id, RunStatus.queued, 3 * DAY_S)
    cannot_read(monkeypatch, "odd", most)
    assert expire(store, capsys) == (0, "R@even\nR@odd\n", "")


# ── wait ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_that_one_thread_has_is_waited_for_without_its_thread(store: ThreadStore) -> None:
    make_thread(store, "T", RunStatus.completed, 0)
    store.create_thread(Thread(id="U"))
    store.create_run("U", Run(id="S"))
    assert succeeds(threadfs("wait", store.location, "R")) == "completed\n"


def test_which_run_is_meant_has_to_be_said_where_several_are_called_so(store: ThreadStore) -> None:
    make_thread(store, "T", RunStatus.completed, 0)
    make_thread(store, "U", RunStatus.completed, 0)
    fails(threadfs("wait", store.location, "R"), 3, "2 threads have a run 'R': give one of R@T, R@U\n")
    fails(threadfs("wait", store.location, "none"), 3, "no thread has a run 'none'")
