"""What becomes of calls when the server or the network fails: bounded waits, a reason, nothing done twice."""

from __future__ import annotations

import errno
import multiprocessing
import queue
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psycopg
import pytest

from store import (
    AlreadyExists,
    Change,
    DocumentKey,
    NotFound,
    Part,
    Run,
    RunStatus,
    StorageFailed,
    Store,
    Thread,
    documents,
)
from store.postgres import Limits, PostgresStore
from tests.mount.conftest import wait_until
from tests.postgres.cluster import Cluster, private_cluster, standby_of
from tests.postgres.fixtures import IMPATIENT, Emptying, OpenStore
from tests.postgres.proxy import Proxy
from tests.store.conftest import THREAD, make_run, make_thread, message, texts

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'contract' AND wait_event_type = 'Lock'"
OPEN = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'contract'"
KILL_ALL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'contract'"


def answers(store: PostgresStore) -> bool:
    """Calls of a store that knows of an outage fail until it has noticed the return."""
    try:
        store.get_thread("T")
    except StorageFailed:
        return False
    return True


def fails_with(number: int, reason: str, call: Callable[[], object]) -> float:
    """How long the call took to fail."""
    started = time.monotonic()
    with pytest.raises(StorageFailed, match=reason) as failure:
        call()
    assert failure.value.errno == number
    return time.monotonic() - started


def test_a_read_and_a_write_after_the_connections_were_killed_succeed(
    open_store: OpenStore, cluster: Cluster
) -> None:
    store = open_store()
    make_thread(store)
    cluster.sql(KILL_ALL)
    assert store.list_thread_ids() == ["T"]
    cluster.sql(KILL_ALL)
    store.append_message("T", message())
    assert texts(store) == ["Hello"]


def test_many_connections_that_were_killed_are_replaced_at_once(
    open_store: OpenStore, cluster: Cluster
) -> None:
    store = open_store()
    make_thread(store)
    for _ in range(3):
        together = threading.Barrier(6)
        failed: list[Exception] = []

        def work(barrier: threading.Barrier = together, failed: list[Exception] = failed) -> None:
            try:
                barrier.wait()
                store.append_message("T", message())
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        cluster.sql(KILL_ALL)
    assert len(texts(store)) == 18


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["restart", "crash"])
def test_calls_during_a_restart_of_the_server_wait_for_it_and_succeed(how: signal.Signals) -> None:
    with private_cluster() as cluster, PostgresStore(cluster.url("postgres"), create=True) as store:
        make_thread(store)
        cluster.stop(how)
        restart = threading.Timer(1.0, cluster.start)
        restart.start()
        store.append_message("T", message("after"))
        restart.join()
        assert texts(store) == ["after"]


def test_a_server_that_is_gone_fails_calls_in_time_with_the_reason() -> None:
    with (
        private_cluster() as cluster,
        PostgresStore(cluster.url("postgres"), create=True, limits=IMPATIENT) as store,
    ):
        make_thread(store)
        cluster.stop()
        assert fails_with(errno.ETIMEDOUT, "refused", lambda: store.get_thread("T")) < 4
        assert fails_with(errno.ETIMEDOUT, "refused", lambda: store.append_message("T", message())) < 4
        cluster.start()
        wait_until(lambda: answers(store), 2.0)


