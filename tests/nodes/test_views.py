"""`by-title/`, `by-date/` and `search/`: what a store holds, by titles, days and words, without a kernel."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from store import (
    ContentBlock,
    MessageRole,
    Run,
    RunStatus,
    Thread,
    ThreadMessage,
    ThreadStore,
    WouldWait,
    without_waiting,
)
from tests.nodes.driving import OK, Programs, outcome
from threadfs.nodes.base import Directory, Linked, Node, Refused
from threadfs.nodes.by_date import date_of
from threadfs.nodes.finding import Finding
from threadfs.nodes.root import root_of
from threadfs.nodes.views import time_of

NOVEMBER_28 = int(datetime(2026, 11, 28, tzinfo=UTC).timestamp())
DAY_S = 86400


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ThreadStore]:
    opened = ThreadStore(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture
def programs(store: ThreadStore) -> Programs:
    return Programs(root_of(store))


def thread(store: ThreadStore, thread_id: str, title: str = "", created_at: int = NOVEMBER_28) -> None:
    metadata = {"title": title} if title else {}
    store.create_thread(Thread(id=thread_id, created_at=created_at, metadata=metadata))


def say(store: ThreadStore, thread_id: str, text: str, created_at: int = NOVEMBER_28) -> None:
    content = [ContentBlock.of({"type": "text", "text": {"value": text, "annotations": []}})]
    message = ThreadMessage(role=MessageRole.user, content=content, created_at=created_at)
    store.append_message(thread_id, message)


def target(programs: Programs, path: str) -> str:
    """The thread that a link leads to: from where it is, as a path does."""
    link = programs.at(path)
    assert isinstance(link, Linked)
    resolved = os.path.normpath(os.path.join(os.path.dirname(path), link.target()))
    directory, _, thread_id = resolved.partition("/")
    assert directory == "threads"
    return thread_id


def modified_ns(programs: Programs, path: str) -> int:
    return programs.at(path).attributes().modified_ns


def reason(programs: Programs, path: str) -> str:
    with pytest.raises(Refused) as refused:
        programs.at(path)
    return str(refused.value)


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


# ── Searches ────────────────────────────────────────────────────────────────────────────────────────────


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


# ── Answers that are kept ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def finding(store: ThreadStore, monkeypatch: pytest.MonkeyPatch) -> Finding:
    """One that keeps its answers for as long as a test takes."""
    monkeypatch.setattr("threadfs.nodes.finding._KEPT_S", 1000.0)
    return Finding(store)


def test_whoever_asks_for_the_same_at_once_gets_one_answer(finding: Finding) -> None:
    asked: list[int] = []
    answers: list[int] = []
    all_have_begun = threading.Barrier(4)

    def ask(_: object) -> int:
        asked.append(1)
        return len(asked)

    def begin() -> None:
        all_have_begun.wait()
        answers.append(finding.answer("k", ask))

    askers = [threading.Thread(target=begin) for _ in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert (asked, answers) == ([1], [1] * 4)


def test_an_answer_from_before_a_change_does_not_count_after_it(store: ThreadStore, finding: Finding) -> None:
    def ask(_: object) -> list[str]:
        found = store.list_thread_ids()
        thread(store, str(len(found)))
        return found

    assert finding.answer("k", ask) == []
    assert finding.answer("k", ask) == ["0"]


def test_a_kept_answer_is_given_without_waiting(finding: Finding) -> None:
    with without_waiting(), pytest.raises(WouldWait):
        finding.answer("k", lambda _: 1)
    assert finding.answer("k", lambda _: 1) == 1
    with without_waiting():
        assert finding.answer("k", lambda _: 2) == 1


def test_an_answer_that_fails_is_asked_for_again(finding: Finding) -> None:
    def fail(_: object) -> Any:
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        finding.answer("k", fail)
    assert finding.answer("k", lambda _: 1) == 1


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
