"""A catalogue says what a store on the disk says, after changes by anybody, and only these are read."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from store import DocumentKey, Run, RunStatus, RunStep, Thread, ThreadMessage, ThreadStore
from store.catalogue import schema, searching
from store.catalogue.matching import matches
from store.catalogue.names import name_of
from store.catalogue.queries import parsed
from store.catalogue.tables import Busy, Tables
from store.catalogue.values import Kind
from store.disk import cataloguing, log_states
from store.disk.cataloguing import Cataloguing
from store.errors import Damaged, StorageFailed, StoreError
from store.lines import message_of
from store.models import ContentBlock, MessageRole
from tests.store.catalogue.conftest import called

NOW_S = 1_796_000_000
QUERIES = ("bee", "honey", '"bee honey"', "b*", "role:user bee", "bee -honey", "title:bee")
WORDS = ("bee", "honey", "wasp", "蜂", "café")


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


class Pair:
    """A store, and a catalogue of it."""

    def __init__(self, root: Path, catalogue: Tables) -> None:
        self.root = root
        self.store = ThreadStore(root)
        self.catalogue = catalogue

    def take_over(self) -> None:
        taking = Cataloguing(self.store, self.catalogue)
        taking.compare_all()
        taking.index_all()

    def say(self, thread_id: str, text: str, role: MessageRole = MessageRole.user) -> None:
        message = ThreadMessage(role=role, content=[ContentBlock.of_text(text)], created_at=NOW_S)
        self.store.append_message(thread_id, message)

    def hits(self, text: str) -> list[tuple[str, int]]:
        found = searching.hits(self.catalogue.connection, parsed(text, NOW_S))
        return sorted((hit.thread_id, hit.line) for hit in found)

    def check(self) -> None:
        """Everything that the catalogue says is what a plain reading of the store says."""
        plain, runs = [], set()
        for thread_id in self.store.list_thread_ids():
            thread = self.store.get_thread(thread_id)
            title = thread.metadata.get("title", "")
            messages = list(self.store.iter_messages(thread_id))
            first = next((one.text for one in messages if one.role is MessageRole.user), "")
            plain.append((name_of(thread_id, title, first), thread_id))
            for run_id in self.store.list_run_ids(thread_id):
                with suppress(Damaged):
                    runs.add((thread_id, run_id, self.store.get_run(thread_id, run_id).status.value))
            assert self.catalogue.changed_ns(thread_id) == self.store.thread_modified_ns(thread_id)
            assert self.catalogue.thread_called(f"{plain[-1][0]}@{thread_id}") == thread_id
        assert self.catalogue.thread_ids() == sorted(thread_id for _, thread_id in plain)
        assert {*self.catalogue.runs([*RunStatus])} == runs
        for text in QUERIES:
            assert self.hits(text) == self.plain_hits(text), text

    def plain_hits(self, text: str) -> list[tuple[str, int]]:
        query, found = parsed(text, NOW_S), []
        for thread_id in self.store.list_thread_ids():
            thread = self.store.get_thread(thread_id)
            title = thread.metadata.get("title", "")
            document = self.store.read_document(DocumentKey(thread_id))[0].decode().split("\n")
            line = next((n for n, one in enumerate(document, 1) if '"title"' in one), 1)
            if not query.is_about_messages:
                if "bee" in title.split():
                    found.append((thread_id, line))
                continue
            if title and matches(query, Kind.TITLE, thread.created_at, title):
                found.append((thread_id, line))
            for number, stored in enumerate(self.lines(thread_id), 1):
                with suppress(ValueError, KeyError):  # No message.
                    fields = json.loads(stored)
                    said = "\n".join(block["text"]["value"] for block in fields["content"])
                    if matches(query, Kind[fields["role"].upper()], fields["created_at"], said):
                        found.append((thread_id, number))
        return sorted(found)

    def lines(self, thread_id: str) -> list[bytes]:
        with suppress(FileNotFoundError):
            return (self.root / thread_id / "messages.jsonl").read_bytes().split(b"\n")[:-1]
        return []


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with catalogue_at(tmp_path / "catalogue") as catalogue:
        yield Pair(tmp_path / "store", catalogue)


def thread(pair: Pair, thread_id: str = "thread_1", **metadata: Any) -> str:
    return pair.store.create_thread(Thread(id=thread_id, metadata=metadata, created_at=NOW_S)).id


# ── Random changes ──────────────────────────────────────────────────────────────────────────────────────


class Changes:
    """Random changes, by the store and by programs that take no lock and set times back."""

    def __init__(self, pair: Pair, seed: int) -> None:
        self.pair, self.store, self.root = pair, pair.store, pair.root
        self.random = random.Random(seed)
        self.count = 0

    def one(self) -> None:
        self.count += 1
        threads = self.store.list_thread_ids()
        if len(threads) < 2:
            return self.new_thread("")
        change: Callable[[str], object] = self.random.choice(
            [
                *(self.new_thread, self.say, self.say, self.retitle, self.delete, self.new_run, self.end_run),
                *(self.new_step, self.delete_run, self.edit_in_place, self.replace_log, self.foreign_append),
                *(self.touch, self.log_goes, self.foreign_run, self.torn_line, self.recreate),
            ]
        )
        with suppress(StoreError):  # The store refuses to change what is damaged or foreign.
            change(self.random.choice(threads))
        return None

    def text(self) -> str:
        return " ".join(self.random.choices(WORDS, k=self.random.randrange(1, 5)))

    def new_thread(self, _: str) -> None:
        title = self.random.choice([{}, {"title": self.text()}, {"x": 1, "title": self.text(), "y": 2}])
        self.store.create_thread(Thread(id=f"thread_{self.count}", metadata=title, created_at=NOW_S))

    def say(self, thread_id: str) -> None:
        self.pair.say(thread_id, self.text(), self.random.choice([*MessageRole]))

    def retitle(self, thread_id: str) -> None:
        self.store.patch_document(DocumentKey(thread_id), {"metadata": {"title": self.text()}})

    def delete(self, thread_id: str) -> None:
        self.store.delete_thread(thread_id, force=True)

    def recreate(self, thread_id: str) -> None:
        self.delete(thread_id)
        thread(self.pair, thread_id)
        self.say(thread_id)

    def new_run(self, thread_id: str) -> None:
        self.store.create_run(thread_id, Run(id=f"run_{self.count}", model="m"))

    def run_of(self, thread_id: str) -> str | None:
        return next(iter(self.store.list_run_ids(thread_id)), None)

    def end_run(self, thread_id: str) -> None:
        if run_id := self.run_of(thread_id):
            status = self.random.choice([RunStatus.completed, RunStatus.failed])
            self.store.force_update_run_status(thread_id, run_id, status)

    def new_step(self, thread_id: str) -> None:
        if run_id := self.run_of(thread_id):
            self.store.append_step(thread_id, run_id, RunStep(id=f"step_{self.count}"))

    def delete_run(self, thread_id: str) -> None:
        if run_id := self.run_of(thread_id):
            self.store.delete_run(thread_id, run_id, force=True)

    def log(self, thread_id: str) -> Path:
        return self.root / thread_id / "messages.jsonl"

    def edit_in_place(self, thread_id: str) -> None:
        """The same size, and the mtime that it had."""
        log = self.log(thread_id)
        if log.exists():
            times = log.stat().st_atime_ns, log.stat().st_mtime_ns
            data = log.read_bytes().replace(b"honey", b"wasps", 1).replace(b"bee", b"ant", 1)
            with log.open("r+b") as written:
                written.write(data)
            os.utime(log, ns=times)

    def replace_log(self, thread_id: str) -> None:
        log = self.log(thread_id)
        if log.exists():
            lines = log.read_bytes().splitlines(keepends=True)
            self.random.shuffle(lines)
            (log.parent / ".new").write_bytes(b"".join(lines[: self.random.randrange(len(lines) + 1)]))
            os.rename(log.parent / ".new", log)

    def foreign_append(self, thread_id: str) -> None:
        with self.log(thread_id).open("ab") as log:
            log.write(self.random.choice([b"\n", b"{}\n", b"no JSON bee\n"]))

    def torn_line(self, thread_id: str) -> None:
        with self.log(thread_id).open("ab") as log:
            log.write(b'{"bee": ')

    def touch(self, thread_id: str) -> None:
        for path in (self.root / thread_id).rglob("*.json*"):
            os.utime(path, ns=(1, self.random.randrange(10**18)))

    def log_goes(self, thread_id: str) -> None:
        self.log(thread_id).unlink(missing_ok=True)

    def foreign_run(self, thread_id: str) -> None:
        """A directory that becomes a run later, or is damaged."""
        directory = self.root / thread_id / "runs" / f"foreign_{self.random.randrange(2)}"
        directory.mkdir(parents=True, exist_ok=True)
        if self.random.random() < 0.7:
            made = {"id": directory.name, "created_at": 1, "status": "queued", "model": "m"}
            (directory / "status.json").write_text(self.random.choice(["{", json.dumps(made)]))


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
    taking.compare_all()
    taking.index_all()
    assert counting.read == []
    run_id = pair.store.create_run("thread_1", Run(model="m")).id
    pair.store.update_run_status("thread_1", run_id, RunStatus.completed)
    taking.compare_all()
    assert counting.read == ["get_run"]


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
    thread(pair)
    for number in range(20):
        pair.say("thread_1", f"honey {number}")
    pair.take_over()
    parsed_lines: list[bytes] = []

    def counted(line: bytes, thread_id: str) -> ThreadMessage | None:
        parsed_lines.append(line)
        return message_of(line, thread_id)

    monkeypatch.setattr(cataloguing, "message_of", counted)
    pair.say("thread_1", "more honey")
    pair.take_over()
    assert len(parsed_lines) == 1
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
        first.compare_all()
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
    taking.compare_all()
    taken = taking._next_lines("thread_1")
    assert taken is not None
    with pair.catalogue.changing():
        assert taken.take(pair.catalogue)
    Changes(pair, 1).edit_in_place("thread_1")
    pair.take_over()
    pair.check()


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
