"""Programs that do what no sensible one does: the mount lives, and what others have is unchanged."""

from __future__ import annotations

import os
import random
import resource
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.attacks.conftest import Effort, open_files, stored_bytes, told
from tests.mount.conftest import Mount, wait_until
from tests.nodes.driving import outcome

# Those that work on a file system of this kind at all; most of what they try is refused here.
STRESSORS = (
    "access chdir chmod copy-file dentry dir dirdeep dup flock fstat getdent handle hdd link lockf mknod"
)
MORE_STRESSORS = "mmap open rename seek sendfile symlink touch utime"


@pytest.fixture
def bystander(mount: Mount) -> Iterator[Path]:
    """A thread that nobody attacks. At the end it is as it was, and takes a message as it did."""
    thread = mount.path("threads", "bystander")
    thread.mkdir()
    (thread / "runs" / "r").mkdir()
    (thread / "say").write_text("untouched")
    before = {k: v for k, v in stored_bytes(mount.store).items() if k.startswith("bystander")}
    yield thread
    assert {k: v for k, v in stored_bytes(mount.store).items() if k.startswith("bystander")} == before
    (thread / "say").write_text("still here")
    assert told(mount.store, "bystander") == ["untouched", "still here"]


@pytest.fixture
def victim(mount: Mount, bystander: Path) -> Path:
    thread = mount.path("threads", "victim")
    thread.mkdir()
    return thread


@pytest.mark.parametrize("place", ["threads/victim", "drafts"])
def test_a_scratch_file_is_a_file_like_any_other(
    mount: Mount, victim: Path, tmp_path: Path, effort: Effort, place: str
) -> None:
    """As fsx does: the same random operations on it and on one of the disk, which stay alike."""
    chance = random.Random()
    names = [mount.path(place, ".fsx"), tmp_path / "fsx"]
    files = [os.open(name, os.O_RDWR | os.O_CREAT) for name in names]
    try:
        for _ in range(effort(1000, 100_000)):
            offset, size = chance.randrange(1 << 17), chance.choice([0, 1, 4096, chance.randrange(1 << 16)])
            data = chance.randbytes(size)
            action = chance.choice(
                ["write", "write", "read", "truncate", "stretch", "sync", "reopen", "stat"]
            )
            if action == "write":
                assert {os.pwrite(file, data, offset) for file in files} == {size}
            elif action == "truncate":
                for file in files:
                    os.ftruncate(file, offset)
            elif action == "sync":
                os.fsync(files[0])
            elif action == "reopen":
                flags = chance.choice([os.O_RDWR, os.O_RDWR | os.O_TRUNC])
                for number, name in enumerate(names):
                    os.close(files[number])
                    files[number] = os.open(name, flags)
            assert os.fstat(files[0]).st_size == os.fstat(files[1]).st_size
            assert os.pread(files[0], size, offset) == os.pread(files[1], size, offset)
    finally:
        for file in files:
            os.close(file)
    assert names[0].read_bytes() == names[1].read_bytes()


def test_names_of_every_byte_are_made_or_refused_and_never_reach_out(mount: Mount, victim: Path) -> None:
    outside = set(os.listdir(mount.store.parent))
    for byte in set(range(1, 256)) - {ord("/")}:
        for name in (bytes([byte]), b"a" + bytes([byte]), bytes([byte]) * 127):
            if name in (b".", b".."):
                continue
            for place in (b"threads", b"threads/victim/runs", b"drafts"):
                path = os.fsencode(mount.root) + b"/" + place + b"/" + name
                said = outcome(lambda path=path: os.mkdir(path))  # type: ignore[misc]
                assert said in ("ok", "EINVAL", "EACCES"), (name, place, said)
                if said == "ok":
                    assert name in os.listdir(os.path.dirname(path))
                    os.rmdir(path)
            with suppress(OSError):
                file = os.open(os.fsencode(victim) + b"/" + name, os.O_WRONLY | os.O_CREAT)
                os.close(file)
    subprocess.run(["rm", "-rf", victim], check=True)  # Names of backups may go meanwhile by themselves.
    victim.mkdir()
    assert set(os.listdir(mount.store.parent)) == outside
    assert os.listdir(mount.path("threads")) != []


def test_ten_thousand_open_files_are_served_and_let_go(mount: Mount, victim: Path) -> None:
    (victim / "say").write_text("Hello")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(10_000, soft - 500)
    warm = open_files(mount)
    paths = [victim / "meta.json", mount.path("README.md"), victim / "say", mount.path(".threadfs", "stats")]
    with ExitStack() as stack:
        for number in range(count):
            stack.enter_context(paths[number % len(paths)].open("rb"))
        assert (victim / "meta.json").read_bytes()
        assert outcome(lambda: (victim / "say").write_text("more")) == "ok"
    wait_until(lambda: open_files(mount) <= warm + 5)


