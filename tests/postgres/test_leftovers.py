"""What is kept for a while, and that it does not stay."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from store import Run, RunStatus, StorageFailed
from tests.postgres.cluster import Cluster
from tests.postgres.fixtures import OpenStore
from tests.store.conftest import make_run, make_thread, message


def count(cluster: Cluster, table: str) -> int:
    return int(str(cluster.sql(f"SELECT count(*) FROM threadfs.{table}", database="contract")[0][0]))


def test_the_messages_of_a_deleted_thread_go_when_they_have_been_kept_long_enough(
    open_store: OpenStore, cluster: Cluster
) -> None:
    store = open_store()
    make_thread(store)
    store.append_message("T", message())
    store.delete_thread("T")
    store.clear_leftovers()
    assert count(cluster, "messages") == 1
    cluster.sql(
        "UPDATE threadfs.deleted_logs SET deleted_at = now() - interval '1 hour'", database="contract"
    )
    store.clear_leftovers()
    assert (count(cluster, "messages"), count(cluster, "deleted_logs")) == (0, 0)


def test_the_next_opening_clears_what_a_killed_program_left(open_store: OpenStore, cluster: Cluster) -> None:
    store = open_store()
    make_thread(store)
    store.append_message("T", message())
    store.delete_thread("T")
    cluster.sql(
        "UPDATE threadfs.deleted_logs SET deleted_at = now() - interval '1 hour'", database="contract"
    )
    cluster.sql(
        "INSERT INTO threadfs.commits VALUES ('T', 7, now() - interval '1 year')", database="contract"
    )
    open_store()
    assert count(cluster, "messages") == 0
    assert cluster.sql("SELECT token FROM threadfs.commits WHERE token = 7", database="contract") == []


def test_a_reader_of_a_log_that_is_no_longer_kept_is_told_so(open_store: OpenStore, cluster: Cluster) -> None:
    store = open_store()
    make_thread(store)
    store.append_message("T", message())
    reader = store.open_log("T")
    store.delete_thread("T")
    assert reader.read(0, 1000)
    cluster.sql("DELETE FROM threadfs.messages", database="contract")
    for call in (lambda: reader.read(0, 1000), reader.info):
        with pytest.raises(StorageFailed) as failure:
            call()
        assert failure.value.errno == errno.ESTALE


def test_many_changes_leave_as_many_tokens_as_there_are_connections(
    open_store: OpenStore, cluster: Cluster
) -> None:
    store = open_store()
    make_run(store)
    for _ in range(20):
        store.append_message("T", message())
        store.force_update_run_status("T", "R", RunStatus.queued)
        store.create_run("T", Run())
    assert count(cluster, "commits") == 1


def test_a_change_that_changes_nothing_writes_nothing(open_store: OpenStore, cluster: Cluster) -> None:
    store = open_store()
    make_run(store, RunStatus.cancelled)
    # Who wrote each row last, and where it lies: every write makes another one.
    rows = " UNION ALL ".join(f"SELECT xmin::text, ctid::text FROM threadfs.{t}" for t in ("runs", "threads"))
    before = cluster.sql(rows, database="contract")
    store.cancel_run("T", "R")
    assert cluster.sql(rows, database="contract") == before


def test_without_the_client_library_one_line_says_what_to_install() -> None:
    program = "import sys; sys.modules['psycopg'] = None; import store.postgres"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "install threadfs[postgres]" in result.stderr.splitlines()[-1]