def test_a_call_that_waits_already_succeeds_soon_after_the_server_is_back(
    open_store: OpenStore, url_through_proxy: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.postgres.outage._FIRST_LOOKS_S", 30.0)  # However busy the machine is.
    store = open_store(url_through_proxy, Limits(retry_s=2.0))
    make_thread(store)
    proxy.cut(refuse=True)

    def are_waiting(calls: int) -> bool:
        pool = store._database.connections._pool
        return pool is not None and pool.get_stats()["requests_waiting"] == calls

    with ThreadPoolExecutor(2) as executor:
        first = executor.submit(store.get_thread, "T")
        wait_until(lambda: are_waiting(1))
        store._database._limits = Limits(retry_s=60.0)
        second = executor.submit(store.get_thread, "T")
        wait_until(lambda: are_waiting(2))
        fails_with(errno.ETIMEDOUT, "no connection", first.result)
        time.sleep(0.3)  # What was begun for the first one is over, too.
        proxy.go_on()
        assert second.result().id == "T"


def test_who_waits_for_a_connection_gets_it_before_those_who_came_later(
    open_store: OpenStore, cluster: Cluster, url: str
) -> None:
    store = open_store(limits=Limits(connections=1))
    make_thread(store)
    done: list[int] = []

    def work(number: int) -> None:
        store.log_info("T")
        done.append(number)

    until_s = time.monotonic() + 10
    with ThreadPoolExecutor(4) as pool, store._database.connections.session(until_s):
        for number in range(4):
            pool.submit(work, number)
            time.sleep(0.4)  # More than a second for the first ones.
    assert done == [0, 1, 2, 3]


def test_connections_that_are_not_used_are_closed(
    open_store: OpenStore, cluster: Cluster, emptying: Emptying, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.postgres.connections._IDLE_S", 1.0)
    store = open_store()
    emptying.disconnect()
    until_s = time.monotonic() + 5
    connections = store._database.connections
    with connections.session(until_s), connections.session(until_s), connections.session(until_s):
        wait_until(lambda: cluster.sql(OPEN) == [(3,)])
    started = time.monotonic()
    wait_until(lambda: cluster.sql(OPEN) == [(0,)])
    assert time.monotonic() - started < 1.5


def test_a_silent_network_fails_calls_in_time_and_they_succeed_when_it_is_back(
    open_store: OpenStore, url_through_proxy: str, proxy: Proxy
) -> None:
    store = open_store(url_through_proxy, IMPATIENT)
    make_thread(store)
    proxy.pause()
    assert fails_with(errno.ETIMEDOUT, "no answer within", lambda: store.get_thread("T")) < 6
    assert fails_with(errno.ETIMEDOUT, "no connection", lambda: store.append_message("T", message())) < 6
    proxy.go_on()
    wait_until(lambda: answers(store))
    assert store.get_thread("T").id == "T"


def test_of_connections_that_the_network_has_swallowed_one_costs_a_wait(
    open_store: OpenStore, url_through_proxy: str, proxy: Proxy
) -> None:
    store = open_store(url_through_proxy, IMPATIENT)
    make_thread(store)
    until_s = time.monotonic() + 5
    connections = store._database.connections
    with connections.session(until_s), connections.session(until_s), connections.session(until_s):
        pass  # There are three of them now.
    proxy.swallow()
    fails_with(errno.ETIMEDOUT, "no answer within", lambda: store.get_thread("T"))
    started = time.monotonic()
    assert store.get_thread("T").id == "T"
    assert time.monotonic() - started < 2


def test_a_cut_network_is_connected_to_again(
    open_store: OpenStore, url_through_proxy: str, proxy: Proxy
) -> None:
    store = open_store(url_through_proxy)
    make_thread(store)
    proxy.cut()
    store.append_message("T", message())
    assert texts(store) == ["Hello"]


# A change, and what shows how often it was applied.
CHANGES: dict[str, tuple[Callable[[Store], object], Callable[[Store], object], object]] = {
    "create_thread": (
        lambda s: s.create_thread(Thread(id="U")),
        lambda s: sorted(s.list_thread_ids()),
        ["T", "U"],
    ),
    "append": (lambda s: s.append_message("T", message()), texts, ["Hello"]),
    "create_run": (
        lambda s: s.create_run("T", Run(id="Q")),
        lambda s: sorted(s.list_run_ids("T")),
        ["Q", "R"],
    ),
    "claim": (
        lambda s: s.update_run_status("T", "R", RunStatus.in_progress, expected=RunStatus.queued),
        lambda s: s.get_run("T", "R").status,
        RunStatus.in_progress,
    ),
    "delete": (lambda s: s.delete_thread("T"), lambda s: s.list_thread_ids(), []),
}


@pytest.mark.parametrize("reached_server", [False, True], ids=["COMMIT lost", "answer lost"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_whose_commit_was_not_answered_succeeds_and_is_applied_once(
    open_store: OpenStore, url_through_proxy: str, proxy: Proxy, change: str, reached_server: bool
) -> None:
    store = open_store(url_through_proxy)
    make_run(store)
    apply, outcome, expected = CHANGES[change]
    proxy.cut_at(b"COMMIT", pass_it_on=reached_server)
    apply(store)
    assert proxy.cuts == 1
    assert outcome(store) == expected


def test_a_change_that_another_program_undid_while_its_answer_was_lost_is_not_repeated(
    open_store: OpenStore, url_through_proxy: str, proxy: Proxy
) -> None:
    store, other = open_store(url_through_proxy), open_store()
    make_run(store)
    # Nobody gets through until the other one is done.
    proxy.cut_at(b"COMMIT", pass_it_on=True, refuse=True)

    def undo() -> None:
        while other.get_run("T", "R").status is not RunStatus.in_progress:
            time.sleep(0.001)
        other.update_run_status("T", "R", RunStatus.queued)
        proxy.go_on()

    undoing = threading.Thread(target=undo)
    undoing.start()
    store.update_run_status("T", "R", RunStatus.in_progress, expected=RunStatus.queued)
    undoing.join()
    assert other.get_run("T", "R").status is RunStatus.queued


def test_a_commit_of_which_nothing_can_be_learned_fails_and_says_so(
    open_store: OpenStore, url_through_proxy: str, proxy: Proxy
) -> None:
    store = open_store(url_through_proxy, IMPATIENT)
    make_thread(store)
    proxy.cut_at(b"COMMIT", pass_it_on=True, refuse=True)
    append = partial(store.append_message, "T", message())
    assert fails_with(errno.ETIMEDOUT, "it is not known whether", append) < 5
    proxy.go_on()
    wait_until(lambda: answers(store))
    assert texts(store) == ["Hello"]


def test_a_row_that_somebody_holds_locked_fails_a_change_in_time(
    open_store: OpenStore, cluster: Cluster, url: str
) -> None:
    store = open_store(limits=IMPATIENT)
    make_thread(store)
    with psycopg.connect(url) as other:
        other.execute("SELECT FROM threadfs.threads FOR UPDATE")
        fails_with(errno.ETIMEDOUT, "statement timeout", lambda: store.append_message("T", message()))
    store.append_message("T", message())
    assert texts(store) == ["Hello"]


def test_a_row_that_is_locked_for_longer_than_one_attempt_waits_is_waited_for(
    open_store: OpenStore, url: str
) -> None:
    store = open_store(limits=Limits(lock_s=0.2))
    make_thread(store)
    with psycopg.connect(url) as other:
        other.execute("SELECT FROM threadfs.threads FOR UPDATE")
        unlock = threading.Timer(0.7, other.rollback)
        unlock.start()
        store.append_message("T", message())
        unlock.join()
    assert texts(store) == ["Hello"]


def test_what_a_host_that_was_cut_off_has_locked_or_waits_for_does_not_fail_others(
    open_store: OpenStore, cluster: Cluster, url: str, url_through_proxy: str, proxy: Proxy
) -> None:
    # As it is by default, five times as fast.
    limits = Limits(answer_s=2.0, idle_s=0.4, lock_s=1.0, retry_s=2.4)
    store, cut_off = open_store(limits=limits), open_store(url_through_proxy, limits)
    make_thread(store)
    waiting = [threading.Thread(target=lambda: cut_off.append_message("T", message())) for _ in range(6)]
    with psycopg.connect(url) as other:
        other.execute("SELECT FROM threadfs.threads FOR UPDATE")
        for thread in waiting:
            thread.start()
        wait_until(lambda: cluster.sql(WAITING) == [(6,)])
        proxy.swallow()
    store.append_message("T", message())
    for thread in waiting:
        thread.join()


def test_too_many_connections_fail_a_call_in_time_with_the_reason(
    open_store: OpenStore, cluster: Cluster, url: str
) -> None:
    cluster.sql("DROP ROLE IF EXISTS few")
    cluster.sql("CREATE ROLE few LOGIN SUPERUSER")
    store = open_store(cluster.url("contract", "few"), IMPATIENT)
    cluster.sql("ALTER ROLE few NOSUPERUSER CONNECTION LIMIT 0")
    cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'few'")
    assert fails_with(errno.ETIMEDOUT, "too many connections", lambda: store.list_thread_ids()) < 4
    cluster.sql("ALTER ROLE few SUPERUSER CONNECTION LIMIT -1")
    wait_until(lambda: not store._database.connections.outage.is_known, 2.0)
    assert store.list_thread_ids() == []


@pytest.fixture
def small_disk(cluster: Cluster) -> Iterator[Path]:
    """Of the server, with the database "small" on it, for which it is just large enough."""
    place, data = cluster.directory / "small", cluster.directory / "data"
    place.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(place)], check=True)
    except subprocess.CalledProcessError:
        pytest.skip("needs root")
    try:
        shutil.chown(place, data.owner(), data.group())
        cluster.sql(f"CREATE TABLESPACE small LOCATION '{place}'")
        cluster.sql("CREATE DATABASE small TABLESPACE small")
        yield place
        cluster.sql("DROP DATABASE small WITH (FORCE)")
        cluster.sql("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_of_the_server_is_reported_and_nothing_is_changed_until_there_is_room(
    cluster: Cluster, small_disk: Path
) -> None:
    with PostgresStore(cluster.url("small"), create=True) as store:
        make_thread(store)
        ballast = small_disk / "ballast"
        ballast.write_bytes(b"x" * 2_000_000)
        # The server compresses what is long and repeats.
        line = documents.line(message(secrets.token_hex(50_000)))

        def fill() -> None:
            while True:
                store.append_lines("T", [line] * 5)

        fails_with(errno.ENOSPC, "No space left", fill)
        stored = len(texts(store))
        assert stored % 5 == 0
        fails_with(errno.ENOSPC, "No space left", fill)
        assert len(texts(store)) == stored
        ballast.unlink()
        store.append_lines("T", [line] * 5)
        assert len(texts(store)) == stored + 5


def test_a_read_only_database_is_read_and_refuses_changes(open_store: OpenStore, url: str) -> None:
    make_thread(open_store())
    store = open_store(f"{url}&options=-cdefault_transaction_read_only%3Don")
    fails_with(errno.EROFS, "read-only", lambda: store.check_appendable("T"))
    fails_with(errno.EROFS, "read-only", lambda: store.append_message("T", message()))
    fails_with(errno.EROFS, "read-only", lambda: store.delete_thread("T"))
    fails_with(errno.EROFS, "read-only", lambda: store.create_thread(Thread()))
    assert store.list_thread_ids() == ["T"]


def test_a_standby_is_read_and_refuses_changes_and_is_listened_to_once_it_is_promoted(
    open_store: OpenStore, cluster: Cluster, url: str
) -> None:
    make_thread(open_store())
    heard: queue.Queue[Change] = queue.Queue()
    with standby_of(cluster) as standby, PostgresStore(standby.url("contract")) as store:
        assert store.get_thread("T").id == "T"
        fails_with(errno.EROFS, "read-only", lambda: store.check_appendable("T"))
        fails_with(errno.EROFS, "read-only", lambda: store.append_message("T", message()))
        watch = store.watch(heard.put)
        assert not watch.follow(THREAD)
        standby.sql("SELECT pg_promote()")
        assert heard.get(timeout=10) == Change(Part.EVERYTHING)
        assert watch.follow(THREAD)
        store.append_message("T", message())
        assert heard.get(timeout=5) == Change(Part.LOG, "T", is_own=True, grew=True)
        watch.close()


def test_a_wrong_password_is_refused_at_once_and_not_repeated(cluster: Cluster, url: str) -> None:
    cluster.sql("DROP ROLE IF EXISTS guarded")
    cluster.sql("CREATE ROLE guarded LOGIN SUPERUSER PASSWORD 'right'")
    wrong = cluster.url("contract", "guarded:wr0ng-secret")
    with pytest.raises(StorageFailed, match="password authentication failed") as failure:
        PostgresStore(wrong)
    assert "wr0ng-secret" not in str(failure.value)
    PostgresStore(cluster.url("contract", "guarded:right")).close()


def test_a_refusal_is_told_as_the_store_tells_it_also_after_a_retry(
    open_store: OpenStore, url_through_proxy: str, proxy: Proxy
) -> None:
    store = open_store(url_through_proxy)
    make_thread(store)
    proxy.cut()
    with pytest.raises(AlreadyExists):
        store.create_thread(Thread(id="T"))
    proxy.cut()
    with pytest.raises(NotFound):
        store.document_info(DocumentKey("T", "R"))


def test_a_forked_child_uses_connections_of_its_own(open_store: OpenStore) -> None:
    store = open_store()
    make_thread(store)
    child = multiprocessing.get_context("fork").Process(
        target=lambda: [store.append_message("T", message()) for _ in range(20)]
    )
    child.start()
    for _ in range(20):
        store.append_message("T", message())
    child.join()
    assert child.exitcode == 0
    assert len(texts(store)) == 40
