"""Failures of our own parts: a killed process, a handler that raises, a watch that overflows, a slow disk."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from store import Run, RunStatus, Thread, ThreadStore
from tests import forking
from tests.attacks.conftest import Effort, attacked, told
from tests.attacks.writers import writers
from tests.conftest import inotify_limit
from tests.mount.conftest import ANSWERS_S, Mount, children_of, stop, wait_until

# The number of statfs(2) by architecture, see asm/unistd.h.
_STATFS = {"x86_64": 137, "aarch64": 43}[os.uname().machine]


def mounts_on(place: Path) -> int:
    lines = Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines()
    return sum(line.split(" ")[1] == str(place) for line in lines)


def answers(mount: Mount) -> bool:
    assert mount.process.poll() is None, mount.log.read_text()
    try:
        return "threadfs" in mount.path(".threadfs", "version").read_text()
    except OSError:
        return False


def mounting(mount: Mount) -> list[str]:
    return ["threadfs.cli", "-f", "--log", str(mount.log), str(mount.store), str(mount.root)]


def mount_again(mount: Mount) -> None:
    """As a user does after a crash: the same command once more."""
    mount.process = forking.Process(mounting(mount))
    wait_until(lambda: answers(mount))


def test_what_was_acknowledged_before_a_kill_is_there_and_the_next_mount_works(
    tmp_path: Path, effort: Effort
) -> None:
    chance = random.Random()
    with attacked(tmp_path) as mount:
        working = writers(mount.root, 4)
        try:
            for _ in range(effort(20, 500)):
                # Some progress, then any moment of the work.
                goal = [writer.count() + 3 for writer in working]
                for writer, count in zip(working, goal, strict=True):
                    writer.wait_for(count)
                time.sleep(chance.uniform(0, 0.03))
                mount.process.send_signal(signal.SIGKILL)
                killed = mount.process
                mount_again(mount)
                killed.wait()
                assert mounts_on(mount.root) == 1
                for writer in working:
                    writer.pause()
                    writer.judge(mount.store)
                for writer in working:
                    writer.go_on()
        finally:
            for writer in working:
                writer.end()


def is_asking(pid: int) -> bool:
    """Whether a process that it has started waits for an answer of statfs(2)."""
    calls = [Path(f"/proc/{child}/syscall").read_text() for child in children_of(pid, "stat")]
    return any(call.startswith(f"{_STATFS} ") for call in calls)


def test_a_mount_whose_process_dies_while_it_is_looked_at_is_made_again(tmp_path: Path) -> None:
    with attacked(tmp_path) as mount:
        killed = mount.process
        killed.send_signal(signal.SIGSTOP)
        mount.process = forking.Process(mounting(mount))
        wait_until(lambda: is_asking(mount.process.pid))
        killed.send_signal(signal.SIGKILL)
        wait_until(lambda: answers(mount))
        killed.wait()
        assert mounts_on(mount.root) == 1


_STALLING = """
import sys
import time
from pathlib import Path
from threadfs.fuse.operations import Operations
from threadfs import cli

async def stall(*arguments):
    Path(sys.argv[-1]).with_name("stalled").touch()
    time.sleep(3600)

