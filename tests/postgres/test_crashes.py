"""Writers that go on while the server crashes and the network breaks: nothing is lost or comes twice."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest

from store import AlreadyExists, Run, RunStatus, StatusChanged, StorageFailed
from store.postgres import PostgresStore
from tests.postgres.cluster import Cluster, private_cluster
from tests.postgres.proxy import Proxy, proxy_to
from tests.store.conftest import make_thread, message

WRITERS = 4
FOR_S = 3.0

Trouble = Callable[[Cluster, Proxy], None]


def crash(cluster: Cluster, proxy: Proxy) -> None:
    """As after a power cut: sessions end in the middle of anything, and the log is replayed."""
    cluster.stop(signal.SIGQUIT)
    cluster.start()
    time.sleep(0.3)


def kill_sessions(cluster: Cluster, proxy: Proxy) -> None:
    cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'writer'")


def cut_network(cluster: Cluster, proxy: Proxy) -> None:
    proxy.cut()


def lose_an_answer(cluster: Cluster, proxy: Proxy) -> None:
    proxy.cut_at(b"COMMIT", pass_it_on=random.choice([True, False]))


@pytest.mark.parametrize("trouble", [crash, kill_sessions, cut_network, lose_an_answer])
def test_what_is_acknowledged_is_there_once_and_a_claim_is_won_once(trouble: Trouble) -> None:
    acknowledged: list[str] = []
    unknown: list[str] = []
    won: list[str] = []
    over = threading.Event()

    def write(store: PostgresStore, number: int) -> None:
        count = 0
        while not over.is_set():
            name, count = f"{number}-{count}", count + 1
            try:
                store.append_message("T", message(id=name))
                acknowledged.append(name)
                # Two compete for each run; the second one finds it there, or claimed.
                run_id = f"{number // 2}-{count // 4}"
                with_run(store, run_id)
                store.update_run_status("T", run_id, RunStatus.in_progress, expected=RunStatus.queued)
                won.append(run_id)
            except StatusChanged:
                continue
            except StorageFailed as error:
                unknown.append(f"{name}: {error}")

    with private_cluster() as cluster, proxy_to(cluster.port) as proxy:
        cluster.sql("CREATE ROLE writer LOGIN SUPERUSER")
        through = cluster.url("postgres", "writer").replace(f":{cluster.port}/", f":{proxy.port}/")
        with PostgresStore(through, create=True) as store:
            make_thread(store)
            writers = [threading.Thread(target=write, args=(store, number)) for number in range(WRITERS)]
            for writer in writers:
                writer.start()
            until = time.monotonic() + FOR_S
            while time.monotonic() < until or len(acknowledged) <= WRITERS:  # A busy machine takes longer.
                time.sleep(random.uniform(0.01, 0.1))
                trouble(cluster, proxy)
            over.set()
            for writer in writers:
                writer.join()
        with PostgresStore(cluster.url("postgres")) as store:
            stored = Counter(found.id for found in store.iter_messages("T"))
    assert len(acknowledged) > WRITERS
    assert unknown == []
    assert set(stored.values()) == {1}
    assert set(acknowledged) <= set(stored)
    assert max(Counter(won).values()) == 1


def with_run(store: PostgresStore, run_id: str) -> None:
    with suppress(AlreadyExists):
        store.create_run("T", Run(id=run_id))
