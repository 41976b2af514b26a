"""Queries over the tables find what a plain reading of all texts finds, in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.catalogue import schema, searching
from store.catalogue.folding import words_of
from store.catalogue.matching import matches, matches_thread, snippet
from store.catalogue.queries import Query, Term, parsed
from store.catalogue.tables import Tables
from store.catalogue.values import Hit, Kind, MessageText, RunSummary, ThreadSummary
from store.errors import InvalidQuery
from tests.store.catalogue.conftest import DAY_S, NOW_S, in_memory

# ── A plain reading ─────────────────────────────────────────────────────────────────────────────────────


@dataclass
class PlainThread:
    summary: ThreadSummary
    messages: list[MessageText] = field(default_factory=list)
    runs: dict[str, RunSummary] = field(default_factory=dict)

    @property
    def texts(self) -> list[MessageText]:
        title = self.summary.title
        of_title = MessageText(self.summary.title_line, Kind.TITLE, self.summary.created_at, title)
        return [*self.messages, *([of_title] if title else [])]


def has(words: Sequence[str], term: Term) -> bool:
    """Word by word."""
    for begin in range(len(words) - len(term.words) + 1):
        row = words[begin : begin + len(term.words)]
        if term.is_prefix:
            row = [*row[:-1], row[-1][: len(term.words[-1])]]
        if list(row) == list(term.words):
            return True
    return False


def is_wanted(query: Query, text: MessageText) -> bool:
    words = words_of(text.text)
    return (
        all(has(words, term) for term in query.terms)
        and not any(has(words, term) for term in query.without)
        and all(text.kind is kind for kind in query.kinds)
        and all(text.kind is not kind for kind in query.not_kinds)
        and (query.from_s is None or query.from_s <= text.created_at)
        and (query.until_s is None or text.created_at < query.until_s)
    )


def is_thread_wanted(query: Query, thread: PlainThread) -> bool:
    words, runs = words_of(thread.summary.title), thread.runs.values()
    if query.models or query.statuses:
        wanted = {*query.models}, {*query.statuses}
        if not any(wanted[0] <= {run.model} and wanted[1] <= {run.status} for run in runs):
            return False
    return (
        all(has(words, term) for term in query.titles)
        and not any(has(words, term) for term in query.not_titles)
        and {*query.thread_ids} <= {thread.summary.id}
        and thread.summary.id not in query.not_thread_ids
        and not {run.model for run in runs} & {*query.not_models}
        and not {run.status for run in runs} & {*query.not_statuses}
    )


def plain_hits(threads: Sequence[PlainThread], query: Query) -> list[Hit]:
    found: list[Hit] = []
    for thread in threads:
        if not is_thread_wanted(query, thread):
            continue
        one = thread.summary
        if query.is_about_messages:
            wanted = [text for text in thread.texts if is_wanted(query, text)]
            found += [Hit(one.id, text.kind, text.line, text.created_at) for text in wanted]
        elif not any(has(words_of(text.text), term) for text in thread.texts for term in query.without):
            found.append(Hit(one.id, Kind.TITLE, one.title_line if one.title else 1, one.created_at))
    return sorted(found, key=lambda hit: (-hit.created_at, hit.thread_id, -hit.line))


# ── Random catalogues and queries ───────────────────────────────────────────────────────────────────────

LATIN = "bee Bées honey HONIG straße STRASSE \ufb01ne fine fetch_user src/main.py 12.5 12 5 💛 don't C++"
PIECES = f"{LATIN} 蜜 蜂 蜜蜂 ハチ мёд мед пчёлы دبس دِبس 꿀 꿀벌 กิน กา शहद हिन्दी דְּבַשׁ".split()
PIECE = st.sampled_from(PIECES)
TEXT = st.lists(st.tuples(PIECE, st.sampled_from([" ", " ", "", "-", ", ", "\n"])), max_size=6).map(
    lambda pairs: "".join(piece + blank for piece, blank in pairs)
)
TIME = st.builds(
    lambda day, second: NOW_S - day * DAY_S + second, st.integers(-2, 4), st.sampled_from([0, 1, 50_000])
) | st.sampled_from([-5, 0, 2**63 - 1, -(2**63)])
STATUS = st.sampled_from(["queued", "failed", "completed"])
MODEL = st.sampled_from(["", "llama3", "qwen:7b"])


@st.composite
def plain_threads(draw: st.DrawFn) -> PlainThread:
    """Without an id."""
    summary = ThreadSummary("", draw(TIME), 0, draw(TEXT), draw(st.integers(1, 9)))
    messages = [
        MessageText(line, draw(st.sampled_from([Kind.USER, Kind.ASSISTANT])), draw(TIME), draw(TEXT))
        for line in range(1, draw(st.integers(1, 6)))
    ]
    runs = [RunSummary(f"run_{n}", draw(STATUS), draw(MODEL), 0, 0) for n in range(draw(st.integers(0, 2)))]
    return PlainThread(summary, messages, {run.id: run for run in runs})


WORD = st.one_of(
    PIECE,
    PIECE.map(lambda piece: piece[: max(1, len(piece) // 2)] + "*"),
    st.tuples(PIECE, PIECE).map(lambda two: f'"{two[0]} {two[1]}"'),
)
TERM = st.one_of(
    WORD,
    WORD.map(lambda word: f"-{word}"),
    WORD.map(lambda word: f"title:{word}"),
    WORD.map(lambda word: f"-title:{word}"),
    st.sampled_from(["role:user", "role:assistant", "-role:user", "thread:thread_1", "-thread:thread_0"]),
    st.sampled_from(["model:llama3", "model:qwen:7b", "-model:llama3"]),
    st.sampled_from(["status:failed", "status:queued", "-status:completed"]),
    st.sampled_from(["before:1d", "after:2d", "on:0d", "on:3d", "before:1970-01-01", "after:2026-11-28"]),
)
QUERIES = st.lists(st.lists(TERM, min_size=1, max_size=3).map(" ".join), min_size=3, max_size=12)


def filled(threads: Sequence[PlainThread], catalogue: Tables) -> list[PlainThread]:
    named: list[PlainThread] = []
    with catalogue.changing():
        for number, given_thread in enumerate(threads):
            summary = ThreadSummary(
                f"thread_{number}",
                given_thread.summary.created_at,
                0,
                given_thread.summary.title,
                given_thread.summary.title_line,
            )
            thread = PlainThread(summary, given_thread.messages, given_thread.runs)
            catalogue.put_thread(summary)
            catalogue.add_messages(summary.id, thread.messages[:2], b"first")
            catalogue.add_messages(summary.id, thread.messages[2:], b"log")
            for run in thread.runs.values():
                catalogue.put_run(summary.id, run)
            named.append(thread)
    return named


def compare(catalogue: Tables, threads: Sequence[PlainThread], texts: Sequence[str]) -> None:
    for text in texts:
        try:
            query = parsed(text, NOW_S)
        except InvalidQuery:
            continue
        expected = plain_hits(threads, query)
        assert list(searching.hits(catalogue.connection, query)) == expected, text
        thread_ids = [*dict.fromkeys(hit.thread_id for hit in expected)]
        compare_counted(catalogue, text, expected, thread_ids)
        but = thread_ids[:1]
        others = [hit for hit in expected if hit.thread_id not in but]
        assert list(searching.hits(catalogue.connection, query, but)) == others, text
        for thread in threads:
            wanted = is_thread_wanted(query, thread)
            given_runs = thread.runs.values()
            assert matches_thread(query, thread.summary.id, thread.summary.title, given_runs) == wanted, text
            for one in thread.texts:
                assert matches(query, one.kind, one.created_at, one.text) == is_wanted(query, one), text


def compare_counted(catalogue: Tables, text: str, expected: Sequence[Hit], thread_ids: list[str]) -> None:
    """Also where few messages are many, and few or many links are wanted."""
    query = parsed(text, NOW_S)
    newest = {hit.thread_id: hit.created_at for hit in reversed(expected)}
    for looked_at, most_hits, most_links in product((searching.LOOKED_AT, 3), (0, 2), (0, 1, 2, 3)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(searching, "LOOKED_AT", looked_at)
            found = searching.counted(catalogue.connection, query, most_hits, most_links)
        assert [hit.thread_id for hit in found.newest] == thread_ids[:most_links], text
        assert all(hit.created_at == newest[hit.thread_id] for hit in found.newest), text
        if found.is_bounded:
            assert most_hits < found.hits <= len(expected), text
            assert most_links <= found.threads <= len(thread_ids), text
        else:
            assert (found.hits, found.threads) == (len(expected), len(thread_ids)), text


@settings(max_examples=80, deadline=None)
@given(st.lists(plain_threads(), max_size=4), QUERIES)
def test_a_query_finds_what_a_plain_reading_finds_newest_first(
    threads: list[PlainThread], queries: list[str]
) -> None:
    catalogue = in_memory()
    compare(catalogue, filled(threads, catalogue), queries)
    catalogue.connection.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(plain_threads(), min_size=2, max_size=4), QUERIES, st.data())
def test_after_any_changes_it_finds_what_there_is_and_nothing_that_was(
    threads: list[PlainThread], queries: list[str], data: st.DataObject
) -> None:
    catalogue = in_memory()
    threads = filled(threads, catalogue)
    for _ in range(data.draw(st.integers(1, 6))):
        thread = data.draw(st.sampled_from(threads)) if threads else None
        if thread is None:
            break
        texts = thread.messages if data.draw(st.booleans()) else None
        other = data.draw(plain_threads())
        thread_id = thread.summary.id
        with catalogue.changing():
            match data.draw(st.sampled_from(["thread", "log", "title", "run", "more"])):
                case "thread":
                    catalogue.remove_thread(thread_id, texts)
                    threads.remove(thread)
                case "log":
                    catalogue.remove_messages(thread_id, texts)
                    assert catalogue.log(thread_id) is None
                    catalogue.add_messages(thread_id, other.messages, b"another")
                    thread.messages = other.messages
                case "title":
                    thread.summary = ThreadSummary(
                        thread_id, other.summary.created_at, 1, other.summary.title, other.summary.title_line
                    )
                    catalogue.put_thread(thread.summary)
                case "run":
                    for run_id in thread.runs:
                        catalogue.remove_run(thread_id, run_id)
                    for run in other.runs.values():
                        catalogue.put_run(thread_id, run)
                    thread.runs = other.runs
                case "more":
                    line = len(thread.messages) + 1
                    more = MessageText(line, Kind.USER, other.summary.created_at, other.summary.title)
                    catalogue.add_messages(thread_id, [more], b"longer")
                    thread.messages = [*thread.messages, more]
    compare(catalogue, threads, queries)
    assert catalogue.connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
    catalogue.connection.execute("INSERT INTO words (words) VALUES ('integrity-check')")
    catalogue.connection.close()


def test_a_day_with_more_messages_than_it_has_numbers_goes_on_in_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schema, "_DAY_BITS", 2)
    catalogue = in_memory()
    with catalogue.changing():
        catalogue.put_thread(ThreadSummary("thread_1", NOW_S, 0))
        for line in range(1, 8):
            message = MessageText(line, Kind.USER, NOW_S + line, "bee")
            catalogue.add_messages("thread_1", [message], b"")
    for text in ("bee", "bee on:0d", "bee before:2026-12-01"):
        found = searching.hits(catalogue.connection, parsed(text, NOW_S))
        assert sorted(hit.line for hit in found) == [1, 2, 3, 4, 5, 6, 7], text


def test_hits_are_counted_among_the_newest_messages_if_as_many_and_as_many_links_as_are_wanted_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(searching, "LOOKED_AT", 19)
    catalogue = in_memory()
    with catalogue.changing():
        for day in range(10):
            catalogue.put_thread(ThreadSummary(f"thread_{day}", NOW_S - day * DAY_S, 0))
            texts = [f"bee {'' if n % 2 else 'honey'} {'wax' if day > 5 else ''}" for n in range(4)]
            said = NOW_S - day * DAY_S
            messages = [MessageText(n, Kind.USER, said, text) for n, text in enumerate(texts, 1)]
            catalogue.add_messages(f"thread_{day}", messages, b"")

    def number(text: str, hits: int, links: int) -> tuple[int, int, bool]:
        found = searching.counted(catalogue.connection, parsed(text, NOW_S), hits, links)
        return found.hits, found.threads, found.is_bounded

    # Among 20 messages, of five days.
    assert number("honey", 9, 5) == (10, 5, True)
    assert number("honey before:2d", 5, 5) == (10, 5, True)
    assert number("role:user -wax", 5, 5) == (20, 5, True)
    assert number("honey", 9, 0) == number("honey", 0, 5) == (10, 5, True)
    # Among as many as should have more hits, or links.
    assert number("honey", 10, 5) == (12, 6, True)
    assert number("honey", 9, 6) == (16, 8, True)
    # Among all: too many would be needed, these had not enough, or the first ones had none.
    assert number("honey", 9, 10) == (20, 10, False)
    assert number("role:user -wax", 5, 7) == (24, 6, False)
    assert number("wax -honey", 5, 5) == (8, 4, False)
    assert number("honey on:1d", 1, 1) == (2, 1, False)


def test_the_most_relevant_come_first_when_asked_for() -> None:
    catalogue = in_memory()
    with catalogue.changing():
        catalogue.put_thread(ThreadSummary("thread_1", NOW_S, 0))
        texts = ["honey bee", "bee", "honey " + "x " * 50, "honey honey honey"]
        messages = [MessageText(n, Kind.USER, NOW_S + n, text) for n, text in enumerate(texts, 1)]
        catalogue.add_messages("thread_1", messages, b"")
    query = parsed("honey", NOW_S)
    assert [hit.line for hit in searching.relevant(catalogue.connection, query, 9)] == [4, 1, 3]
    assert [hit.line for hit in searching.hits(catalogue.connection, query)] == [4, 3, 1]
    assert len(searching.relevant(catalogue.connection, parsed("role:user", NOW_S), 3)) == 3


@pytest.mark.parametrize(
    ("text", "query", "shown"),
    [
        ("How do Bées sleep?", "bees", "How do Bées sleep?"),
        ("a\nb\tc\x1b[31m", "b", "a b c\\x1b[31m"),
        (
            "word " * 40 + "honey " + "word " * 40,
            "honey",
            "…" + "word " * 7 + "honey " + "word " * 23 + "word…",
        ),
        ("好" * 300 + "蜜蜂" + "好" * 300, "蜜蜂", "…" + "好" * 40 + "蜜蜂" + "好" * 118 + "…"),
        ("x" * 500, "role:user", "x" * 160 + "…"),
        # What takes too long for the square of this.
        ("é" * 50_000 + "-end", "end", "…" + "é" * 39 + "-end"),
        ("0123456789abcdef" * 20_000 + " end", "end", "…end"),
        ("see src/main.py:12 now", '"main py"', "see src/main.py:12 now"),
    ],
)
def test_a_snippet_shows_what_was_found_in_one_line(text: str, query: str, shown: str) -> None:
    assert snippet(parsed(query, NOW_S), text) == shown
