"""Words in the database: made in the background, of what anybody appended, and right wherever they stand."""

from __future__ import annotations

import errno
import random
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from store import InvalidDocument, InvalidQuery, Run, RunStatus, StorageFailed, Store, Thread, documents
from store.catalogue import schema as catalogue_tables
from store.catalogue.matching import matches
from store.catalogue.queries import parsed
from store.catalogue.values import Kind, Link
from store.postgres import PostgresStore, lexemes, making, schema, word_hits
from tests.mount.conftest import wait_until
from tests.postgres.cluster import Cluster
from tests.postgres.fixtures import IMPATIENT, OpenStore
from tests.postgres.proxy import Proxy
from tests.store.conftest import make_thread, message

NOW_S = 1_796_000_000
_PLAN = "EXPLAIN SELECT FROM threadfs.words WHERE part = 0 AND words @@ '''w31x1'''::tsquery"


@pytest.fixture(autouse=True)
def never_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers, which else may be a second old."""
    monkeypatch.setattr("store.postgres.known._FRESH_S", 0.0)


def lines_found(store: Store, text: str, *, by_relevance: bool = False) -> list[int]:
    hits = store.catalogue().search(parsed(text, NOW_S), by_relevance=by_relevance).hits
    return sorted(hit.line for hit in hits)


def worded(cluster: Cluster, database: str = "contract") -> list[tuple[object, ...]]:
    """The lines that have words."""
    return cluster.sql("SELECT DISTINCT thread_id, line FROM threadfs.words ORDER BY 1, 2", database=database)


def reads_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, whatever reads a log to look for words fails."""

    def fail(*_: object) -> None:
        raise AssertionError("a log was read")

    monkeypatch.setattr("store.postgres.catalogue.PostgresCatalogue._lines_of", fail)


