"""The catalogue of every store: what is in it, by titles, days and words."""

from __future__ import annotations

import re

import pytest

from store import DocumentKey, MessageRole, Run, RunStatus, Store, Thread, ThreadMessage, ThreadNotFound
from store.catalogue.queries import parsed
from store.errors import Ambiguous
from store.models import ContentBlock
from tests.store.conftest import MakeStore

NOW_S = 1_796_000_000
DAY_S = 86400


def thread(store: Store, thread_id: str, title: str = "", created_at: int = NOW_S) -> None:
    metadata = {"title": title} if title else {}
    store.create_thread(Thread(id=thread_id, created_at=created_at, metadata=metadata))


def say(store: Store, thread_id: str, text: str, created_at: int = NOW_S, role: str = "user") -> None:
    content = [ContentBlock.of_text(text)]
    message = ThreadMessage(role=MessageRole(role), content=content, created_at=created_at)
    store.append_message(thread_id, message)


def found(store: Store, text: str) -> list[tuple[str, str, int, str]]:
    hits = store.catalogue().search(parsed(text, NOW_S)).hits
    return [(hit.thread_id, hit.path, hit.line, hit.role) for hit in hits]


def test_threads_have_names_by_their_titles_or_first_words(store: Store) -> None:
    thread(store, "t1", "Bees/wasps")
    thread(store, "t2", "New chat")
    thread(store, "t3", "New chat")
    thread(store, "t4")
    say(store, "t4", "Hello there", role="assistant")
    say(store, "t4", "One two three four five six seven eight nine")
    thread(store, "t5")
    assert [(one.name, one.thread_id) for one in store.catalogue().titles()] == [
        ("Bees\u2215wasps", "t1"),
        ("New chat@t2", "t2"),
        ("New chat@t3", "t3"),
        ("One two three four five six seven eight…", "t4"),
        ("t5", "t5"),
    ]
    for one in store.catalogue().titles():
        assert store.catalogue().thread_called(one.name) == one.thread_id
        assert one.changed_ns == store.thread_modified_ns(one.thread_id)
    with pytest.raises(Ambiguous):
        store.catalogue().thread_called("New chat")
    with pytest.raises(ThreadNotFound):
        store.catalogue().thread_called("Old chat")


def test_a_change_is_known_at_once(store: Store) -> None:
    catalogue = store.catalogue()
    assert catalogue.titles() == []
    thread(store, "t1", "Bees")
    assert [one.name for one in catalogue.titles()] == ["Bees"]
    store.patch_document(DocumentKey("t1"), {"metadata": {"title": "Wasps"}})
    assert [one.name for one in catalogue.titles()] == ["Wasps"]
    say(store, "t1", "honey")
    assert found(store, "honey") == [("t1", "messages.jsonl", 1, "user")]
    assert catalogue.changed_ns("t1") == store.thread_modified_ns("t1")
    store.delete_thread("t1")
    assert catalogue.titles() == []
    assert found(store, "honey") == []
    with pytest.raises(ThreadNotFound):
        catalogue.changed_ns("t1")


def test_threads_are_found_by_the_day_of_their_creation(store: Store) -> None:
    day_s = NOW_S // DAY_S * DAY_S
    thread(store, "t1", "New chat", day_s)
    thread(store, "t2", "New chat", day_s + DAY_S)
    catalogue = store.catalogue()
    assert catalogue.days() == [day_s, day_s + DAY_S]
    assert [(one.name, one.thread_id) for one in catalogue.created_on(day_s)] == [("New chat", "t1")]
    assert catalogue.thread_called("New chat", day_s + DAY_S) == "t2"


def test_hits_are_where_the_words_are_and_the_newest_comes_first(store: Store) -> None:
    thread(store, "t1", "Bees")
    say(store, "t1", "no such words", NOW_S)
    say(store, "t1", "bees make honey", NOW_S + 1, "assistant")
    thread(store, "t2", created_at=NOW_S + 9)
    say(store, "t2", "honey BEES and Bées", NOW_S + 2)
    assert found(store, "bees") == [
        ("t2", "messages.jsonl", 1, "user"),
        ("t1", "messages.jsonl", 2, "assistant"),
        ("t1", "meta.json", 6, "title"),
    ]
    assert found(store, '"make honey"') == [("t1", "messages.jsonl", 2, "assistant")]
    assert found(store, "role:user honey") == [("t2", "messages.jsonl", 1, "user")]
    assert found(store, "title:bees") == [("t1", "meta.json", 6, "title")]
    assert found(store, "honey -make") == [("t2", "messages.jsonl", 1, "user")]
    assert found(store, "wasps") == []


