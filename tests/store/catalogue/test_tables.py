"""Taking over what a store says, and the lists of it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from store.catalogue import schema, searching
from store.catalogue.queries import parsed
from store.catalogue.tables import Busy, Tables
from store.catalogue.values import Kind, MessageText, RunSummary, Signature, ThreadSummary
from store.errors import Ambiguous, ThreadNotFound
from tests.store.catalogue.conftest import DAY_S, IDENTITY, NOW_S, called


def put(catalogue: Tables, thread_id: str, title: str = "", created_at: int = NOW_S) -> None:
    with catalogue.changing():
        catalogue.put_thread(ThreadSummary(thread_id, created_at, 7, title, said_first="Hello bees"))


def say(catalogue: Tables, thread_id: str, *texts: str) -> list[MessageText]:
    messages = [MessageText(line, Kind.USER, NOW_S, text) for line, text in enumerate(texts, 1)]
    with catalogue.changing():
        catalogue.add_messages(thread_id, messages, b"log")
    return messages


def hits(catalogue: Tables, text: str) -> int:
    return len(list(searching.hits(catalogue.connection, parsed(text, NOW_S))))


def test_threads_are_called_by_their_titles_and_told_apart_by_their_ids(catalogue: Tables) -> None:
    for thread_id, title in (("t1", "New chat"), ("t2", "Oslo"), ("t3", "New chat"), ("t4", "")):
        put(catalogue, thread_id, title)
    assert called(catalogue.titles()) == [
        ("Hello bees", "t4"),
        ("New chat@t1", "t1"),
        ("New chat@t3", "t3"),
        ("Oslo", "t2"),
    ]
    assert catalogue.thread_called("Oslo") == catalogue.thread_called("Oslo@t2") == "t2"
    assert catalogue.thread_called("New chat@t3") == "t3"


def test_a_name_that_several_have_leads_to_none_of_them(catalogue: Tables) -> None:
    put(catalogue, "t1", "New chat")
    put(catalogue, "t2", "New chat")
    with pytest.raises(Ambiguous) as refused:
        catalogue.thread_called("New chat")
    assert refused.value.names == ["New chat@t1", "New chat@t2"]
    for name in ("Old chat", "Old chat@t1", "New chat@t3", "", "@", "t1"):
        with pytest.raises(ThreadNotFound):
            catalogue.thread_called(name)


def test_a_title_that_changes_leads_on_and_the_old_one_leads_nowhere(catalogue: Tables) -> None:
    put(catalogue, "t1", "Old wasps")
    say(catalogue, "t1", "one")
    put(catalogue, "t1", "New wasps")
    assert called(catalogue.titles()) == [("New wasps", "t1")]
    assert (hits(catalogue, "old"), hits(catalogue, "new"), hits(catalogue, "one")) == (0, 1, 1)


def test_threads_are_listed_by_the_day_and_told_apart_within_it(catalogue: Tables) -> None:
    day_s = NOW_S // DAY_S * DAY_S
    put(catalogue, "t1", "New chat", day_s)
    put(catalogue, "t2", "New chat", day_s + DAY_S - 1)
    put(catalogue, "t3", "New chat", day_s + DAY_S)
    put(catalogue, "t4", "Before all", -1)
    assert catalogue.days() == [-DAY_S, day_s, day_s + DAY_S]
    assert called(catalogue.created_on(day_s)) == [("New chat@t1", "t1"), ("New chat@t2", "t2")]
    assert called(catalogue.created_on(day_s + DAY_S)) == [("New chat", "t3")]
    assert called(catalogue.created_on(-DAY_S)) == [("Before all", "t4")]


def test_a_name_leads_to_a_thread_of_its_day(catalogue: Tables) -> None:
    day_s = NOW_S // DAY_S * DAY_S
    put(catalogue, "t1", "New chat", day_s)
    put(catalogue, "t2", "New chat", day_s + DAY_S)
    assert catalogue.thread_called("New chat", day_s) == "t1"
    assert catalogue.thread_called("New chat@t2", day_s + DAY_S) == "t2"
    for name in ("New chat@t2", "Oslo"):
        with pytest.raises(ThreadNotFound):
            catalogue.thread_called(name, day_s)


def test_a_thread_has_the_status_of_its_newest_run(catalogue: Tables) -> None:
    put(catalogue, "t1", "Oslo")
    put(catalogue, "t2", "Bees")
    with catalogue.changing():
        catalogue.put_run("t1", RunSummary("r1", "queued", "m", 1, 2))
        catalogue.put_run("t1", RunSummary("r2", "failed", "n", 3, 2))
    listed = {
        one.thread_id: (one.run_id, one.name, one.status, one.model) for one in catalogue.list_threads()
    }
    assert listed == {"t1": (None, "Oslo", "failed", "n"), "t2": (None, "Bees", "", "")}
    assert {(one.run_id, one.status) for one in catalogue.list_runs()} == {("r1", "queued"), ("r2", "failed")}


def test_runs_are_listed_by_their_status_and_go_with_their_thread(catalogue: Tables) -> None:
    put(catalogue, "t1")
    put(catalogue, "t2")
    with catalogue.changing():
        catalogue.put_run("t1", RunSummary("r1", "queued", "m", 1, 2))
        catalogue.put_run("t2", RunSummary("r1", "queued", "m", 1, 2))
        catalogue.put_run("t2", RunSummary("r2", "failed", "m", 1, 2))
        catalogue.put_run("t1", RunSummary("r1", "completed", "m", 1, 3))
    assert {*catalogue.runs(["queued", "failed"])} == {("t2", "r1", "queued"), ("t2", "r2", "failed")}
    assert [*catalogue.runs(["completed"])] == [("t1", "r1", "completed")]
    with catalogue.changing():
        catalogue.remove_run("t2", "r2")
        catalogue.remove_thread("t1")
    assert [*catalogue.runs(["queued", "failed", "completed"])] == [("t2", "r1", "queued")]


def test_the_time_of_a_thread_can_change_alone(catalogue: Tables) -> None:
    put(catalogue, "t1", "Oslo")
    with catalogue.changing():
        catalogue.set_changed("t1", 99)
    assert catalogue.changed_ns("t1") == 99
    with pytest.raises(ThreadNotFound):
        catalogue.changed_ns("t2")


def test_words_of_a_removed_thread_are_gone_and_no_later_text_has_them(catalogue: Tables) -> None:
    put(catalogue, "t1", "Honey")
    say(catalogue, "t1", "bees", "wasps")
    with catalogue.changing():
        catalogue.remove_thread("t1")
    put(catalogue, "t2")
    say(catalogue, "t2", "ants", "flies")
    assert [hits(catalogue, text) for text in ("honey", "bees", "wasps", "ants", "flies")] == [0, 0, 0, 1, 1]
    assert catalogue.counts() == (1, 4, 2)


def test_words_that_are_removed_with_their_texts_leave_nothing_behind(catalogue: Tables) -> None:
    put(catalogue, "t1", "Honey")
    messages = say(catalogue, "t1", "bees", "wasps")
    with catalogue.changing():
        catalogue.remove_thread("t1", messages)
    assert catalogue.counts() == (0, 0, 0)
    catalogue.connection.execute("CREATE VIRTUAL TABLE temp.seen USING fts5vocab (main, words, row)")
    assert catalogue.connection.execute("SELECT term FROM temp.seen").fetchall() == []


def test_texts_that_are_not_those_that_were_added_are_not_taken_for_them(catalogue: Tables) -> None:
    put(catalogue, "t1")
    messages = say(catalogue, "t1", "bees", "wasps")
    with catalogue.changing():
        catalogue.remove_messages("t1", messages[:1])
    assert (hits(catalogue, "bees"), catalogue.counts().texts_dead) == (0, 2)


def test_threads_whose_words_are_not_those_of_their_log_are_known_the_oldest_first(catalogue: Tables) -> None:
    seen, other = Signature(1, 2, 3, 4, is_settled=True), Signature(1, 2, 4, 4, is_settled=True)
    put(catalogue, "t1", created_at=NOW_S)
    put(catalogue, "t2", created_at=NOW_S - 1)
    put(catalogue, "t3", created_at=NOW_S - 2)
    with catalogue.changing():
        for thread_id in ("t1", "t2", "t3"):
            catalogue.put_signatures(thread_id, {"log": seen}, 0, seen)
        catalogue.add_messages("t2", [], b"", other)
        catalogue.add_messages("t3", [], b"", seen)
    assert catalogue.threads_behind() == ["t2", "t1"]
    with catalogue.changing():
        catalogue.add_messages("t1", [], b"", seen)
        catalogue.add_messages("t2", [], b"", seen._replace(is_settled=False))
        catalogue.put_signatures("t3", {"log": other}, 0, other)
    assert catalogue.threads_behind() == ["t3", "t2"]


def test_messages_of_a_thread_that_is_not_there_are_refused_and_nothing_changes(catalogue: Tables) -> None:
    def take_over() -> None:
        with catalogue.changing():
            catalogue.put_thread(ThreadSummary("t1", NOW_S, 0, "Bees"))
            catalogue.add_messages("t2", [], b"")

    with pytest.raises(ThreadNotFound):
        take_over()
    assert called(catalogue.titles()) == []
    assert hits(catalogue, "bees") == 0


def on_disk(path: Path) -> Tables:
    connection = sqlite3.connect(path)
    schema.prepare(connection)
    if schema.is_empty(connection):
        schema.create(connection, IDENTITY)
    return Tables(connection)


def test_one_that_writes_is_not_waited_for_and_readers_see_what_was_before(tmp_path: Path) -> None:
    one, other = on_disk(tmp_path / "c"), on_disk(tmp_path / "c")
    with one.changing():
        one.put_thread(ThreadSummary("t1", NOW_S, 0, "Bees"))
        with pytest.raises(Busy), other.changing():
            pytest.fail("both change it")
        assert called(other.titles()) == []
    assert called(other.titles()) == [("Bees", "t1")]


KILLED = """
import os, sys
from pathlib import Path
from store.catalogue.values import ThreadSummary
from tests.store.catalogue.test_tables import on_disk
catalogue = on_disk(Path(sys.argv[1]))
with catalogue.changing():
    catalogue.put_thread(ThreadSummary("t1", 0, 0, "Bees"))
catalogue.connection.execute("BEGIN IMMEDIATE")
for number in range(2, 2000):
    catalogue.put_thread(ThreadSummary(f"t{number}", 0, 0, "Wasps"))
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_had_not_taken_over_as_a_whole_is_not_there(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "c"], check=False)
    assert killed.returncode == -9
    catalogue = on_disk(tmp_path / "c")
    schema.check(catalogue.connection, IDENTITY, schema.definitions())
    assert called(catalogue.titles()) == [("Bees", "t1")]
    assert (hits(catalogue, "bees"), hits(catalogue, "wasps")) == (1, 0)
