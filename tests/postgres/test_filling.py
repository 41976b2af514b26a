"""Words are made in the background, by a process of its own where there is much; whatever ends it, what was
done stays, and the next one goes on."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from store import StorageFailed, documents
from store.catalogue.queries import parsed
from store.postgres import PostgresStore, filling
from tests import forking
from tests.mount.conftest import children_of, wait_until
from tests.postgres.cluster import Cluster, private_cluster
from tests.postgres.fixtures import OpenStore
from tests.store.conftest import message

NOW_S = 1_796_000_000
THREADS = 5
# Each has as much as is done in one step.
SAID = [documents.line(message(f"honey {'la ' * 20_000}")) for _ in range(5)]

_WORDED = "SELECT thread_id, lines FROM threadfs.worded_logs ORDER BY 1"
_MADE_BY = "SELECT xmin::text, thread_id, line FROM threadfs.words"
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
_HELD = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"

ALL_WORDED: list[tuple[object, ...]] = [(f"T{number}", len(SAID)) for number in range(THREADS)]


def make_much(store: PostgresStore) -> None:
    for number in range(THREADS):
        store.import_thread(f"T{number}", b'{"created_at":1}', SAID, {})
    assert THREADS * len(b"".join(SAID)) > filling._LITTLE_BYTES


def worded(cluster: Cluster, database: str = "contract") -> list[tuple[object, ...]]:
    """(thread, how many of its lines have words)"""
    return cluster.sql(_WORDED, database=database)


def makers_of(pid: int) -> list[int]:
    """The processes that were started by one to make words, and have not been waited for."""
    return children_of(pid, "store.postgres.making")


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextmanager
def stuck_at_the_last(cluster: Cluster, database: str) -> Iterator[None]:
    """Who makes words has done all threads but the last one, which it waits for. The server may go."""
    with suppress(psycopg.OperationalError), psycopg.connect(cluster.url(database)) as another:
        another.execute("SELECT FROM threadfs.threads WHERE thread_id = %s FOR UPDATE", [ALL_WORDED[-1][0]])
        yield


def wait_until_stuck(cluster: Cluster, database: str) -> None:
    wait_until(lambda: worded(cluster, database) == ALL_WORDED[:-1] and cluster.sql(_WAITING) == [(1,)])


def test_much_is_made_by_a_process_of_its_own_before_anybody_searches(
    open_store: OpenStore, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    make_much(store)

    def make(*_: object, **__: object) -> bool:
        raise AssertionError("it was done here")

    monkeypatch.setattr(filling, "make", make)
    store.catalogue().build_ahead()
    wait_until(lambda: worded(cluster) == ALL_WORDED and not makers_of(os.getpid()))


def test_of_little_no_process_is_started(
    open_store: OpenStore, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store()
    store.import_thread("T", b'{"created_at":1}', [documents.line(message("honey"))], {})
    monkeypatch.setattr(sys, "executable", "/nowhere")
    store.catalogue().build_ahead()
    wait_until(lambda: worded(cluster) == [("T", 1)])
    assert caplog.messages == []


def test_where_no_process_can_be_started_words_are_made_all_the_same(
    open_store: OpenStore, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store()
    make_much(store)
    monkeypatch.setattr(sys, "executable", "/nowhere")
    store.catalogue().build_ahead()
    wait_until(lambda: worded(cluster) == ALL_WORDED)
    (said,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "the process that makes words has ended: " in said.message
    assert "/nowhere" in said.message


def test_a_process_that_is_killed_is_reported_and_what_it_left_is_made_here(
    open_store: OpenStore, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store()
    make_much(store)
    with stuck_at_the_last(cluster, "contract"):
        store.catalogue().build_ahead()
        wait_until_stuck(cluster, "contract")
        before = cluster.sql(_MADE_BY, database="contract")
        (maker,) = makers_of(os.getpid())
        os.kill(maker, signal.SIGKILL)
        wait_until(lambda: "the process that makes words has ended: killed by SIGKILL" in caplog.text)
    # Once the server has noticed that the session has ended which made words.
    wait_until(lambda: cluster.sql(_HELD) == [(0,)])
    store.catalogue().refresh(words=True)
    assert worded(cluster) == ALL_WORDED
    assert {*before} < {*cluster.sql(_MADE_BY, database="contract")}


def test_the_process_ends_when_the_store_is_closed(open_store: OpenStore, cluster: Cluster) -> None:
    store = open_store()
    make_much(store)
    with stuck_at_the_last(cluster, "contract"):
        store.catalogue().build_ahead()
        wait_until_stuck(cluster, "contract")
        (maker,) = makers_of(os.getpid())
        store.close()
        wait_until(lambda: not is_there(maker))


def test_what_a_mount_had_made_when_it_was_killed_stays_and_the_next_one_makes_the_rest(
    open_store: OpenStore, cluster: Cluster, url: str, tmp_path: Path
) -> None:
    store, root, log = open_store(), tmp_path / "mount", tmp_path / "log"
    make_much(store)
    command = ["threadfs.cli", "-f", "--log", str(log), url, str(root)]
    with stuck_at_the_last(cluster, "contract"):
        mount = forking.Process(command)
        try:
            wait_until_stuck(cluster, "contract")
            (maker,) = makers_of(mount.pid)
        finally:
            mount.kill()
        wait_until(lambda: not is_there(maker) and cluster.sql(_HELD) == [(0,)])
        before = cluster.sql(_MADE_BY, database="contract")
        assert before
        assert worded(cluster) == ALL_WORDED[:-1]
    subprocess.run(["fusermount3", "-uzq", str(root)], check=False)
    mount = forking.Process(command)
    try:
        wait_until(lambda: worded(cluster) == ALL_WORDED)
    finally:
        mount.terminate()
        assert mount.wait(20) == 0
    assert {*before} < {*cluster.sql(_MADE_BY, database="contract")}


def test_after_a_crash_of_the_server_the_rest_is_made_by_the_next_search() -> None:
    with private_cluster() as cluster, PostgresStore(cluster.url("postgres"), create=True) as store:
        make_much(store)
        with stuck_at_the_last(cluster, "postgres"):
            store.catalogue().build_ahead()
            wait_until_stuck(cluster, "postgres")
            cluster.stop(signal.SIGQUIT)
        cluster.start()

        def found() -> int | None:
            try:
                return len(store.catalogue().search(parsed("honey", NOW_S)).hits)
            except StorageFailed:  # It is not noticed yet that the server is back.
                return None

        wait_until(lambda: found() is not None and worded(cluster, "postgres") == ALL_WORDED)
        assert found() == THREADS * len(SAID)


def test_two_hosts_that_begin_at_once_make_each_word_once(open_store: OpenStore, cluster: Cluster) -> None:
    stores = [open_store(), open_store()]
    make_much(stores[0])
    for store in stores:
        store.catalogue().build_ahead()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda store: store.catalogue().refresh(words=True), stores))
    wait_until(lambda: worded(cluster) == ALL_WORDED)
    for store in stores:
        assert len(store.catalogue().search(parsed("honey", NOW_S)).hits) == THREADS * len(SAID)


def test_without_words_none_are_made_ahead(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store()
    make_much(store)

    def start(*_: object) -> None:
        raise AssertionError("words are made")

    monkeypatch.setattr(filling.Filling, "start", start)
    store.catalogue(keeps_words=False).build_ahead()
    with pytest.raises(AssertionError):
        open_store().catalogue().build_ahead()
