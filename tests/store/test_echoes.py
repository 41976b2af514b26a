"""Of own changes a watch reports nothing more, and of the changes of others it misses none."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import pytest

from store import Change, DocumentKey, Part, Run, RunStatus, RunStep, StoreError, Thread, ThreadStore
from store.disk.system_calls import SystemCalls
from tests.conftest import seeds
from tests.store.conftest import message

# What somebody may have seen: a document or list by its key, or the log of a thread.
Place: TypeAlias = DocumentKey | str

THREADS, RUNS, STEPS = ("T", "U"), ("R", "Q"), ("S",)
LISTS = [DocumentKey(""), *(DocumentKey(t, "") for t in THREADS)]
LISTS += [DocumentKey(t, r, "") for t in THREADS for r in RUNS]
DOCUMENTS = [DocumentKey(t) for t in THREADS] + [DocumentKey(t, r) for t in THREADS for r in RUNS]
STEP_DOCUMENTS = [DocumentKey(t, r, s) for t in THREADS for r in RUNS for s in STEPS]
PLACES: list[Place] = [*LISTS, *DOCUMENTS, *STEP_DOCUMENTS, *THREADS]


class Unsynced(SystemCalls):
    def sync(self, file_or_directory: int) -> None:
        """Nothing here loses its power, and a step takes microseconds: the two programs come close."""


class Reader:
    """Remembers what it has seen until it hears that it changed."""

    def __init__(self, place: Path) -> None:
        self.store = ThreadStore(place, calls=Unsynced())
        self.seen: dict[Place, object] = {}
        self.heard: list[Change] = []
        self.watch = self.store.follower(self._changed)
        for key in (*LISTS, *DOCUMENTS):
            assert self.watch.follow(key)

    def _changed(self, change: Change) -> None:
        self.heard.append(change)
        for place in list(self.seen):
            if _concerns(change, place):
                self.seen.pop(place, None)

    def now(self, place: Place) -> object:
        with suppress(StoreError):
            match place:
                case str(thread_id):
                    log = self.store.open_log(thread_id)
                    try:
                        return log.read(0, 1 << 20)
                    finally:
                        log.close()
                case DocumentKey(""):
                    return sorted(self.store.list_thread_ids())
                case DocumentKey(thread_id, ""):
                    return sorted(self.store.list_run_ids(thread_id))
                case DocumentKey(thread_id, str(run_id), ""):
                    return sorted(self.store.list_step_ids(thread_id, run_id))
                case DocumentKey() as key:
                    return self.store.read_document(key)[0]
        return None

    def look(self, place: Place) -> None:
        before = len(self.heard)
        found = self.now(place)
        if len(self.heard) == before:  # Otherwise it may be older than the change that was heard.
            self.seen[place] = found
            if len(self.heard) != before:
                del self.seen[place]

    def wrong(self) -> dict[Place, tuple[object, object]]:
        """What is remembered, and is something else by now, though all changes have been heard."""
        self.watch.catch_up()
        seen = [(place, found, self.now(place)) for place, found in list(self.seen.items())]
        return {place: (found, now) for place, found, now in seen if found != now}


def _concerns(change: Change, place: Place) -> bool:
    if change.part is Part.EVERYTHING:
        return True
    if change.part is Part.TIMES:
        return False
    if change.part is Part.LOG:
        return place == change.thread_id
    if change.part is Part.DOCUMENT:
        return place == change.key
    if isinstance(place, str):
        return change.part is Part.THREADS and place == change.thread_id
    is_list_of = {
        Part.THREADS: DocumentKey(""),
        Part.RUNS: DocumentKey(change.thread_id, ""),
        Part.STEPS: DocumentKey(change.thread_id, change.run_id, ""),
    }
    is_within = place.thread_id == change.thread_id and (
        change.run_id is None or (place.run_id == change.run_id and change.step_id in (None, place.step_id))
    )
    return place == is_list_of[change.part] or is_within


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    store = ThreadStore(tmp_path / "store", calls=Unsynced())
    for thread_id in THREADS:
        store.create_thread(Thread(id=thread_id))
        for run_id in RUNS:
            store.create_run(thread_id, Run(id=run_id))
            store.append_step(thread_id, run_id, RunStep(id="S"))
    store.append_message("T", message("one"))
    reader = Reader(tmp_path / "store")
    try:
        yield reader
    finally:
        reader.watch.close()


# ── What the two programs do ────────────────────────────────────────────────────────────────────────────


def as_program(store: ThreadStore, dice: random.Random) -> None:
    thread_id, run_id = dice.choice(THREADS), dice.choice(RUNS)
    step = DocumentKey(thread_id, run_id, "S")
    actions: list[Callable[[], object]] = [
        lambda: store.create_thread(Thread(id=thread_id)),
        lambda: store.delete_thread(thread_id, force=True),
        lambda: store.create_run(thread_id, Run(id=run_id)),
        lambda: store.delete_run(thread_id, run_id, force=True),
        lambda: store.append_step(thread_id, run_id, RunStep(id="S")),
        lambda: store.set_document_modified(DocumentKey(thread_id, run_id), dice.randrange(10**18)),
        *[lambda: store.force_update_run_status(thread_id, run_id, dice.choice(list(RunStatus)))] * 4,
        *[lambda: store.patch_document(step, {"n": dice.random()})] * 2,
        *[lambda: store.patch_document(DocumentKey(thread_id), {"n": dice.random()})] * 2,
        *[lambda: store.append_message(thread_id, message(f"{dice.random()}"))] * 4,
    ]
    dice.choice(actions)()


def by_hand(root: Path, dice: random.Random) -> None:
    """What programs do that know nothing of threadfs; most of it keeps sizes, and times where they can."""
    thread = root / dice.choice(THREADS)
    run = thread / "runs" / dice.choice(RUNS)
    file = dice.choice(
        [thread / "meta.json", thread / "messages.jsonl", run / "status.json", run / "steps" / "S.json"]
    )
    directory = dice.choice([thread, run])
    aside = root.parent / "aside"
    other = root.parent / "other"
    match dice.randrange(7):
        case 0 | 1:
            _flip(file, dice)
        case 2:
            _flip(file, dice, keeps_time=True)
        case 3:  # Replaced by a file from elsewhere: no temporary name is seen.
            shutil.copy2(file, other)
            _flip(other, dice)
            other.rename(file)
        case 4:  # Replaced, and the first one comes back.
            os.link(file, aside)
            shutil.copy2(file, other)
            _flip(other, dice)
            other.rename(file)
            aside.rename(file)
        case 5:
            directory.rename(aside)
            if dice.random() < 0.5:
                aside.rename(directory)
            else:
                shutil.copytree(aside, directory)
        case 6:
            shutil.rmtree(directory)


def _flip(file: Path, dice: random.Random, *, keeps_time: bool = False) -> None:
    before = file.stat()
    with file.open("r+b") as opened:
        opened.seek(max(0, before.st_size - 3))
        opened.write(b"%c" % dice.choice(b"0123456789"))
    if keeps_time:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def cleared(root: Path) -> None:
    for name in ("aside", "other"):
        path = root.parent / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@pytest.mark.parametrize("seed", seeds(4))
def test_of_what_two_programs_change_side_by_side_nothing_old_is_remembered(
    reader: Reader, tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    root, other = tmp_path / "store", ThreadStore(tmp_path / "store", calls=Unsynced())
    for _ in range(600):
        for _ in range(dice.randrange(4)):
            reader.look(dice.choice(PLACES))
        with suppress(StoreError, OSError, shutil.Error):
            match dice.randrange(5):
                case 0 | 1:
                    as_program(reader.store, dice)
                case 2:
                    as_program(other, dice)
                case _:
                    by_hand(root, dice)
        cleared(root)
        if dice.random() < 0.2:
            assert reader.wrong() == {}
    assert reader.wrong() == {}


# ── What is told once ───────────────────────────────────────────────────────────────────────────────────

OWN: dict[str, tuple[Callable[[ThreadStore], object], list[Change]]] = {
    "a thread is made": (
        lambda s: s.create_thread(Thread(id="new")),
        [Change(Part.THREADS, "new", is_own=True)],
    ),
    "a run is made": (
        lambda s: s.create_run("T", Run(id="new")),
        [Change(Part.RUNS, "T", "new", is_own=True)],
    ),
    "a run is cancelled": (lambda s: s.cancel_run("T", "R"), [Change(Part.DOCUMENT, "T", "R", is_own=True)]),
    "a thread is patched": (
        lambda s: s.patch_document(DocumentKey("T"), {"a": 1}),
        [Change(Part.DOCUMENT, "T", is_own=True)],
    ),
    "a step is made": (
        lambda s: s.append_step("T", "R", RunStep(id="new")),
        [
            Change(Part.DOCUMENT, "T", "R", "new", is_own=True),
            Change(Part.STEPS, "T", "R", "new", is_own=True),
        ],
    ),
}


@pytest.mark.parametrize(("change", "expected"), OWN.values(), ids=OWN)
def test_an_own_change_is_told_once(
    reader: Reader, change: Callable[[ThreadStore], object], expected: list[Change]
) -> None:
    change(reader.store)
    reader.watch.catch_up()
    assert [heard for heard in reader.heard if heard.part is not Part.TIMES] == expected


def test_a_write_of_another_program_just_after_an_own_one_is_told(reader: Reader, tmp_path: Path) -> None:
    status = tmp_path / "store" / "T" / "runs" / "R" / "status.json"
    for _ in range(50):
        reader.store.patch_document(DocumentKey("T", "R"), {"n": 1})
        reader.store.patch_document(DocumentKey("T", "R"), {"n": 2})
        reader.heard.clear()
        _flip(status, random.Random(1), keeps_time=True)
        reader.watch.catch_up()
        assert Change(Part.DOCUMENT, "T", "R") in reader.heard


def test_what_comes_from_elsewhere_just_after_an_own_change_is_told(reader: Reader, tmp_path: Path) -> None:
    status, other = tmp_path / "store" / "T" / "runs" / "R" / "status.json", tmp_path / "other"
    for number in range(50):
        shutil.copy2(status, other)
        reader.store.patch_document(DocumentKey("T", "R"), {"n": number})
        reader.heard.clear()
        other.rename(status)
        reader.watch.catch_up()
        assert Change(Part.DOCUMENT, "T", "R") in reader.heard


def test_the_thread_that_another_program_puts_in_place_of_an_own_one_is_not_taken_for_it(
    reader: Reader, tmp_path: Path
) -> None:
    thread = tmp_path / "store" / "new"
    reader.store.create_thread(Thread(id="new"))
    shutil.copytree(thread, tmp_path / "copy")
    shutil.rmtree(thread)
    (tmp_path / "copy").rename(thread)
    reader.watch.catch_up()
    assert Change(Part.THREADS, "new") in reader.heard


def test_an_own_thread_that_another_program_has_changed_is_still_the_own_one(reader: Reader) -> None:
    assert reader.watch.follow(DocumentKey("new", ""))  # Its list is watched by the time of the report.
    reader.store.create_thread(Thread(id="new"))
    ThreadStore(reader.store.location).create_run("new", Run(id="R"))
    reader.watch.catch_up()
    assert Change(Part.THREADS, "new") not in reader.heard


def test_a_store_that_is_not_watched_remembers_nothing_of_its_changes(tmp_path: Path) -> None:
    store = ThreadStore(tmp_path, calls=Unsynced())
    store.create_thread(Thread(id="T"))
    assert not store._echoes._notes


def test_the_notes_of_own_changes_do_not_grow_without_bound(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.disk.echoes._MAX_NOTES", 5)
    for _ in range(20):
        reader.store.create_thread(Thread())
    assert len(reader.store._echoes._notes) == 5


def test_a_file_that_is_put_back_after_another_was_there_is_told(reader: Reader, tmp_path: Path) -> None:
    status, aside = tmp_path / "store" / "T" / "runs" / "R" / "status.json", tmp_path / "aside"
    shutil.copy2(status, tmp_path / "other")
    reader.store.patch_document(DocumentKey("T", "R"), {"n": 1})
    os.link(status, aside)
    (tmp_path / "other").rename(status)
    reader.look(DocumentKey("T", "R"))
    aside.rename(status)
    assert reader.wrong() == {}


def test_an_own_thread_that_goes_and_comes_back_is_told(reader: Reader, tmp_path: Path) -> None:
    reader.store.create_thread(Thread(id="new"))
    (tmp_path / "store" / "new").rename(tmp_path / "aside")
    reader.watch.catch_up()
    reader.look(DocumentKey(""))
    (tmp_path / "aside").rename(tmp_path / "store" / "new")
    assert reader.wrong() == {}


def test_a_write_within_a_tick_of_the_clock_of_files_is_told(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.disk.echoes._of", lambda status: (status.st_ino, status.st_size))
    monkeypatch.setattr("time.clock_gettime_ns", lambda clock: 0)
    reader.store.append_message("T", message("two"))
    reader.watch.catch_up()
    reader.heard.clear()
    _flip(tmp_path / "store" / "T" / "messages.jsonl", random.Random(1))
    reader.watch.catch_up()
    assert Change(Part.LOG, "T", grew=True) in reader.heard


def test_a_log_that_is_replaced_while_an_own_message_is_synced_is_told(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, other = tmp_path / "store" / "T" / "messages.jsonl", tmp_path / "other"
    shutil.copy2(log, other)
    monkeypatch.setattr(Unsynced, "sync", lambda calls, file: other.exists() and other.rename(log))
    reader.store.append_message("T", message("two"))
    assert not other.exists()
    reader.watch.catch_up()
    assert Change(Part.LOG, "T") in reader.heard


def test_an_own_run_that_went_before_its_list_was_followed_and_comes_back_is_told(tmp_path: Path) -> None:
    store = ThreadStore(tmp_path / "store", calls=Unsynced())
    watch = store.follower(lambda change: heard.append(change))
    heard: list[Change] = []
    try:
        watch.follow(DocumentKey(""))
        store.create_thread(Thread(id="T"))
        store.create_run("T", Run(id="R"))
        run = store.run_dir("T", "R")
        run.rename(tmp_path / "aside")
        watch.follow(DocumentKey("T", ""))
        watch.catch_up()
        heard.clear()
        (tmp_path / "aside").rename(run)
        watch.catch_up()
        assert Change(Part.RUNS, "T", "R") in heard
    finally:
        watch.close()
