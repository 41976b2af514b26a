"""The catalogue of a store on a disk answers what a plain reading does, whatever happens to either."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from store import Run, RunStatus, Thread, ThreadNotFound
from store.catalogue import place, schema
from store.catalogue.api import Catalogue
from store.catalogue.names import told_apart
from store.catalogue.queries import parsed
from store.catalogue.tables import Tables
from store.disk import known, signatures
from store.disk.catalogue import DiskCatalogue
from store.disk.unseen import Needed
from store.errors import Ambiguous, StorageFailed
from tests.conftest import open_files
from tests.mount.conftest import wait_until
from tests.store.catalogue.conftest import NOW_S, called
from tests.store.plain_reading import QUERIES, Changes, Plain, thread


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path / "caches"))
    # Otherwise, answers may be a second old.
    monkeypatch.setattr(known, "_FRESH_S", 0.0)
    return tmp_path / "caches"


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Plain]:
    found = Plain(tmp_path / "store")
    with closing(found.store):
        yield found


def files(caches: Path) -> list[Path]:
    return [*caches.glob("threadfs/*/catalogue.sqlite*")]


def check(plain: Plain, catalogue: Catalogue) -> None:
    """Every answer is what a plain reading says."""
    threads = sorted(plain.plain_threads())
    assert called(catalogue.titles()) == told_apart(threads)
    for _, thread_id, changed_ns in catalogue.titles():
        assert changed_ns == plain.store.thread_modified_ns(thread_id)
    for name, thread_id, changed_ns in catalogue.titles()[:2]:
        assert (catalogue.thread_called(name), catalogue.changed_ns(thread_id)) == (thread_id, changed_ns)
    days = catalogue.days()
    assert sorted(one.thread_id for day_s in days for one in catalogue.created_on(day_s)) == sorted(
        thread_id for _, thread_id in threads
    )
    assert {(one.thread_id, one.run_id, one.status) for one in catalogue.runs()} == plain.plain_runs()
    assert {*plain.store.runs_by_status()} == plain.plain_runs()
    for text in QUERIES:
        found = catalogue.search(parsed(text, NOW_S))
        assert sorted((hit.thread_id, hit.line) for hit in found.hits) == plain.plain_hits(text), text
        assert {link.thread_id for link in found.links} == {hit.thread_id for hit in found.hits}
        assert (found.hits_left_out, found.links_left_out) == (0, 0)
        assert catalogue.search(parsed(text, NOW_S), with_hits=False).links == found.links


# ── What can happen to a catalogue ──────────────────────────────────────────────────────────────────────


def delete(caches: Path) -> None:
    for path in files(caches):
        path.unlink()


def truncate(caches: Path) -> None:
    for path in caches.glob("threadfs/*/catalogue.sqlite"):
        os.truncate(path, path.stat().st_size // 2)


def overwrite(caches: Path) -> None:
    for path in caches.glob("threadfs/*/catalogue.sqlite"):
        with path.open("r+b") as written:
            written.seek(path.stat().st_size // 4096 // 2 * 4096)
            written.write(b"bees" * 3000)


def change_version(caches: Path) -> None:
    for path in caches.glob("threadfs/*/catalogue.sqlite"):
        with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 99")


def nothing(caches: Path) -> None:
    """Is as likely as any of these."""


ACCIDENTS: list[Callable[[Path], None]] = [delete, truncate, overwrite, change_version, nothing, nothing]


@pytest.mark.parametrize("seed", range(3))
def test_after_random_changes_and_accidents_every_answer_is_what_the_store_says(
    plain: Plain, caches: Path, seed: int
) -> None:
    changes = Changes(plain, seed)
    catalogue = plain.store.catalogue()
    for _ in range(6):
        for _ in range(changes.random.randrange(1, 8)):
            changes.one()
        check(plain, catalogue)
        changes.random.choice(ACCIDENTS)(caches)
        with closing(Plain(plain.root).store) as other:
            check(plain, other.catalogue())


@pytest.mark.parametrize("seed", range(2))
def test_runs_by_status_are_what_the_store_says_while_the_catalogue_fails(
    plain: Plain, caches: Path, seed: int
) -> None:
    changes = Changes(plain, seed)
    plain.store.index_runs()
    for _ in range(8):
        for _ in range(changes.random.randrange(1, 8)):
            changes.one()
        assert {*plain.store.runs_by_status()} == plain.plain_runs()
        changes.random.choice(ACCIDENTS)(caches)
        if changes.random.random() < 0.5:
            plain.store.close()
            plain.store.index_runs()


def follow(plain: Plain) -> None:
    """Returns when the store reports everything."""
    with closing(plain.store.watch(lambda _: None)) as watch:
        assert plain.store.follow_all_runs(watch)


@pytest.mark.parametrize("seed", range(2))
def test_of_what_the_store_reports_every_answer_is_true_without_looking_at_it(
    plain: Plain, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    changes = Changes(plain, seed)
    for _ in range(10):
        changes.one()
    follow(plain)
    catalogue = plain.store.catalogue()
    check(plain, catalogue)
    monkeypatch.setattr(known, "_FRESH_S", float("inf"))
    for _ in range(10):
        follow(plain)  # Also what came.
        changes.one()
        check(plain, catalogue)


def test_what_the_store_follows_is_not_looked_at_again_until_it_changes(
    plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        thread(plain, f"thread_{number}", title="Bees")
        plain.store.create_run(f"thread_{number}", Run(id="run_1", model="m"))
    follow(plain)
    catalogue = plain.store.catalogue()
    check(plain, catalogue)
    looked_at: list[str] = []

    def look(root: str, thread_id: str, known: Any, look: Any = signatures.look) -> Any:
        looked_at.append(thread_id)
        return look(root, thread_id, known)

    def is_same(root: str, thread_id: str, known: Any, is_same: Any = signatures.is_same) -> Any:
        looked_at.append(thread_id)
        return is_same(root, thread_id, known)

    monkeypatch.setattr(signatures, "look", look)
    monkeypatch.setattr(signatures, "is_same", is_same)

    def looks_at_nothing() -> bool:
        looked_at.clear()
        catalogue.titles()
        catalogue.search(parsed("title:bees", NOW_S), with_hits=False)
        return looked_at == []

    wait_until(looks_at_nothing)  # While it is being set up, it cannot say what it follows.
    plain.say("thread_1", "honey")
    (plain.root / "thread_2" / "meta.json").write_text('{"created_at": 1, "metadata": {"title": "Wasps"}}')
    assert ("Wasps", "thread_2") in called(catalogue.titles())
    assert {"thread_1", "thread_2"} <= {*looked_at}
    wait_until(looks_at_nothing)


def change(root: Path, seed: int) -> None:
    plain = Plain(root)
    changes = Changes(plain, seed)
    changes.count = seed * 1000
    for number in range(60):
        changes.one()
        if number % 6 == 0:
            with suppress(FileNotFoundError):
                plain.store.catalogue().search(parsed("bee", NOW_S))
    plain.store.close()


def test_several_processes_change_a_store_and_use_its_catalogue_at_once(plain: Plain, caches: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    others = [spawn.Process(target=change, args=(plain.root, seed)) for seed in (1, 2)]
    catalogue = plain.store.catalogue()
    for process in others:
        process.start()
    while any(process.is_alive() for process in others):
        catalogue.search(parsed("bee", NOW_S))
        catalogue.titles()
    for process in others:
        process.join()
    assert [process.exitcode for process in others] == [0, 0]
    check(plain, catalogue)
    with closing(Plain(plain.root).store) as other:
        check(plain, other.catalogue())


@contextmanager
def another_process_writes(caches: Path) -> Iterator[None]:
    (path,) = caches.glob("threadfs/*/catalogue.sqlite")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def test_while_another_process_writes_every_answer_is_what_the_store_says(plain: Plain, caches: Path) -> None:
    changes = Changes(plain, 3)
    for _ in range(10):
        changes.one()
    catalogue = plain.store.catalogue()
    check(plain, catalogue)
    with another_process_writes(caches):
        for _ in range(10):
            changes.one()
            check(plain, catalogue)
        with closing(Plain(plain.root).store) as other:
            check(plain, other.catalogue())
        plain.store.index_runs()
        changes.one()
        check(plain, catalogue)
    check(plain, catalogue)


def test_a_catalogue_on_a_full_disk_goes_on_in_memory(plain: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare_full(connection: sqlite3.Connection, prepare: Any = schema.prepare) -> None:
        prepare(connection)
        if connection.execute("PRAGMA database_list").fetchone()[2]:
            connection.execute("PRAGMA max_page_count = 30")

    monkeypatch.setattr(schema, "prepare", prepare_full)
    catalogue = plain.store.catalogue()
    for number in range(40):
        thread(plain, f"thread_{number}", title="bee " * 500)
    check(plain, catalogue)
    assert catalogue.statistics().size_bytes == 0


def test_a_catalogue_that_fails_while_it_takes_words_over_hides_no_hit(
    plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread(plain, title="")
    plain.say("thread_1", "honey")
    failures = [sqlite3.OperationalError("disk I/O error")]

    def add_messages(*given: Any, add: Any = Tables.add_messages) -> None:
        if failures:
            raise failures.pop()
        add(*given)

    monkeypatch.setattr(Tables, "add_messages", add_messages)
    assert len(plain.store.catalogue().search(parsed("honey", NOW_S)).hits) == 1
    assert not failures


def test_a_catalogue_that_is_made_anew_in_the_middle_of_a_search_hides_no_hit(
    plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread(plain, title="")
    plain.say("thread_1", "honey")
    catalogue = plain.store.catalogue()
    assert isinstance(catalogue, DiskCatalogue)
    take_over = catalogue.known.take_over_words

    def take_over_and_lose(asked_s: float, needed: Needed) -> object:
        taken_over = take_over(asked_s, needed=needed)
        catalogue.rebuild()
        return taken_over

    monkeypatch.setattr(catalogue.known, "take_over_words", take_over_and_lose)
    assert len(catalogue.search(parsed("honey", NOW_S)).hits) == 1


def test_a_catalogue_that_fails_and_cannot_be_deleted_goes_on_in_memory(
    plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def put_thread(tables: Tables, *given: Any, put: Any = Tables.put_thread) -> None:
        if tables.connection.execute("PRAGMA database_list").fetchone()[2]:
            raise sqlite3.DatabaseError("it is damaged")
        put(tables, *given)

    monkeypatch.setattr(place, "delete", refuse)
    monkeypatch.setattr(Tables, "put_thread", put_thread)
    thread(plain, title="Bees")
    check(plain, plain.store.catalogue())


@pytest.mark.parametrize("why", ["no_home", "a_file", "others_may_write"])
def test_where_no_file_can_be_it_is_in_memory_and_reads_the_logs(
    plain: Plain, caches: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "no_home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    elif why == "a_file":
        caches.write_text("")
    else:
        (caches / "threadfs").mkdir(parents=True)
        (caches / "threadfs").chmod(0o777)
    changes = Changes(plain, 1)
    catalogue = plain.store.catalogue()
    for _ in range(6):
        for _ in range(4):
            changes.one()
        check(plain, catalogue)
    assert files(caches) == []


# ── What it does ────────────────────────────────────────────────────────────────────────────────────────


def test_a_store_has_one_catalogue_which_is_found_again(plain: Plain, caches: Path) -> None:
    thread(plain, title="Bees")
    plain.say("thread_1", "honey")
    assert plain.store.catalogue() is plain.store.catalogue()
    assert len(plain.store.catalogue().search(parsed("honey", NOW_S)).hits) == 1
    inodes = {path.stat().st_ino for path in caches.glob("threadfs/*/catalogue.sqlite")}
    with closing(Plain(plain.root).store) as other:
        assert other.catalogue().statistics().threads == 1
    assert {path.stat().st_ino for path in caches.glob("threadfs/*/catalogue.sqlite")} == inodes


def test_a_hit_that_no_log_has_is_not_shown_whatever_the_catalogue_says(plain: Plain) -> None:
    thread(plain, title="Bees")
    plain.say("thread_1", "honey")
    catalogue = plain.store.catalogue()
    assert isinstance(catalogue, DiskCatalogue)
    assert len(catalogue.search(parsed("honey", NOW_S)).hits) == 1
    catalogue.known.use(
        lambda tables: tables.connection.execute(
            "INSERT INTO words (rowid, text) SELECT number, 'wasps' FROM texts WHERE kind = 0"
        )
    )
    assert catalogue.search(parsed("wasps", NOW_S)).hits == []


def test_who_changes_the_store_does_not_wait_for_its_catalogue(plain: Plain) -> None:
    thread(plain)
    catalogue = plain.store.catalogue()
    assert isinstance(catalogue, DiskCatalogue)
    is_asked, ends = threading.Event(), threading.Event()

    def work(_: Tables) -> None:
        is_asked.set()
        ends.wait()

    def ask() -> None:
        catalogue.known.use(work)

    asking = threading.Thread(target=ask)
    asking.start()
    is_asked.wait()
    plain.say("thread_1", "honey")  # Returns.
    ends.set()
    asking.join()
    assert len(catalogue.search(parsed("honey", NOW_S)).hits) == 1


def test_who_closes_the_store_does_not_wait_for_its_catalogue(plain: Plain) -> None:
    catalogue = plain.store.catalogue()
    assert isinstance(catalogue, DiskCatalogue)
    is_asked, ends = threading.Event(), threading.Event()

    def work(_: Tables) -> None:
        is_asked.set()
        ends.wait()

    asking = threading.Thread(target=catalogue.known.use, args=(work,))
    asking.start()
    is_asked.wait()
    plain.store.close()  # Returns.
    ends.set()
    asking.join()


def test_a_catalogue_that_was_closed_opens_nothing_again(plain: Plain, caches: Path) -> None:
    catalogue = plain.store.catalogue()
    catalogue.titles()
    assert any(file.startswith(f"{caches}/") for file in open_files())
    plain.store.close()
    with pytest.raises(StorageFailed):
        catalogue.titles()
    assert not any(file.startswith(f"{caches}/") for file in open_files())


def test_lists_do_not_wait_until_all_words_are_taken_over(
    plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.disk.cataloguing._TOGETHER", 1)
    for number in range(5):
        thread(plain, f"thread_{number}", title="Bees")
    catalogue = plain.store.catalogue()
    behind: list[int] = []

    def ask_another_thing(done: int, total: int) -> None:
        behind.append(catalogue.statistics().words_behind)
        assert len(catalogue.titles()) == 5

    monkeypatch.setattr("store.disk.signatures._SETTLES_NS", -1)
    catalogue.refresh(words=False)
    catalogue.refresh(words=True, progress=ask_another_thing)
    assert behind[:4] == [4, 3, 2, 1]


def test_a_title_that_several_threads_have_leads_to_none_of_them(plain: Plain) -> None:
    for number in (1, 2):
        thread(plain, f"thread_{number}", title="Bees")
    catalogue = plain.store.catalogue()
    with pytest.raises(Ambiguous) as refused:
        catalogue.thread_called("Bees")
    assert refused.value.names == ["Bees@thread_1", "Bees@thread_2"]
    with pytest.raises(ThreadNotFound):
        catalogue.thread_called("Wasps")


def test_only_the_newest_hits_and_threads_are_given_and_the_others_counted(plain: Plain) -> None:
    for number in range(4):
        plain.store.create_thread(Thread(id=f"thread_{number}", created_at=NOW_S))
        for text in ("bee", "honey bee"):
            plain.say(f"thread_{number}", text)
    found = plain.store.catalogue().search(parsed("bee", NOW_S), 3)
    assert [(hit.thread_id, hit.line) for hit in found.hits] == [
        ("thread_0", 2),
        ("thread_0", 1),
        ("thread_1", 2),
    ]
    assert [link.thread_id for link in found.links] == ["thread_0", "thread_1", "thread_2"]
    assert (found.hits_left_out, found.links_left_out) == (5, 1)


def test_hits_that_are_most_relevant_come_first_when_asked_for(plain: Plain) -> None:
    thread(plain)
    for text in ("bee " + "wasp " * 50, "bee bee", "bee wasp"):
        plain.say("thread_1", text)
    query = parsed("bee", NOW_S)
    assert [hit.line for hit in plain.store.catalogue().search(query, by_relevance=True).hits][-1] == 1
    assert [hit.line for hit in plain.store.catalogue().search(query).hits] == [3, 2, 1]


def test_a_catalogue_that_is_made_anew_says_the_same_and_tells_how_far_it_is(plain: Plain) -> None:
    changes = Changes(plain, 2)
    for _ in range(20):
        changes.one()
    catalogue = plain.store.catalogue()
    check(plain, catalogue)
    catalogue.rebuild()
    told: list[tuple[int, int]] = []
    catalogue.refresh(words=True, progress=lambda done, total: told.append((done, total)))
    number = len(plain.store.list_thread_ids())
    assert told[0][1] == number
    assert told[-1][0] == told[-1][1]
    check(plain, catalogue)


def test_the_size_of_a_catalogue_and_the_threads_without_their_words_are_told(
    plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.disk.signatures._SETTLES_NS", -1)
    thread(plain)
    plain.say("thread_1", "honey")
    catalogue = plain.store.catalogue()
    catalogue.titles()
    assert catalogue.statistics()[:2] == (1, 1)
    catalogue.search(parsed("honey", NOW_S))
    assert catalogue.statistics()[:2] == (1, 0)
    assert catalogue.statistics().size_bytes > 0


@pytest.mark.parametrize("change", ["in place", "another file", "no file"])
def test_a_link_goes_by_no_log_that_has_changed_since_all_were_compared(
    plain: Plain, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr("store.disk.signatures._SETTLES_NS", -1)
    for number in range(3):
        thread(plain, f"thread_{number}")
        plain.say(f"thread_{number}", "honey")
    catalogue, query = plain.store.catalogue(), parsed("honey", NOW_S)
    assert len(catalogue.search(query, with_hits=False).links) == 3
    # From now on nothing is compared, and nothing is told of this.
    monkeypatch.setattr(known, "_FRESH_S", 3600.0)
    log = plain.root / "thread_1" / "messages.jsonl"
    said = log.read_text().replace("honey", "wasps")
    if change == "another file":
        log.with_name("new").write_text(said)
        log.with_name("new").rename(log)
    elif change == "in place":
        log.write_text(said)
    else:
        log.unlink()
    found = catalogue.search(query, with_hits=False)
    assert sorted(link.thread_id for link in found.links) == ["thread_0", "thread_2"]
    assert found.links_left_out == 0


def test_a_run_has_the_status_that_it_was_just_given(plain: Plain) -> None:
    thread(plain, title="Bees")
    run_id = plain.store.create_run("thread_1", Run(model="m")).id
    catalogue = plain.store.catalogue()
    assert [(one.run_id, one.status, one.model) for one in catalogue.runs()] == [(run_id, "queued", "m")]
    plain.store.force_update_run_status("thread_1", run_id, RunStatus.failed)
    assert [(one.run_id, one.name, one.status) for one in catalogue.threads()] == [(None, "Bees", "failed")]


@contextmanager
def looked_into(caches: Path) -> Iterator[Callable[[], tuple[set[str], int]]]:
    """What is in the file, without asking the catalogue: all words, and the number of threads."""
    (path,) = caches.glob("threadfs/*/catalogue.sqlite")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE VIRTUAL TABLE temp.seen USING fts5vocab (main, words, row)")

        def look() -> tuple[set[str], int]:
            connection.execute("INSERT INTO words (words) VALUES ('integrity-check')")
            connection.rollback()
            words = {word for (word,) in connection.execute("SELECT term FROM temp.seen")}
            return words, connection.execute("SELECT count(*) FROM threads").fetchone()[0]

        yield look


def test_words_of_a_thread_that_is_deleted_here_are_taken_out_though_nobody_asks(
    plain: Plain, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.disk.cataloguing._LINES_AT_ONCE", 2)
    for thread_id in ("thread_1", "thread_2"):
        thread(plain, thread_id)
    plain.say("thread_1", "honey")
    for word in ("quagga", "dodo", "honey", "moa", "auk"):
        plain.say("thread_2", word)
    plain.store.catalogue().refresh(words=True)
    with looked_into(caches) as look:
        assert look() == ({"honey", "quagga", "dodo", "moa", "auk"}, 2)
        with another_process_writes(caches):
            plain.store.delete_thread("thread_2")  # Returns.
        wait_until(lambda: look() == ({"honey"}, 1))
    check(plain, plain.store.catalogue())


def test_words_of_a_thread_that_is_deleted_last_of_all_are_taken_out(plain: Plain, caches: Path) -> None:
    thread(plain)
    plain.say("thread_1", "quagga")
    plain.store.catalogue().refresh(words=True)
    plain.store.delete_thread("thread_1")
    plain.store.close()
    with looked_into(caches) as look:
        assert look() == (set(), 0)


def test_words_of_a_log_that_was_changed_before_it_was_deleted_spoil_no_others(
    plain: Plain, caches: Path
) -> None:
    for thread_id in ("thread_1", "thread_2"):
        thread(plain, thread_id)
        plain.say(thread_id, "honey")
    plain.store.catalogue().refresh(words=True)
    log = plain.root / "thread_2" / "messages.jsonl"
    log.write_bytes(log.read_bytes().replace(b"honey", b"wasps"))
    plain.store.delete_thread("thread_2")
    with looked_into(caches) as look:
        wait_until(lambda: look() == ({"honey"}, 1))
    check(plain, plain.store.catalogue())


def test_words_of_what_was_deleted_are_gone_from_the_file_when_it_is_a_day_old(
    plain: Plain, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        thread(plain, f"thread_{number}")
        plain.say(f"thread_{number}", "honey")
    plain.say("thread_1", "quagga")
    assert len(plain.store.catalogue().search(parsed("quagga", NOW_S)).hits) == 1
    plain.store.delete_thread("thread_1")
    plain.store.catalogue().titles()
    plain.store.close()
    found = []
    for dead_s in (86400.0, 0.0):
        monkeypatch.setattr(known, "_DEAD_S", dead_s)
        with closing(Plain(plain.root).store) as other:
            assert len(other.catalogue().search(parsed("honey", NOW_S)).hits) == 8
        found.append(any(b"quagga" in path.read_bytes() for path in files(caches)))
    assert found == [True, False]


@pytest.mark.parametrize("keeps_words", [True, False])
def test_a_thread_that_cannot_be_read_is_told_of_and_hides_no_other(
    plain: Plain, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, keeps_words: bool
) -> None:
    def look(root: str, thread_id: str, known: Any, look: Any = signatures.look) -> Any:
        if thread_id == "thread_1":
            raise StorageFailed(errno.EIO, thread_id)
        return look(root, thread_id, known)

    for number in range(3):
        thread(plain, f"thread_{number}", title=f"Bees {number}")
        plain.say(f"thread_{number}", "honey")
    monkeypatch.setattr(signatures, "look", look)
    catalogue = plain.store.catalogue(keeps_words=keeps_words)
    for _ in range(2):
        assert called(catalogue.titles()) == [("Bees 0", "thread_0"), ("Bees 2", "thread_2")]
        hits = catalogue.search(parsed("honey", NOW_S)).hits
        assert sorted(hit.thread_id for hit in hits) == ["thread_0", "thread_2"]
    told = "thread_1: Input/output error: it is left out where things are found"
    assert caplog.messages.count(told) == 1


@pytest.mark.parametrize("keeps_words", [True, False])
def test_what_is_no_file_in_place_of_a_log_hides_no_other_thread_and_no_title(
    plain: Plain, keeps_words: bool
) -> None:
    for number in range(3):
        thread(plain, f"thread_{number}", title=f"Bees {number}")
        plain.say(f"thread_{number}", "honey")
    catalogue = plain.store.catalogue(keeps_words=keeps_words)
    assert len(catalogue.search(parsed("honey", NOW_S)).hits) == 3
    log = plain.root / "thread_1" / "messages.jsonl"
    log.unlink()
    os.mkfifo(log)
    for _ in range(2):
        for found in (catalogue.search(parsed("honey", NOW_S)), catalogue.grep(re.compile("honey"))):
            assert sorted(hit.thread_id for hit in found.hits) == ["thread_0", "thread_2"]
        assert len(catalogue.search(parsed("bees", NOW_S)).hits) == 3


def test_a_thread_that_cannot_be_read_for_a_while_hides_no_other_and_is_there_again(
    plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_away = True

    def look(root: str, thread_id: str, known: Any, look: Any = signatures.look) -> Any:
        if thread_id == "thread_1" and is_away:
            raise StorageFailed(errno.EACCES, thread_id)
        return look(root, thread_id, known)

    for number in range(20):
        thread(plain, f"thread_{number}", title=f"Bees {number}")
    monkeypatch.setattr(signatures, "look", look)
    plain.store.index_runs()
    assert plain.store._followed is not None
    plain.store._followed.catch_up()
    catalogue = plain.store.catalogue()
    for _ in range(3):
        assert len(catalogue.titles()) == 19
        assert catalogue.unread() == {"thread_1"}
    is_away = False
    assert len(catalogue.titles()) == 20
    assert catalogue.unread() == frozenset()


def test_halves_of_pairs_in_a_title_or_model_do_no_harm(plain: Plain) -> None:
    thread(plain)
    directory = plain.root / "thread_1"
    (directory / "meta.json").write_text('{"created_at": 1, "metadata": {"title": "bee \\ud800"}}')
    (directory / "runs" / "run_1").mkdir(parents=True)
    status = '{"created_at": 1, "status": "queued", "model": "\\udc00"}'
    (directory / "runs" / "run_1" / "status.json").write_text(status)
    catalogue = plain.store.catalogue()
    assert called(catalogue.titles()) == [("bee ?", "thread_1")]
    assert [one.model for one in catalogue.runs()] == ["?"]
    assert len(catalogue.search(parsed("bee", NOW_S)).hits) == 1


def test_catalogues_that_nobody_has_opened_for_a_month_go_when_another_is_opened(
    plain: Plain, caches: Path
) -> None:
    with closing(place.open_catalogue(os.fspath(caches), {"path": "/gone"})):
        pass
    (old,) = caches.glob("threadfs/*")
    os.utime(old, (1, 1))
    plain.store.catalogue().titles()
    assert not old.exists()
