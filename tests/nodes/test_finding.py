"""What is asked of a catalogue is kept for a moment, until something changes."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from store import ThreadStore, WouldWait, without_waiting
from tests.nodes.threads import thread
from threadfs.nodes.finding import Finding


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
