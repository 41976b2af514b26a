"""Two hosts: two processes with a mount each, one server, and a network between them that fails."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from store import Thread
from store.postgres import PostgresStore
from tests import forking
from tests.mount.conftest import wait_until
from tests.mount.watcher import watching
from tests.postgres.cluster import Cluster
from tests.postgres.proxy import Proxy
from tests.store.conftest import message

SECRET = "s3cret"


@dataclass
class Host:
    """A mount of the database in a process of its own."""

    root: Path
    log: Path
    process: forking.Process

    def path(self, *parts: str) -> Path:
        return self.root.joinpath(*parts)

    def lines(self, thread_id: str) -> int:
        """How many messages the thread has, as a program sees it that opens the log."""
        return self.path("threads", thread_id, "messages.jsonl").read_bytes().count(b"\n")


MountOn = Callable[..., Host]


@pytest.fixture
def mount_on(tmp_path: Path) -> Iterator[MountOn]:
    """Mounts a URL as the host of a name, with options."""
    hosts: list[Host] = []

    def another(name: str, url: str, *options: str) -> Host:
        root, log = tmp_path / name, tmp_path / f"{name}.log"
        log.touch()
        host = Host(
            root, log, forking.Process(["threadfs.cli", "-f", "--log", str(log), *options, url, str(root)])
        )
        hosts.append(host)
        wait_until(lambda: host.process.poll() is not None or os.path.ismount(root))
        assert host.process.poll() is None, log.read_text()
        return host

    yield another
    for host in hosts:
        host.process.send_signal(signal.SIGTERM)
    for host in hosts:
        try:
            host.process.wait(20)
        except subprocess.TimeoutExpired:
            host.process.kill()
        subprocess.run(["fusermount3", "-uzq", str(host.root)], check=False)
    for host in hosts:
        assert "Traceback" not in host.log.read_text()
        assert host.process.returncode == 0


@pytest.fixture
def here(mount_on: MountOn, url: str) -> Host:
    return mount_on("here", url)


@pytest.fixture
def there(mount_on: MountOn, url_through_proxy: str) -> Host:
    """The host behind the network that fails."""
    return mount_on("there", url_through_proxy)


def within_a_second(condition: Callable[[], bool]) -> None:
    wait_until(condition, 1.0)


def works(host: Host) -> bool:
    try:
        return host.lines("T") > 0
    except TimeoutError:
        return False


def test_what_one_host_writes_the_other_shows_within_a_second(here: Host, there: Host) -> None:
    assert os.listdir(there.path("threads")) == []
    here.path("threads", "T").mkdir()
    within_a_second(lambda: os.listdir(there.path("threads")) == ["T"])
    assert there.lines("T") == 0
    here.path("threads", "T", "say").write_text("Hello")
    within_a_second(lambda: there.lines("T") == 1)
    here.path("threads", "T", "runs", "R").mkdir()
    within_a_second(lambda: os.path.islink(there.path("runs", "queued", "R@T")))
    status = there.path("threads", "T", "runs", "R", "status")
    assert '"queued"' in status.read_text()
    here.path("threads", "T", "runs", "R", "cancel").write_text("x")
    within_a_second(lambda: '"cancelled"' in status.read_text())
    within_a_second(lambda: os.listdir(there.path("runs", "cancelled")) == ["R@T"])


def test_who_watches_on_one_host_is_told_what_the_other_does(here: Host, mount_on: MountOn, url: str) -> None:
    there = mount_on("waking", url)
    here.path("threads", "idea").mkdir()
    within_a_second(there.path("threads", "idea").is_dir)
    with watching(there.root) as watcher:
        watcher.watch_all()
        here.path("threads", "next").mkdir()
        watcher.waits_for("CREATE", "threads/next")
        here.path("threads", "idea", "say").write_text("hi")
        watcher.waits_for("CLOSE_WRITE", "threads/idea/messages.jsonl")
        here.path("threads", "idea", "runs", "R").mkdir()
        watcher.waits_for("CREATE", "runs/queued/R@idea")
        here.path("threads", "idea", "runs", "R", "status").write_text("completed")
        watcher.waits_for("MOVED_TO", "runs/completed/R@idea")
        here.path("threads", "next").rmdir()
        watcher.waits_for("DELETE", "threads/next")
    told = there.path(".threadfs", "events").read_text()
    assert '"run.completed","thread_id":"idea","run_id":"R"' in told


def test_threads_are_found_by_title_day_and_words_on_both_hosts(here: Host, there: Host) -> None:
    for thread in ("T", "U"):
        here.path("threads", thread).mkdir()
        here.path("threads", thread, "say").write_text("Why is honey sweet?")
    meta = here.path("threads", "T", "meta.json")
    meta.write_text('{"metadata":{"title":"Honey"}}')
    assert sorted(os.listdir(here.path("by-title"))) == ["Honey", "Why is honey sweet?"]
    assert sorted(os.listdir(here.path("search", "honey"))) == ["Honey", "Why is honey sweet?", "hits.txt"]
    within_a_second(lambda: os.path.lexists(there.path("by-title", "Honey")))
    (day,) = there.root.glob("by-date/*/*/*")
    assert sorted(os.listdir(day)) == ["Honey", "Why is honey sweet?"]
    assert os.readlink(there.path("search", "title:honey", "Honey")) == "../../threads/T"
    hits = there.path("search", '"honey sweet"', "hits.txt")
    assert "threads/T/messages.jsonl:1: user: Why is honey sweet?" in hits.read_text().splitlines()
    meta.write_text('{"metadata":{"title":"Wax"}}')
    within_a_second(lambda: sorted(os.listdir(there.path("by-title"))) == ["Wax", "Why is honey sweet?"])
    here.path("threads", "U", "say").write_text("Because of nectar.")
    within_a_second(lambda: os.listdir(there.path("search", "nectar")) == ["Why is honey sweet?", "hits.txt"])
    here.path("threads", "U", "runs", "R").mkdir()
    within_a_second(lambda: 'status="queued"' in there.path(".threadfs", "metrics").read_text())
    shutil.rmtree(here.path("threads", "U"))
    within_a_second(lambda: os.listdir(there.path("search", "nectar")) == ["hits.txt"])


def test_of_two_hosts_that_claim_a_run_one_wins(here: Host, there: Host) -> None:
    here.path("threads", "T").mkdir()
    for number in range(10):
        here.path("threads", "T", "runs", f"R{number}").mkdir()

    def claim(host: Host) -> list[str]:
        won = []
        for number in range(10):
            link = f"R{number}@T"
            try:
                host.path("runs", "queued", link).rename(host.path("runs", "in_progress", link))
            except FileNotFoundError:
                continue
            won.append(link)
        return won

    with ThreadPoolExecutor(2) as pool:
        ours, theirs = pool.map(claim, (here, there))
    assert sorted(ours + theirs) == sorted(f"R{number}@T" for number in range(10))
    assert sorted(os.listdir(there.path("runs", "in_progress"))) == sorted(ours + theirs)


def test_a_host_whose_network_falls_silent_fails_in_time_and_recovers_by_itself(
    here: Host, there: Host, proxy: Proxy
) -> None:
    here.path("threads", "T").mkdir()
    here.path("threads", "T", "say").write_text("before")
    within_a_second(lambda: there.lines("T") == 1)
    proxy.pause()
    started = time.monotonic()
    with pytest.raises(OSError, match=os.strerror(errno.ETIMEDOUT)):
        there.path("threads", "T", "say").write_text("while it is silent")
    assert time.monotonic() - started < 40
    started = time.monotonic()
    with pytest.raises(OSError, match=os.strerror(errno.ETIMEDOUT)):
        there.lines("T")
    assert time.monotonic() - started < 1
    here.path("threads", "T", "say").write_text("meanwhile")
    proxy.go_on()
    wait_until(lambda: works(there), 2.0)
    wait_until(lambda: there.lines("T") == here.lines("T") >= 2)
    there.path("threads", "T", "say").write_text("after")
    within_a_second(lambda: here.lines("T") == there.lines("T"))
    assert "ETIMEDOUT" in there.path(".threadfs", "errors").read_text()
    assert here.path("threads", "T", "messages.jsonl").read_text().count("after") == 1


def test_a_host_that_was_cut_off_shows_what_it_has_missed(here: Host, there: Host, proxy: Proxy) -> None:
    here.path("threads", "T").mkdir()
    within_a_second(lambda: there.path("threads", "T", "meta.json").exists())
    assert there.lines("T") == 0
    proxy.cut(refuse=True)
    here.path("threads", "T", "say").write_text("missed")
    here.path("threads", "U").mkdir()
    proxy.go_on()
    wait_until(lambda: there.lines("T") == 1 and there.path("threads", "U").is_dir(), 8)
    proxy.cut()
    there.path("threads", "T", "say").write_text("again")
    within_a_second(lambda: here.lines("T") == 2)


def test_a_mount_that_could_not_listen_when_it_was_made_follows_once_it_can(
    mount_on: MountOn, here: Host, url_through_proxy: str, proxy: Proxy
) -> None:
    here.path("threads", "T").mkdir()
    proxy.cut_at(b"LISTEN", pass_it_on=False, refuse=True)
    there = mount_on("there", url_through_proxy)
    assert proxy.cuts == 1
    proxy.go_on()
    assert there.lines("T") == 0
    wait_until(lambda: " listening" in there.log.read_text())
    here.path("threads", "T", "say").write_text("Hello")
    within_a_second(lambda: there.lines("T") == 1)


def test_a_read_only_database_refuses_writes_with_the_reason(mount_on: MountOn, here: Host, url: str) -> None:
    here.path("threads", "T").mkdir()
    there = mount_on("there", f"{url}&options=-cdefault_transaction_read_only%3Don")
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        there.path("threads", "T", "say").write_text("no")
    assert "the database is read-only" in there.path(".threadfs", "errors").read_text()
    assert there.lines("T") == 0


@pytest.mark.parametrize("options", [(), ("--read-only",)])
def test_a_role_that_may_only_read_searches_what_has_words_and_what_has_none(
    mount_on: MountOn, cluster: Cluster, url: str, options: tuple[str, ...]
) -> None:
    with PostgresStore(url) as store:
        store.create_thread(Thread(id="T"))
        store.append_message("T", message("bees"))
        store.catalogue().refresh(words=True)
        store.append_message("T", message("honey"))
    cluster.sql(
        "CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA threadfs TO reader;"
        " GRANT SELECT ON ALL TABLES IN SCHEMA threadfs TO reader",
        database="contract",
    )
    try:
        host = mount_on("reader", cluster.url("contract", "reader"), *options)
        for word in ("bees", "honey"):
            assert f": {word}\n" in host.path("search", word, "hits.txt").read_text()
        with pytest.raises(OSError, match=f"{os.strerror(errno.EACCES)}|{os.strerror(errno.EROFS)}"):
            host.path("threads", "T", "say").write_text("no")
        assert host.lines("T") == 2
        assert [line for line in host.log.read_text().splitlines() if " WARNING " in line] == []
    finally:
        cluster.sql("DROP OWNED BY reader; DROP ROLE reader", database="contract")
    assert cluster.sql("SELECT lines FROM threadfs.worded_logs", database="contract") == [(1,)]


@pytest.mark.parametrize(
    "command",
    [
        "echo no > say",
        "/bin/echo no > say",
        "echo no | cat > say",
        "echo no | tee say",
        """echo '{"role":"user","content":"no"}' >> messages.jsonl""",
    ],
)
def test_a_program_that_reports_what_is_refused_says_so_in_its_exit_status(
    mount_on: MountOn, here: Host, url: str, command: str
) -> None:
    here.path("threads", "T").mkdir()
    there = mount_on("there", f"{url}&options=-cdefault_transaction_read_only%3Don")
    ran = subprocess.run(
        ["bash", "-c", command], cwd=there.path("threads", "T"), capture_output=True, check=False
    )
    assert ran.returncode != 0
    assert b"Read-only file system" in ran.stderr


@pytest.mark.alone
def test_mounts_that_do_not_answer_are_listed_without_a_wait_for_each(mount_on: MountOn, url: str) -> None:
    hosts = [mount_on(name, url) for name in ("one", "two", "three")]
    for host in hosts:
        host.process.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    try:
        listed = subprocess.run(
            [sys.executable, "-m", "threadfs.cli", "list"], capture_output=True, text=True, check=True
        )
    finally:
        for host in hosts:
            host.process.send_signal(signal.SIGCONT)
    assert time.monotonic() - started < 6
    assert all(f"{host.root} (does not answer)" in listed.stdout for host in hosts)


def test_a_password_does_not_show_in_the_tree_the_mount_table_the_log_or_the_command_line(
    mount_on: MountOn, cluster: Cluster, url: str
) -> None:
    cluster.sql("DROP ROLE IF EXISTS guarded")
    cluster.sql(f"CREATE ROLE guarded LOGIN SUPERUSER PASSWORD '{SECRET}'")
    host = mount_on("here", cluster.url("contract", f"guarded:{SECRET}"))
    host.path("threads", "T").mkdir()
    with pytest.raises(FileExistsError):
        host.path("threads", "T").mkdir()
    shown = [host.path(".threadfs", name).read_text() for name in ("version", "errors", "stats")]
    shown += [Path("/proc/self/mountinfo").read_text(), host.log.read_text()]
    shown.append(Path(f"/proc/{host.process.pid}/cmdline").read_text())
    assert all("guarded@" in text for text in (shown[0], shown[-1]))
    assert not any(SECRET in text for text in shown)
