"""A store, and a tree that shows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from store import ThreadStore
from tests.nodes.driving import Programs
from threadfs.nodes.root import root_of


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ThreadStore]:
    opened = ThreadStore(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture
def programs(store: ThreadStore) -> Programs:
    return Programs(root_of(store))
