"""A PostgreSQL server of our own: a cluster in a temporary directory, run by a user without privileges."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import psycopg

# initdb and the server refuse to run as root; Debian's package makes this user.
_SERVER_USER = "postgres"

# Small and quick: nothing here has to survive a power cut. Everything else is as it is by default.
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "'32MB'",
    "max_connections": "100",
    "autovacuum": "off",
    "log_min_messages": "warning",
    # As it is by default since version 14.
    "password_encryption": "'scram-sha-256'",
}


def _programs() -> Path:
    """Those of the server to test with, in ``PGBIN``; else where Debian keeps the newest, not on the PATH."""
    if asked := os.environ.get("PGBIN"):
        return Path(asked)
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    on_path = shutil.which("initdb")
    assert found or on_path, "the tests need a PostgreSQL server: apt-get install postgresql"
    return found[-1] if found else Path(str(on_path)).parent


def _as_server_user() -> dict[str, object]:
    if os.geteuid():
        return {}
    user = pwd.getpwnam(_SERVER_USER)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass
class Cluster:
    """A running server, which can be stopped, killed and started again on the same port."""

    directory: Path
    port: int
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def url(self, database: str, user: str = "postgres", **parameters: str) -> str:
        query = "".join(f"&{name}={value}" for name, value in parameters.items())
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}?connect_timeout=5{query}"

    def start(self) -> None:
        settings = {
            "port": str(self.port),
            "listen_addresses": "'127.0.0.1'",
            "unix_socket_directories": f"'{self.directory}'",
            **_SETTINGS,
            **self.settings,
        }
        lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (self.directory / "data" / "postgresql.auto.conf").write_text(lines)
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                [str(_programs() / "postgres"), "-D", str(self.directory / "data")],
                stdout=log,
                stderr=log,
                cwd=self.directory,
                **_as_server_user(),  # type: ignore[call-overload]
            )
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
                return
            except psycopg.OperationalError:
                assert self.process is not None
                assert self.process.poll() is None, (self.directory / "log").read_text()
                assert time.monotonic() < deadline, (self.directory / "log").read_text()
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT is a fast shutdown, SIGQUIT an immediate one, as after a crash."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(20)
            self.process = None

    def sql(self, query: str, *parameters: object, database: str = "postgres") -> list[tuple[object, ...]]:
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(query.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def psql(self, script: str, database: str, *options: str, user: str = "postgres") -> None:
        """Runs one of the scripts for administrators, in the way that it says."""
        path = Path(__file__).parents[2] / "store" / "postgres" / script
        command = [str(_programs() / "psql"), "-v", "ON_ERROR_STOP=1", *options, "-f", str(path)]
        subprocess.run([*command, self.url(database, user)], check=True, capture_output=True)


def _new_directory(purpose: str) -> Path:
    """One that belongs to the user of the server."""
    directory = Path(tempfile.mkdtemp(prefix=f"threadfs-{purpose}-"))
    if not os.geteuid():
        shutil.chown(directory, _SERVER_USER, _SERVER_USER)
    return directory


def _make_data(program: str, directory: Path, *options: str) -> None:
    """Has a program of PostgreSQL make the data of a server in *directory*."""
    subprocess.run(
        [str(_programs() / program), "-D", str(directory / "data"), *options],
        check=True,
        capture_output=True,
        cwd=directory,
        **_as_server_user(),  # type: ignore[call-overload]
    )


@contextmanager
def standby_of(primary: Cluster) -> Iterator[Cluster]:
    """A second server, which follows the first one and can be read."""
    directory = _new_directory("standby")
    try:
        _make_data("pg_basebackup", directory, "-d", primary.url("postgres"), "-c", "fast", "--no-sync")
        (directory / "data" / "standby.signal").touch()
        standby = Cluster(directory, free_port(), {"primary_conninfo": f"'{primary.url('')}'"})
        standby.start()
        try:
            yield standby
        finally:
            standby.stop(signal.SIGQUIT)
    finally:
        shutil.rmtree(directory)


@cache
def _initialised() -> Path:
    """A directory as initdb makes it, which takes ten times as long as copying it."""
    directory = _new_directory("initdb")
    atexit.register(shutil.rmtree, directory)
    options = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
    _make_data("initdb", directory, *options)
    # Everybody is trusted but these.
    with open(directory / "data" / "pg_hba.conf", "r+") as rules:
        others = rules.read()
        rules.seek(0)
        rules.write(f"host all guarded 127.0.0.1/32 scram-sha-256\n{others}")
    return directory / "data"


@contextmanager
def private_cluster(**settings: str) -> Iterator[Cluster]:
    directory = _new_directory("postgres")
    try:
        subprocess.run(["cp", "-a", _initialised(), directory / "data"], check=True)
        cluster = Cluster(directory, free_port(), dict(settings))
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop(signal.SIGQUIT)
    finally:
        shutil.rmtree(directory)
