"""The tables: made once, refused when they are of another time, as they are when they are partitioned."""

from __future__ import annotations

import time

import pytest

from store import DocumentKey, RunStatus, StorageFailed, StoreError, Thread
from store.catalogue.queries import parsed
from store.postgres import PostgresStore, schema
from tests.postgres.cluster import Cluster
from tests.postgres.fixtures import OpenStore
from tests.store.conftest import THREAD, make_step, make_thread, message, texts

TABLES = (
    "SELECT relname FROM pg_class WHERE relnamespace = 'threadfs'::regnamespace AND relkind IN ('r', 'p')"
)

SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname = 'threadfs'"


def partition(cluster: Cluster, database: str, partitions: int) -> None:
    cluster.psql("partitioning.sql", database, "-v", f"partitions={partitions}")


def test_an_empty_database_gets_the_tables_and_a_second_opening_changes_nothing(
    cluster: Cluster, new_database: str
) -> None:
    with PostgresStore(cluster.url(new_database), create=True) as store:
        assert store.is_new
        make_thread(store)
    applied = "SELECT * FROM threadfs.migrations"
    before = cluster.sql(applied, database=new_database)
    for create in (False, True):
        with PostgresStore(cluster.url(new_database), create=create) as store:
            assert not store.is_new
            assert store.list_thread_ids() == ["T"]
    assert cluster.sql(applied, database=new_database) == before


def test_an_empty_database_that_is_only_to_be_read_stays_empty_and_is_said_to_hold_no_store(
    cluster: Cluster, new_database: str
) -> None:
    url = cluster.url(new_database, "postgres:s3cret")
    with pytest.raises(schema.UnusableDatabase, match=r"holds no store yet: .* --create") as refusal:
        PostgresStore(url)
    assert "s3cret" not in str(refusal.value)
    assert cluster.sql(SCHEMAS, database=new_database) == []


