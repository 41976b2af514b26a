"""The thread that tells the events of a mount."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from store import Store, Thread
from tests.mount.conftest import wait_until
from threadfs.events.event import Event
from threadfs.events.kept import KeptLines
from threadfs.events.teller import Teller
from threadfs.events.telling import Heard


def test_a_teller_that_is_closed_looks_at_nothing_that_it_has_heard_of(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    teller = Teller(store, KeptLines())
    looked_at: list[str] = []
    looks, is_closed = threading.Event(), threading.Event()

    def look(heard: Heard) -> Iterator[Event]:
        looked_at.append(heard.change.thread_id)
        looks.set()
        is_closed.wait()
        return iter(())

    monkeypatch.setattr(teller._telling, "events", look)
    teller.start()
    store.create_thread(Thread(id="T"))
    store.create_thread(Thread(id="U"))
    looks.wait()
    closing = threading.Thread(target=teller.close)
    closing.start()
    wait_until(lambda: teller._is_closed)
    is_closed.set()
    closing.join()
    assert looked_at == ["T"]