Operations.symlink = stall
sys.exit(cli.main(sys.argv[1:]))
"""


def is_locked_out(process: subprocess.Popen[bytes]) -> bool:
    """Whether a thread of it waits in the kernel for the lock of a directory, in which a name has changed."""
    waits = [path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/wchan")]
    return "fuse_reverse_inval_entry" in waits


@pytest.fixture
def locked_out(tmp_path: Path) -> Iterator[tuple[Mount, list[subprocess.Popen[bytes]]]]:
    """A mount that answers nothing any more, while one of its threads waits for the lock of a directory.

    And two programs: one has made it stall, the other one waits for an answer while it has that lock.
    """
    mount = Mount(tmp_path / "store", tmp_path / "mnt", tmp_path / "log", None)  # type: ignore[arg-type]
    store = ThreadStore(mount.store)
    others = [store.create_thread(Thread(id=f"other {number}")).id for number in range(100)]
    server = subprocess.Popen([sys.executable, "-c", _STALLING, *mounting(mount)[1:]])
    mount.process, programs = server, []
    try:
        wait_until(lambda: answers(mount))
        assert len(os.listdir(mount.path("threads"))) == len(others)
        programs.append(subprocess.Popen(["ln", "-s", "anywhere", mount.path("drafts", "stall")]))
        wait_until((tmp_path / "stalled").exists)
        programs.append(subprocess.Popen(["mkdir", mount.path("threads", "new")]))

        def another_goes() -> bool:
            store.delete_thread(others.pop())
            return is_locked_out(server)

        wait_until(another_goes)
        yield mount, programs
    finally:
        server.kill()
        subprocess.run(["umount", "-f", mount.root], stderr=subprocess.DEVNULL, check=False)
        for process in (*programs, server):
            process.kill()
            process.wait()
        stop(mount)


def test_programs_that_wait_for_a_mount_that_was_killed_are_failed_by_the_next_one(
    locked_out: tuple[Mount, list[subprocess.Popen[bytes]]],
) -> None:
    mount, programs = locked_out
    killed = mount.process
    mount.process = forking.Process(mounting(mount))
    wait_until(lambda: is_asking(mount.process.pid))  # It was alive then.
    killed.send_signal(signal.SIGKILL)
    assert [program.wait(ANSWERS_S) for program in programs] == [1, 1]
    wait_until(lambda: answers(mount))
    assert mounts_on(mount.root) == 1


def test_programs_that_wait_for_a_mount_that_was_killed_are_failed_when_it_is_unmounted(
    locked_out: tuple[Mount, list[subprocess.Popen[bytes]]],
) -> None:
    mount, programs = locked_out
    mount.process.send_signal(signal.SIGKILL)
    ended = Path(f"/proc/{mount.process.pid}/stat")
    wait_until(lambda: ended.read_text().rpartition(")")[2].split()[0] == "Z")
    unmounted = subprocess.run(
        [sys.executable, "-m", "threadfs.cli", "umount", mount.root],
        capture_output=True,
        text=True,
        check=False,
    )
    assert unmounted.returncode == 0
    assert "its callers are failed" in unmounted.stderr
    assert [program.wait(ANSWERS_S) for program in programs] == [1, 1]
    assert mounts_on(mount.root) == 0


_RAISING = """
import sys
from store import ThreadStore
from threadfs.nodes.controls import SayFile
from threadfs import cli

def fail(*arguments):
    raise RuntimeError("a bug")

