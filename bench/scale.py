"""What a large store costs: mounting it, its index, memory, and what others wait for meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bench import mounts
from bench.generate import Shape, run_id, status, thread_id
from bench.mounts import Mount
from bench.reading import open_read_close
from bench.store import medians, seconds
from bench.table import Row, against, megabytes

STALL_MS = 50
CHANGES = 10_000
# Threads that have nothing to do wait so long for more.
_THREADS_END_S = 12.0
_IDLE_S = 20.0
# What the mount may hold of a thread that the kernel holds.
_LISTED_BYTES = 900


# ── Time to mount ───────────────────────────────────────────────────────────────────────────────────────


def bare_import() -> None:
    subprocess.run([sys.executable, "-c", "import pyfuse3, trio, pydantic"], check=True)


def mounting(few: Path, many: Path, runs: int, roots: Path, *, quick: bool) -> Iterator[Row]:
    started: dict[Path, list[float]] = {few: [], many: []}

    def mount(store: Path) -> None:
        with mounts.threadfs(store, roots / "threadfs") as mounted:
            started[store].append(mounted.started_s)

    rounds = 3 if quick else 9
    for store in (few, many):
        mount(store)
        started[store].clear()
    imported = medians(rounds, bare_import, lambda: mount(few), lambda: mount(many))[0]
    of_few, of_many = (sorted(started[store])[rounds // 2] for store in (few, many))
    yield against("bare", "mount answers, 10 runs", {"bare": imported, "threadfs": of_few}, 4)
    sides = {"other": of_few, "threadfs": of_many}
    yield Row(f"mount answers, {runs:,} runs", sides, of_many / of_few, 1.2, "x that of 10 runs")


# ── The index of runs by status ─────────────────────────────────────────────────────────────────────────


def queued(thousand: Path, many: Path, runs: int, roots: Path) -> Row:
    """The first listing waits for the index, if anything does, and is not counted."""
    with (
        mounts.threadfs(thousand, roots / "thousand") as of_few,
        mounts.threadfs(many, roots / "many") as of_many,
    ):
        names = [f"{mount.root}/runs/queued" for mount in (of_few, of_many)]
        of_many.settle()
        assert [len(os.listdir(name)) for name in names] == [100, 100]
        # One that scans the store each time says so once.
        rounds = 21 if seconds(lambda: os.listdir(names[1])) < 1 else 1
        few, found = medians(rounds, lambda: os.listdir(names[0]), lambda: os.listdir(names[1]))
    sides = {"other": few, "threadfs": found}
    return Row(f"ls runs/queued, 100 of {runs:,} runs", sides, found / few, 3, "x with 1,000 runs")


# ── Stalls ──────────────────────────────────────────────────────────────────────────────────────────────


def longest(path: str, process: subprocess.Popen[bytes], *, at_least_s: float) -> float:
    """The longest of the open-read-closes that follow each other until *process* has ended."""
    worst, started = 0.0, time.perf_counter()
    before = started
    while process.poll() is None or before - started < at_least_s:
        for _ in range(20):
            open_read_close(path)
            now = time.perf_counter()
            worst, before = max(worst, now - before), now
        before = time.perf_counter()
    return worst


def elsewhere(command: list[str]) -> subprocess.Popen[bytes]:
    """Another program, on another CPU, if there is one."""
    cpus = set(range(os.cpu_count() or 1)) - os.sched_getaffinity(0)

    def leave() -> None:
        with suppress(OSError):
            os.sched_setaffinity(0, cpus)

    return subprocess.Popen(command, preexec_fn=leave, stdout=subprocess.DEVNULL)


def stalls(many: Path, runs: int, store: Path, shape: Shape, roots: Path, *, quick: bool) -> Iterator[Row]:
    name = f"{thread_id(0)}/runs/{run_id(0)}/status"
    with mounts.threadfs(many, roots / "threadfs") as mount:
        process = elsewhere(["ls", str(mount.root / "runs" / "queued")])
        stall = longest(str(mount.threads / name), process, at_least_s=3 if quick else 10)
        yield Row(f"longest stall, index of {runs:,} runs", {"threadfs": stall}, stall * 1e3, STALL_MS, "ms")

    changes = min(CHANGES, shape.threads - 1)
    command = [sys.executable, "-m", "bench.scale", str(store), str(changes)]
    found = {}
    with mounts.threadfs(store, roots / "threadfs") as ours, mounts.floor(shape, roots / "floor") as least:
        for number in range(shape.threads):
            os.stat(ours.threads / thread_id(number) / "runs" / run_id(0) / "status")
        for side, mount in (("floor", least), ("threadfs", ours)):
            stall = longest(str(mount.threads / name), elsewhere(command), at_least_s=3)
            found[side] = stall
    yield Row(f"longest stall, {changes:,} changes arrive", found, found["threadfs"] * 1e3, STALL_MS, "ms")


def change(store: Path, changes: int) -> None:
    """As another program does that replaces the status of runs: not of the first, which is being read."""
    shape = Shape(changes)
    for number in range(1, changes + 1):
        directory = store / thread_id(number) / "runs" / run_id(0)
        temporary = directory / ".temporary"
        temporary.write_bytes(status(shape, number, 0) + b"\n" * (time.time_ns() % 7))
        os.rename(temporary, directory / "status.json")


# ── Memory and idleness ─────────────────────────────────────────────────────────────────────────────────


def memory(store: Path, threads: int, roots: Path) -> Iterator[Row]:
    with mounts.threadfs(store, roots / "threadfs") as mount:
        mount.settle()
        empty = mount.memory_bytes()
        subprocess.run(["ls", "-l", str(mount.threads)], check=True, stdout=subprocess.DEVNULL)
        grown = mount.memory_bytes() - empty
        yield Row(
            f"memory, {threads:,} threads listed with ls -l",
            {"other": empty, "threadfs": empty + grown},
            grown / 1e6,
            threads * 900 / 1e6,
            "MB more than empty",
            shown=megabytes,
        )
        if os.geteuid() == 0:  # Nobody else can have the kernel forget.
            mount.forget()
            rest = mount.memory_bytes() - empty
            yield Row(
                "  after the kernel has forgotten them",
                {"other": empty, "threadfs": empty + rest},
                rest / 1e6,
                20,
                "MB more than empty",
                shown=megabytes,
            )


def idle(store: Path, roots: Path) -> Iterator[Row]:
    with mounts.threadfs(store, roots / "threadfs") as mount:
        hold_something(mount)
        mount.settle()
        time.sleep(_THREADS_END_S)
        cpu_s, wakeups = mount.cpu_s(), mount.wakeups()
        time.sleep(_IDLE_S)
        cpu_s, wakeups = mount.cpu_s() - cpu_s, mount.wakeups() - wakeups
    yield Row(f"wakeups of an idle mount in {_IDLE_S:.0f} s", {}, wakeups, 2)
    yield Row("  CPU time in that, ms", {}, cpu_s * 1e3, 10)


def hold_something(mount: Mount) -> None:
    for number in range(10):
        open_read_close(str(mount.threads / thread_id(number) / "runs" / run_id(0) / "status"))


if __name__ == "__main__":
    change(Path(sys.argv[1]), int(sys.argv[2]))
