"""How much of the tables is read: what is asked for, however large the store is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from store import Run, RunContents, RunStatus, Thread, documents
from store.catalogue import searching
from store.catalogue.queries import parsed
from store.postgres import PostgresStore, word_hits
from store.postgres.word_hits import WordHits
from tests.mount.conftest import wait_until
from tests.postgres.cluster import Cluster
from tests.store.conftest import message

OTHER_RUNS = 3000
FEW = 200
SAID = 3000

# Rows, and entries of indexes, that statements have read of the tables of the store.
_READ = """
    SELECT (SELECT sum(seq_tup_read) + sum(idx_tup_fetch) FROM pg_stat_user_tables)
        + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = 'threadfs')
"""
_OPEN = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'large'"
# How often a table has been read that is read only when a store is opened.
_MARKS = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'migrations'"


@pytest.fixture(scope="module")
def large_url(cluster: Cluster) -> Iterator[str]:
    """Thirty threads with 100 completed runs each; one with two queued runs and a log of 1000 lines.

    One with words that are said later than these, and one with a run that is claimed.
    """
    cluster.sql("CREATE DATABASE large")
    url = cluster.url("large")
    with PostgresStore(url, create=True) as store:
        completed = documents.pretty(Run(status=RunStatus.completed))
        for number in range(30):
            runs = {f"R{number}": RunContents(completed) for number in range(OTHER_RUNS // 30)}
            store.import_thread(f"T{number}", b'{"created_at":1}', [], runs)
        store.create_thread(Thread(id="Q"))
        for run_id in "ab":
            store.create_run("Q", Run(id=run_id))
        store.append_lines("Q", [documents.line(message("x" * 50, created_at=0)) for _ in range(1000)])
        store.create_thread(Thread(id="C"))
        store.create_run("C", Run(id="c"))
        store.create_thread(Thread(id="W"))
        words = enumerate((f"often said {'rare' if n % 150 == 0 else n}" for n in range(1, SAID + 1)), 1)
        store.append_lines("W", [documents.line(message(text, created_at=number)) for number, text in words])
        store.catalogue().refresh(words=True)
    cluster.sql("VACUUM ANALYZE", database="large")
    yield url
    cluster.sql("DROP DATABASE large WITH (FORCE)")


@pytest.fixture
def large(large_url: str) -> Iterator[PostgresStore]:
    with PostgresStore(large_url) as store:
        yield store


CALLS: dict[str, Callable[[PostgresStore], object]] = {
    "queued runs": lambda s: list(s.runs_by_status([RunStatus.queued])),
    "runs of unused statuses": lambda s: list(s.runs_by_status([RunStatus.failed, RunStatus.expired])),
    "stale runs": lambda s: list(s.stale_runs(0)),
    "statuses in use": lambda s: s.statuses_in_use(),
    "a thread": lambda s: s.get_thread("Q"),
    "its runs": lambda s: s.list_run_ids("Q"),
    "its time": lambda s: s.thread_modified_ns("Q"),
    "the end of its log": lambda s: s.open_log("Q").read(s.log_info("Q").size_bytes - 300, 300),
    "a line in its log": lambda s: s.open_log("Q").read(s.log_info("Q").size_bytes // 2, 1),
    "a claim": lambda s: s.update_run_status("C", "c", RunStatus.in_progress, expected=RunStatus.queued),
    "an append": lambda s: s.append_message("Q", message()),
}


def rows_read(store: PostgresStore, cluster: Cluster, call: Callable[[PostgresStore], object]) -> int:
    store.close()
    before = all_rows_read(cluster)
    call(store)
    store.close()
    return all_rows_read(cluster) - before


def all_rows_read(cluster: Cluster) -> int:
    """So far, also by connections that have just been closed: they report it when they end.

    Before version 15 reports arrive some time later, in the order in which they were sent: so a last one is.
    """
    wait_until(lambda: cluster.sql(_OPEN) == [(0,)])
    marks = cluster.sql(_MARKS, database="large")
    cluster.sql("SELECT FROM threadfs.migrations", database="large")
    wait_until(lambda: cluster.sql(_MARKS, database="large") != marks)
    ((rows,),) = cluster.sql(_READ, database="large")
    return int(str(rows))


def test_all_rows_are_counted_when_all_are_asked_for(large: PostgresStore, cluster: Cluster) -> None:
    assert rows_read(large, cluster, lambda s: list(s.runs_by_status())) > OTHER_RUNS


@pytest.mark.parametrize("call", CALLS)
def test_what_is_read_does_not_grow_with_what_is_not_asked_for(
    large: PostgresStore, cluster: Cluster, call: str
) -> None:
    assert rows_read(large, cluster, CALLS[call]) < FEW


def test_the_times_of_many_threads_are_asked_in_one_round_trip(
    large: PostgresStore, asked: list[str]
) -> None:
    times = {thread_id: large.thread_times(thread_id) for thread_id in ("T0", "Q", "W")}
    asked.clear()
    assert large.times_of_threads([*times, "no/name", "\0", "none"]) == times
    assert len(asked) == 1


def test_a_listing_of_many_pages_gives_every_run_once(
    large: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.postgres.runs._PAGE_ROWS", 7)
    listed = [(thread_id, run_id) for thread_id, run_id, _ in large.runs_by_status()]
    assert len(listed) == len(set(listed)) == OTHER_RUNS + 3
    assert len(set(large.runs_by_status([RunStatus.completed]))) == OTHER_RUNS
    claimed, *queued = sorted(large.stale_runs(0))
    assert claimed[:2] == ("C", "c")
    assert queued == [("Q", run_id, RunStatus.queued) for run_id in "ab"]


def found_in(store: PostgresStore, text: str, *, by_relevance: bool = False) -> WordHits:
    query = parsed(text, 0)
    return word_hits.find(
        store._database, query, 10, 1, by_relevance=by_relevance, among=None, but=(), titled=()
    )


@pytest.mark.parametrize("by_relevance", [False, True])
@pytest.mark.parametrize("text", ["often", "of*", "often -rare", '"often said"'])
def test_a_search_for_a_frequent_word_reads_about_as_many_messages_as_are_counted(
    large: PostgresStore, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, text: str, *, by_relevance: bool
) -> None:
    counted = 50
    monkeypatch.setattr(searching, "RANKED", counted)
    monkeypatch.setattr(searching, "LOOKED_AT", 2 * counted)

    def find(store: PostgresStore) -> None:
        found = found_in(store, text, by_relevance=by_relevance)
        assert found.is_bounded
        assert len(found.hits) == 10

    # Each of them, and its entry in the index, once; for a phrase, those of the index until the older ones.
    assert rows_read(large, cluster, find) < 2.5 * counted + (2 * counted if '"' in text else 0)


@pytest.mark.parametrize("text", ["often", "of*", "often -rare", '"often said"', "role:user"])
def test_no_more_messages_are_read_than_are_looked_at_if_enough_of_them_are_hits(
    large: PostgresStore, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    looked_at = 50
    monkeypatch.setattr(searching, "RANKED", 1000)
    monkeypatch.setattr(searching, "LOOKED_AT", looked_at)

    def find(store: PostgresStore) -> None:
        found = found_in(store, text)
        assert found.is_bounded
        assert [hit.line for hit in found.hits] == [
            line for line in range(SAID, 0, -1) if text != "often -rare" or line % 150
        ][:10]
        assert found.messages <= looked_at

    # The entries of the index until the older ones; and each message, with its entry.
    assert rows_read(large, cluster, find) < 3.5 * looked_at


def test_as_many_messages_are_read_as_should_have_enough_hits_where_the_recent_ones_have_not(
    large: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "RANKED", 12)
    monkeypatch.setattr(searching, "LOOKED_AT", 500)
    found = found_in(large, "rare")
    assert [hit.line for hit in found.hits] == [*range(SAID, SAID - 10 * 150, -150)]
    # Of these there are four among 500, and eleven among 1562.
    assert (found.messages, found.is_bounded) == (11, True)


@pytest.mark.parametrize(
    ("said", "counted"), [("", "1.1"), ("ALTER DATABASE large SET random_page_cost = 2", "2")]
)
def test_the_way_by_an_index_costs_as_on_a_disk_that_does_not_turn_if_nobody_has_said_otherwise(
    large_url: str, cluster: Cluster, said: str, counted: str
) -> None:
    cluster.sql(said or "SELECT")
    try:
        with PostgresStore(large_url) as store:
            assert store._database.read("SHOW random_page_cost") == [(counted,)]
    finally:
        cluster.sql("ALTER DATABASE large RESET random_page_cost")
