"""Unmounting by signals: the first when nothing is open, the second at once, whoever sits in the mount."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from store import ThreadStore
from tests.mount.conftest import Mount, checked_mount, start, stop, wait_until

# However loaded the machine is, this is what a user is promised.
ENDS_S = 5

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone may do this")

# Each says a line on stdout when it sits in the mount, which is its working directory before.
SITTERS = {
    "an open file": "exec 3< README.md; cd /; echo; exec sleep 60",
    "a working directory": "cd threads/*Oslo; echo; exec sleep 60",
    "tail -f": 'cd threads/*Oslo; f=$PWD/messages.jsonl; cd /; exec tail -n 1 -f "$f"',
    "a polling reader": "echo; while :; do cat .threadfs/stats > /dev/null; done",
    "a text that is not ended": "cd threads/*Oslo; exec 5> say; cd /; printf half >&5; echo; exec sleep 60",
    "a program that stands still": f"cd /; exec {sys.executable} -uc '"
    'import os, signal; f = open("{mount}/README.md", "rb", 0); f.read(5); print(); '
    "os.kill(os.getpid(), signal.SIGSTOP)'",
}


@pytest.fixture
def mount(own_mount: Mount) -> Mount:
    return own_mount


@contextmanager
def sitting(mount: Mount, script: str, *as_whom: str) -> Iterator[None]:
    """A program that sits in the mount."""
    command = [*as_whom, "bash", "-c", script.replace("{mount}", str(mount.root))]
    process = subprocess.Popen(
        command, cwd=mount.root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@contextmanager
def held_open(path: Path) -> Iterator[int]:
    """Open in this process. Closing is an error once nobody is there to be told."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        with suppress(OSError):
            os.close(descriptor)


def ask_a_busy_mount_to_end(mount: Mount, first: signal.Signals = signal.SIGTERM) -> None:
    mount.process.send_signal(first)
    wait_until(lambda: "is busy" in mount.log.read_text())
    assert os.path.ismount(mount.root)


def assert_ends_with(mount: Mount, second: signal.Signals = signal.SIGTERM) -> None:
    mount.process.send_signal(second)
    assert mount.process.wait(ENDS_S) == 0
    assert os.listdir(mount.root) == []  # Nor is there a dead mount.


def test_a_busy_mount_goes_when_nothing_is_open(mount: Mount) -> None:
    run = mount.run("queued")
    with (run / "status").open("rb") as reader:
        ask_a_busy_mount_to_end(mount)
        assert reader.read() == mount.stored(run).read_bytes()
    assert mount.process.wait(10) == 0


@pytest.mark.parametrize("sitter", SITTERS)
def test_the_second_signal_ends_the_process_whoever_sits_in_the_mount(mount: Mount, sitter: str) -> None:
    with sitting(mount, SITTERS[sitter]):
        ask_a_busy_mount_to_end(mount)
        assert_ends_with(mount)


@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGINT, signal.SIGINT), (signal.SIGHUP, signal.SIGTERM)]
)
def test_any_two_signals_end_the_process(mount: Mount, first: signal.Signals, second: signal.Signals) -> None:
    with held_open(mount.path("README.md")):
        ask_a_busy_mount_to_end(mount, first)
        assert_ends_with(mount, second)


def test_many_programs_that_read_and_list_do_not_keep_the_process(mount: Mount) -> None:
    script = "echo; while :; do find . -type f -exec cat {} + > /dev/null; done"
    with ExitStack() as sitters:
        for _ in range(8):
            sitters.enter_context(sitting(mount, script))
        ask_a_busy_mount_to_end(mount)
        assert_ends_with(mount)


@pytest.mark.alone
@as_root
@pytest.mark.usefixtures("fuse_for_all")
def test_a_program_of_another_user_does_not_keep_the_process(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o755)
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    with checked_mount(tmp_path, "--allow-other") as mount, sitting(mount, "echo; exec sleep 60", *nobody):
        ask_a_busy_mount_to_end(mount)
        assert_ends_with(mount)


WRITER = """
import os, sys
for number in range(1_000_000):
    line = '{"role": "user", "content": "%s-%d"}' % (sys.argv[1], number)
    file = os.open("messages.jsonl", os.O_WRONLY | os.O_APPEND)
    os.write(file, line.encode() + b"\\n")
    print(f"{sys.argv[1]}-{number}", flush=True)
    os.close(file)
"""


