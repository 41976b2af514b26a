"""Who has a file open, as /proc tells."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from threadfs.fuse.openers import open_descriptors

_HOLDER = """
import os, sys
descriptor = os.open(sys.argv[1], int(sys.argv[2]))
print(descriptor, flush=True)
sys.stdin.readline()
os.close(descriptor)
print("closed", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.touch()
    return path


@pytest.fixture
def holder(file: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has *file* open for writing."""
    with holding(file, os.O_WRONLY) as process:
        yield process


def holding(file: Path, flags: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _HOLDER, str(file), str(flags)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip().isdigit()
    return process


def device(file: Path) -> str:
    number = file.stat().st_dev
    return f"{os.major(number)}:{os.minor(number)}"


def test_a_process_has_a_file_open_until_it_closes_it(file: Path, holder: subprocess.Popen[str]) -> None:
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert open_descriptors(holder.pid, file.stat().st_ino, device(file))
    print(file=holder.stdin, flush=True)
    assert holder.stdout.readline() == "closed\n"
    assert not open_descriptors(holder.pid, file.stat().st_ino, device(file))


_ASKS_WHEN_OTHERS_LET_IT = """
import os, sys, time
from threadfs.fuse.openers import open_descriptors
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.nice(19)
pid, inode_number, device = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
longest_s = 0.0
while longest_s < 0.1:
    began_s = time.monotonic()
    assert open_descriptors(pid, inode_number, device)
    longest_s = max(longest_s, time.monotonic() - began_s)
"""


def test_a_process_has_a_file_open_however_long_it_takes_until_it_is_our_turn(
    file: Path, holder: subprocess.Popen[str]
) -> None:
    other = ["taskset", "-c", f"{min(os.sched_getaffinity(0))}", "sh", "-c", "while :; do :; done"]
    with subprocess.Popen(other) as busy:
        arguments = [f"{holder.pid}", f"{file.stat().st_ino}", device(file)]
        asks = [sys.executable, "-c", _ASKS_WHEN_OTHERS_LET_IT, *arguments]
        result = subprocess.run(asks, check=False)
        busy.kill()
    assert result.returncode == 0


def test_a_process_that_has_ended_has_nothing_open(file: Path, holder: subprocess.Popen[str]) -> None:
    number, place = file.stat().st_ino, device(file)
    holder.communicate("\n\n")
    assert not open_descriptors(holder.pid, number, place)


def test_another_file_or_disk_is_not_the_one(file: Path, holder: subprocess.Popen[str]) -> None:
    assert not open_descriptors(holder.pid, file.stat().st_ino + 1, device(file))
    assert not open_descriptors(holder.pid, file.stat().st_ino, "0:0")


def test_who_reads_a_file_does_not_count(file: Path) -> None:
    with holding(file, os.O_RDONLY) as process:
        assert not open_descriptors(process.pid, file.stat().st_ino, device(file))
        process.communicate("\n\n")


def test_a_process_that_cannot_be_seen_counts_as_one_that_has_let_go(file: Path) -> None:
    for unseen in (0, 1 << 30):
        assert not open_descriptors(unseen, file.stat().st_ino, device(file))
