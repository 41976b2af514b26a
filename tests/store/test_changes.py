"""The stream of changes by itself: who is told, in which order, and what is followed for whom."""

from __future__ import annotations

import logging

import pytest

from store import Change, DocumentKey, Part, Watch
from store.changes import Announcer, change_of

KEY = DocumentKey("T", "R")
CHANGE = change_of(Part.DOCUMENT, KEY)


class Watched(Watch):
    """Can follow as long as *is_possible*; notes what it begins and ends to follow."""

    def __init__(self, *, is_possible: bool = True) -> None:
        super().__init__(Announcer(first=print), on_change=None)
        self.is_possible = is_possible
        self.begun: list[DocumentKey] = []
        self.ended: list[DocumentKey] = []

    def _begin(self, key: DocumentKey) -> bool:
        self.begun.append(key)
        if not self.is_possible:
            raise InterruptedError
        return True

    def _end(self, key: DocumentKey) -> None:
        self.ended.append(key)


def test_subscribers_are_told_in_their_order_and_all_before_it_returns() -> None:
    told: list[str] = []
    announcer = Announcer(first=lambda change: told.append("first"))
    announcer.subscribe(lambda change: told.append("second"))
    announcer.subscribe(lambda change: told.append("third"))
    announcer.announce(CHANGE)
    assert told == ["first", "second", "third"]


def test_what_the_first_subscriber_finds_out_it_tells_the_others() -> None:
    told: list[str] = []
    announcer = Announcer(first=lambda change: told.append("first"))
    announcer.subscribe(lambda change: told.append("second"))
    announcer.tell_others(CHANGE)
    assert told == ["second"]


def test_after_a_failure_of_one_subscriber_all_may_expect_anything(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Part] = []

    def fails(change: Change) -> None:
        raise RuntimeError("a bug")

    announcer = Announcer(first=fails)
    announcer.subscribe(lambda change: told.append(change.part))
    with caplog.at_level(logging.CRITICAL, "threadfs"):
        announcer.announce(CHANGE)
    assert told == [Part.EVERYTHING, Part.DOCUMENT]


def test_a_change_that_fails_half_way_is_announced_and_counts_as_no_commit() -> None:
    told: list[Change] = []
    announcer = Announcer(first=told.append)
    with pytest.raises(InterruptedError), announcer.announcing() as changes:  # noqa: PT012 - it fails half-way
        changes.append(CHANGE)
        raise InterruptedError
    assert told == [Change(Part.DOCUMENT, "T", "R", is_own=True)]
    assert announcer.commits == 0


def test_what_two_hold_is_followed_until_both_have_forgotten_it() -> None:
    watch = Watched()
    assert watch.hold(KEY)
    assert watch.hold(KEY)
    watch.forget(KEY)
    assert (watch.begun, watch.ended) == ([KEY], [])
    watch.forget(KEY)
    assert watch.ended == [KEY]
    assert KEY not in watch.covered


def test_following_again_adds_no_holder() -> None:
    watch = Watched()
    watch.follow(KEY)
    watch.follow(KEY)
    watch.forget(KEY)
    assert watch.ended == [KEY]


def test_what_is_followed_with_its_list_is_forgotten_one_by_one() -> None:
    watch = Watched()
    thread, runs = DocumentKey("T"), DocumentKey("T", "")
    watch.hold(runs)
    assert watch.follow(thread, with_list=True)
    assert set(watch.covered) == {thread, runs}
    watch.forget(runs)
    assert list(watch.covered) == watch.held() == [thread]
    watch.forget(thread)
    assert (len(watch.covered), watch.held()) == (0, [])
    assert DocumentKey("T", "R", "") == KEY.list_in_it


def test_of_what_is_followed_those_that_are_not_covered_are_counted() -> None:
    watch = Watched()
    watch.hold(KEY)
    watch.hold(KEY)
    watch.hold(DocumentKey("T"))
    assert (len(watch.covered), watch.uncovered) == (2, 0)
    watch.lose()
    watch.hold(KEY)
    assert (len(watch.covered), watch.uncovered) == (1, 1)
    for _ in range(3):
        assert KEY in watch.covered
        watch.forget(KEY)
    assert (len(watch.covered), watch.uncovered) == (0, 1)


def test_what_may_be_lost_is_covered_again_when_it_is_followed_again() -> None:
    watch = Watched()
    watch.hold(KEY)
    watch.lose()
    assert KEY not in watch.covered
    assert watch.follow(KEY)
    assert KEY in watch.covered
    assert watch.begun == [KEY, KEY]


def test_what_is_lost_while_it_begins_to_be_followed_is_not_covered(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watched()

    def loses(key: DocumentKey) -> bool:
        watch.lose()
        return True

    monkeypatch.setattr(watch, "_begin", loses)
    watch.hold(KEY)
    assert KEY not in watch.covered


def test_a_holder_that_fails_leaves_nothing_behind_and_the_others_as_they_were() -> None:
    watch = Watched(is_possible=False)
    with pytest.raises(InterruptedError):
        watch.hold(KEY)
    assert watch.held() == []


def test_forgetting_what_is_not_followed_does_nothing() -> None:
    watch = Watched()
    watch.forget(KEY)
    assert (watch.held(), watch.ended) == ([], [])