@pytest.fixture
def older(cluster: Cluster, new_database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a database with the tables of the version before this one."""
    PostgresStore(cluster.url(new_database), create=True).close()
    steps = schema.migrations()
    newer = [*steps, (steps[-1][0] + 1, "ALTER TABLE runs ADD COLUMN more text")]
    monkeypatch.setattr(schema, "migrations", lambda: newer)
    return new_database


MORE = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'threadfs.runs'::regclass AND attname = 'more'"


def test_tables_of_an_older_version_that_are_only_to_be_read_are_refused_and_stay_as_they_are(
    cluster: Cluster, older: str
) -> None:
    with pytest.raises(schema.UnusableDatabase, match=r"older version .* --create"):
        PostgresStore(cluster.url(older))
    assert cluster.sql(MORE, database=older) == [(0,)]


def test_tables_of_an_older_version_are_brought_up_to_date_by_their_owner_and_keep_their_rows(
    cluster: Cluster, older: str
) -> None:
    cluster.sql("INSERT INTO threadfs.threads VALUES ('T', '{}', 1, 1, 1, 0, 1)", database=older)
    with PostgresStore(cluster.url(older), create=True) as store:
        assert not store.is_new
        assert store.list_thread_ids() == ["T"]
    assert cluster.sql(MORE, database=older) == [(1,)]
    PostgresStore(cluster.url(older)).close()


def test_a_role_that_may_not_bring_tables_up_to_date_is_told_who_may(cluster: Cluster, older: str) -> None:
    cluster.psql("roles.sql", older)
    cluster.sql("ALTER ROLE threadfs_worker LOGIN")
    try:
        with pytest.raises(schema.UnusableDatabase, match=r"must be owner .* their owner runs") as refusal:
            PostgresStore(cluster.url(older, "threadfs_worker"), create=True)
        assert "\n" not in str(refusal.value)
        assert cluster.sql(MORE, database=older) == [(0,)]
    finally:
        cluster.sql("DROP OWNED BY threadfs_worker; DROP ROLE threadfs_worker", database=older)


def test_every_primary_key_begins_with_the_thread(cluster: Cluster, url: str) -> None:
    first_columns = cluster.sql(
        "SELECT relname, attname FROM pg_index JOIN pg_class ON pg_class.oid = indrelid"
        " JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]"
        " WHERE indisprimary AND relnamespace = 'threadfs'::regnamespace"
        " AND relname NOT IN ('migrations', 'workers')",
        database="contract",
    )
    assert {column for _, column in first_columns} == {"thread_id"}
    assert len(first_columns) == len(cluster.sql(TABLES, database="contract")) - 2


def test_a_database_that_a_newer_program_has_changed_is_refused(cluster: Cluster, new_database: str) -> None:
    PostgresStore(cluster.url(new_database), create=True).close()
    cluster.sql("INSERT INTO threadfs.migrations (number) VALUES (9999)", database=new_database)
    for create in (False, True):
        with pytest.raises(schema.UnusableDatabase, match="upgrade threadfs"):
            PostgresStore(cluster.url(new_database), create=create)


def test_what_is_there_when_change_times_come_counts_as_changed_then(
    cluster: Cluster, new_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_steps = schema.migrations()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "migrations", lambda: all_steps[:1])
        with PostgresStore(cluster.url(new_database), create=True) as store:
            make_thread(store)
    with PostgresStore(cluster.url(new_database), create=True) as store:
        before = store.document_info(THREAD)
        assert before.modified_ns < before.changed_ns <= time.time_ns()
        store.create_thread(Thread(id="U"))
        assert store.document_info(DocumentKey("U")).changed_ns > before.changed_ns
        assert store.document_info(THREAD) == before


def test_a_database_that_is_not_in_utf_8_is_refused(cluster: Cluster) -> None:
    cluster.sql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(schema.UnusableDatabase, match="LATIN1"):
        PostgresStore(cluster.url("latin"), create=True)
    assert cluster.sql(SCHEMAS, database="latin") == []
    cluster.sql("DROP DATABASE latin")


def test_a_database_that_is_missing_is_an_error_of_the_store(cluster: Cluster) -> None:
    with pytest.raises(StorageFailed, match="does not exist"):
        PostgresStore(cluster.url("missing"))


def test_a_role_that_may_not_make_tables_is_told_so(cluster: Cluster, new_database: str) -> None:
    cluster.sql("DROP ROLE IF EXISTS nobody")
    cluster.sql("CREATE ROLE nobody LOGIN")
    with pytest.raises(
        schema.UnusableDatabase, match=r"permission denied .* a role that may runs"
    ) as refusal:
        PostgresStore(cluster.url(new_database, "nobody"), create=True)
    assert "\n" not in str(refusal.value)


def test_a_role_that_may_not_read_the_tables_is_told_so(cluster: Cluster, url: str) -> None:
    cluster.sql("DROP ROLE IF EXISTS nobody")
    cluster.sql("CREATE ROLE nobody LOGIN")
    for create in (False, True):
        with pytest.raises(schema.UnusableDatabase, match=r"permission denied .* threadfs_worker"):
            PostgresStore(cluster.url("contract", "nobody"), create=create)


def test_a_role_with_the_documented_privileges_can_do_all_and_make_no_tables(
    open_store: OpenStore, cluster: Cluster, url: str
) -> None:
    for _ in range(2):
        cluster.psql("roles.sql", "contract")
    try:
        cluster.sql("ALTER ROLE threadfs_worker LOGIN")
        store = open_store(cluster.url("contract", "threadfs_worker"))
        watch = store.watch(lambda change: None)
        make_step(store)
        store.append_message("T", message())
        store.cancel_run("T", "R")
        assert [status for _, _, status in store.runs_by_status()] == [RunStatus.cancelled]
        store.delete_thread("T")
        store.clear_leftovers()
        watch.close()
        with pytest.raises(Exception, match="permission denied"):
            cluster.sql("SET ROLE threadfs_worker; CREATE TABLE threadfs.mine ()", database="contract")
    finally:
        cluster.sql("DROP OWNED BY threadfs_worker; DROP ROLE threadfs_worker", database="contract")


def test_an_owner_who_may_make_no_roles_gives_the_privileges_to_one_that_is_there(
    cluster: Cluster, new_database: str
) -> None:
    cluster.sql(
        f"CREATE ROLE keeper LOGIN; GRANT CREATE ON DATABASE {new_database} TO keeper;"
        " CREATE ROLE threadfs_worker; CREATE ROLE alice LOGIN IN ROLE threadfs_worker"
    )
    try:
        PostgresStore(cluster.url(new_database, "keeper"), create=True).close()
        cluster.psql("roles.sql", new_database, user="keeper")
        with PostgresStore(cluster.url(new_database, "alice")) as store:
            make_thread(store)
        cluster.psql("partitioning.sql", new_database, "-v", "partitions=2", user="keeper")
        cluster.psql("roles.sql", new_database, user="keeper")
        with PostgresStore(cluster.url(new_database, "alice")) as store:
            assert store.list_thread_ids() == ["T"]
    finally:
        cluster.sql("DROP OWNED BY keeper, threadfs_worker", database=new_database)
        cluster.sql("DROP ROLE alice, keeper, threadfs_worker")


def test_a_store_that_is_partitioned_in_place_keeps_its_rows_and_works_on(
    cluster: Cluster, new_database: str
) -> None:
    with PostgresStore(cluster.url(new_database), create=True) as store:
        make_step(store)
        store.append_message("T", message("before"))
        partition(cluster, new_database, 4)
        partitions = cluster.sql(
            "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'", database=new_database
        )
        assert len(partitions) == 8 * 4
        store.append_message("T", message("after"))
        assert texts(store) == ["before", "after"]
        store.catalogue().refresh(words=True)
        assert [hit.line for hit in store.catalogue().search(parsed("after", 0)).hits] == [2]
        store.update_run_status("T", "R", RunStatus.completed)
        assert list(store.runs_by_status([RunStatus.completed])) == [("T", "R", RunStatus.completed)]
        for number in range(20):
            store.import_thread(f"U{number}", b'{"created_at":1}', [], {})
        assert len(store.list_thread_ids()) == 21
        store.delete_thread("T")
        with pytest.raises(StoreError):
            store.get_step("T", "R", "S")
        assert cluster.sql("SELECT count(*) FROM threadfs.words", database=new_database) == [(0,)]
