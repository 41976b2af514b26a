"""Catalogues in the memory, and a plain reading of messages to compare them with."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

import pytest

from store.catalogue import schema
from store.catalogue.api import Named
from store.catalogue.tables import Tables

IDENTITY: dict[str, str | int] = {"path": "/store", "inode": 1, "birth_ns": 2}
NOW_S = 1_796_000_000  # 2026-11-29
DAY_S = 86400


def called(named: Iterable[Named]) -> list[tuple[str, str]]:
    """Names, each with the thread that it leads to."""
    return [(one.name, one.thread_id) for one in named]


def in_memory() -> Tables:
    connection = sqlite3.connect(":memory:")
    schema.prepare(connection)
    schema.create(connection, IDENTITY)
    return Tables(connection)


@pytest.fixture
def catalogue() -> Iterator[Tables]:
    made = in_memory()
    yield made
    made.connection.close()
