"""TLS: who the server is, who the client is, and where their certificates are."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from store import Change, DocumentKey, Part, StorageFailed
from store.postgres import PostgresStore
from tests.postgres.cluster import Cluster, private_cluster
from tests.store.conftest import THREAD, make_thread, message

ENCRYPTED = "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = %s"


def openssl(*arguments: str, cwd: Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=cwd)


def make_authority(directory: Path, name: str) -> None:
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-days", "2", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt"),
        cwd=directory,
    )


def make_certificate(directory: Path, name: str, extension: str = "") -> None:
    """Of *name*, signed by the authority ``ca``."""
    openssl(
        *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr"),
        cwd=directory,
    )
    (directory / "extensions").write_text(extension)
    openssl(
        *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-days", "2", "-extfile", "extensions", "-out", f"{name}.crt"),
        cwd=directory,
    )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an authority ``ca``, of the server and of alice; and of another authority."""
    directory = tmp_path_factory.mktemp("certificates")
    make_authority(directory, "ca")
    make_authority(directory, "another")
    make_certificate(directory, "server", "subjectAltName = IP:127.0.0.1")
    make_certificate(directory, "alice")
    return directory


@pytest.fixture(scope="module")
def cluster(certificates: Path) -> Iterator[Cluster]:
    """A server that has a certificate, and demands one of alice."""
    with private_cluster() as cluster:
        cluster.sql("CREATE ROLE alice LOGIN SUPERUSER")
        cluster.stop()
        data = cluster.directory / "data"
        for name in ("ca.crt", "server.crt", "server.key"):
            shutil.copy(certificates / name, data)
            (data / name).chmod(0o600)
            shutil.chown(data / name, data.owner(), data.group())
        rules = data / "pg_hba.conf"
        rules.write_text(f"hostssl all alice all cert\nhostnossl all alice all reject\n{rules.read_text()}")
        cluster.settings |= {"ssl": "on", "ssl_ca_file": "'ca.crt'"}
        cluster.start()
        yield cluster


def verified(cluster: Cluster, authority: Path, user: str = "postgres", **parameters: str) -> str:
    return cluster.url("postgres", user, sslmode="verify-full", sslrootcert=str(authority), **parameters)


def test_a_server_of_the_authority_that_is_asked_for_is_talked_to_in_tls(
    cluster: Cluster, certificates: Path
) -> None:
    heard: queue.Queue[Change] = queue.Queue()
    with PostgresStore(verified(cluster, certificates / "ca.crt"), create=True) as store:
        make_thread(store)
        watch = store.watch(heard.put)
        watch.follow(THREAD)
        with PostgresStore(verified(cluster, certificates / "ca.crt")) as other:
            other.append_message("T", message())
        assert heard.get(timeout=5) == Change(Part.LOG, "T", grew=True)
        assert (True,) in cluster.sql(ENCRYPTED, "postgres")
        watch.close()


def test_a_server_of_another_authority_is_refused(cluster: Cluster, certificates: Path) -> None:
    with pytest.raises(StorageFailed, match="certificate verify failed"):
        PostgresStore(verified(cluster, certificates / "another.crt"))


def test_a_server_of_another_name_is_refused(cluster: Cluster, certificates: Path) -> None:
    url = verified(cluster, certificates / "ca.crt").replace("127.0.0.1", "localhost")
    with pytest.raises(StorageFailed, match="does not match host name"):
        PostgresStore(url)


def test_a_mount_in_the_background_finds_certificates_that_are_named_from_where_it_is_made(
    cluster: Cluster, certificates: Path, tmp_path: Path
) -> None:
    url = verified(cluster, Path("ca.crt"), "alice", sslcert="alice.crt", sslkey="alice.key")
    threadfs, root = [sys.executable, "-m", "threadfs.cli"], tmp_path / "mount"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    made = subprocess.run(
        [*threadfs, "--log", str(tmp_path / "log"), url, str(root)],
        cwd=certificates,
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    try:
        (root / "threads" / "background").mkdir()
        assert cluster.sql(ENCRYPTED, "alice") == [(True,)]
    finally:
        subprocess.run([*threadfs, "umount", str(root)], env=environment, timeout=60, check=True)
    with PostgresStore(verified(cluster, certificates / "ca.crt")) as store:
        assert store.document_info(DocumentKey("background"))
