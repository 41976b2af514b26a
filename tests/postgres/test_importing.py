"""Imports into a database: one that is empty, one with older tables, one that is partitioned."""

from __future__ import annotations

from pathlib import Path

import pytest

from store import StoreError
from store.postgres import PostgresStore, schema
from tests.importing.conftest import FIXTURES, chatgpt, imported, written
from tests.postgres.cluster import Cluster
from tests.store.conftest import LONG_AGO_NS, META, make_thread

EXPORT = FIXTURES / "chatgpt/branches/export.zip"
SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname = 'threadfs'"


def test_a_rehearsal_says_the_same_and_leaves_an_empty_database_empty(
    cluster: Cluster, new_database: str
) -> None:
    url = cluster.url(new_database)
    rehearsed = imported(url, EXPORT, "--dry-run")
    assert cluster.sql(SCHEMAS, database=new_database) == []
    assert imported(url, EXPORT) == rehearsed


def test_nothing_to_import_makes_no_tables(cluster: Cluster, new_database: str, tmp_path: Path) -> None:
    imported(cluster.url(new_database), written(tmp_path / "e", [chatgpt()])).has(empty=1)
    assert cluster.sql(SCHEMAS, database=new_database) == []


@pytest.fixture
def older_url(cluster: Cluster, new_database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with the tables of the first version, and the thread T in it."""
    url = cluster.url(new_database)
    with monkeypatch.context() as patches:
        first = schema.migrations()[:1]
        patches.setattr(schema, "migrations", lambda: first)
        with PostgresStore(url, create=True) as store:
            make_thread(store)
    return url


def test_older_tables_are_brought_up_to_date_by_an_import_and_keep_their_threads(older_url: str) -> None:
    with pytest.raises(StoreError, match="fsck --create"):
        PostgresStore(older_url)
    imported(older_url, EXPORT).has(imported=2, empty=1)
    with PostgresStore(older_url) as store:
        assert "T" in store.list_thread_ids()
        assert store.thread_touched_ns("T") == store.thread_modified_ns("T")


def test_tables_that_are_partitioned_get_the_column_too(cluster: Cluster, older_url: str) -> None:
    database = older_url.rpartition("/")[2].partition("?")[0]
    cluster.psql("partitioning.sql", database, "-v", "partitions=3")
    with PostgresStore(older_url, create=True) as store:
        store.import_thread("U", META, [], {}, modified_ns=LONG_AGO_NS)
        assert store.thread_touched_ns("U") > store.thread_modified_ns("U") == LONG_AGO_NS
