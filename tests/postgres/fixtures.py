"""One server for all tests; for each test a database without rows, and stores that are closed after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import psycopg
import pytest

from store.postgres import Limits, PostgresStore
from store.postgres.connections import Rows, Session
from tests.postgres.cluster import Cluster, private_cluster
from tests.postgres.proxy import Proxy, proxy_to

# Opens another store on the same database; with its own limits, or on another URL.
OpenStore: TypeAlias = Callable[..., PostgresStore]

_DATABASE = "contract"
_TABLES = (
    "threads",
    "messages",
    "deleted_logs",
    "runs",
    "steps",
    "commits",
    "workers",
    "answers",
    "answer_texts",
)
_EMPTY = "; ".join(f"DELETE FROM threadfs.{table}" for table in _TABLES).encode()


class Emptying:
    """Empties the database: a hundred times quicker than a new one, as its connection is kept a thousand."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection: psycopg.Connection | None = None

    def empty(self) -> None:
        if self._connection is not None:
            try:
                self._connection.execute(_EMPTY)
                return
            except psycopg.OperationalError:  # A test has ended all connections.
                self.disconnect()
        self._connection = psycopg.connect(self.url, autocommit=True)
        self._connection.execute(_EMPTY)

    def disconnect(self) -> None:
        """For tests of all connections that there are."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with private_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def prepared_url(cluster: Cluster) -> str:
    """A database with the tables of a store."""
    cluster.sql(f"CREATE DATABASE {_DATABASE}")
    PostgresStore(cluster.url(_DATABASE), create=True).close()
    return cluster.url(_DATABASE)


@pytest.fixture(scope="session")
def emptying(prepared_url: str) -> Iterator[Emptying]:
    emptying = Emptying(prepared_url)
    yield emptying
    emptying.disconnect()


@pytest.fixture
def url(emptying: Emptying) -> str:
    """The same database, without rows."""
    emptying.empty()
    return emptying.url


@pytest.fixture
def open_store(url: str) -> Iterator[OpenStore]:
    opened: list[PostgresStore] = []

    def another(at: str = url, limits: Limits | None = None) -> PostgresStore:
        opened.append(PostgresStore(at, limits=limits))
        return opened[-1]

    yield another
    for store in opened:
        store.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each statement that is sent to a server from here on."""
    statements: list[str] = []
    execute = Session.execute

    def noted(session: Session, query: str, *parameters: Any) -> Rows:
        statements.append(query)
        return execute(session, query, *parameters)

    monkeypatch.setattr(Session, "execute", noted)
    return statements


# Short waits, for tests that wait until the time is up.
IMPATIENT = Limits(connect_s=2, answer_s=0.5, retry_s=1.0, connections=4)


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[Proxy]:
    with proxy_to(cluster.port) as proxy:
        yield proxy


@pytest.fixture
def url_through_proxy(cluster: Cluster, proxy: Proxy, url: str) -> str:
    return url.replace(f":{cluster.port}/", f":{proxy.port}/")


@pytest.fixture
def new_database(cluster: Cluster) -> Iterator[str]:
    """The name of a database without tables."""
    cluster.sql("CREATE DATABASE empty")
    yield "empty"
    cluster.sql("DROP DATABASE empty WITH (FORCE)")
