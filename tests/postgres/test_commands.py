"""The commands, given a URL: a store moves into a database and back, and is looked after there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from store import DocumentKey, Run, RunStatus, Store, Thread, ThreadStore
from store.working import Outcome, WorkerState
from tests import forking
from tests.mount.conftest import EXAMPLES, wait_until
from tests.postgres.cluster import Cluster
from tests.postgres.fixtures import IMPATIENT, OpenStore
from tests.postgres.proxy import Proxy
from tests.store.conftest import LONG_AGO_NS, RUN, THREAD, make_run, make_thread, message
from threadfs import cli

THREADS = b"".join(b'{"id":"U%d","object":"thread","created_at":1,"metadata":{}}\n' % n for n in range(3))


def threadfs(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return forking.run(["threadfs.cli", *arguments], given=stdin, timeout_s=60)


def everything(store: Store) -> dict[str, bytes]:
    """Every document and log of a store, by path."""
    found = {}
    for thread_id in store.list_thread_ids():
        found[thread_id] = store.read_document(DocumentKey(thread_id))[0]
        log = store.open_log(thread_id)
        found[f"{thread_id} log"] = log.read(0, 1 << 20)
        log.close()
        for run_id in store.list_run_ids(thread_id):
            found[f"{thread_id}/{run_id}"] = store.read_document(DocumentKey(thread_id, run_id))[0]
            for step_id in store.list_step_ids(thread_id, run_id):
                key = DocumentKey(thread_id, run_id, step_id)
                found[f"{thread_id}/{run_id}/{step_id}"] = store.read_document(key)[0]
    return found


def test_a_store_moves_into_a_database_and_back_byte_for_byte(
    open_store: OpenStore, url: str, tmp_path: Path
) -> None:
    before = ThreadStore(EXAMPLES / "household")
    exported = threadfs("export", before.location)
    imported = threadfs("import", url, stdin=exported.stdout)
    assert imported.returncode == 0, imported.stderr
    assert everything(open_store()) == everything(before)
    back = tmp_path / "back"
    assert threadfs("import", str(back), stdin=threadfs("export", url).stdout).returncode == 0
    assert everything(ThreadStore(back)) == everything(before)


def test_what_is_in_a_database_is_found_as_on_a_disk(open_store: OpenStore, url: str) -> None:
    store = ThreadStore(EXAMPLES / "household")
    assert threadfs("import", url, stdin=threadfs("export", store.location).stdout).returncode == 0
    for words in (["oslo"], ["role:user oslo", "--json"], ["status:failed"], ["--grep", "O[sz]lo"]):
        found = threadfs("search", url, *words)
        assert (found.returncode, found.stderr) == (0, b"")
        assert found.stdout == threadfs("search", store.location, *words).stdout
    for options in ([], ["--runs", "--status", "failed", "completed"], ["--title", "oslo"]):
        listed, on_disk = (threadfs("ls", at, *options, "-0").stdout for at in (url, store.location))
        assert sorted(listed.split(b"\0")) == sorted(on_disk.split(b"\0"))


def test_fsck_finds_nothing_in_a_sound_database_and_names_a_damaged_document(
    open_store: OpenStore, cluster: Cluster, url: str
) -> None:
    store = open_store()
    make_run(store)
    store.append_message("T", message())
    assert threadfs("fsck", url).returncode == 0
    cluster.sql("UPDATE threadfs.runs SET document = 'x'", database="contract")
    damaged = threadfs("fsck", url)
    assert damaged.returncode == 1
    assert b"T/runs/R/status.json" in damaged.stdout


def test_wait_ends_when_another_program_ends_the_run(open_store: OpenStore, url: str) -> None:
    store = open_store()
    make_run(store, RunStatus.in_progress)
    waiting = subprocess.Popen([sys.executable, "-m", "threadfs.cli", "wait", url, "T", "R"])
    try:
        store.update_run_status("T", "R", RunStatus.completed)
        assert waiting.wait(20) == 0
    finally:
        waiting.kill()


def test_an_answer_in_a_database_is_printed_as_it_comes_and_followed(open_store: OpenStore, url: str) -> None:
    store = open_store()
    make_thread(store)
    asking, following = (
        subprocess.Popen(
            [sys.executable, "-m", "threadfs.cli", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        for words in (["ask", url, "T", "Where to?"], ["follow", url, "T"])
    )
    with asking, following, store.register_worker(WorkerState("localhost:1")) as worker:
        try:
            wait_until(lambda: bool(store.list_run_ids("T")))
            with worker.claim("T", store.list_run_ids("T")[0]) as answer:
                answer.append("To the sea,\n")
                for process in (asking, following):
                    assert process.stdout is not None
                    assert b"To the sea,\n" in iter(process.stdout.readline, b"")
                answer.append("where it is cool.")
                answer.finish(Outcome(RunStatus.completed))
            assert asking.communicate(timeout=20)[0] == b"where it is cool.\n"
            assert asking.returncode == 0
            assert following.stdout is not None
            assert b"where it is cool.\n" in iter(following.stdout.readline, b"")
        finally:
            asking.kill()
            following.kill()


def test_prune_deletes_what_is_old(open_store: OpenStore, url: str) -> None:
    store = open_store()
    make_thread(store)
    store.set_document_modified(THREAD, LONG_AGO_NS)
    assert threadfs("prune", url, "--older-than", "1d").returncode == 0
    assert store.list_thread_ids() == []


def test_expire_ends_runs_that_nobody_works_on(open_store: OpenStore, url: str) -> None:
    store = open_store()
    make_run(store)
    store.set_document_modified(RUN, LONG_AGO_NS)
    assert threadfs("expire", url, "--older-than", "1d").returncode == 0
    assert store.get_run("T", "R").status is RunStatus.expired


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        # Once the threads are listed, as soon as something is done with the first one.
        (["export"], b"SELECT document"),
        (["fsck"], b"SELECT document"),
        (["prune", "--older-than", "1d"], b"SELECT greatest"),
        (["expire", "--older-than", "1d"], b"UPDATE runs"),
        (["import"], b"INSERT INTO threads"),
    ],
    ids=["export", "fsck", "prune", "expire", "import"],
)
def test_a_server_that_goes_away_ends_a_command_and_is_not_taken_for_damage(
    open_store: OpenStore,
    url_through_proxy: str,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: list[str],
    asked: bytes,
) -> None:
    store = open_store()
    for number in range(3):
        store.create_thread(Thread(id=f"T{number}"))
        store.create_run(f"T{number}", Run(id="R"))
        for key in (DocumentKey(f"T{number}", "R"), DocumentKey(f"T{number}")):
            store.set_document_modified(key, LONG_AGO_NS)
        store.set_thread_modified(f"T{number}", LONG_AGO_NS)
    proxy.cut_at(asked, pass_it_on=False, refuse=True)
    # Here and not in a process of its own, which would wait for the usual time.
    monkeypatch.setattr("store.postgres.PostgresStore", lambda url, **_: open_store(url, IMPATIENT))
    (tmp_path / "threads").write_bytes(THREADS)
    with open(tmp_path / "threads") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert cli.main([command[0], url_through_proxy, *command[1:]]) == 1
    assert proxy.cuts == 1
    said = capfd.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert "no connection to the database" in line


def test_a_server_that_is_not_there_is_one_line_without_a_password(tmp_path: Path) -> None:
    failed = threadfs("export", "postgresql://alice:s3cret@127.0.0.1:1/chats")
    assert failed.returncode == 1
    (line,) = failed.stderr.decode().splitlines()
    assert "refused" in line
    assert "s3cret" not in line


@pytest.mark.parametrize(
    "command",
    [
        ["export"],
        ["fsck"],
        ["prune", "--older-than", "1d"],
        ["expire", "--older-than", "1d"],
        ["wait", "T", "R"],
    ],
    ids=lambda command: command[0],
)
def test_a_command_that_reads_makes_nothing_in_an_empty_database_and_says_that_it_holds_no_store(
    cluster: Cluster, new_database: str, command: list[str]
) -> None:
    failed = threadfs(command[0], cluster.url(new_database), *command[1:])
    assert failed.returncode == (3 if command[0] == "wait" else 1)
    assert failed.stdout == b""
    (line,) = failed.stderr.splitlines()
    assert b"holds no store yet" in line
    assert cluster.sql("SELECT FROM pg_namespace WHERE nspname = 'threadfs'", database=new_database) == []


def test_an_import_makes_the_tables_of_an_empty_database(cluster: Cluster, new_database: str) -> None:
    assert threadfs("import", cluster.url(new_database), stdin=THREADS).returncode == 0
    assert threadfs("export", cluster.url(new_database)).stdout.count(b"\n") == 3
