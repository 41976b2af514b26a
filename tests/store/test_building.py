"""A process of its own builds a catalogue; whatever becomes of it, every answer is what the store says."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from store.catalogue import place
from store.catalogue.api import Catalogue
from store.catalogue.queries import parsed
from store.disk import builder, known, signatures
from store.disk.cataloguing import Cataloguing
from tests.mount.conftest import ANSWERS_S, Mount, children_of, start, stop, wait_until
from tests.store.catalogue.conftest import NOW_S
from tests.store.plain_reading import Plain
from tests.store.test_catalogue_on_disk import check, files

# In a mount, and in this process, where fewer are many.
IN_A_MOUNT = known._MANY + 20
THREADS = 40


def make_threads(root: Path, threads: int) -> None:
    message = {"id": "m", "object": "thread.message", "created_at": NOW_S, "role": "user"}
    for number in range(threads):
        directory = root / f"thread_{number:03}"
        directory.mkdir(parents=True)
        title = f"Bees {number}"
        meta = {"id": directory.name, "object": "thread", "created_at": NOW_S, "metadata": {"title": title}}
        (directory / "meta.json").write_text(json.dumps(meta))
        line = {**message, "content": [{"type": "text", "text": {"value": f"honey{number % 7} quagga"}}]}
        (directory / "messages.jsonl").write_text(json.dumps(line) + "\n")


def is_settled(root: Path) -> bool:
    seen = signatures.look(os.fspath(root), max(os.listdir(root)), {})
    assert seen is not None
    return all(one.is_settled for one in seen.values())


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Stores of so many threads, made some seconds ago, so that nothing need be looked at twice."""
    made = {number: tmp_path_factory.mktemp("building") / "store" for number in (THREADS, IN_A_MOUNT)}
    for number, root in made.items():
        make_threads(root, number)
    wait_until(lambda: all(map(is_settled, made.values())))
    return made


