"""Other threads look ahead at what has to be read from a disk, and at nothing else."""

from __future__ import annotations

import threading
from itertools import count

import pytest

from store.disk import looking_ahead as module
from store.disk.looking_ahead import looking_ahead
from store.errors import StorageFailed

THINGS = [*range(1000)]


def looked_at(monkeypatch: pytest.MonkeyPatch, blocks: int) -> set[int]:
    """At what other threads look ahead, of `THINGS`, while so many blocks are read at each look of theirs."""
    read = count(0, blocks)
    monkeypatch.setattr(module, "_blocks_read", lambda: next(read))
    looked: set[int] = set()
    here = threading.get_ident()

    def look(thing: int) -> None:
        assert threading.get_ident() != here
        looked.add(thing)
        raise StorageFailed(5, str(thing))

    assert [*looking_ahead(THINGS, look)] == THINGS
    return looked


def test_while_much_is_read_all_further_things_are_looked_at_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looked_at(monkeypatch, module._TOGETHER * module._MUCH) == {*THINGS[module._TOGETHER :]}


def test_what_is_in_memory_is_not_looked_at_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looked_at(monkeypatch, module._MUCH) == set()
