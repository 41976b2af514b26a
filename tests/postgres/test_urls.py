"""Where credentials come from, and where they never show."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from store import StorageFailed
from store.postgres import PostgresStore, without_password
from store.postgres.urls import WrongUrl, connection_parameters, with_absolute_paths
from tests.postgres.cluster import Cluster

SECRET = "s3cret/@:%é"
QUOTED = "s3cret%2F%40%3A%25%C3%A9"

URLS = {
    "postgresql://alice:pw@db/chats": ("postgresql://alice@db/chats", "pw"),
    "postgres://alice:pw@db/chats": ("postgres://alice@db/chats", "pw"),
    "postgresql://alice@db:5433/chats": ("postgresql://alice@db:5433/chats", None),
    "postgresql://": ("postgresql://", None),
    "postgresql:///chats?host=/run/postgresql": ("postgresql:///chats?host=/run/postgresql", None),
    "postgresql://:pw@db/chats": ("postgresql://@db/chats", "pw"),
    "postgresql://alice:@db/chats": ("postgresql://alice@db/chats", None),
    f"postgresql://alice:{QUOTED}@db/chats": ("postgresql://alice@db/chats", SECRET),
    "postgresql://a%40b:pw@db/chats": ("postgresql://a%40b@db/chats", "pw"),
    "postgresql://alice:pw@[::1]:5433/chats": ("postgresql://alice@[::1]:5433/chats", "pw"),
    "postgresql://alice:pw@one:1,two:2/chats?target_session_attrs=read-write": (
        "postgresql://alice@one:1,two:2/chats?target_session_attrs=read-write",
        "pw",
    ),
    "postgresql://db/chats?user=alice&password=pw&sslmode=require": (
        "postgresql://db/chats?user=alice&sslmode=require",
        "pw",
    ),
    "postgresql://db/chats?password=pw": ("postgresql://db/chats", "pw"),
    "postgresql://db/chats?%70assword=pw": ("postgresql://db/chats", "pw"),
    "postgresql://db/chats?sslkey=/k&sslpassword=pw": ("postgresql://db/chats?sslkey=/k", None),
    "postgresql://?service=chats": ("postgresql://?service=chats", None),
    "host=db user=alice password='p w' dbname=chats": ("user=alice dbname=chats host=db", "p w"),
}


@pytest.mark.parametrize("url", URLS)
def test_a_url_loses_its_password_and_nothing_else(url: str) -> None:
    clean, password = without_password(url)
    expected, expected_password = URLS[url]
    assert (sorted(clean.split()), password) == (sorted(expected.split()), expected_password)
    assert without_password(clean) == (clean, None)


@pytest.mark.parametrize("url", URLS)
def test_what_is_left_of_a_url_and_its_password_connect_to_the_same(url: str) -> None:
    clean, password = without_password(url)
    parameters = connection_parameters(clean, 5) | ({"password": password} if password else {})
    parameters.pop("sslpassword", None)
    whole = connection_parameters(url, 5)
    whole.pop("sslpassword", None)
    assert parameters == {name: value for name, value in whole.items() if value or name != "password"}


def test_files_that_a_url_names_are_found_from_any_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("alice's.crt", "system"):
        Path(name).touch()
    assert with_absolute_paths("postgresql://db/chats?sslcert=alice%27s.crt&sslmode=verify-full") == (
        f"postgresql://db/chats?sslcert={tmp_path}/alice%27s.crt&sslmode=verify-full"
    )
    for url in (*URLS, "postgresql://db/chats?sslcert=missing.crt", "postgresql://db/?sslrootcert=system"):
        assert with_absolute_paths(url) == url


def test_files_that_the_environment_names_are_found_from_any_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pgpass").touch()
    monkeypatch.setenv("PGPASSFILE", "pgpass")
    monkeypatch.setenv("PGSERVICEFILE", "missing")
    monkeypatch.setenv("PGSSLROOTCERT", "/etc/passwd")
    with_absolute_paths("postgresql://db/chats")
    names = ("PGPASSFILE", "PGSERVICEFILE", "PGSSLROOTCERT")
    assert [os.environ[name] for name in names] == [f"{tmp_path}/pgpass", "missing", "/etc/passwd"]


@pytest.mark.parametrize(
    "url", ["postgresql://a:s3cret@b@c/%zz", "s3cret", "postgresql://h/d?nosuch=s3cret%zz"]
)
def test_a_url_that_is_none_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(WrongUrl) as refusal:
        PostgresStore(url)
    assert "s3cret" not in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_bounds_are_filled_in_where_the_url_sets_none() -> None:
    parameters = connection_parameters("postgresql://db/chats?keepalives_idle=60&application_name=mine", 5)
    assert parameters["connect_timeout"] == "5"
    assert parameters["keepalives_idle"] == "60"
    assert parameters["application_name"] == "mine"
    assert connection_parameters("postgresql://db/chats?connect_timeout=9", 5)["connect_timeout"] == "9"


def test_the_environment_sets_the_time_to_connect_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "7")
    assert "connect_timeout" not in connection_parameters("postgresql://db/chats", 5)


@pytest.fixture
def guarded(cluster: Cluster, url: str) -> Iterator[str]:
    """The URL, without its password, of a role that needs one."""
    cluster.sql("DROP ROLE IF EXISTS guarded")
    cluster.sql("CREATE ROLE guarded LOGIN SUPERUSER PASSWORD 's3cret/@:%é'")
    yield cluster.url("contract", "guarded")
    cluster.sql("DROP ROLE guarded")


def works(url: str) -> bool:
    with PostgresStore(url) as store:
        assert "s3cret" not in store.location
        return store.list_thread_ids() == []


def test_a_password_in_the_url_works(guarded: str) -> None:
    assert works(guarded.replace("guarded@", f"guarded:{QUOTED}@"))


def test_a_password_in_the_environment_works(guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", SECRET)
    assert works(guarded)


def test_a_password_file_works(guarded: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    passwords = tmp_path / "pgpass"
    passwords.write_text("*:*:*:guarded:" + SECRET.replace(":", "\\:") + "\n", encoding="utf-8")
    passwords.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    assert works(guarded)


def test_a_service_works(
    guarded: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    services = tmp_path / "services"
    services.write_text(
        f"[chats]\nhost=127.0.0.1\nport={cluster.port}\ndbname=contract\nuser=guarded\npassword={SECRET}\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    assert works("postgresql://?service=chats")


def test_tls_that_the_url_demands_is_not_done_without(url: str) -> None:
    with pytest.raises(StorageFailed, match="SSL"):
        PostgresStore(f"{url}&sslmode=require")


def test_a_password_is_not_logged_when_the_connection_fails(
    guarded: str, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        with PostgresStore(guarded.replace("guarded@", f"guarded:{QUOTED}@")) as store:
            assert store.list_thread_ids() == []
            cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'guarded'")
            assert store.list_thread_ids() == []
            watch = store.watch(lambda change: None)
            watch.close()
        with pytest.raises(StorageFailed):
            PostgresStore(guarded.replace("guarded@", "guarded:s3cret-wrong@"))
    assert "s3cret" not in caplog.text
