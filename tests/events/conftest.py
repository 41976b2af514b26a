"""Stores of each backend, and what is told of them."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from store import Change, DocumentKey, Part, Store
from store.changes import change_of
from tests.mount.conftest import wait_until
from tests.store.conftest import MakeStore, make_store, store
from threadfs.events.states import State
from threadfs.events.telling import Heard, Telling

__all__ = ["make_store", "store"]  # its fixtures

Told = tuple[str, ...]


def shown(line: bytes) -> Told:
    """An event without its time: its name, the ids, the status."""
    fields: dict[str, Any] = json.loads(line)
    names = ("event", "thread_id", "run_id", "message_id", "step_id", "status")
    return tuple(fields[name] for name in names if name in fields)


class Listener:
    """What a telling says of a store, of which it follows all."""

    def __init__(self, store: Store) -> None:
        self.telling = Telling(store, self.follow)
        self._came: deque[Heard] = deque()
        self.told: list[Told] = []
        self.watch = store.watch(self._changed)
        self.watch.follow(DocumentKey(""))
        self.watch.follow(DocumentKey("", ""))
        for thread_id in store.list_thread_ids():
            self.follow(DocumentKey(thread_id))
            for run_id in store.list_run_ids(thread_id):
                self.follow(DocumentKey(thread_id, run_id))
        # What was there before is no news.
        self.now()
        self.told.clear()

    def follow(self, key: DocumentKey, told: State | None = None) -> None:
        self.watch.follow(key)
        below = (key.thread_id, "") if key.run_id is None else (key.thread_id, key.run_id, "")
        self.watch.follow(DocumentKey(*below))
        self._changed(change_of(Part.DOCUMENT, key), told)  # It may have changed between.

    def _changed(self, change: Change, told: State | None = None) -> None:
        if (heard := self.telling.heard(change, told)) is not None:
            self._came.append(heard)

    def hear(self, change: Change) -> list[Told]:
        """What is told of a change that somebody announces."""
        heard = self.telling.heard(change)
        assert heard is not None
        return [shown(event.line()) for event in self.telling.events(heard)]

    def now(self) -> list[Told]:
        """All that was told so far."""
        while self._came:
            self.told += [shown(event.line()) for event in self.telling.events(self._came.popleft())]
        return self.told

    def tells(self, *events: Told) -> None:
        """These have been told soon, in this order, and nothing else."""
        wait_until(lambda: len(self.now()) >= len(events))
        assert self.told == [*events]
        self.told.clear()


@pytest.fixture
def listener(store: Store) -> Iterator[Listener]:
    listening = Listener(store)
    yield listening
    listening.watch.close()


@pytest.fixture
def other(make_store: MakeStore) -> Store:
    """Another program with the same store."""
    return make_store()
