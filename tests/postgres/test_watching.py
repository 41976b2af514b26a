"""What a watch hears from other hosts, and what it does when it cannot hear."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterator

import pytest

from store import Change, DocumentKey, Part, Run, RunStatus, RunStep, StoreError, Thread
from store.postgres import PostgresStore
from tests.postgres.cluster import Cluster
from tests.postgres.fixtures import OpenStore
from tests.postgres.proxy import Proxy
from tests.store.conftest import META, RUN, THREAD, make_run, make_step, make_thread, message

LISTENER = "SELECT pid FROM pg_stat_activity WHERE datname = 'contract' AND query = 'LISTEN threadfs'"


class Heard:
    """Changes as they come in. The marker is a change that is made after all others."""

    def __init__(self, store: PostgresStore, *followed: DocumentKey) -> None:
        self._changes: queue.Queue[Change] = queue.Queue()
        self.watch = store.watch(self._changes.put)
        for key in (*followed, DocumentKey("marker")):
            assert self.watch.follow(key)

    def until_marker(self, other: PostgresStore) -> list[Change]:
        other.create_thread(Thread(id="marker"))
        heard = []
        while (change := self._changes.get(timeout=5)) != Change(Part.THREADS, "marker"):
            heard.append(change)
        return heard

    def came(self) -> list[Change]:
        """What has come by now."""
        return [self._changes.get_nowait() for _ in range(self._changes.qsize())]

    def wait_for(self, change: Change, timeout_s: float = 5) -> None:
        deadline = time.monotonic() + timeout_s
        while self._changes.get(timeout=max(0.01, deadline - time.monotonic())) != change:
            pass


@pytest.fixture
def listen(open_store: OpenStore) -> Iterator[Callable[..., Heard]]:
    opened: list[Heard] = []

    def listening(store: PostgresStore, *followed: DocumentKey) -> Heard:
        opened.append(Heard(store, *followed))
        return opened[-1]

    yield listening
    for heard in opened:
        heard.watch.close()


Listen = Callable[..., Heard]

# The list of threads.
ALL = DocumentKey("")

# What is done, what is followed, and one change that is heard of it.
HEARD: dict[str, tuple[Callable[[PostgresStore], object], DocumentKey, Change]] = {
    "create_thread": (lambda s: s.create_thread(Thread(id="U")), ALL, Change(Part.THREADS, "U")),
    "import_thread": (lambda s: s.import_thread("U", META, [], {}), ALL, Change(Part.THREADS, "U")),
    "delete_thread": (lambda s: s.delete_thread("T", force=True), ALL, Change(Part.THREADS, "T")),
    "delete, by who follows a run": (
        lambda s: s.delete_thread("T", force=True),
        RUN,
        Change(Part.THREADS, "T"),
    ),
    "patch": (lambda s: s.patch_document(THREAD, {"a": 1}), THREAD, Change(Part.DOCUMENT, "T")),
    "time of a document": (
        lambda s: s.set_document_modified(RUN, 5),
        RUN,
        Change(Part.DOCUMENT, "T", "R", only_times=True),
    ),
    "time of a thread": (lambda s: s.set_thread_modified("T", 5), THREAD, Change(Part.RUNS, "T")),
    "time of a log": (
        lambda s: s.set_log_modified("T", 5),
        THREAD,
        Change(Part.LOG, "T", grew=True, only_times=True),
    ),
    "append": (lambda s: s.append_message("T", message()), THREAD, Change(Part.LOG, "T", grew=True)),
    "create_run": (lambda s: s.create_run("T", Run(id="Q")), THREAD, Change(Part.RUNS, "T", "Q")),
    "delete_run": (lambda s: s.delete_run("T", "R", force=True), THREAD, Change(Part.RUNS, "T", "R")),
    "delete_run, by who follows it": (
        lambda s: s.delete_run("T", "R", force=True),
        RUN,
        Change(Part.RUNS, "T", "R"),
    ),
    "cancel": (lambda s: s.cancel_run("T", "R"), RUN, Change(Part.DOCUMENT, "T", "R")),
    "append_step": (
        lambda s: s.append_step("T", "R", RunStep(id="X")),
        RUN,
        Change(Part.STEPS, "T", "R", "X"),
    ),
    "patch of a step": (
        lambda s: s.patch_document(DocumentKey("T", "R", "S"), {"a": 1}),
        RUN,
        Change(Part.DOCUMENT, "T", "R", "S"),
    ),
}


@pytest.mark.parametrize("what", HEARD)
def test_a_change_on_another_host_is_heard_by_who_follows_it(
    open_store: OpenStore, listen: Listen, what: str
) -> None:
    store, other = open_store(), open_store()
    make_step(store)
    store.append_message("T", message())
    change, followed, expected = HEARD[what]
    heard = listen(store, followed)
    change(other)
    assert expected in heard.until_marker(other)


def test_what_is_not_followed_or_forgotten_is_not_heard(open_store: OpenStore, listen: Listen) -> None:
    store, other = open_store(), open_store()
    make_run(store)
    heard = listen(store, ALL, THREAD)
    heard.watch.forget(THREAD)
    other.append_message("T", message())
    other.create_run("T", Run(id="Q"))
    assert heard.until_marker(other) == []


def test_a_change_that_is_refused_is_not_heard(open_store: OpenStore, listen: Listen) -> None:
    store, other = open_store(), open_store()
    make_run(store, RunStatus.completed)
    heard = listen(store, ALL, THREAD, RUN)
    with pytest.raises(StoreError):
        other.cancel_run("T", "R")
    with pytest.raises(StoreError):
        other.create_thread(Thread(id="T"))
    assert heard.until_marker(other) == []


def test_a_change_is_announced_to_its_own_store_once_and_before_it_is_acknowledged(
    open_store: OpenStore, listen: Listen
) -> None:
    store, other = open_store(), open_store()
    make_thread(store)
    heard = listen(store, THREAD)
    store.append_message("T", message())
    assert heard.came() == [Change(Part.LOG, "T", is_own=True, grew=True)]
    other.append_message("T", message())
    assert heard.until_marker(other) == [Change(Part.LOG, "T", grew=True)]


def test_a_change_with_the_longest_names_fits_a_notification(open_store: OpenStore, listen: Listen) -> None:
    store, other = open_store(), open_store()
    longest = '"\\' * 63 + '"'
    store.create_thread(Thread(id=longest))
    store.create_run(longest, Run(id=longest))
    heard = listen(store, DocumentKey(longest, longest))
    other.append_step(longest, longest, RunStep(id=longest))
    assert Change(Part.STEPS, longest, longest, longest) in heard.until_marker(other)


def test_a_listener_that_was_cut_off_listens_again_and_says_that_it_has_missed_something(
    open_store: OpenStore, listen: Listen, cluster: Cluster
) -> None:
    store, other = open_store(), open_store()
    make_thread(store)
    heard = listen(store, THREAD)
    cluster.sql(f"SELECT pg_terminate_backend(pid) FROM ({LISTENER}) AS listener")
    heard.wait_for(Change(Part.EVERYTHING))
    other.append_message("T", message())
    heard.wait_for(Change(Part.LOG, "T", grew=True))


def test_a_listener_without_a_network_says_that_it_does_not_hear_until_it_does(
    open_store: OpenStore, listen: Listen, url_through_proxy: str, proxy: Proxy
) -> None:
    heard = listen(open_store(url_through_proxy), THREAD)
    proxy.cut(refuse=True)
    deadline = time.monotonic() + 5
    while heard.watch.follow(THREAD):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    proxy.go_on()
    heard.wait_for(Change(Part.EVERYTHING), 10)
    assert heard.watch.follow(THREAD)


def test_a_listener_that_gets_no_connection_at_first_listens_as_soon_as_there_is_one(
    open_store: OpenStore, url_through_proxy: str, proxy: Proxy
) -> None:
    store, other = open_store(url_through_proxy), open_store()
    make_thread(other)
    changes: queue.Queue[Change] = queue.Queue()
    proxy.cut(refuse=True)
    watch = store.watch(changes.put)
    assert not watch.follow(THREAD)
    proxy.go_on()
    assert changes.get(timeout=10) == Change(Part.EVERYTHING)
    assert watch.follow(THREAD)
    other.append_message("T", message())
    assert changes.get(timeout=5) == Change(Part.LOG, "T", grew=True)
    watch.close()


def test_a_paused_network_delivers_what_was_changed_when_it_goes_on(
    open_store: OpenStore, listen: Listen, url_through_proxy: str, proxy: Proxy
) -> None:
    store, other = open_store(url_through_proxy), open_store()
    make_thread(other)
    heard = listen(store, THREAD)
    proxy.pause()
    other.append_message("T", message())
    proxy.go_on()
    heard.wait_for(Change(Part.LOG, "T", grew=True))


def test_a_store_that_is_not_used_sends_no_query(
    open_store: OpenStore, listen: Listen, cluster: Cluster
) -> None:
    store = open_store()
    listen(store, ALL)
    store.list_thread_ids()
    asked = "SELECT pid, query_start FROM pg_stat_activity WHERE datname = 'contract' ORDER BY pid"
    before = cluster.sql(asked)
    time.sleep(1.5)  # There is no event that says that nothing happened.
    assert cluster.sql(asked) == before


def test_a_notification_of_another_program_is_logged_and_ignored(
    open_store: OpenStore, listen: Listen, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    store, other = open_store(), open_store()
    heard = listen(store, ALL)
    with caplog.at_level(logging.WARNING, "threadfs"):
        for payload in ("", "no json", '["s",["NOTHING","T",null,null]]', "[]"):
            cluster.sql("SELECT pg_notify('threadfs', %s)", payload, database="contract")
        assert heard.until_marker(other) == []
    assert len(caplog.records) == 4


def test_closing_a_watch_closes_its_connection(open_store: OpenStore, cluster: Cluster) -> None:
    watch = open_store().watch(lambda change: None)
    assert len(cluster.sql(LISTENER)) == 1
    watch.close()
    deadline = time.monotonic() + 5
    while cluster.sql(LISTENER):
        assert time.monotonic() < deadline
        time.sleep(0.01)
