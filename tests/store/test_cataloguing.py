"""A catalogue says what a store on the disk says, after changes by anybody, and only these are read."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from store import Run, RunStatus, ThreadStore
from store.catalogue import schema, searching, usual
from store.catalogue.queries import parsed
from store.catalogue.tables import Busy, Tables
from store.catalogue.values import MessageText
from store.disk import cataloguing, log_states, signatures
from store.disk.cataloguing import Cataloguing
from store.errors import StorageFailed
from tests.store.catalogue.conftest import NOW_S, called
from tests.store.plain_reading import QUERIES, Changes, Plain, thread


@contextmanager
def catalogue_at(path: Path) -> Iterator[Tables]:
    connection = sqlite3.connect(path, check_same_thread=False)
    schema.prepare(connection)
    with suppress(sqlite3.OperationalError):  # Another process made it.
        if schema.is_empty(connection):
            schema.create(connection, {"path": "store"})
    try:
        yield Tables(connection)
    finally:
        connection.close()


def compare_all(taking: Cataloguing) -> None:
    for _ in taking.compare_these(taking.differing()):
        pass


def index_all(taking: Cataloguing) -> None:
    for _ in taking.index_these(taking.behind()):
        pass


class Pair(Plain):
    """A store, and a catalogue of it."""

    def __init__(self, root: Path, catalogue: Tables) -> None:
        super().__init__(root)
        self.catalogue = catalogue

    def take_over(self) -> None:
        taking = Cataloguing(self.store, self.catalogue)
        compare_all(taking)
        index_all(taking)

    def hits(self, text: str) -> list[tuple[str, int]]:
        found = searching.hits(self.catalogue.connection, parsed(text, NOW_S))
        return sorted((hit.thread_id, hit.line) for hit in found)

    def check(self) -> None:
        """Everything that the catalogue says is what a plain reading of the store says."""
        plain = self.plain_threads()
        for name, thread_id in plain:
            assert self.catalogue.changed_ns(thread_id) == self.store.thread_modified_ns(thread_id)
            assert self.catalogue.thread_called(f"{name}@{thread_id}") == thread_id
        assert self.catalogue.thread_ids() == sorted(thread_id for _, thread_id in plain)
        assert {*self.catalogue.runs([*RunStatus])} == self.plain_runs()
        for text in QUERIES:
            assert self.hits(text) == self.plain_hits(text), text


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with catalogue_at(tmp_path / "catalogue") as catalogue:
        yield Pair(tmp_path / "store", catalogue)


# ── Random changes ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(6))
def test_after_random_changes_the_catalogue_says_what_the_store_says(pair: Pair, seed: int) -> None:
    changes = Changes(pair, seed)
    for _ in range(12):
        for _ in range(changes.random.randrange(1, 8)):
            changes.one()
        pair.take_over()
        pair.check()


# ── What is read ────────────────────────────────────────────────────────────────────────────────────────


class Counting:
    """A store that counts what is read in it."""

    def __init__(self, store: ThreadStore) -> None:
        self._store = store
        self.root = store.root
        self.read: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name != "list_thread_ids":
            self.read.append(name)
        return getattr(self._store, name)


@pytest.fixture
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if everything had been looked at long after it changed."""
    monkeypatch.setattr("store.disk.signatures._SETTLES_NS", -1)


@pytest.mark.usefixtures("_settled")
def test_what_looks_as_it_did_is_not_read(pair: Pair) -> None:
    for number in range(3):
        thread(pair, f"thread_{number}", title="Bees")
        pair.say(f"thread_{number}", "honey")
        pair.store.create_run(f"thread_{number}", Run(model="m"))
    pair.take_over()
    counting = Counting(pair.store)
    taking = Cataloguing(counting, pair.catalogue)
    compare_all(taking)
    index_all(taking)
    assert counting.read == []
    run_id = pair.store.create_run("thread_1", Run(model="m")).id
    pair.store.update_run_status("thread_1", run_id, RunStatus.completed)
    compare_all(taking)
    assert counting.read == ["read_document"]


def test_a_long_log_that_has_grown_is_read_again_if_its_last_line_is_another_one(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_states, "_READ_BYTES", 0)
    thread(pair)
    pair.say("thread_1", "honey")
    pair.take_over()
    Changes(pair, 1).edit_in_place("thread_1")
    pair.say("thread_1", "more honey")
    pair.take_over()
    pair.check()


