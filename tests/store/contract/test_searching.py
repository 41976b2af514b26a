"""Searches in every store find what a plain reading of it finds, whoever has changed it, and when."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress

import pytest

from store import DocumentKey, MessageRole, Run, RunStatus, Store, StoreError, Thread, ThreadMessage
from store.catalogue import searching
from store.catalogue.api import Results
from store.catalogue.folding import folded
from store.catalogue.matching import holds, matches, matches_thread
from store.catalogue.queries import DAY_S, Query, parsed
from store.catalogue.values import Kind, RunSummary
from store.models import ContentBlock
from tests.store.conftest import MakeStore

NOW_S = 1_796_000_000
WORDS = ("bee", "honey", "wasp", "蜂蜜", "Café", "be_a")
QUERIES = (
    *("bee", "honey cafe", '"bee honey"', "b*", "be_a", "蜂", "蜜蜂", "bee -honey", 'bee -"honey wasp"'),
    *("role:user bee", "role:assistant -bee", "-role:user honey", "on:2026-11-29", "before:1d bee"),
    *("title:bee", "title:bee -honey", "title:bee honey", "-title:bee honey", "model:m"),
    *("status:failed wasp", "model:m status:queued -wasp", "-status:failed bee"),
    *("thread:t1", "thread:t1 bee", "-thread:t1 bee", "after:3d role:user", "nothing"),
)
# A hit: its thread, the file, the line.
Place = tuple[str, str, int]


def said_title(store: Store, thread_id: str) -> tuple[str, int]:
    """The title of a thread, and the line of its document where it stands."""
    title = str(store.get_thread(thread_id).metadata.get("title", ""))
    document = store.read_document(DocumentKey(thread_id))[0].decode().split("\n")
    return title, next((number for number, line in enumerate(document, 1) if '"title"' in line), 1)


def plain_hits(store: Store, query: Query) -> list[Place]:
    """The newest first."""
    found: list[tuple[int, str, int, str]] = []
    for thread_id in store.list_thread_ids():
        created_at = store.get_thread(thread_id).created_at
        title, title_line = said_title(store, thread_id)
        runs = [store.get_run(thread_id, run_id) for run_id in store.list_run_ids(thread_id)]
        summaries = [RunSummary(run.id, run.status.value, run.model, run.created_at, 0) for run in runs]
        if not matches_thread(query, thread_id, title, summaries):
            continue
        messages = store.list_messages(thread_id)
        texts = [folded(text) for text in (title, *(message.text for message in messages))]
        if not query.is_about_messages:
            if not any(holds(term, text) for term in query.without for text in texts):
                found.append((-created_at, thread_id, -title_line, "meta.json"))
            continue
        if title and matches(query, Kind.TITLE, created_at, title):
            found.append((-created_at, thread_id, -title_line, "meta.json"))
        for number, message in enumerate(messages, 1):
            if matches(query, Kind[message.role.name.upper()], message.created_at, message.text):
                found.append((-message.created_at, thread_id, -number, "messages.jsonl"))
    return [(thread_id, path, -line) for _, thread_id, line, path in sorted(found)]


def places(results: Results) -> list[Place]:
    return [(hit.thread_id, hit.path, hit.line) for hit in results.hits]


def in_order(found: list[Place]) -> list[tuple[str, int]]:
    """Without the file: a title and a message may be of one moment and line."""
    return [(thread_id, line) for thread_id, _, line in found]


def check(store: Store, text: str) -> None:
    """What is found is what a plain reading finds, however it is asked for."""
    query = parsed(text, NOW_S)
    plain, catalogue = plain_hits(store, query), store.catalogue()
    found = catalogue.search(query)
    assert sorted(places(found)) == sorted(plain), text
    assert in_order(places(found)) == in_order(plain), text
    assert not found.is_bounded
    threads = list(dict.fromkeys(thread_id for thread_id, _, _ in plain))
    assert sorted(link.thread_id for link in found.links) == sorted(threads), text
    assert sorted(places(catalogue.search(query, by_relevance=True))) == sorted(plain), text
    some = catalogue.search(query, 2)
    assert in_order(places(some)) == in_order(plain[:2]), text
    assert (some.hits_left_out, some.links_left_out) == (max(0, len(plain) - 2), max(0, len(threads) - 2))
    for ranked in (4, searching.RANKED):
        check_few(store, text, plain, ranked)


def check_few(store: Store, text: str, plain: list[Place], ranked: int) -> None:
    """Where three messages are many not all need be counted, if there are more hits and as many links as may
    be; and a database counts no more hits than are ranked."""
    query, catalogue = parsed(text, NOW_S), store.catalogue()
    threads = list(dict.fromkeys(thread_id for thread_id, _, _ in plain))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "RANKED", ranked)
        patch.setattr(searching, "LOOKED_AT", 3)
        few = catalogue.search(query, 2)
        of_links = catalogue.search(query, 2, with_hits=False)
        of_hits = catalogue.search(query, 2, with_links=False)
    assert in_order(places(few)) == in_order(places(of_hits)) == in_order(plain[:2]), text
    assert few.links == of_links.links
    assert not of_hits.links
    linked = [link.thread_id for link in few.links]
    surely = threads[: min(2, len({thread_id for thread_id, _, _ in plain[:ranked]}))]
    assert linked[: len(surely)] == surely, text
    assert {*linked} <= {*threads}, text
    left_out = max(0, len(plain) - 2), max(0, len(threads) - 2)
    for found, is_full in ((few, len(threads) >= 2), (of_hits, True)):
        if found.is_bounded:
            assert is_full or len(plain) > ranked, text
            assert 0 < found.hits_left_out <= left_out[0]
            assert found.links_left_out <= left_out[1]
        else:
            assert (found.hits_left_out, found.links_left_out) == left_out


class Changes:
    """Random ones, each by one of several programs."""

    def __init__(self, stores: list[Store], seed: int) -> None:
        self.stores = stores
        self.random = random.Random(seed)
        self.count = 0

    def one(self) -> None:
        self.count += 1
        store = self.random.choice(self.stores)
        threads = store.list_thread_ids()
        change: Callable[[Store, str], None] = self.random.choice(
            [
                *(self.new_thread, self.say, self.say, self.say, self.say_much, self.retitle, self.delete),
                *(self.recreate, self.new_run, self.end_run, self.delete_run),
            ]
        )
        with suppress(StoreError):  # A thread is there already, or has no run to end.
            if len(threads) < 3:
                self.new_thread(store, "")
            else:
                change(store, self.random.choice(threads))

    def text(self) -> str:
        return " ".join(self.random.choices(WORDS, k=self.random.randrange(1, 6)))

    def message(self) -> ThreadMessage:
        return ThreadMessage(
            role=self.random.choice([*MessageRole]),
            content=[ContentBlock.of_text(self.text())],
            created_at=NOW_S - self.random.randrange(4) * DAY_S,
        )

    def new_thread(self, store: Store, _: str) -> None:
        metadata = self.random.choice([{}, {"title": self.text()}])
        store.create_thread(Thread(id=f"t{self.count % 12}", metadata=metadata, created_at=NOW_S))

    def say(self, store: Store, thread_id: str) -> None:
        store.append_message(thread_id, self.message())

    def say_much(self, store: Store, thread_id: str) -> None:
        for _ in range(5):
            self.say(store, thread_id)

    def retitle(self, store: Store, thread_id: str) -> None:
        store.patch_document(DocumentKey(thread_id), {"metadata": {"title": self.text()}})

    def delete(self, store: Store, thread_id: str) -> None:
        store.delete_thread(thread_id, force=True)

    def recreate(self, store: Store, thread_id: str) -> None:
        self.delete(store, thread_id)
        store.create_thread(Thread(id=thread_id, created_at=NOW_S))
        self.say(store, thread_id)

    def new_run(self, store: Store, thread_id: str) -> None:
        store.create_run(thread_id, Run(id=f"run_{self.count}", model=self.random.choice(["m", "n"])))

    def end_run(self, store: Store, thread_id: str) -> None:
        run_id = self.random.choice([*store.list_run_ids(thread_id), ""])
        status = self.random.choice([RunStatus.completed, RunStatus.failed])
        store.force_update_run_status(thread_id, run_id, status)

    def delete_run(self, store: Store, thread_id: str) -> None:
        store.delete_run(thread_id, self.random.choice([*store.list_run_ids(thread_id), ""]), force=True)


@pytest.fixture
def pair(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> list[Store]:
    """Two programs, whose answers are never old, and to which a little is much."""
    monkeypatch.setattr("store.disk.known._FRESH_S", 0.0)
    monkeypatch.setattr("store.postgres.known._FRESH_S", 0.0)
    for name, little in (("known.TOGETHER", 3), ("catalogue.TOGETHER", 3)):
        monkeypatch.setattr(f"store.postgres.{name}", little)
    for name, little in (("_PIECE_BYTES", 300), ("_PIECE_THREADS", 3), ("_STATEMENT_BYTES", 30)):
        monkeypatch.setattr(f"store.postgres.making.{name}", little)
    return [make_store(), make_store()]


@pytest.mark.parametrize("seed", range(2))
def test_whatever_two_programs_change_each_finds_what_is_there(pair: list[Store], seed: int) -> None:
    changes = Changes(pair, seed)
    for number in range(8):
        for _ in range(changes.random.randrange(1, 8)):
            changes.one()
        if number % 3 == 2:  # Otherwise the words are made while others search.
            changes.random.choice(pair).catalogue().refresh(words=True)
        for text in changes.random.sample(QUERIES, 5):
            check(changes.random.choice(pair), text)


def test_every_kind_of_query_finds_what_is_there_before_there_are_words_and_then(pair: list[Store]) -> None:
    changes = Changes(pair, 7)
    for _ in range(40):
        changes.one()
    store, other = pair
    for text in QUERIES:
        check(other, text)
    store.catalogue().refresh(words=True)
    for text in QUERIES:
        check(store, text)
