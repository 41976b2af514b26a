"""How soon programs that watch a mount hear of what others change, and what that costs.

    python -m bench.waking [--quick] [--dir DIRECTORY]

The store is in DIRECTORY (the repository's), which should be on a real disk. The mount is a process of its
own; everything in it was listed once, so that the kernel holds it all. Times count from when the change was
on disk. "Without" is a mount with ``-o nowake``. A reader opens and reads a document, and looks for names
that are not there, for which the kernel asks each time, until all is told; without, for as long. Its longest
wait is mostly the machine's: the medians of some rounds are compared. Exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from inotify_simple import INotify, flags

from bench import mounts
from bench.generate import Shape, generate
from bench.table import is_missed
from store import ContentBlock, MessageRole, Run, RunStatus, TextContent, Thread, ThreadMessage, ThreadStore

_SHAPE = Shape(200, runs=2, messages=10)
_WAKES_S = 10.0
_WITHOUT = ("-o", "nowake")
_ROUNDS = 3
# Between two changes, and between two reads.
_CHANGES_S, _READS_S = 0.05, 0.002
# How long no call is made when all is told.
_QUIET_S = 1.0


@contextmanager
def _watched(store: Path, root: Path, *options: str) -> Iterator[mounts.Mount]:
    with mounts.threadfs(store, root, *options) as mount:
        mount.settle()
        subprocess.run(["ls", "-lR", str(root)], stdout=subprocess.DEVNULL, check=True)
        mount.settle()
        yield mount


def _wake_up_s(mount: mounts.Mount, other: ThreadStore, rounds: int) -> float:
    """The median from a status that is replaced to the wake-up of who watches its directory."""
    inotify = INotify()
    inotify.add_watch(mount.threads / "T" / "runs" / "R", flags.MODIFY)
    taken_s = []
    for number in range(rounds):
        time.sleep(_CHANGES_S)
        other.update_run_status("T", "R", (RunStatus.in_progress, RunStatus.queued)[number % 2])
        changed_s = time.perf_counter()
        if not inotify.read(timeout=int(_WAKES_S * 1000)):
            raise TimeoutError("nobody is woken")
        taken_s.append(time.perf_counter() - changed_s)
    inotify.close()
    return median(taken_s)


def _append(store: Path, count: int) -> None:
    other = ThreadStore(store)
    content = [ContentBlock(text=TextContent(value="hi"))]
    for _ in range(count):
        other.append_message("T", ThreadMessage(role=MessageRole.user, content=content))
    other.close()


def _make_threads(store: Path, count: int) -> None:
    """Without syncing, as programs do that copy a store: this is as fast as it can be."""
    with tempfile.TemporaryDirectory(dir=store.parent) as directory:
        for number in range(count):
            name = f"new {Path(directory).name} {number}"  # One that begins with tmp is no thread's.
            made = Path(directory, name)
            made.mkdir()
            (made / "meta.json").write_text(json.dumps({"id": name, "object": "thread", "created_at": 1}))
            made.rename(store / name)


Burst = Callable[[Path, int], None]
_BURSTS: dict[str, Burst] = {"messages": _append, "new threads": _make_threads}
# What is told of each: a message in a log and two texts, which many share; three names of a thread, each by a
# call of its own.
_CHANGES = {"messages": 10_000, "new threads": 10_000 // 3}


def _cpu_s(mount: mounts.Mount, burst: Burst, store: Path, count: int) -> float:
    """CPU time of the mount for changes, one after the other."""
    mount.settle()
    before_s = mount.cpu_s()
    burst(store, count)
    mount.settle()
    return mount.cpu_s() - before_s


def _worst_read_s(
    mount: mounts.Mount, burst: Burst, store: Path, count: int, at_least_s: float
) -> tuple[float, float]:
    """The longest time that a reader waits while another process makes changes, and until all is told.

    And how long that took; it is looked at for no less than *at_least_s*.
    """
    writer = multiprocessing.get_context("spawn").Process(target=burst, args=(store, count))
    writer.start()
    began_s = looked_s = time.perf_counter()
    worst_s, number, wakeups = 0.0, 0, -1
    while True:
        if not writer.is_alive() and time.perf_counter() > max(looked_s + _QUIET_S, began_s + at_least_s):
            if wakeups == (wakeups := mount.stats()["wakeups"]):
                return worst_s, time.perf_counter() - began_s
            looked_s = time.perf_counter()
        number += 1
        for read in (
            (mount.threads / "T" / "meta.json").read_bytes,
            (mount.threads / f"none {number}").exists,
            (mount.threads / "T" / f"none {number}").exists,
        ):
            asked_s = time.perf_counter()
            read()
            worst_s = max(worst_s, time.perf_counter() - asked_s)
        time.sleep(_READS_S)


def _longest_reads(place: Path, burst: Burst, count: int) -> tuple[float, float]:
    """In milliseconds, with wake-ups and without: the medians of rounds, each with a store of its own."""
    worst_ms: dict[tuple[str, ...], list[float]] = {(): [], _WITHOUT: []}
    for _ in range(_ROUNDS):
        took_s = 0.0
        for turn in ((), _WITHOUT):
            with tempfile.TemporaryDirectory(dir=place) as directory:
                store = _generated(Path(directory, "store"))
                with _watched(store, Path(directory, "mnt"), *turn) as mount:
                    worst_s, took_s = _worst_read_s(mount, burst, store, count, took_s)
            worst_ms[turn].append(worst_s * 1e3)
    return median(worst_ms[()]), median(worst_ms[_WITHOUT])


def _generated(store: Path) -> Path:
    """*store*, in which there are the thread T and its run R besides the others."""
    generate(store, _SHAPE)
    other = ThreadStore(store)
    other.create_thread(Thread(id="T"))
    other.create_run("T", Run(id="R"))
    other.close()
    return store


def main() -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the changes")
    parser.add_argument("--dir", type=Path, default=Path(__file__).parents[1], help="where the store is")
    options = parser.parse_args()
    part = 10 if options.quick else 1
    missed = False
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=options.dir) as directory:
        place = Path(directory)
        store = _generated(place / "store")
        other = ThreadStore(store)
        with (
            _watched(store, place / "mounts" / "with") as mount,
            _watched(store, place / "mounts" / "without", *_WITHOUT) as without,
        ):
            woken_s = _wake_up_s(mount, other, 200 // part)
            missed |= is_missed("from another's change to the wake-up, median", woken_s * 1e3, "ms", 60)
            for changes, burst in _BURSTS.items():
                for what, each in (("with", mount), ("without", without)):
                    each_s = _cpu_s(each, burst, store, 1000 // part) * part
                    missed |= is_missed(
                        f"CPU time of the mount for 1,000 {changes}, {what}", each_s, "s", None
                    )
        other.close()
        for changes, burst in _BURSTS.items():
            count = _CHANGES[changes] // part
            with_ms, without_ms = _longest_reads(place, burst, count)
            what = f"longest read in a burst of {count:,} {changes}"
            is_missed(f"{what}, with", with_ms, "ms", None)
            is_missed(f"{what}, without", without_ms, "ms", None)
            missed |= is_missed(f"{what}, difference", with_ms - without_ms, "ms", 50)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
