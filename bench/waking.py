"""How soon programs that watch a mount hear of what others change, and what that costs.

    python -m bench.waking [--quick] [--dir DIRECTORY]

The store is in DIRECTORY (the repository's), which should be on a real disk. The mount is a process of its
own; everything in it was listed once, so that the kernel holds it all. Times count from when the change was
on disk. "Without" is a mount with ``-o nowake``. The longest read is mostly the machine's: of bursts with and
without, in turns, the medians are compared. Exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
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
_ROUNDS = 5
# Between two changes, and between two reads.
_CHANGES_S, _READS_S = 0.05, 0.002


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


def _cpu_s(mount: mounts.Mount, store: Path, count: int) -> float:
    """CPU time of the mount for messages, one after the other."""
    mount.settle()
    before_s = mount.cpu_s()
    _append(store, count)
    mount.settle()
    return mount.cpu_s() - before_s


def _worst_read_s(mount: mounts.Mount, store: Path, count: int) -> float:
    """The longest time to open and read a document, while another process appends messages."""
    burst = multiprocessing.get_context("spawn").Process(target=_append, args=(store, count))
    burst.start()
    worst_s = 0.0
    while burst.is_alive():
        began_s = time.perf_counter()
        (mount.threads / "T" / "meta.json").read_bytes()
        worst_s = max(worst_s, time.perf_counter() - began_s)
        time.sleep(_READS_S)
    return worst_s


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
        generate(place / "store", _SHAPE)
        other = ThreadStore(place / "store")
        other.create_thread(Thread(id="T"))
        other.create_run("T", Run(id="R"))
        with (
            _watched(place / "store", place / "mounts" / "with") as mount,
            _watched(place / "store", place / "mounts" / "without", *_WITHOUT) as without,
        ):
            woken_s = _wake_up_s(mount, other, 200 // part)
            missed |= is_missed("from another's change to the wake-up, median", woken_s * 1e3, "ms", 60)
            for what, each in (("with", mount), ("without", without)):
                each_s = _cpu_s(each, place / "store", 1000 // part) * part
                missed |= is_missed(f"CPU time of the mount for 1,000 messages, {what}", each_s, "s", None)
        worst_ms: dict[tuple[str, ...], list[float]] = {(): [], _WITHOUT: []}
        for number in range(_ROUNDS):
            for turn in ((), _WITHOUT) if number % 2 else (_WITHOUT, ()):
                with _watched(place / "store", place / "mounts" / f"{len(turn)}-{number}", *turn) as mount:
                    worst_s = _worst_read_s(mount, place / "store", 10_000 // part)
                worst_ms[turn].append(worst_s * 1e3)
        with_ms, without_ms = median(worst_ms[()]), median(worst_ms[_WITHOUT])
        burst = f"longest read in a burst of {10_000 // part:,} messages"
        is_missed(f"{burst}, with", with_ms, "ms", None)
        is_missed(f"{burst}, without", without_ms, "ms", None)
        missed |= is_missed(f"{burst}, difference", with_ms - without_ms, "ms", 50)
        other.close()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