{method} = fail
sys.exit(cli.main(sys.argv[1:]))
"""


def mount_with_a_bug(place: Path, method: str) -> Mount:
    """A process that mounts, and in which *method* raises what nobody expects."""
    mount = Mount(place / "store", place / "mnt", place / "log", None)  # type: ignore[arg-type]
    command = [sys.executable, "-c", _RAISING.format(method=method), *mounting(mount)[1:]]
    mount.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return mount


def test_an_error_while_mounting_leaves_no_mount_behind(tmp_path: Path) -> None:
    mount = mount_with_a_bug(tmp_path, "ThreadStore.index_runs")
    try:
        assert mount.process.wait(20) != 0
        assert mounts_on(mount.root) == 0
    finally:
        stop(mount)


def test_a_handler_that_raises_is_an_eio_with_a_traceback_in_the_log_and_the_mount_lives(
    tmp_path: Path,
) -> None:
    mount = mount_with_a_bug(tmp_path, "SayFile._commit")
    try:
        wait_until(lambda: answers(mount))
        mount.path("threads", "a").mkdir()
        with pytest.raises(OSError, match="Input/output error"):
            mount.path("threads", "a", "say").write_text("Hello")
        assert "RuntimeError: a bug" in mount.log.read_text()
        assert mount.errors().endswith("threads/a/say\tEIO\tan error in threadfs: its log tells more\n")
        mount.path("threads", "b").mkdir()
        assert set(ThreadStore(mount.store).list_thread_ids()) == {"a", "b"}
    finally:
        stop(mount)


@pytest.mark.alone
def test_changes_that_overflow_the_watch_show_within_a_second(tmp_path: Path) -> None:
    with inotify_limit("max_queued_events", 16), attacked(tmp_path) as mount:
        store = ThreadStore(mount.store)
        for number in range(50):
            store.create_thread(Thread(id=f"t{number}"))
            store.create_run(f"t{number}", Run(id="r"))
        statuses = sorted(mount.path("threads").glob("*/runs/r/status"))
        assert len(statuses) == 50
        assert all('"queued"' in status.read_text() for status in statuses)
        mount.process.send_signal(signal.SIGSTOP)
        for number in range(50):
            store.update_run_status(f"t{number}", "r", RunStatus.in_progress)
        store.create_thread(Thread(id="new"))
        mount.process.send_signal(signal.SIGCONT)
        wait_until(lambda: all('"in_progress"' in status.read_text() for status in statuses), 1)
        assert mount.path("threads", "new").exists()
        assert len(list(mount.path("runs", "in_progress").iterdir())) == 50


@pytest.fixture
def slow_disk(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A directory on a file system that answers while its process is not stopped."""
    place, behind = tmp_path / "slow", tmp_path / "behind"
    place.mkdir()
    behind.mkdir()
    process = subprocess.Popen(["bindfs", "-f", str(behind), str(place)])
    try:
        wait_until(lambda: os.path.ismount(place))
        yield place, process
    finally:
        process.send_signal(signal.SIGCONT)
        subprocess.run(["fusermount3", "-uz", str(place)], check=True)
        process.wait()


def test_reading_from_a_disk_that_does_not_answer_delays_only_who_reads(
    slow_disk: tuple[Path, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    store, disk = slow_disk
    for name in ("a", "b"):
        ThreadStore(store).create_thread(Thread(id=name))
        ThreadStore(store).create_run(name, Run(id="r"))
    asked: list[Callable[[Path], object]] = [
        lambda thread: thread.stat(),
        lambda thread: (thread / "meta.json").read_bytes(),
        lambda thread: (thread / "messages.jsonl").read_bytes(),
        lambda thread: (thread / "runs" / "r" / "status").read_bytes(),
        lambda thread: os.listdir(thread / "runs" / "r" / "steps"),
        lambda thread: (thread / "say").open("w").close(),
    ]
    with attacked(tmp_path, store=store) as mount:
        place = mount.path("threads", "a")
        disk.send_signal(signal.SIGSTOP)
        waiting = [threading.Thread(target=ask, args=(place,)) for ask in asked]
        for thread in waiting:
            thread.start()
        try:
            for _ in range(20):  # Answered while the disk is stopped, or the test does not end.
                assert "operations" in mount.path(".threadfs", "stats").read_text()
                time.sleep(0.02)
            assert all(thread.is_alive() for thread in waiting)
        finally:
            disk.send_signal(signal.SIGCONT)
            for thread in waiting:
                thread.join()


def test_a_disk_that_does_not_answer_delays_only_who_waits_for_it(
    slow_disk: tuple[Path, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    store, disk = slow_disk
    with attacked(tmp_path, store=store) as mount:
        mount.path("threads", "a").mkdir()
        say = mount.path("threads", "a", "say").open("w")
        say.write("Hello")
        disk.send_signal(signal.SIGSTOP)
        waiting = threading.Thread(target=say.close)
        waiting.start()
        try:
            # Answered while the disk is stopped, or the test does not end.
            assert "operations" in mount.path(".threadfs", "stats").read_text()
            mount.path("drafts", "new").mkdir()
            assert waiting.is_alive()
        finally:
            disk.send_signal(signal.SIGCONT)
            waiting.join()
        assert told(store, "a") == ["Hello"]