def test_what_was_acknowledged_when_the_second_signal_comes_is_stored(mount: Mount) -> None:
    thread = mount.path("threads", "a")
    thread.mkdir()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(number)],
            cwd=thread,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for number in range(4)
    ]
    wait_until(lambda: len((thread / "messages.jsonl").read_bytes()) > 10_000)
    ask_a_busy_mount_to_end(mount)
    assert_ends_with(mount)
    acknowledged = [text for writer in writers for text in writer.communicate()[0].split()]
    stored = [message.text for message in ThreadStore(mount.store).list_messages("a")]
    assert set(acknowledged) <= set(stored)
    # What was under way was finished: at most the one word that says so was not written any more.
    assert len(stored) == len(set(stored)) <= len(acknowledged) + len(writers)
    assert all(writer.returncode for writer in writers)


def slow_disk(mount: Mount, delay_s: float) -> subprocess.Popen[bytes]:
    """Has each sync of the mount take longer, from when this returns."""
    inject = f"inject=fsync,fdatasync:delay_enter={int(delay_s * 1e6)}"
    command = ["strace", "-f", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", inject]
    tracer = subprocess.Popen([*command, "-p", str(mount.process.pid)], stderr=subprocess.PIPE)
    assert tracer.stderr is not None
    assert b"attached" in tracer.stderr.readline()
    return tracer


LATE_WRITER = """
import os
file = os.open("messages.jsonl", os.O_WRONLY | os.O_APPEND)
print(flush=True)
os.write(file, b'{"role": "user", "content": "Hello"}\\n')
"""


@contextmanager
def waiting_writer(thread: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that waits for the mount to store a message, and ends with 0 if it does."""
    command = [sys.executable, "-c", LATE_WRITER]
    with subprocess.Popen(command, cwd=thread, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        wait_until(lambda: "request" in Path(f"/proc/{writer.pid}/wchan").read_text())
        yield writer


@pytest.mark.parametrize(
    "delay_s", [0.5, 3.0], ids=["a slow disk", "one on which it takes over four seconds"]
)
def test_what_is_being_written_is_finished_before_the_process_ends(mount: Mount, delay_s: float) -> None:
    thread = mount.path("threads", "a")
    thread.mkdir()
    tracer = slow_disk(mount, delay_s)
    with waiting_writer(thread) as writer:
        ask_a_busy_mount_to_end(mount)
        mount.process.send_signal(signal.SIGTERM)
        assert writer.wait() == 0
    assert mount.process.wait(ENDS_S) == 0
    tracer.wait()
    assert [message.text for message in ThreadStore(mount.store).list_messages("a")] == ["Hello"]


def test_what_takes_long_without_a_disk_is_cut(tmp_path: Path) -> None:
    """Somebody holds the lock of the thread that is written to."""
    holding = ["flock", str(tmp_path / "store" / "a"), "sh", "-c", "echo; exec cat"]
    with checked_mount(tmp_path, warns="takes too long") as mount:
        thread = mount.path("threads", "a")
        thread.mkdir()
        with subprocess.Popen(holding, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            with waiting_writer(thread) as writer:
                ask_a_busy_mount_to_end(mount)
                assert_ends_with(mount)
                assert writer.wait() == 1
            assert holder.stdin is not None
            holder.stdin.close()
        assert ThreadStore(mount.store).list_messages("a") == []


def test_what_was_unmounted_lazily_ends_and_leaves_what_is_mounted_there_now(tmp_path: Path) -> None:
    with checked_mount(tmp_path) as mount, held_open(mount.path("README.md")):
        subprocess.run(["fusermount3", "-uz", str(mount.root)], check=True)
        (tmp_path / "other").mkdir()
        other = start(tmp_path / "other", mount.root, tmp_path / "log of another")
        try:
            mount.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "SIGTERM" in mount.log.read_text())
            mount.process.send_signal(signal.SIGTERM)
            assert mount.process.wait(ENDS_S) == 0
            assert other.path("threads").is_dir()
        finally:
            stop(other)


@as_root
def test_the_mount_goes_from_everywhere_that_it_is_bound_to(mount: Mount, tmp_path: Path) -> None:
    bound = tmp_path / "bound"
    bound.mkdir()
    subprocess.run(["mount", "--bind", str(mount.path("threads")), str(bound)], check=True)
    assert os.listdir(bound)
    mount.process.send_signal(signal.SIGTERM)
    assert mount.process.wait(ENDS_S) == 0
    assert os.listdir(bound) == []


@as_root
def test_who_sees_the_mount_in_a_namespace_of_its_own_does_not_keep_the_process(mount: Mount) -> None:
    apart = ("unshare", "--mount", "--propagation", "private")
    with sitting(mount, "cd /; echo; exec sleep 60", *apart):
        mount.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not os.path.ismount(mount.root))
        assert_ends_with(mount)
