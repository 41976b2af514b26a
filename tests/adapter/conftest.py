"""A store with the run R of the thread T, another program that works on it, and a stand-in for the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from store import Run, Thread, ThreadStore
from tests.adapter.kernel import Kernel, kernel_on


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def other(place: Path) -> ThreadStore:
    """Another program with the same store."""
    store = ThreadStore(place)
    store.create_thread(Thread(id="T"))
    store.create_run("T", Run(id="R"))
    return store


@pytest.fixture
def kernel(place: Path, other: ThreadStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """It has mounted the store."""
    with kernel_on(place, monkeypatch) as mounted:
        yield mounted


@pytest.fixture
def unwatched(place: Path, other: ThreadStore, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """The same, where no change by another program is reported."""
    return Kernel(ThreadStore(place), monkeypatch)
