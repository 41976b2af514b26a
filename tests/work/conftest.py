"""Endpoints for the tests of the worker: one that does as it is told, and one with a real model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from store import ThreadStore
from tests.work.scripted import ScriptedEndpoint, scripted


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    with scripted() as served:
        yield served


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The directory of a store."""
    made = tmp_path / "store"
    made.mkdir()
    return made


@pytest.fixture
def store(place: Path) -> Iterator[ThreadStore]:
    """The store at `place`, as another program than the worker has it."""
    opened = ThreadStore(place)
    try:
        yield opened
    finally:
        opened.close()
