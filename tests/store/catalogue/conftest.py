"""Catalogues in the memory, and a plain reading of messages to compare them with."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from store.catalogue import schema
from store.catalogue.catalogue import Catalogue

IDENTITY: dict[str, str | int] = {"path": "/store", "inode": 1, "birth_ns": 2}
NOW_S = 1_796_000_000  # 2026-11-29
DAY_S = 86400


def in_memory() -> Catalogue:
    connection = sqlite3.connect(":memory:")
    schema.prepare(connection)
    schema.create(connection, IDENTITY)
    return Catalogue(connection)


@pytest.fixture
def catalogue() -> Iterator[Catalogue]:
    made = in_memory()
    yield made
    made.connection.close()
