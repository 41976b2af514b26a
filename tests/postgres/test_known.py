"""What is known of a database is what it says, however it is compared, and wherever it is kept."""

from __future__ import annotations

import random
import resource
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from store import Run, RunStatus, Thread
from store.catalogue.queries import parsed
from store.postgres import PostgresStore, known
from tests.mount.conftest import wait_until
from tests.postgres.cluster import Cluster
from tests.postgres.fixtures import OpenStore
from tests.store.conftest import make_thread, message


@pytest.fixture(autouse=True)
def never_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody reports, which else may be a second old."""
    monkeypatch.setattr(known, "_FRESH_S", 0.0)


def listed(store: PostgresStore) -> list[tuple[str, str]]:
    """(thread, status of its newest run) of all threads."""
    return sorted((one.thread_id, one.status) for one in store.catalogue().threads())


def compares_nothing(monkeypatch: pytest.MonkeyPatch, store: PostgresStore) -> None:
    """From now on, whatever compares all threads of this store fails."""
    take_over_all = known.Known._take_over_all

    def fail(one: known.Known, *given: Any) -> None:
        assert one._store is not store, "all threads were compared"
        take_over_all(one, *given)

    monkeypatch.setattr(known.Known, "_take_over_all", fail)


def test_while_all_changes_are_heard_of_only_what_is_told_of_is_compared(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = open_store(), open_store()
    make_thread(other)
    with closing(store.watch(lambda _: None)):
        assert listed(store) == [("T", "")]
        compares_nothing(monkeypatch, store)
        other.create_thread(Thread(id="U"))
        other.create_run("T", Run(id="R"))
        wait_until(lambda: listed(store) == [("T", "queued"), ("U", "")])
        other.update_run_status("T", "R", RunStatus.in_progress)
        other.delete_thread("U")
        wait_until(lambda: listed(store) == [("T", "in_progress")])
    with pytest.raises(AssertionError):  # Nobody listens any more.
        listed(store)


def test_that_others_have_made_words_is_noticed_though_nobody_tells_of_it(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = open_store(), open_store()
    make_thread(other)
    other.append_message("T", message("honey"))
    # This one makes none itself.
    monkeypatch.setattr("store.postgres.filling.Filling.start", lambda _: None)
    with closing(store.watch(lambda _: None)):
        honey = parsed("honey", 1)
        assert len(store.catalogue().search(honey).hits) == 1
        assert store.catalogue().statistics().words_behind == 1
        compares_nothing(monkeypatch, store)
        other.catalogue().refresh(words=True)
        assert len(store.catalogue().search(honey).hits) == 1
        assert store.catalogue().statistics().words_behind == 0


def test_changes_made_with_sql_which_nobody_tells_of_are_found_later(
    open_store: OpenStore, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    make_thread(store)
    with closing(store.watch(lambda _: None)):
        assert listed(store) == [("T", "")]
        cluster.sql("DELETE FROM threadfs.threads", database="contract")
        assert listed(store) == [("T", "")]
        monkeypatch.setattr(known, "_SELDOM_S", 0.0)
        assert listed(store) == []


def test_what_was_changed_while_there_was_no_connection_to_listen_on_is_compared(
    open_store: OpenStore, cluster: Cluster
) -> None:
    store = open_store()
    make_thread(store)
    with closing(store.watch(lambda _: None)):
        assert listed(store) == [("T", "")]
        cluster.sql(
            "DELETE FROM threadfs.threads;"
            " SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%%'",
            database="contract",
        )
        wait_until(lambda: listed(store) == [])


def test_threads_that_come_change_and_go_are_known_whatever_the_pages(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "_PAGE_THREADS", 4)
    store, other = open_store(), open_store()
    chosen = random.Random(7)
    there: dict[str, str] = {}
    for _ in range(60):
        thread_id = chosen.choice("aäbcdeéfghijzß")
        if thread_id not in there:
            other.create_thread(Thread(id=thread_id))
            there[thread_id] = ""
        elif chosen.random() < 0.5:
            other.delete_thread(thread_id, force=True)
            del there[thread_id]
        elif there[thread_id] == "":
            other.create_run(thread_id, Run(id="R"))
            there[thread_id] = "queued"
        else:
            other.delete_run(thread_id, "R", force=True)
            there[thread_id] = ""
        assert listed(store) == sorted(there.items())


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process can grow beyond 256 KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_where_a_temporary_file_finds_no_room_memory_is_used(
    open_store: OpenStore, small_files: None, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store()
    names = [f"T{number:03}" for number in range(300)]
    for name in names:
        title = f'{{"created_at":1,"metadata":{{"title":"{name} {"la" * 10_000}"}}}}'
        store.import_thread(name, title.encode(), [], {})
    assert [name for name, _ in listed(store)] == names
    assert "the catalogue is kept in memory: disk I/O error" in caplog.text
