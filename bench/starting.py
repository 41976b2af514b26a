"""The start of a mount of a large store: the first one, and one that only compares, warm and cold.

    python -m bench.starting [--threads N] [--dir DIRECTORY]

The store has N threads (100,000) of a run and a message, on a file system of its own: a loop device with
direct I/O, on a file in DIRECTORY (the repository's). *Warm* is with the store's inodes in the kernel's
memory, *cold* after that file system was mounted anew. *First* is without a catalogue, *second* with that
of the mount before. Beside them, in the same run, is a script that only looks at the same five paths of
each thread. Needs root. Exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path

from bench import mounts
from bench.generate import Shape, generate, run_id, thread_id
from bench.mounts import Mount
from bench.store import seconds
from bench.table import is_missed

THREADS = 100_000
QUEUED = 100
# What looks at a disk that has to be read waits for this many of its answers at once.
_AT_ONCE = 16
_BYTES_A_THREAD = 48 << 10
_IDLE_S = 5.0

# What it is, how much, of what unit, and at most how much.
Row = tuple[str, float, str, float | None]


@contextmanager
def own_disk(at: Path, size: int) -> Iterator[Callable[[], None]]:
    """A file system of *size* bytes at *at*; what is given has the kernel forget all that it knows of it."""
    image = at.with_name("disk")
    image.touch()
    os.truncate(image, size)
    at.mkdir()
    _run("mkfs.ext4", "-q", "-F", "-i", "4096", str(image))
    device = _run("losetup", "--find", "--show", "--direct-io=on", str(image)).strip()
    try:
        _run("mount", device, str(at))

        def forget() -> None:
            _run("umount", str(at))
            _run("mount", device, str(at))

        try:
            yield forget
        finally:
            _run("umount", str(at))
    finally:
        _run("losetup", "--detach", device)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def look_at(store: Path, threads: range) -> None:
    """What comparing has to look at, of each thread."""
    for number in threads:
        path = f"{store}/{thread_id(number)}"
        run = f"{path}/runs/{run_id(0)}"
        for one in (f"{path}/meta.json", f"{path}/messages.jsonl", f"{path}/runs", run, f"{run}/status.json"):
            os.stat(one, follow_symlinks=False)


def look_together(store: Path, threads: int) -> None:
    """The same, by threads of Python that wait for the disk at once."""
    slices = [range(first, threads, _AT_ONCE) for first in range(_AT_ONCE)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda numbers: look_at(store, numbers), slices))


def queued_at_once(mount: Mount) -> float:
    """How long the first question takes, which needs to know of every run."""

    def ask() -> None:
        assert len(os.listdir(mount.root / "runs" / "queued")) == QUEUED

    return seconds(ask)


def stats_meanwhile(mount: Mount, numbers: Iterator[int], goes_on: Callable[[], bool]) -> list[float]:
    """The times, sorted, of stats of threads that nobody has looked at, one each 2 ms."""
    times = []
    while goes_on():
        path = mount.threads / thread_id(next(numbers))
        times.append(seconds(partial(os.stat, path)))
        time.sleep(0.002)
    return sorted(times)


def rows(at: Path, threads: int) -> Iterator[Row]:
    with own_disk(at / "own", threads * _BYTES_A_THREAD + (64 << 20)) as forget:
        store = generate(at / "own" / "store", Shape(threads, messages=1, queued=QUEUED))
        os.sync()
        with mounts.threadfs(generate(at / "own" / "empty", Shape(0)), at / "mnt") as mount:
            mount.settle()
            empty = mount.memory_bytes()
        warm = range(threads)
        look_at(store, warm)
        bare_s = min(seconds(lambda: look_at(store, warm)) for _ in range(3))
        yield f"five stats of each of {threads:,} threads, by a script, warm", bare_s, "s", None
        yield from first_mount(store, at / "mnt", threads)
        yield from second_mount(store, at / "mnt", threads, bare_s)
        yield from memory(store, at / "mnt", empty)
        forget()
        together_s = seconds(lambda: look_together(store, threads))
        yield f"five stats of each, by {_AT_ONCE} threads of a script, cold", together_s, "s", None
        forget()
        with mounts.threadfs(store, at / "mnt") as mount:
            took_s = queued_at_once(mount)
        yield "second mount, cold: ls runs/queued at once", took_s, "s", None
        yield "  those stats", took_s / together_s, "x", 1.5


def first_mount(store: Path, root: Path, threads: int) -> Iterator[Row]:
    with mounts.threadfs(store, root) as mount, ThreadPoolExecutor(1) as pool:
        numbers = count(QUEUED)
        listing = pool.submit(queued_at_once, mount)
        building = stats_meanwhile(mount, numbers, lambda: not listing.done())
        yield "first mount, warm: ls runs/queued at once", listing.result(), "s", None
        mount.settle()
        cpu_s = mount.cpu_s(with_children=True)
        yield "  CPU until all is known, a thread", cpu_s / threads * 1e6, "us", None
        end = time.monotonic() + _IDLE_S
        idle = stats_meanwhile(mount, numbers, lambda: time.monotonic() < end)
        at_building, at_idle = (times[len(times) * 99 // 100] for times in (building, idle))
        yield "  longest stat of a new thread meanwhile", building[-1] * 1000, "ms", 50
        yield "  p99 of these", at_building * 1000, "ms", None
        yield "    that of an idle mount", at_building / at_idle, "x", 3


def second_mount(store: Path, root: Path, threads: int, bare_s: float) -> Iterator[Row]:
    with mounts.threadfs(store, root) as mount:
        began_s = mount.cpu_s(with_children=True)
        took_s = queued_at_once(mount)
        cpu_s = mount.cpu_s(with_children=True) - began_s
        yield "second mount, warm: ls runs/queued at once", took_s, "s", 5 * threads / THREADS
        yield "  the stats of the script", took_s / bare_s, "x", 2
        yield "  CPU a thread", cpu_s / threads * 1e6, "us", 25
        mount.settle()
        time.sleep(1.1)  # What was looked at within a second is not looked at again.
        yield "  again, once what can be followed is", queued_at_once(mount), "s", None


def memory(store: Path, root: Path, empty: int) -> Iterator[Row]:
    with mounts.threadfs(store, root) as mount:
        queued_at_once(mount)
        mount.settle()
        for what, command, limit in (
            ("once all is known", [], 60),
            ("after ls by-title", ["ls", "by-title"], None),
            ("after ls -l threads, too", ["ls", "-l", "threads"], None),
        ):
            if command:
                subprocess.run(command, cwd=mount.root, check=True, stdout=subprocess.DEVNULL)
            yield f"memory above an empty mount's, {what}", (mount.memory_bytes() - empty) / 1e6, "MB", limit


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.starting", description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--dir", type=Path, default=Path(__file__).parents[1])
    options = parser.parse_args()
    missed = False
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=options.dir) as directory:
        os.environ["XDG_CACHE_HOME"] = os.path.join(directory, "caches")
        for what, value, unit, limit in rows(Path(directory), options.threads):
            missed |= is_missed(what, value, unit, limit)
    return 1 if missed else 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