@pytest.mark.usefixtures("_settled")
def test_of_a_log_that_has_grown_only_the_new_lines_are_read(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread(pair, title="Bees")
    for number in range(20):
        pair.say("thread_1", f"honey {number}")
    pair.take_over()
    lines: list[int] = []

    def counted(fields: Mapping[str, Any], number: int, message: Any = usual.message) -> MessageText | None:
        lines.append(number)
        return message(fields, number)  # type: ignore[no-any-return]

    monkeypatch.setattr(usual, "message", counted)
    pair.say("thread_1", "more honey")
    pair.take_over()
    assert lines == [21]
    assert len(pair.hits("honey")) == 21


@pytest.mark.usefixtures("_settled")
def test_a_log_of_which_only_the_time_or_the_inode_changed_leaves_no_dead_words(pair: Pair) -> None:
    thread(pair)
    pair.say("thread_1", "honey")
    pair.take_over()
    log = pair.root / "thread_1" / "messages.jsonl"
    log.touch()
    pair.take_over()
    shutil.copy2(log, log.parent / ".copy")
    os.rename(log.parent / ".copy", log)
    pair.say("thread_1", "wasps")
    pair.take_over()
    pair.check()
    assert pair.catalogue.counts().texts_dead == 0


def test_a_change_that_leaves_no_trace_but_was_looked_at_too_soon_is_seen_the_next_time(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread(pair, title="Bee")
    pair.take_over()
    taking = Cataloguing(pair.store, pair.catalogue)
    assert taking.compare("thread_1")  # It has just changed: it is read once more, whatever it looks like.
    monkeypatch.setattr("store.disk.signatures._SETTLES_NS", -1)
    assert taking.compare("thread_1")
    assert not taking.compare("thread_1")


def test_a_long_log_is_taken_over_in_pieces_that_another_process_can_get_in_between(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cataloguing, "_LINES_AT_ONCE", 3)
    thread(pair)
    for number in range(10):
        pair.say("thread_1", f"honey {number}")
    with catalogue_at(tmp_path / "catalogue") as other:
        first, second = Cataloguing(pair.store, pair.catalogue), Cataloguing(pair.store, other)
        compare_all(first)
        for _ in range(4):
            read = first._next_lines("thread_1"), second._next_lines("thread_1")
            for taken in read:
                assert taken is not None
                with pair.catalogue.changing():
                    assert taken.take(pair.catalogue) == (taken is read[0])
    pair.take_over()
    assert pair.hits("honey") == [("thread_1", line) for line in range(1, 11)]


def test_a_log_that_is_replaced_while_it_is_taken_over_is_read_from_the_beginning(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cataloguing, "_LINES_AT_ONCE", 2)
    thread(pair)
    for number in range(6):
        pair.say("thread_1", f"honey {number}")
    taking = Cataloguing(pair.store, pair.catalogue)
    compare_all(taking)
    taken = taking._next_lines("thread_1")
    assert taken is not None
    with pair.catalogue.changing():
        assert taken.take(pair.catalogue)
    Changes(pair, 1).edit_in_place("thread_1")
    pair.take_over()
    pair.check()


def test_words_of_a_thread_that_has_come_anew_and_is_not_compared_yet_wait_for_that(pair: Pair) -> None:
    thread(pair)
    pair.say("thread_1", "honey")
    taking = Cataloguing(pair.store, pair.catalogue)
    compare_all(taking)
    taken = taking._next_lines("thread_1")
    assert taken is not None
    with pair.catalogue.changing():
        pair.catalogue.remove_thread("thread_1")  # Another process did, before the thread came anew.
    with pair.catalogue.changing():
        assert not taken.take(pair.catalogue)
    taking.index("thread_1")
    assert pair.hits("honey") == []
    pair.take_over()
    assert pair.hits("honey") == [("thread_1", 1)]


def test_a_store_that_is_away_has_not_lost_its_threads(pair: Pair, tmp_path: Path) -> None:
    thread(pair, title="Bees")
    pair.take_over()
    pair.root.rename(tmp_path / "away")
    with pytest.raises(StorageFailed):
        pair.take_over()
    with pytest.raises(StorageFailed):
        Cataloguing(pair.store, pair.catalogue).compare("thread_1")
    assert called(pair.catalogue.titles()) == [("Bees", "thread_1")]


def test_a_damaged_thread_is_in_the_catalogue_by_its_id(pair: Pair) -> None:
    thread(pair, title="Bees")
    (pair.root / "thread_1" / "meta.json").write_text("{")
    pair.take_over()
    assert called(pair.catalogue.titles()) == [("thread_1", "thread_1")]


def test_a_thread_whose_log_is_no_file_is_in_the_catalogue_and_hides_no_other(pair: Pair) -> None:
    for thread_id in ("thread_1", "thread_2"):
        thread(pair, title="", thread_id=thread_id)
        pair.say(thread_id, "About bees")
    log = pair.root / "thread_1" / "messages.jsonl"
    log.unlink()
    log.mkdir()
    pair.take_over()
    assert called(pair.catalogue.titles()) == [("About bees", "thread_2"), ("thread_1", "thread_1")]


def test_a_thread_that_goes_while_it_is_looked_at_is_no_failure(tmp_path: Path) -> None:
    thread, ends = tmp_path / "T", threading.Event()

    def make_and_remove() -> None:
        while not ends.is_set():
            (thread / "runs" / "R").mkdir(parents=True)
            (thread / "meta.json").touch()
            shutil.rmtree(thread.rename(tmp_path / ".gone"))

    other = threading.Thread(target=make_and_remove)
    other.start()
    try:
        seen = set()
        for number in range(
            3_000_000
        ):  # Until it was there, and was not: the other one may get no turn for long.
            seen.add(signatures.look(os.fspath(tmp_path), "T", {}) is not None)
            if number > 30_000 and len(seen) == 2:
                break
    finally:
        ends.set()
        other.join()
    assert seen == {True, False}


def take_over_again_and_again(root: Path, path: Path, ends: Any) -> None:
    with catalogue_at(path) as catalogue:
        pair = Pair(root, catalogue)
        while not ends.is_set():
            with suppress(Busy):
                pair.take_over()


def test_several_processes_take_over_at_once_and_nothing_is_there_twice(pair: Pair, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ends = spawn.Event()
    arguments = (pair.root, tmp_path / "catalogue", ends)
    others = [spawn.Process(target=take_over_again_and_again, args=arguments) for _ in range(2)]
    for process in others:
        process.start()
    try:
        changes = Changes(pair, 7)
        for _ in range(150):
            changes.one()
    finally:
        ends.set()
        for process in others:
            process.join()
    assert [process.exitcode for process in others] == [0, 0]
    pair.take_over()
    pair.check()
