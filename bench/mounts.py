"""Mounts to measure: each is served by a process of its own, on the CPU that the benchmark is on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.generate import Shape

_ANSWERS_S = 120.0
_SETTLES_S = 180.0
# How often it is seen to do nothing: where other programs keep the CPU busy it may only wait for its turn.
_QUIET = 4
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Mount:
    root: Path
    pid: int
    # From the start of the process to the first answer.
    started_s: float

    @property
    def threads(self) -> Path:
        return self.root / "threads"

    # ── What threadfs counts ────────────────────────────────────────────────────────────────────────

    def stats(self) -> dict[str, int]:
        """``.threadfs/stats``. Reading it is counted there as well."""
        text = (self.root / ".threadfs" / "stats").read_text()
        return {name: int(value) for name, value in (line.split() for line in text.splitlines())}

    def counted(self, counter: str, action: Callable[[], object], times: int = 100) -> float:
        """How much *counter* of ``.threadfs/stats`` grows by each *action*."""
        before, between = self.stats()[counter], self.stats()[counter]
        for _ in range(times):
            action()
        grown = self.stats()[counter] - between
        return (grown - (between - before)) / times

    # ── Its process ─────────────────────────────────────────────────────────────────────────────────

    def memory_bytes(self) -> int:
        """What is resident and its own."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        private = re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+) kB", text, re.MULTILINE)
        return sum(map(int, private)) * 1024

    def cpu_s(self, *, with_children: bool = False) -> float:
        """CPU time used until now; *with_children*: also by those that it has started and that have ended."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11 : 15 if with_children else 13])) / os.sysconf("SC_CLK_TCK")

    def precise_cpu_s(self) -> float:
        """As `cpu_s`, to the nanosecond, of the threads that live."""
        texts = [path.read_text() for path in Path(f"/proc/{self.pid}/task").glob("*/schedstat")]
        return sum(int(text.split()[0]) for text in texts) / 1e9

    def wakeups(self) -> int:
        """How often one of its threads has waited until now."""
        text = "".join(path.read_text() for path in Path(f"/proc/{self.pid}/task").glob("*/status"))
        return sum(map(int, re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.MULTILINE)))

    def settle(self) -> None:
        """Returns when its process does nothing any more, nor another one for it: an index is built, say."""
        deadline = time.monotonic() + _SETTLES_S
        used_s, quiet = -1.0, 0
        while quiet < _QUIET and time.monotonic() < deadline:
            quiet = quiet + 1 if used_s == self.cpu_s() and not self._children() else 0
            used_s = self.cpu_s()
            time.sleep(0.5)

    def _children(self) -> str:
        return "".join(path.read_text() for path in Path(f"/proc/{self.pid}/task").glob("*/children"))

    # ── The kernel's side ───────────────────────────────────────────────────────────────────────────

    def forget(self) -> None:
        """Has the kernel forget the names of this mount, and the inodes that nobody uses. Needs root."""
        subprocess.run(["mount", "-i", "-o", "remount", str(self.root)], check=True, capture_output=True)
        self.settle()


@contextmanager
def _served(command: list[str], root: Path) -> Iterator[Mount]:
    root.mkdir(parents=True, exist_ok=True)
    outside = os.stat(root).st_dev
    log = root.with_name(root.name + ".log")
    with log.open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=_ROOT)
    try:
        while os.stat(root).st_dev == outside:
            if process.poll() is not None or time.perf_counter() - started > _ANSWERS_S:
                raise RuntimeError(f"{' '.join(command)}: no mount\n{log.read_text()}")
            time.sleep(0.001)
        yield Mount(root, process.pid, time.perf_counter() - started)
    finally:
        _unmount(root, outside)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _unmount(root: Path, outside: int) -> None:
    for options in (["-u"],) * 20 + (["-uz"],):
        try:
            if os.stat(root).st_dev == outside:
                return
        except OSError:  # Its process has died.
            pass
        subprocess.run(["fusermount3", *options, "--", str(root)], capture_output=True, check=False)
        time.sleep(0.02)


@contextmanager
def threadfs(store: Path | str, root: Path, *options: str) -> Iterator[Mount]:
    command = [sys.executable, "-m", "threadfs.cli", "-f", *options, str(store), str(root)]
    with _served(command, root) as mount:
        yield mount


@contextmanager
def floor(shape: Shape, root: Path) -> Iterator[Mount]:
    sizes = {
        "threads": shape.threads,
        "runs": shape.runs,
        "messages": shape.messages,
        "queued": shape.queued,
        "long-log": shape.long_log,
    }
    options = [f"--{name}={value}" for name, value in sizes.items()]
    with _served([sys.executable, "-m", "bench.floor", *options, str(root)], root) as mount:
        yield mount


@contextmanager
def bindfs(store: Path, root: Path) -> Iterator[Mount]:
    """The store's own directory, seen through a file system in C."""
    with _served(["bindfs", "-f", str(store), str(root)], root) as mount:
        yield mount


@dataclass(frozen=True, slots=True)
class Sides:
    """The same tree, four times: on the disk, through bindfs, as the floor and as threadfs."""

    disk: Path
    bindfs: Mount
    floor: Mount
    threadfs: Mount


@contextmanager
def sides(store: Path, shape: Shape, roots: Path) -> Iterator[Sides]:
    with (
        bindfs(store, roots / "bindfs") as through,
        floor(shape, roots / "floor") as least,
        threadfs(store, roots / "threadfs") as ours,
    ):
        yield Sides(store, through, least, ours)
