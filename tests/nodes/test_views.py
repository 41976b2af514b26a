"""`by-title/`, `by-date/` and what they share with `search/`, without a kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

import pytest

from store import (
    ThreadStore,
)
from tests.nodes.driving import Programs, outcome
from tests.nodes.threads import NOVEMBER_28, modified_ns, reason, say, target, thread
from threadfs.nodes.base import Directory, Linked, Node
from threadfs.nodes.by_date import date_of
from threadfs.nodes.views import time_of

DAY_S = 86400


# ── Titles ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_thread_is_found_by_its_title(store: ThreadStore, programs: Programs) -> None:
    thread(store, "a", "Honey bees")
    assert programs.names("by-title") == ["Honey bees"]
    assert target(programs, "by-title/Honey bees") == "a"


def test_a_thread_without_a_title_is_called_by_its_first_words_or_its_id(
    store: ThreadStore, programs: Programs
) -> None:
    thread(store, "a")
    assert programs.names("by-title") == ["a"]
    say(store, "a", "Why do bees dance, and for whom, and for how long?")
    assert programs.names("by-title") == ["Why do bees dance, and for whom, and…"]


@pytest.mark.parametrize("title", [" ", "\x0e", "...", "\u202e\u200b"])
def test_a_title_that_makes_no_name_is_none(store: ThreadStore, programs: Programs, title: str) -> None:
    thread(store, "a", title)
    say(store, "a", "Why do bees dance?")
    assert programs.names("by-title") == ["Why do bees dance?"]


def test_threads_that_are_called_the_same_have_their_ids_in_their_names(
    store: ThreadStore, programs: Programs
) -> None:
    for thread_id in ("a", "b"):
        thread(store, thread_id, "New chat")
    assert programs.names("by-title") == ["New chat@a", "New chat@b"]
    assert target(programs, "by-title/New chat@b") == "b"
    assert outcome(lambda: programs.at("by-title/New chat")) == "ENOENT"
    assert "New chat@a, New chat@b" in reason(programs, "by-title/New chat")


def test_a_name_with_the_id_leads_to_the_thread_whatever_others_are_called(
    store: ThreadStore, programs: Programs
) -> None:
    thread(store, "a", "Honey")
    say(store, "a", "bees")
    day = "by-date/2026/11/28"
    for directory in ("by-title", day, "search/bees"):
        assert target(programs, f"{directory}/Honey@a") == "a"
        assert outcome(lambda d=directory: programs.at(f"{d}/Honey@b")) == "ENOENT"  # type: ignore[misc]
        assert outcome(lambda d=directory: programs.at(f"{d}/Bees@a")) == "ENOENT"  # type: ignore[misc]


def test_a_title_of_slashes_and_control_characters_is_a_name(store: ThreadStore, programs: Programs) -> None:
    thread(store, "a", "../../etc\0\n\x1b[2J/passwd\u202e@b")
    (name,) = programs.names("by-title")
    assert not set(name) & {"/", "\0", "\n", "\x1b", "\u202e", "@"}
    assert not name.startswith(".")
    assert target(programs, f"by-title/{name}") == "a"


def test_a_new_title_renames_the_link_and_nothing_else(store: ThreadStore, programs: Programs) -> None:
    thread(store, "a", "Honey")
    before = modified_ns(programs, "by-title")
    programs.write("threads/a/meta.json", b'{"metadata":{"title":"Wax"}}')
    assert programs.names("by-title") == ["Wax"]
    assert modified_ns(programs, "by-title") != before
    assert outcome(lambda: programs.at("by-title/Honey")) == "ENOENT"
    assert programs.names("threads") == ["a"]


def test_a_thread_that_has_gone_has_no_name(store: ThreadStore, programs: Programs) -> None:
    thread(store, "a", "Honey")
    assert programs.names("by-title") == ["Honey"]
    store.delete_thread("a")
    assert programs.names("by-title") == programs.names("by-date") == []
    assert outcome(lambda: programs.at("by-title/Honey")) == "ENOENT"


# ── Days ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_thread_is_found_by_the_day_on_which_it_was_created(store: ThreadStore, programs: Programs) -> None:
    thread(store, "a", "Honey", NOVEMBER_28 - 1)
    thread(store, "b", "Honey", NOVEMBER_28)
    thread(store, "c", "Wax", NOVEMBER_28 + DAY_S - 1)
    assert programs.names("by-date") == ["2026"]
    assert programs.names("by-date/2026") == ["11"]
    assert programs.names("by-date/2026/11") == ["27", "28"]
    assert programs.names("by-date/2026/11/27") == ["Honey"]
    assert programs.names("by-date/2026/11/28") == ["Honey", "Wax"]
    assert target(programs, "by-date/2026/11/27/Honey") == "a"
    assert target(programs, "by-date/2026/11/28/Honey") == "b"


@pytest.mark.parametrize("day", ["2026/13", "2026/11/31", "2026/11/29", "2026/1", "26", "x", "0", "\udcff"])
def test_a_date_that_is_none_or_has_no_thread_is_not_there(
    store: ThreadStore, programs: Programs, day: str
) -> None:
    thread(store, "a")
    assert outcome(lambda: programs.at(f"by-date/{day}")) == "ENOENT"


@pytest.mark.parametrize("created_at", [-(2**63), -1, 0, 2**33, 1_764_000_000_000, 2**63 - 1])
def test_a_thread_of_any_time_has_its_day(store: ThreadStore, programs: Programs, created_at: int) -> None:
    thread(store, "a", "Honey", created_at)
    path = "by-date"
    for _ in range(3):
        (name,) = programs.names(path)
        path = f"{path}/{name}"
        assert programs.at(path).attributes().modified_ns < 2**63
    assert target(programs, f"{path}/Honey") == "a"


def test_a_date_is_that_of_the_calendar() -> None:
    for day in range(datetime(1583, 1, 1).toordinal(), datetime(2500, 1, 1).toordinal(), 13):
        shown = datetime.fromordinal(day)
        seconds = (day - datetime(1970, 1, 1).toordinal()) * DAY_S
        assert "-".join(date_of(seconds)) == shown.strftime("%Y-%m-%d")


# ── Changes ─────────────────────────────────────────────────────────────────────────────────────────────

CHANGES: dict[str, Callable[[Programs], object]] = {
    "rm of a title": lambda programs: programs.unlink("by-title/Honey"),
    "mv of a title": lambda programs: programs.rename("by-title/Honey", "by-title/Wax"),
    "mv of a title to a day": lambda programs: programs.rename("by-title/Honey", "by-date/2026/11/28/Wax"),
    "mv of a title to the threads": lambda programs: programs.rename("by-title/Honey", "threads/Wax"),
    "mv of a thread to a title": lambda programs: programs.rename("threads/a", "by-title/Wax"),
    "mkdir of a title": lambda programs: programs.mkdir("by-title/Wax"),
    "a file as a title": lambda programs: programs.write("by-title/Wax", b"x"),
    "a link as a title": lambda programs: programs.directory("by-title").make_link("Wax", "x"),
    "mkdir of a year": lambda programs: programs.mkdir("by-date/2027"),
    "rmdir of a day": lambda programs: programs.rmdir("by-date/2026/11/28"),
    "rm of a thread of a day": lambda programs: programs.unlink("by-date/2026/11/28/Honey"),
    "rm of a thread with hits": lambda programs: programs.unlink("search/honey/Honey"),
    "rm of the hits": lambda programs: programs.unlink("search/honey/hits.txt"),
    "writing of hits": lambda programs: programs.write("search/honey/hits.txt", b"x"),
    "a file with hits": lambda programs: programs.write("search/honey/notes", b"x"),
    "mv of a query": lambda programs: programs.rename("search/honey", "search/wax"),
    "mkdir of what is no query": lambda programs: programs.mkdir("search/.git"),
    "rmdir of a year": lambda programs: programs.rmdir("by-date/2026"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_in_the_views_can_be_changed(store: ThreadStore, programs: Programs, change: str) -> None:
    thread(store, "a", "Honey")
    assert outcome(lambda: CHANGES[change](programs)) == "EACCES"
    assert programs.names("threads") == ["a"]
    assert programs.names("by-title") == ["Honey"]


# ── Times ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_link_has_the_time_of_its_thread_and_a_day_that_of_its_newest(
    store: ThreadStore, programs: Programs
) -> None:
    for thread_id, hour in (("a", 1), ("b", 2)):
        thread(store, thread_id, thread_id.upper())
        say(store, thread_id, "honey")
        time_ns = (NOVEMBER_28 + 3600 * hour) * 1_000_000_000 + 5
        store.set_log_modified(thread_id, time_ns)
        store.set_thread_modified(thread_id, time_ns)
    day = "by-date/2026/11/28"
    for directory in ("by-title", day, "search/honey"):
        for name, thread_id in (("A", "a"), ("B", "b")):
            assert modified_ns(programs, f"{directory}/{name}") == store.thread_modified_ns(thread_id)
    newest_s = store.thread_modified_ns("b") // 1_000_000_000
    for directory in ("by-title", day):
        assert modified_ns(programs, directory) // 1_000_000_000 == newest_s


def test_the_time_of_a_directory_is_another_one_when_its_names_are() -> None:
    times = {
        time_of(7, [("a", "x")]),
        time_of(7, [("a", "y")]),
        time_of(7, [("b", "x")]),
        time_of(7, [("a", "x"), ("b", "y")]),
        time_of(7, [("b", "y"), ("a", "x")]),
        time_of(7, []),
        time_of(8, []),
    }
    assert len(times) == 7
    assert time_of(7, [("a", "x")]) == time_of(7, [("a", "x")])


# ── Walks ───────────────────────────────────────────────────────────────────────────────────────────────


def test_no_walk_through_the_tree_meets_anything_but_links(store: ThreadStore, programs: Programs) -> None:
    thread(store, "a", "Honey")
    say(store, "a", "honey")
    programs.read("search/honey/hits.txt")

    def kinds(path: str, node: Node) -> Iterator[str]:
        if isinstance(node, Directory):
            for name, child in node.entries():
                yield from kinds(f"{path}/{name}", child)
        else:
            yield "link" if isinstance(node, Linked) else path

    for view in ("by-title", "by-date", "search"):
        assert set(kinds(view, programs.at(view))) <= {"link"}
