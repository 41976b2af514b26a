"""`search/`: what a store holds, by words, without a kernel."""

from __future__ import annotations

import pytest

from store import Run, RunStatus, ThreadStore, WouldWait, without_waiting
from tests.nodes.driving import OK, Programs, outcome
from tests.nodes.threads import NOVEMBER_28, modified_ns, reason, say, target, thread


def test_a_search_shows_the_threads_and_the_lines_with_hits(store: ThreadStore, programs: Programs) -> None:
    thread(store, "a", "On honey")
    thread(store, "b", "Wax")
    say(store, "a", "Nothing")
    say(store, "a", "Why is honey sweet?", NOVEMBER_28 + 1)
    say(store, "b", "Wax and honey", NOVEMBER_28 + 2)
    assert programs.names("search/honey") == ["Wax", "On honey", "hits.txt"]
    assert target(programs, "search/honey/Wax") == "b"
    assert programs.read("search/honey/hits.txt").decode().splitlines() == [
        "threads/b/messages.jsonl:1: user: Wax and honey",
        "threads/a/messages.jsonl:2: user: Why is honey sweet?",
        "threads/a/meta.json:6: title: On honey",
    ]


def test_a_search_without_hits_is_a_directory_with_an_empty_file(programs: Programs) -> None:
    assert programs.names("search/nothing") == ["hits.txt"]
    assert programs.read("search/nothing/hits.txt") == b""
    assert programs.at("search/nothing").attributes().modified_ns > 0


def test_what_is_said_and_deleted_here_is_found_and_gone_at_once(
    store: ThreadStore, programs: Programs
) -> None:
    thread(store, "a", "Wax")
    for number in range(3):
        assert programs.names("search/honey") == ["hits.txt"]
        programs.write("threads/a/say", b"honey")
        assert programs.names("search/honey") == ["Wax", "hits.txt"]
        assert len(programs.read("search/honey/hits.txt").splitlines()) == 1
        store.delete_thread("a", force=True)
        thread(store, "a", "Wax", NOVEMBER_28 + number)


def test_a_thread_called_as_the_list_of_hits_has_its_id_in_its_name(
    store: ThreadStore, programs: Programs
) -> None:
    thread(store, "a", "hits.txt")
    assert programs.names("search/txt") == ["hits.txt@a", "hits.txt"]
    assert b"title: hits.txt" in programs.read("search/txt/hits.txt")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('"', "EINVAL"),
        ('""', "EINVAL"),
        ('"" "" ""', "EINVAL"),
        ('"honey', "EINVAL"),
        ("-honey", "EINVAL"),
        ("!?", "EINVAL"),
        ("on:2026-02-30 honey", "EINVAL"),
        ("before:never", "EINVAL"),
        ("role:nobody", "EINVAL"),
        ("\udcff", "EINVAL"),
        (".honey", "ENOENT"),
        (".", "ENOENT"),
        ("x" * 255, OK),
        ("12:30 std::vector ho(ne)y.*[a-z]+$", OK),
    ],
)
def test_a_name_is_a_query_or_says_why_not(programs: Programs, query: str, expected: str) -> None:
    assert outcome(lambda: programs.at(f"search/{query}")) == expected


def test_a_lookup_of_a_query_searches_nothing(store: ThreadStore, programs: Programs) -> None:
    directory = programs.directory("search")
    with without_waiting():
        query = directory.lookup("honey")
        with pytest.raises(WouldWait):
            query.attributes()


def test_at_most_a_thousand_hits_are_shown_and_the_last_line_says_how_many_are_left_out(
    store: ThreadStore, programs: Programs
) -> None:
    thread(store, "a", "Bees")
    store.append_lines("a", [b'{"role":"user","content":"honey"}\n'] * 1234)
    lines = programs.read("search/honey/hits.txt").decode().splitlines()
    assert len(lines) == 1001
    assert lines[0].startswith("threads/a/messages.jsonl:1234:")
    assert lines[-1] == "… 234 older hits are left out"


def test_all_threads_with_hits_have_links_also_where_the_newest_messages_have_more_hits_than_are_shown(
    store: ThreadStore, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.catalogue.searching.LOOKED_AT", 1500)
    for day, name in enumerate("abc"):
        thread(store, name, name)
        line = b'{"role":"user","content":"honey","created_at":%d}\n' % (NOVEMBER_28 + day * 86400)
        store.append_lines(name, [line] * 1234)
    assert programs.names("search/honey") == ["c", "b", "a", "hits.txt"]
    lines = programs.read("search/honey/hits.txt").decode().splitlines()
    assert lines[-1] == f"… at least {2 * 1234 - 1000} older hits are left out"


def test_threads_that_are_called_the_same_are_told_apart_among_those_with_hits(
    store: ThreadStore, programs: Programs
) -> None:
    for thread_id, text in (("a", "honey"), ("b", "honey wax"), ("c", "nothing")):
        thread(store, thread_id, "New chat")
        say(store, thread_id, text)
    assert programs.names("search/wax") == ["New chat", "hits.txt"]
    assert sorted(programs.names("search/honey")) == ["New chat@a", "New chat@b", "hits.txt"]
    assert "2 threads are called 'New chat'" in reason(programs, "search/honey/New chat")
    assert outcome(lambda: programs.at("search/honey/New chat@c")) == "ENOENT"


def test_a_query_is_about_runs_too(store: ThreadStore, programs: Programs) -> None:
    thread(store, "a", "Honey")
    store.create_run("a", Run(id="r", model="llama3"))
    assert programs.names("search/model:llama3 status:queued") == ["Honey", "hits.txt"]
    store.update_run_status("a", "r", RunStatus.cancelled)
    assert programs.names("search/model:llama3 status:queued") == ["hits.txt"]


def test_a_search_has_the_time_of_its_newest_hit(store: ThreadStore, programs: Programs) -> None:
    thread(store, "a", "Wax")
    for seconds in (7, 5):
        say(store, "a", "honey", NOVEMBER_28 + seconds)
    for path in ("search/honey", "search/honey/hits.txt"):
        assert modified_ns(programs, path) // 1_000_000_000 == NOVEMBER_28 + 7


def test_the_time_of_the_hits_is_another_one_when_they_are(store: ThreadStore, programs: Programs) -> None:
    thread(store, "a", "Wax")
    say(store, "a", "honey")
    before = modified_ns(programs, "search/honey/hits.txt")
    say(store, "a", "honey")
    assert modified_ns(programs, "search/honey/hits.txt") != before


# ── Pins ────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_what_is_pinned_is_listed(programs: Programs) -> None:
    programs.names("search/honey")
    assert programs.names("search") == []
    programs.at("search/honey").set_modified(1)
    programs.at("search/wax").set_modified(1)
    programs.at("search/honey").set_modified(1)
    assert programs.names("search") == ["honey", "wax"]
    programs.rmdir("search/honey")
    assert programs.names("search") == ["wax"]
    assert outcome(lambda: programs.rmdir("search/honey")) == "ENOENT"


def test_a_pin_changes_the_time_of_the_list(programs: Programs) -> None:
    times = [modified_ns(programs, "search")]
    programs.at("search/honey").set_modified(1)
    times.append(modified_ns(programs, "search"))
    programs.rmdir("search/honey")
    times.append(modified_ns(programs, "search"))
    assert times == sorted(set(times))


def test_pins_come_to_an_end(programs: Programs) -> None:
    for number in range(1000):
        programs.at(f"search/{number}").set_modified(1)
    assert outcome(lambda: programs.at("search/one more").set_modified(1)) == "ENOSPC"
    assert len(programs.names("search")) == 1000
