"""A lock that goes to who has waited longest."""

from __future__ import annotations

import threading

from store.catalogue.turns import Turns
from tests.mount.conftest import wait_until


def test_those_who_wait_have_their_turn_in_the_order_in_which_they_came() -> None:
    turns = Turns()
    had_it: list[int] = []

    def take(number: int) -> None:
        with turns:
            had_it.append(number)

    def wait_for(number: int) -> None:
        wait_until(lambda: len(turns._queue) == number)

    with turns:
        waiting = []
        for number in range(5):
            waiting.append(threading.Thread(target=take, args=(number,)))
            waiting[-1].start()
            wait_for(number + 2)
        assert had_it == []
    for thread in waiting:
        thread.join()
    assert had_it == [0, 1, 2, 3, 4]


def test_who_takes_it_again_and_again_lets_others_in_between() -> None:
    turns = Turns()
    others = threading.Event()

    def take() -> None:
        with turns:
            others.set()

    waiting = threading.Thread(target=take)
    with turns:
        waiting.start()
        wait_until(lambda: len(turns._queue) == 2)
    with turns:
        assert others.is_set()
    waiting.join()


def test_who_can_do_without_has_no_turn_while_another_one_has_it_and_keeps_nobody_waiting() -> None:
    turns = Turns()
    with turns:
        assert not turns.take(0.0)
    assert turns.take(0.0)
    assert not turns.take(0.0)
    turns.give_back()
    with turns:
        pass