@pytest.fixture
def root(stores: dict[int, Path]) -> Path:
    return stores[THREADS]


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path / "caches"))
    monkeypatch.setattr(known, "_FRESH_S", 0.0)
    monkeypatch.setattr(known, "_MANY", THREADS // 2)
    return tmp_path / "caches"


@contextmanager
def nobody_else_writes(root: Path, caches: Path) -> Iterator[None]:
    """Who builds the catalogue gets no further than to its first change, and tries again and again."""
    with (
        closing(place.open_catalogue(os.fspath(caches), place.identity_of(os.fspath(root)))) as opened,
        closing(sqlite3.connect(files(caches)[0], isolation_level=None)) as connection,
    ):
        assert opened.why_new is None
        connection.execute("BEGIN IMMEDIATE")
        yield


def builder_of(pid: int) -> list[int]:
    """The processes that were started by one, and have not been waited for."""
    return children_of(pid, "store.disk.building")


def opened_by(pid: int) -> Iterator[str]:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # It was closed.
            yield os.readlink(descriptor)


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def hits(catalogue: Catalogue, text: str) -> int:
    return len(catalogue.search(parsed(text, NOW_S)).hits)


def built(catalogue: Catalogue) -> bool:
    return catalogue.statistics()[:2] == (THREADS, 0) and not builder_of(os.getpid())


def test_a_process_of_its_own_builds_a_catalogue_that_nobody_asks_and_ends(root: Path) -> None:
    with closing(Plain(root).store) as store:
        store.catalogue().build_ahead()
        wait_until(lambda: built(store.catalogue()))


def threads_in(catalogue: Path) -> int:
    """How many threads the file of a catalogue has; -1 if it cannot be read yet."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{catalogue}?mode=ro", uri=True)) as reading:
        return int(reading.execute("SELECT count(*) FROM threads").fetchone()[0])
    return -1


def test_where_the_file_is_deleted_another_is_built_and_the_old_one_answers_until_then(
    root: Path, caches: Path
) -> None:
    plain = Plain(root)
    with closing(plain.store) as store, ExitStack() as cleaning:
        catalogue = store.catalogue()
        catalogue.build_ahead()
        wait_until(lambda: built(catalogue))
        (file, *_) = files(caches)
        shutil.rmtree(file.parent)
        with nobody_else_writes(root, caches):
            check(plain, catalogue)
            assert threads_in(file) == 0
        wait_until(lambda: built(catalogue) and threads_in(file) == THREADS)
        (root / "thread_new").mkdir()
        cleaning.callback(shutil.rmtree, root / "thread_new")
        (root / "thread_new" / "meta.json").write_text('{"created_at": 1}')
        check(plain, catalogue)
        assert threads_in(file) == THREADS + 1


def test_where_little_is_to_be_built_no_process_is_started(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Plain(root).store) as store:
        store.catalogue().refresh(words=True)
    monkeypatch.setattr(sys, "executable", "/nowhere")
    with closing(Plain(root).store) as store:
        store.catalogue().build_ahead()
        assert len(store.catalogue().titles()) == THREADS
        assert hits(store.catalogue(), "quagga") == THREADS


def test_lists_wait_for_it_and_searches_read_what_it_has_not_yet(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_over_here: list[str] = []

    def compare_these(taking: Cataloguing, thread_ids: Iterable[str]) -> Iterator[int]:
        taken_over_here.extend(thread_ids)
        yield 0

    monkeypatch.setattr(Cataloguing, "compare_these", compare_these)
    plain = Plain(root)
    with closing(plain.store) as store, ExitStack() as stopped:
        catalogue = store.catalogue()
        catalogue.build_ahead()
        assert len(catalogue.titles()) == THREADS
        for pid in builder_of(os.getpid()):
            os.kill(pid, signal.SIGSTOP)
            stopped.callback(os.kill, pid, signal.SIGCONT)
        check(plain, catalogue)
        assert taken_over_here == []


@pytest.mark.parametrize("kill_it", [True, False])
def test_one_that_is_killed_or_stuck_in_the_middle_keeps_no_answer(
    root: Path,
    caches: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kill_it: bool,
) -> None:
    monkeypatch.setattr(builder, "_STUCK_S", 0.01)
    plain = Plain(root)
    with closing(plain.store) as store:
        catalogue = store.catalogue()
        with nobody_else_writes(root, caches):
            catalogue.build_ahead()
            wait_until(lambda: bool(builder_of(os.getpid())))
            (pid,) = builder_of(os.getpid())
            if kill_it:
                os.kill(pid, signal.SIGKILL)
            check(plain, catalogue)
        check(plain, catalogue)
        if kill_it:
            assert caplog.messages == ["the process that builds the catalogue has ended: killed by SIGKILL"]
        else:
            wait_until(lambda: built(catalogue))
            assert caplog.messages == []
        check(plain, catalogue)


def test_where_no_process_can_be_started_the_log_says_so_once_and_every_answer_is_there(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python3")
    plain = Plain(root)
    with closing(plain.store) as store:
        store.catalogue().build_ahead()
        check(plain, store.catalogue())
    (told,) = caplog.messages
    assert told.startswith("no process can build the catalogue: ")


def test_one_that_fails_says_why_in_the_log_and_is_not_started_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program = tmp_path / "python3"
    program.write_text("#!/bin/sh\necho 'it is too old' >&2; exit 1\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", os.fspath(program))
    with closing(Plain(root).store) as store:
        store.catalogue().build_ahead()
        for _ in range(3):
            assert hits(store.catalogue(), "quagga") == THREADS
    assert caplog.messages == ["the process that builds the catalogue has ended: it is too old"]


def test_at_most_one_builds_a_catalogue_and_another_begins_when_that_has_ended(
    root: Path, caches: Path
) -> None:
    with closing(place.open_catalogue(os.fspath(caches), place.identity_of(os.fspath(root)))) as opened:
        lock = os.open("building", os.O_RDWR | os.O_CREAT, 0o600, dir_fd=opened.directory)
        fcntl.flock(lock, fcntl.LOCK_EX)
        plain = Plain(root)
        with closing(plain.store) as store:
            catalogue = store.catalogue()
            catalogue.build_ahead()
            assert len(catalogue.titles()) == THREADS
            wait_until(lambda: not builder_of(os.getpid()))
            check(plain, catalogue)
            assert catalogue.statistics().words_behind == THREADS
            os.close(lock)
            wait_until(lambda: built(catalogue))


def test_without_words_none_come_into_the_file(root: Path, caches: Path) -> None:
    plain = Plain(root)
    with closing(plain.store) as store:
        catalogue = store.catalogue(keeps_words=False)
        catalogue.build_ahead()
        wait_until(lambda: catalogue.statistics().threads == THREADS)
        check(plain, catalogue)
    kept = b"".join(path.read_bytes() for path in files(caches))
    assert b"Bees 7" in kept
    assert b"quagga" not in kept


# ── In a mount ──────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def mounted(root: Path, at: Path) -> Iterator[Mount]:
    at.mkdir()
    mount = start(root, at / "mnt", at / "log")
    try:
        yield mount
    finally:
        stop(mount)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_has_nothing_of_the_mount_and_ends_with_it(
    stores: dict[int, Path], tmp_path: Path, caches: Path, number: int
) -> None:
    root = stores[IN_A_MOUNT]
    with nobody_else_writes(root, caches), mounted(root, tmp_path / "one") as mount:
        wait_until(lambda: bool(builder_of(mount.process.pid)))
        (pid,) = builder_of(mount.process.pid)
        wait_until(lambda: os.getpriority(os.PRIO_PROCESS, pid) == 19)
        its_own = ("pipe:", os.fspath(caches), os.fspath(root.parent))
        # While it begins, it reads its own modules.
        wait_until(lambda: not [one for one in opened_by(pid) if not one.startswith(its_own)])
        mount.process.send_signal(number)
        mount.process.wait(ANSWERS_S)
        wait_until(lambda: not is_there(pid))


def test_two_mounts_of_a_store_show_what_is_in_it(stores: dict[int, Path], tmp_path: Path) -> None:
    root = stores[IN_A_MOUNT]
    with mounted(root, tmp_path / "one") as one, mounted(root, tmp_path / "two") as two:
        for mount in (one, two):
            assert len(os.listdir(mount.path("by-title"))) == IN_A_MOUNT
            with_honey3 = sum(number % 7 == 3 for number in range(IN_A_MOUNT))
            assert len(os.listdir(mount.path("search", "honey3"))) == with_honey3 + 1
        wait_until(lambda: not builder_of(one.process.pid) and not builder_of(two.process.pid))
    assert "catalogue" not in one.log.read_text() + two.log.read_text()