def test_words_are_found_however_a_line_spells_them(store: Store) -> None:
    thread(store, "t1")
    for text in ("École HONEY", "\u00e9cole honey\nwasp", "straße", "蜂蜜 honey", "co\u00adop"):
        say(store, "t1", text)
    store.append_lines("t1", [b'{"role": "user", "content": "\\u0045cole \\uff48\\uff4f\\uff4eey"}'])
    assert sorted(line for _, _, line, _ in found(store, "ecole honey")) == [1, 2, 6]
    assert [len(found(store, text)) for text in ("wasp", "STRASSE", "蜜", "coop", "nwasp")] == [1, 1, 1, 1, 0]


def test_links_are_told_apart_among_themselves_and_have_the_time_of_their_newest_hit(store: Store) -> None:
    for number, title in enumerate(["New chat", "New chat", "Oslo"]):
        thread(store, f"t{number}", title)
        say(store, f"t{number}", "bees" if number else "wasps", NOW_S + number)
    links = store.catalogue().search(parsed("bees", NOW_S), with_hits=False).links
    assert [(link.name, link.thread_id, link.newest_s) for link in links] == [
        ("Oslo", "t2", NOW_S + 2),
        ("New chat", "t1", NOW_S + 1),
    ]


def test_no_more_than_the_limit_is_given_and_the_others_are_counted(store: Store) -> None:
    for number in range(3):
        thread(store, f"t{number}")
        for at_s in (1, 2):
            say(store, f"t{number}", "bees", NOW_S + number * 10 + at_s)
    results = store.catalogue().search(parsed("bees", NOW_S), 2)
    assert [(hit.thread_id, hit.line) for hit in results.hits] == [("t2", 2), ("t2", 1)]
    assert [link.thread_id for link in results.links] == ["t2", "t1"]
    assert (results.hits_left_out, results.links_left_out) == (4, 1)
    none = store.catalogue().search(parsed("bees", NOW_S), 0)
    assert (none.hits, none.links, none.hits_left_out, none.links_left_out) == ([], [], 6, 3)


def test_a_snippet_shows_what_was_found_and_moves_no_cursor(store: Store) -> None:
    thread(store, "t1")
    say(store, "t1", "many\nbees\x1b[31m")
    assert [hit.snippet for hit in store.catalogue().search(parsed("bees", NOW_S)).hits] == [
        "many bees\\x1b[31m"
    ]


def test_a_pattern_is_looked_for_in_the_text(store: Store) -> None:
    thread(store, "t1", "Wax")
    say(store, "t1", 'he said "fetch_user_by_id()"')
    say(store, "t1", "nothing")
    hits = store.catalogue().grep(re.compile(r'"fetch_\w+\(\)')).hits
    assert [(hit.thread_id, hit.line, hit.role) for hit in hits] == [("t1", 1, "user")]
    assert [hit.path for hit in store.catalogue().grep(re.compile("^W")).hits] == ["meta.json"]


def test_a_thread_has_the_status_and_model_of_its_newest_run(store: Store) -> None:
    thread(store, "t1", "Bees")
    thread(store, "t2", "Wasps")
    store.create_run("t1", Run(id="r1", created_at=1, model="old", status=RunStatus.failed))
    store.create_run("t1", Run(id="r2", created_at=2, model="new"))
    listed = sorted(store.catalogue().threads())
    assert [(one.thread_id, one.name, one.status, one.model) for one in listed] == [
        ("t1", "Bees", "queued", "new"),
        ("t2", "Wasps", "", ""),
    ]
    assert found(store, "model:old status:failed") == [("t1", "meta.json", 6, "title")]
    assert found(store, "model:old status:queued") == []
    store.update_run_status("t1", "r2", RunStatus.in_progress)
    store.delete_run("t1", "r1")
    runs = [(one.thread_id, one.run_id, one.name, one.status) for one in store.catalogue().runs()]
    assert runs == [("t1", "r2", "Bees", "in_progress")]


def test_what_another_program_changes_is_known_when_all_is_looked_at(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.disk.known._FRESH_S", 0.0)
    monkeypatch.setattr("store.postgres.known._FRESH_S", 0.0)
    store, other = make_store(), make_store()
    thread(other, "t1", "Bees")
    assert [one.name for one in store.catalogue().titles()] == ["Bees"]
    say(other, "t1", "honey")
    other.create_run("t1", Run(id="r1", model="m"))
    assert found(store, "honey") == [("t1", "messages.jsonl", 1, "user")]
    assert [one.run_id for one in store.catalogue().runs()] == ["r1"]
    other.delete_thread("t1")
    assert store.catalogue().titles() == []
    assert store.catalogue().runs() == []


def test_a_catalogue_that_is_made_anew_says_the_same(store: Store) -> None:
    thread(store, "t1", "Bees")
    say(store, "t1", "honey")
    store.create_run("t1", Run(id="r1", model="m"))
    catalogue = store.catalogue()
    before = catalogue.titles(), catalogue.runs(), found(store, "honey")
    catalogue.rebuild()
    catalogue.refresh(words=True)
    assert (catalogue.titles(), catalogue.runs(), found(store, "honey")) == before
    assert catalogue.statistics().threads == 1
