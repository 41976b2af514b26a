"""A server that is known to be away: calls fail at once, and work soon after it is back."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from store import StorageFailed
from store.postgres import Limits, PostgresStore, outage, watching
from store.postgres.failures import storage_failed, words
from store.postgres.outage import Outage
from tests.mount.conftest import wait_until
from tests.postgres.fixtures import IMPATIENT, OpenStore
from tests.postgres.proxy import Proxy
from tests.store.conftest import THREAD, make_thread, message, texts

# How the server goes away, as those see it who are behind the proxy.
WAYS: dict[str, Callable[[Proxy], None]] = {
    "refused": lambda proxy: proxy.cut(refuse=True),
    "silent": lambda proxy: proxy.pause(),
}
CALLS: dict[str, Callable[[PostgresStore], object]] = {
    "read": lambda store: store.get_thread("T"),
    "list": lambda store: store.list_thread_ids(),
    "write": lambda store: store.append_message("T", message()),
    "ask": lambda store: store.check_appendable("T"),
    "space": lambda store: store.space(),
}


def seconds_to_fail(store: PostgresStore, *calls: Callable[[PostgresStore], object]) -> float:
    started_s = time.monotonic()
    for call in calls:
        with pytest.raises(StorageFailed, match="no connection to the database") as failure:
            call(store)
        assert failure.value.errno == errno.ETIMEDOUT
    return time.monotonic() - started_s


def make_known(store: PostgresStore) -> None:
    """Calls until one has failed, and no call waits for the first looks any more."""
    with pytest.raises(StorageFailed):
        store.get_thread("T")
    with pytest.raises(StorageFailed):
        store.get_thread("T")


@pytest.fixture
def store(open_store: OpenStore, url_through_proxy: str) -> PostgresStore:
    store = open_store(url_through_proxy, IMPATIENT)
    make_thread(store)
    return store


@pytest.mark.parametrize("goes_away", WAYS.values(), ids=WAYS)
def test_while_the_server_is_known_to_be_away_calls_fail_at_once_and_work_soon_after_its_return(
    store: PostgresStore,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    goes_away: Callable[[Proxy], None],
) -> None:
    # Looks are as far apart from the beginning as they get.
    monkeypatch.setattr(outage, "_FIRST_PAUSE_S", outage._LONGEST_PAUSE_S)
    goes_away(proxy)
    make_known(store)
    assert seconds_to_fail(store, *CALLS.values()) < 0.5
    proxy.go_on()
    wait_until(lambda: not store._database.connections.outage.is_known, 2.0)
    for call in CALLS.values():
        call(store)
    assert texts(store) == ["Hello"]


def test_calls_that_wait_when_it_becomes_known_fail_within_a_second(
    open_store: OpenStore, url_through_proxy: str, proxy: Proxy
) -> None:
    store = open_store(url_through_proxy, Limits(retry_s=2.0))
    make_thread(store)
    proxy.cut(refuse=True)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(seconds_to_fail, store, CALLS["read"])
        time.sleep(1.5)
        second = pool.submit(seconds_to_fail, store, CALLS["read"])
        assert 1.5 < first.result() < 3
        assert second.result() < 1.7


def test_a_commit_without_an_answer_is_asked_for_though_the_server_is_known_to_be_away(
    open_store: OpenStore, url_through_proxy: str, proxy: Proxy
) -> None:
    store = open_store(url_through_proxy)
    make_thread(store)
    proxy.cut_at(b"COMMIT", pass_it_on=True, refuse=True)
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(store.append_message, "T", message())
        wait_until(lambda: proxy.cuts == 1)
        connections = store._database.connections
        connections.gave_up(time.monotonic(), psycopg.OperationalError("away"))
        assert connections.outage.is_known
        time.sleep(1)
        assert not written.done()
        proxy.go_on()
        written.result()
    assert texts(store) == ["Hello"]


def test_who_waits_to_listen_again_is_woken_by_the_return(
    store: PostgresStore, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_FIRST_PAUSE_S", 60.0)
    watch = store.watch(lambda change: None)
    assert watch.follow(THREAD)
    proxy.cut(refuse=True)
    make_known(store)
    assert not watch.follow(THREAD)
    proxy.go_on()
    wait_until(lambda: watch.follow(THREAD), 2.0)
    watch.close()


def test_an_outage_is_told_to_the_log_once_and_so_is_its_end(
    store: PostgresStore, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.cut(refuse=True)
    make_known(store)
    proxy.go_on()
    # The end is told a moment after it is known: calls need not wait for the log.
    wait_until(lambda: len(caplog.records) >= 2)
    begun, ended = (record.message for record in caplog.records)
    assert begun.startswith("no connection to the database")
    assert ended.startswith("the database is back")


def test_a_store_that_is_closed_looks_no_longer(store: PostgresStore, proxy: Proxy) -> None:
    proxy.cut(refuse=True)
    make_known(store)
    store.close()
    wait_until(lambda: not any(thread.name == "look" for thread in threading.enumerate()), 2.0)


def away() -> None:
    raise psycopg.OperationalError("away")


def test_a_call_that_gives_up_while_others_are_answered_makes_no_outage() -> None:
    known = Outage(away)
    known.answered()
    assert not known.begin(time.monotonic() - 0.01, "it gave up")
    known.check()


def test_an_answer_at_the_beginning_of_a_call_that_gives_up_does_not_hide_an_outage() -> None:
    known = Outage(away)
    known.answered()
    time.sleep(0.2)
    assert known.begin(time.monotonic() - 0.2, "it gave up")
    known.end()


def test_an_answer_ends_an_outage() -> None:
    known = Outage(away)
    assert known.begin(time.monotonic(), "it gave up")
    known.answered()
    known.check()


SAID = {
    'connection failed: connection to server at "db", port 1 failed: Connection refused\n'
    "\tIs the server running on that host and accepting TCP/IP connections?": (
        'connection to server at "db", port 1 failed: Connection refused.'
        " Is the server running on that host and accepting TCP/IP connections?"
    ),
    "server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally\n"
    "\tbefore or while processing the request.": (
        "server closed the connection unexpectedly."
        " This probably means the server terminated abnormally before or while processing the request."
    ),
    "connection failed: b\nMultiple connection attempts failed. All failures were:\n"
    "- host: 'a', port: '1', hostaddr: '1.1.1.1': connection is bad: a refused\n\tIs it there?\n"
    "- host: 'b', port: '2', hostaddr: '2.2.2.2': connection failed: b refused\nb refused once more": (
        "a refused. Is it there?; b refused; b refused once more"
    ),
    "": "OperationalError",
}


@pytest.mark.parametrize("said", SAID)
def test_what_the_server_says_in_several_lines_is_said_in_one(said: str) -> None:
    assert words(psycopg.OperationalError(said)) == SAID[said]


def test_what_a_server_says_is_not_followed_by_words_that_say_less() -> None:
    failed = storage_failed(psycopg.OperationalError("gone"), is_connecting=True)
    assert str(failed) == "no connection to the database (gone)"