def test_more_open_logs_than_the_mount_may_have_files_are_refused_and_nothing_is_lost(
    mount: Mount, victim: Path
) -> None:
    """Each holds a file of the store open."""
    (victim / "say").write_text("Hello")
    _, hard = resource.prlimit(mount.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(mount.process.pid, resource.RLIMIT_NOFILE, (open_files(mount) + 40, hard))
    with ExitStack() as stack:
        said = "ok"
        for _ in range(200):
            said = outcome(lambda: stack.enter_context((victim / "messages.jsonl").open("rb")))
            if said != "ok":
                break
        assert said in ("EMFILE", "ENFILE", "EIO")
    wait_until(lambda: outcome(lambda: (victim / "say").write_text("more")) == "ok")
    assert told(mount.store, "victim") == ["Hello", "more"]


@pytest.mark.alone
def test_a_thousand_readers_and_pollers_that_wait_delay_nobody(mount: Mount, victim: Path) -> None:
    (victim / "runs" / "r").mkdir()
    status = victim / "runs" / "r" / "status"
    with ExitStack() as stack:
        poll = select.poll()
        for _ in range(1000):
            poll.register(stack.enter_context(status.open("rb")), select.POLLPRI)
        assert poll.poll(0) == []
        started = time.monotonic()
        (victim / "say").write_text("Hello")
        assert time.monotonic() - started < 2
        (victim / "runs" / "r" / "cancel").write_text("1")
        assert len(poll.poll(5000)) > 0
        wait_until(lambda: len(poll.poll(0)) == 1000)
    assert '"cancelled"' in status.read_text()


def test_ten_thousand_scratch_files_are_kept_one_more_is_refused_and_all_go_with_their_thread(
    mount: Mount, victim: Path
) -> None:
    for number in range(10_000):
        os.close(os.open(victim / f".s{number}", os.O_WRONLY | os.O_CREAT))
    assert outcome(lambda: (victim / ".more").write_text("x")) == "ENOSPC"
    assert len(os.listdir(victim)) == 10_006
    (victim / "say").write_text("the thread itself goes on")
    shutil.rmtree(victim)
    mount.path("threads", "bystander", ".again").write_text("room again")
    mount.path("threads", "bystander", ".again").unlink()


def test_writers_that_never_close_and_readers_that_never_read_delay_nobody(
    mount: Mount, victim: Path
) -> None:
    with ExitStack() as stack:
        for name in ("meta.json", "messages.jsonl", "say", "ask", "start"):
            for _ in range(100):
                writer = stack.enter_context((victim / name).open("wb", buffering=0))
                writer.write(b"{" if name != "say" else b"half")
                stack.enter_context((victim / name).open("rb"))
                stack.callback(lambda writer=writer: writer.truncate(0))  # type: ignore[misc]
        (victim / "start").write_text("llama3")
        assert len(os.listdir(victim / "runs")) == 1
        with (victim / "messages.jsonl").open("ab") as log:
            log.write(b'{"role": "user", "content": "Hello"}\n')
    assert told(mount.store, "victim") == ["Hello"]


def test_signals_in_the_middle_of_calls_lose_nothing_that_was_acknowledged(
    mount: Mount, victim: Path
) -> None:
    said = 0
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    alarm = signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0013)
    try:
        for number in range(300):
            (victim / "say").write_text(f"{number}")
            said += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, *alarm)
        signal.signal(signal.SIGALRM, before)
    assert told(mount.store, "victim") == [f"{number}" for number in range(said)]


_FEW_FILES = """
ulimit -n 64
for i in $(seq 100); do exec {f}<> "$1/say" || break; printf x >&$f || break; done 2> /dev/null
echo done
"""


def test_a_program_with_few_descriptors_fails_alone(mount: Mount, victim: Path) -> None:
    result = subprocess.run(
        ["bash", "-c", _FEW_FILES, "few", victim], capture_output=True, text=True, check=False
    )
    assert "done" in result.stdout
    messages = told(mount.store, "victim")
    assert set(messages) == {"x"}
    assert 40 < len(messages) < 64


def test_descriptors_shared_by_forks_make_one_message(mount: Mount, victim: Path) -> None:
    say = os.open(victim / "say", os.O_WRONLY)
    children = []
    for _ in range(8):
        child = os.fork()
        if not child:
            os.write(say, b"part ")
            os.kill(os.getpid(), signal.SIGKILL)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    os.close(say)
    # Each end of a process is a flush, which commits what has come since the one before.
    assert "".join(told(mount.store, "victim")) == "part " * 8


def run_beside_writers(mount: Mount, victim: Path, command: list[str], cwd: Path) -> None:
    """A program on the mount, and a thread that says something every now and then."""
    said: list[str] = []
    is_over = threading.Event()

    def talk() -> None:
        while not is_over.wait(0.05):
            (victim / "say").write_text(f"{len(said)}")
            said.append(f"{len(said)}")

    talking = threading.Thread(target=talk)
    talking.start()
    try:
        # What it says of its success means little: most of what it tries is refused here.
        subprocess.run(command, cwd=cwd, check=False, capture_output=True, timeout=900)
    finally:
        is_over.set()
        talking.join()
    assert told(mount.store, "victim") == said


def needed(program: str) -> str:
    found = shutil.which(program)
    assert found, f"{program} is missing: tests/run.sh installs it"
    return found


@pytest.mark.parametrize("place", ["drafts", "threads/victim"])
def test_stress_ng_breaks_nothing(mount: Mount, victim: Path, effort: Effort, place: str) -> None:
    seconds = effort(2, 300)
    command = [needed("stress-ng"), "--temp-path", ".", "--timeout", f"{seconds}s", "--oom-avoid"]
    for stressor in STRESSORS.split():
        command += [f"--{stressor}", "1"]
    run_beside_writers(mount, victim, command, mount.path(place))


def test_fio_reads_back_what_it_wrote_to_drafts(
    mount: Mount, victim: Path, effort: Effort, tmp_path: Path
) -> None:
    job = [
        "--name=job",
        "--rw=randrw",
        "--bs=4k",
        "--size=4m",
        "--numjobs=3",
        "--verify=crc32c",
        "--time_based",
    ]
    job += [f"--runtime={effort(3, 300)}", f"--directory={mount.path('drafts')}", "--ioengine=psync"]
    done = subprocess.run(
        [needed("fio"), *job], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
