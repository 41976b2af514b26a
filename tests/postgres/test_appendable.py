"""Messages: which privilege is missing is said before one is written, and a long one is written in time."""

from __future__ import annotations

import errno

import pytest

from store.documents import MAX_LINE_BYTES
from store.postgres import Limits
from tests.postgres.cluster import Cluster
from tests.postgres.fixtures import OpenStore
from tests.postgres.test_failures import fails_with
from tests.store.conftest import make_thread, message


@pytest.mark.parametrize(
    "lacking", ["INSERT ON threadfs.messages", "UPDATE ON threadfs.threads", "INSERT ON threadfs.commits"]
)
def test_a_role_that_may_not_append_is_told_which_privilege_it_lacks_before_it_does(
    open_store: OpenStore, cluster: Cluster, url: str, lacking: str
) -> None:
    make_thread(open_store())
    cluster.psql("roles.sql", "contract")
    try:
        cluster.sql("ALTER ROLE threadfs_worker LOGIN")
        store = open_store(cluster.url("contract", "threadfs_worker"))
        store.check_appendable("T")
        cluster.sql(f"REVOKE {lacking} FROM threadfs_worker", database="contract")
        named = lacking.replace("ON threadfs.", "on ")
        fails_with(errno.EACCES, named, lambda: store.check_appendable("T"))
        fails_with(errno.EACCES, "permission denied", lambda: store.append_message("T", message()))
    finally:
        cluster.sql("DROP OWNED BY threadfs_worker; DROP ROLE threadfs_worker", database="contract")


def test_whether_a_message_could_be_appended_is_asked_in_one_round_trip(
    open_store: OpenStore, asked: list[str]
) -> None:
    store = open_store()
    make_thread(store)
    asked.clear()
    store.check_appendable("T")
    assert len(asked) == 1


def test_a_long_message_is_sent_before_the_server_takes_the_transaction_for_abandoned(
    open_store: OpenStore,
) -> None:
    store = open_store(limits=Limits(idle_s=0.2))
    make_thread(store)
    store.append_message("T", message("x" * (MAX_LINE_BYTES - 1000)))
    assert store.log_info("T").size_bytes > MAX_LINE_BYTES - 1000