def test_a_search_has_words_made_in_the_background_and_the_next_ones_read_no_log(
    open_store: OpenStore, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    make_thread(store)
    for text in ("bees", "honey"):
        store.append_message("T", message(text))
    assert worded(cluster) == []
    assert lines_found(store, "honey") == [2]
    wait_until(lambda: worded(cluster) == [("T", 1), ("T", 2)])
    store.catalogue().refresh(words=True)
    reads_nothing(store, monkeypatch)
    assert lines_found(store, "honey") == [2]
    assert lines_found(store, "wasps") == []


def test_what_was_appended_with_sql_is_found_and_gets_words(open_store: OpenStore, cluster: Cluster) -> None:
    store = open_store()
    make_thread(store)
    store.append_message("T", message("bees"))
    store.catalogue().refresh(words=True)
    line = documents.line(message("honey", thread_id="T"))
    cluster.sql(
        "WITH log AS (UPDATE threadfs.threads SET log_bytes = log_bytes + %s RETURNING *)"
        " INSERT INTO threadfs.messages SELECT thread_id, log_id, log_bytes - %s, %s FROM log",
        *(len(line), len(line), line),
        database="contract",
    )
    assert lines_found(store, "honey") == [2]
    store.catalogue().refresh(words=True)
    assert worded(cluster) == [("T", 1), ("T", 2)]


def test_words_go_with_their_thread(open_store: OpenStore, cluster: Cluster) -> None:
    store = open_store()
    make_thread(store)
    store.append_message("T", message("bees"))
    store.catalogue().refresh(words=True)
    store.delete_thread("T")
    assert worded(cluster) == []
    make_thread(store)
    assert lines_found(store, "bees") == []


def test_words_that_are_of_no_log_any_more_are_made_anew(open_store: OpenStore, cluster: Cluster) -> None:
    store = open_store()
    make_thread(store)
    for text in ("bees", "honey"):
        store.append_message("T", message(text))
    store.catalogue().refresh(words=True)
    cluster.sql(
        "WITH log AS (UPDATE threadfs.threads SET log_bytes = 0 RETURNING *)"
        " DELETE FROM threadfs.messages USING log WHERE messages.log_id = log.log_id",
        database="contract",
    )
    assert lines_found(store, "bees") == []
    store.append_message("T", message("wasps"))
    store.catalogue().refresh(words=True)
    assert worded(cluster) == [("T", 1)]
    assert (lines_found(store, "wasps"), lines_found(store, "bees")) == ([1], [])


def test_a_rebuild_makes_the_words_anew(open_store: OpenStore, cluster: Cluster) -> None:
    store = open_store()
    make_thread(store)
    store.append_message("T", message("bees"))
    store.catalogue().refresh(words=True)
    cluster.sql("UPDATE threadfs.words SET words = '''wasps'':1'", database="contract")
    assert lines_found(store, "bees") == []
    store.catalogue().rebuild()
    store.catalogue().refresh(words=True)
    assert lines_found(store, "bees") == [1]


def test_a_hit_that_no_log_has_is_not_shown_whatever_the_words_say(
    open_store: OpenStore, cluster: Cluster
) -> None:
    store = open_store()
    make_thread(store)
    store.append_message("T", message("bees"))
    store.catalogue().refresh(words=True)
    cluster.sql("UPDATE threadfs.words SET words = '''wasps'':1'", database="contract")
    results = store.catalogue().search(parsed("wasps", NOW_S))
    assert (results.hits, results.hits_left_out, results.links_left_out) == ([], 0, 0)


def test_without_words_none_are_made_and_none_looked_at(open_store: OpenStore, cluster: Cluster) -> None:
    store, other = open_store(), open_store()
    make_thread(store)
    store.append_message("T", message("bees"))
    without = store.catalogue(keeps_words=False)
    without.refresh(words=True)
    assert lines_found(store, "bees") == [1]
    assert worded(cluster) == []
    other.catalogue().refresh(words=True)
    cluster.sql("UPDATE threadfs.words SET words = '''wasps'':1'", database="contract")
    assert (lines_found(store, "bees"), lines_found(store, "wasps")) == ([1], [])


def test_a_python_without_full_text_search_reads_all_messages(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = catalogue_tables.create

    def create(connection: sqlite3.Connection, *given: Any, with_words: bool = True) -> None:
        if with_words:
            raise sqlite3.OperationalError("no such module: fts5")
        make(connection, *given, with_words=with_words)

    monkeypatch.setattr(catalogue_tables, "create", create)
    store = open_store()
    make_thread(store)
    store.append_message("T", message("bees"))
    store.catalogue().refresh(words=True)
    assert (lines_found(store, "bees"), lines_found(store, "wasps")) == ([1], [])


def test_only_one_program_makes_words_at_a_time(open_store: OpenStore, cluster: Cluster, url: str) -> None:
    store = open_store()
    make_thread(store)
    store.append_message("T", message("bees"))
    with psycopg.connect(url) as another:
        another.execute("SELECT pg_advisory_lock(%s)", [making.LOCK])
        store.catalogue().rebuild()
        store.catalogue().refresh(words=True)
        assert worded(cluster) == []
        assert lines_found(store, "bees") == [1]
        another.execute("SELECT pg_advisory_unlock(%s)", [making.LOCK])
        store.catalogue().refresh(words=True)
        assert worded(cluster) == [("T", 1)]


def test_more_hits_than_are_counted_are_said_to_be_more_and_the_newest_are_given(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.catalogue.searching.RANKED", 4)
    store = open_store()
    make_thread(store)
    for number in range(7):
        store.append_message("T", message("bees", created_at=NOW_S + number % 4))
    store.catalogue().refresh(words=True)
    found = store.catalogue().search(parsed("bees", NOW_S), 2)
    assert [hit.line for hit in found.hits] == [4, 7]
    assert found.is_bounded
    assert found.hits_left_out == 3
    assert not store.catalogue().search(parsed("bees on:2026-11-29 -bees", NOW_S), 2).is_bounded


def test_no_older_message_is_looked_at_where_the_recent_ones_have_as_many_hits_as_are_shown(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.catalogue.searching.RANKED", 8)
    monkeypatch.setattr("store.catalogue.searching.LOOKED_AT", 6)
    store = open_store()
    make_thread(store)
    for number in range(20):
        text = f"bees {'wax' if number in (1, 3, 12) else 'and honey'}"
        store.append_message("T", message(text, created_at=NOW_S + number))
    store.catalogue().refresh(words=True)

    def found(text: str, limit: int) -> tuple[list[int], int, bool]:
        results = store.catalogue().search(parsed(text, NOW_S), limit, with_links=False)
        return [hit.line for hit in results.hits], results.hits_left_out, results.is_bounded

    assert found("bees", 2) == ([20, 19], 4, True)
    # The recent ones have six hits: for a seventh older ones are looked at.
    assert found("bees", 6) == ([20, 19, 18, 17, 16, 15], 3, True)
    assert found("wax", 2) == ([13, 4], 1, False)
    monkeypatch.setattr("store.catalogue.searching.RANKED", 1)
    assert found("wax", 1) == ([13], 1, True)
    assert found("wax", 3) == ([13, 4, 2], 0, False)
    assert found("bees before:2026-11-29", 2) == ([], 0, False)


def test_older_messages_are_looked_at_until_there_are_as_many_links_as_may_be(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.catalogue.searching.RANKED", 20)
    monkeypatch.setattr("store.catalogue.searching.LOOKED_AT", 6)
    store = open_store()
    for number in range(12):
        store.create_thread(Thread(id=f"T{number}"))
        for second, text in enumerate(("bees", "bees", "bees and wax")):
            store.append_message(f"T{number}", message(text, created_at=NOW_S + 3 * number + second))
    store.catalogue().refresh(words=True)

    def found(text: str, limit: int) -> tuple[int, int, int, bool]:
        results = store.catalogue().search(parsed(text, NOW_S), limit)
        links = [link.thread_id for link in results.links]
        assert links == [f"T{number}" for number in range(11, 11 - len(links), -1)]
        return len(links), results.hits_left_out, results.links_left_out, results.is_bounded

    # Of six messages; of as many as should have enough, 15 and 18; and of twenty hits, and one more.
    assert found("bees", 2) == (2, 4, 0, True)
    assert found("bees", 4) == (4, 11, 1, True)
    assert found("bees", 5) == (5, 13, 1, True)
    assert found("bees", 7) == (7, 14, 0, True)
    assert found("bees", 12) == (7, 9, 0, True)
    assert found("wax", 11) == (11, 1, 1, False)


def test_hits_that_are_most_relevant_come_first_when_asked_for(open_store: OpenStore) -> None:
    store = open_store()
    make_thread(store)
    for text in ("bees bees bees", "bees and much that is about something else altogether"):
        store.append_message("T", message(text))
    store.catalogue().refresh(words=True)
    hits = store.catalogue().search(parsed("bees", NOW_S), by_relevance=True).hits
    assert [hit.line for hit in hits] == [1, 2]


# ── Long messages, and long words ───────────────────────────────────────────────────────────────────────


def long_texts() -> dict[str, str]:
    """Of several parts, because of the number of their words, and because of how often one is there."""
    chosen = random.Random(3)
    numbers = [f"w{number}" for number in range(lexemes.PART_WORDS * 2)]
    row = " ".join(numbers[lexemes.PART_WORDS - 30 : lexemes.PART_WORDS + 30])
    often = " ".join(chosen.choice(["ha", "hi", "ho"]) for _ in range(2500))
    return {
        f"{' '.join(numbers)}": f'"{row}"',
        f"{often} ha ho end": '"ha ho end"',
        "begin " + "la " * 1000 + "end": "begin end",
        "的" * 700 + "是不了人我": "的是不了人我",
    }


def test_words_are_found_wherever_they_stand_in_a_long_message(
    open_store: OpenStore, cluster: Cluster
) -> None:
    store = open_store()
    make_thread(store)
    texts = long_texts()
    for text in texts:
        store.append_message("T", message(text, created_at=NOW_S))
    store.catalogue().refresh(words=True)
    assert cluster.sql("SELECT min(part) FROM threadfs.words", database="contract") == [(1,)]
    others = ["w1 w9999", "w1 -w9999", '"w9998 w9999"', '"ha ha ho hi"', "begin", '"begin end"', "la -end"]
    others += ["role:user -begin", "w999*", "的的的", "ha -hi"]
    for text in (*texts.values(), *others):
        query = parsed(text, NOW_S)
        plain = [number for number, said in enumerate(texts, 1) if matches(query, Kind.USER, NOW_S, said)]
        assert lines_found(store, text) == lines_found(store, text, by_relevance=True) == plain, text
    assert store.catalogue().search(parsed("thread:T -w9998", NOW_S)).links == []
    assert store.catalogue().search(parsed("thread:T -w99999", NOW_S)).links != []


def test_words_are_never_cut_so_that_others_are_taken_for_them(
    open_store: OpenStore, cluster: Cluster
) -> None:
    store = open_store()
    make_thread(store)
    word = "a" * 50
    # Of five bytes in UTF-8 each, with what is added, and no two the same: as much as a part can have.
    widest = [f"{'𖼀' * 36}{chr(0x16F00 + n // 60 % 60)}{chr(0x16F00 + n % 60)}{n:04}" for n in range(5000)]
    for text in (f"{word}b", f"{word}c", word[:40], " ".join(widest)):
        store.append_message("T", message(text))
    store.catalogue().refresh(words=True)
    assert [line for _, line in worded(cluster)] == [1, 2, 3, 4]
    assert [lines_found(store, text) for text in (f"{word}b", word, word[:40])] == [[1], [], [3]]
    assert store.catalogue().search(parsed(widest[-1], NOW_S), with_hits=False).links != []
    assert [lines_found(store, text) for text in ("aaa*", f"{word[:40]}*", f"{word}*")] == [
        [1, 2, 3],
        [1, 2, 3],
        [1, 2],
    ]


def test_more_words_in_a_row_than_the_parts_of_a_message_overlap_are_found(open_store: OpenStore) -> None:
    store = open_store()
    make_thread(store)
    row = " ".join(f"w{number}" for number in range(lexemes.OVERLAP + 20))
    store.append_message("T", message(f"x {row} y"))
    store.catalogue().refresh(words=True)
    assert (lines_found(store, f'"{row}"'), lines_found(store, f'"{row} x"')) == ([1], [])


ODD_TEXTS = (
    "it's O\\'Brien\\\\'s \\path\\to bee:* 100%",
    "nul\0nul \0",
    "x" * 3000 + " " + "é" * 3000 + " end",
    "':1A \\':2B '' <-> & | ! ( )",
    "\u202e\u200bhid\u00adden \ufeff",
)


def test_whatever_is_said_and_asked_for_is_found_as_a_plain_reading_finds_it(open_store: OpenStore) -> None:
    store = open_store()
    make_thread(store)
    for text in ODD_TEXTS:
        store.append_message("T", message(text, created_at=NOW_S))
    # Half of a character, which no text can have, makes no message.
    half = (
        rb'{"id":"m","created_at":1,"role":"user","content":[{"type":"text","text":{"value":"\ud800 end"}}]}'
    )
    with suppress(InvalidDocument):
        store.append_lines("T", [half + b"\n"])
    questions = [
        "it's",
        "o'brien",
        "'",
        "\\path\\to",
        "bee:*",
        "bee*",
        "100%",
        "%",
        "nul\0nul",
        "nul",
        "\0 end",
    ]
    questions += [
        "x" * 3000,
        "x" * 40 + "*",
        "é" * 3000,
        "e" * 999 + "*",
        "hidden",
        "':1A",
        "b:2",
        "<-> a",
        "!",
    ]
    for has_words in (False, True):
        if has_words:
            store.catalogue().refresh(words=True)
        for text in questions:
            try:
                query = parsed(text, NOW_S)
            except InvalidQuery:
                continue
            plain = [n for n, said in enumerate(ODD_TEXTS, 1) if matches(query, Kind.USER, NOW_S, said)]
            assert lines_found(store, text) == lines_found(store, text, by_relevance=True) == plain, text


def test_the_longest_message_gets_its_words(open_store: OpenStore) -> None:
    store = open_store()
    make_thread(store)
    longest = " ".join(f"w{number:060}" for number in range((documents.MAX_LINE_BYTES - 1000) // 62))
    store.append_message("T", message(longest))
    store.catalogue().refresh(words=True)
    last = longest.rpartition(" ")[2]
    first = longest.partition(" ")[0]
    for text in (first, last, f"{first} {last}"):
        assert [link.thread_id for link in links(store, text)] == ["T"]
    assert links(store, f"{first} -{last}") == []


def test_who_asks_for_links_alone_is_sent_no_hits(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    make_thread(store)
    store.append_message("T", message("bees"))
    store.append_message("T", message("more bees"))
    store.catalogue().refresh(words=True)
    found: list[word_hits.WordHits] = []
    find = word_hits.find

    def noting(*arguments: Any, **options: Any) -> word_hits.WordHits:
        found.append(find(*arguments, **options))
        return found[-1]

    monkeypatch.setattr(word_hits, "find", noting)
    assert [link.thread_id for link in links(store, "bees")] == ["T"]
    assert [(one.hits, one.messages, one.threads) for one in found] == [([], 2, 1)]


def links(store: Store, text: str) -> list[Link]:
    return store.catalogue().search(parsed(text, NOW_S), with_hits=False).links


# ── Roles, versions, failures ───────────────────────────────────────────────────────────────────────────


def test_the_words_are_looked_for_by_their_index(cluster: Cluster, new_database: str) -> None:
    with PostgresStore(cluster.url(new_database), create=True) as store:
        make_thread(store)
        said = (" ".join(f"w{number * 31 % 997}x{place}" for place in range(40)) for number in range(2000))
        store.append_lines("T", [documents.line(message(text)) for text in said])
        store.catalogue().refresh(words=True)
    cluster.sql("VACUUM ANALYZE threadfs.words", database=new_database)
    assert "words_of_messages" in str(cluster.sql(_PLAN, database=new_database))


@pytest.mark.parametrize("may_read", [False, True])
def test_a_role_that_may_make_no_words_finds_what_is_there(
    open_store: OpenStore, cluster: Cluster, *, may_read: bool
) -> None:
    """One that only reads, and one that got its privileges before there were words."""
    store = open_store()
    make_thread(store)
    store.append_message("T", message("honey bees"))
    store.catalogue().refresh(words=True)
    store.append_message("T", message("honey"))
    cluster.sql("CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA threadfs TO reader", database="contract")
    try:
        cluster.sql("GRANT SELECT ON ALL TABLES IN SCHEMA threadfs TO reader", database="contract")
        if not may_read:
            cluster.sql("REVOKE ALL ON threadfs.words, threadfs.worded_logs FROM reader", database="contract")
        reader = open_store(cluster.url("contract", "reader"))
        reader.catalogue().refresh(words=True)
        assert (lines_found(reader, "honey"), lines_found(reader, "bees")) == ([1, 2], [1])
        assert worded(cluster) == [("T", 1)]
    finally:
        cluster.sql("DROP OWNED BY reader; DROP ROLE reader", database="contract")


def of_the_version_before(url: str, monkeypatch: pytest.MonkeyPatch) -> PostgresStore:
    """A store that is made without the words, as one was that did not know of any."""
    steps = schema.migrations()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "migrations", lambda: [step for step in steps if step[0] < 5])
        return PostgresStore(url, create=True)


def test_a_program_of_the_version_before_goes_on_beside_one_that_brings_the_words(
    cluster: Cluster, new_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = cluster.url(new_database)
    older = of_the_version_before(url, monkeypatch)
    with older:
        make_thread(older)
        older.append_message("T", message("bees"))
        with PostgresStore(url, create=True) as newer:
            newer.catalogue().refresh(words=True)
            older.append_message("T", message("honey"))
            older.create_run("T", Run(id="R"))
            older.update_run_status("T", "R", RunStatus.in_progress)
            assert (lines_found(newer, "bees"), lines_found(newer, "honey")) == ([1], [2])
            newer.catalogue().refresh(words=True)
            older.delete_thread("T", force=True)
            assert lines_found(newer, "bees") == []
        assert worded(cluster, new_database) == []


@pytest.mark.parametrize(("at", "is_done"), [(b"INSERT INTO words", False), (b"COMMIT", True)])
def test_after_an_outage_while_words_are_made_every_answer_is_right(
    open_store: OpenStore, url_through_proxy: str, proxy: Proxy, cluster: Cluster, at: bytes, *, is_done: bool
) -> None:
    store, other = open_store(url_through_proxy, IMPATIENT), open_store()
    make_thread(other)
    for text in ("bees", "honey"):
        other.append_message("T", message(text))
    proxy.cut_at(at, pass_it_on=is_done)
    store.catalogue().refresh(words=True)
    assert proxy.cuts == 1
    assert lines_found(store, "honey") == [2]
    proxy.cut(refuse=True)
    with pytest.raises(StorageFailed):
        lines_found(store, "honey")
    other.append_message("T", message("honey"))
    proxy.go_on()
    wait_until(lambda: found_again(store, "honey") == [2, 3])
    # Once the server has noticed that the session has ended which made words.
    wait_until(lambda: found_again(store, "bees") == [1] and len(worded(cluster)) == 3)
    assert worded(cluster) == [("T", 1), ("T", 2), ("T", 3)]
    assert lines_found(store, "bees") == [1]


def found_again(store: Store, text: str) -> list[int] | None:
    """``None`` while the server is known to be away."""
    try:
        return lines_found(store, text)
    except StorageFailed:
        return None


def test_a_search_that_the_server_lets_wait_too_long_fails_with_the_reason_and_the_next_one_works(
    open_store: OpenStore, url: str
) -> None:
    store = open_store(url, IMPATIENT)
    make_thread(store)
    store.append_message("T", message("bees"))
    store.catalogue().refresh(words=True)
    with psycopg.connect(url) as another:
        another.execute("LOCK threadfs.words")
        with pytest.raises(StorageFailed, match="canceling statement due to statement timeout") as failed:
            lines_found(store, "bees")
        assert failed.value.errno == errno.ETIMEDOUT
        store.append_message("T", message("honey"))
        another.rollback()
    assert (lines_found(store, "bees"), lines_found(store, "honey")) == ([1], [2])


def test_what_a_program_of_the_version_before_does_while_words_are_made_is_found(
    cluster: Cluster, new_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = cluster.url(new_database)
    older = of_the_version_before(url, monkeypatch)

    def change() -> None:
        for number in range(100):
            older.append_message(f"T{number % 10}", message("honey"))
            if number % 10 == 9:
                older.delete_thread("T0", force=True)
                older.import_thread("T0", b'{"created_at":1}', [documents.line(message("honey"))], {})

    with older, PostgresStore(url, create=True) as newer:
        for number in range(10):
            older.import_thread(f"T{number}", b'{"created_at":1}', [documents.line(message("honey"))], {})
        with ThreadPoolExecutor(1) as pool:
            changing = pool.submit(change)
            while not changing.done():
                newer.catalogue().refresh(words=True)
                assert lines_found(newer, "honey").count(1) >= 9
            changing.result()
        said = sum(len(older.list_messages(thread_id)) for thread_id in older.list_thread_ids())
        assert len(lines_found(newer, "honey")) == said == 100
        newer.catalogue().refresh(words=True)
        assert len(lines_found(newer, "honey")) == len(worded(cluster, new_database)) == said
