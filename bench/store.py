"""What the store costs above the system calls that it cannot do without, as a table of ratios.

    python -m bench.store [--quick] [--entries N] [--dir DIRECTORY]

Both sides of a ratio take turns in the same run, on the same disk, and medians are compared, so that a busy
or slow disk makes both slow. All is pinned to one CPU where a row does not say otherwise: across two, what a
waking CPU costs decides. Exits 1 when a target is missed.

A first listing is the first one by a `ThreadStore`, which looks at each entry once; a repeated listing is a
later one by the same object. The kernel has the directories in its cache in both, and on both sides.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from store import ContentBlock, DocumentKey, MessageRole, Run, Thread, ThreadMessage, ThreadStore

Action = Callable[[], object]

LISTED = 100_000
LINES = 1_000_000
WRITERS = 8
ALL_CPUS = os.sched_getaffinity(0)


@dataclass(frozen=True, slots=True)
class Ratio:
    """*ours* is to be at most (``is_gain``: at least) *target* times *theirs*; without target, a report."""

    name: str
    ours: float
    theirs: float
    target: float | None = None
    is_gain: bool = False

    @property
    def value(self) -> float:
        return self.ours / self.theirs

    @property
    def is_missed(self) -> bool:
        if self.target is None:
            return False
        return self.value < self.target if self.is_gain else self.value > self.target

    def row(self) -> str:
        ours, theirs = (
            f"{value:.2f} x" if self.is_gain else f"{value * 1e6:.0f} us"
            for value in (self.ours, self.theirs)
        )
        target = f"{'>=' if self.is_gain else '<='} {self.target}" if self.target else ""
        verdict = "" if self.target is None else "MISSED" if self.is_missed else "ok"
        return f"{self.name:<52} {ours:>13} {theirs:>13} {self.value:>7.2f} {target:>8} {verdict}".rstrip()


HEADER = f"{'':<52} {'store':>13} {'other side':>13} {'ratio':>7} {'target':>8}"


# ── Measuring ───────────────────────────────────────────────────────────────────────────────────────────


def seconds(action: Action) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def medians(rounds: int, *actions: Action) -> list[float]:
    """The median time of each action, in seconds; they take turns, in both orders."""
    times: list[list[float]] = [[] for _ in actions]
    turns = list(zip(actions, times, strict=True))
    for _ in range(rounds):
        for action, found in turns:
            found.append(seconds(action))
        turns.reverse()
    return [median(found) for found in times]


def gain(count: int, actions: list[Action]) -> float:
    """How much faster *actions* get their work done in a thread each than the first of them alone."""

    def work(action: Action) -> None:
        for _ in range(count):
            action()

    alone = seconds(partial(work, actions[0]))
    threads = [threading.Thread(target=work, args=(action,)) for action in actions]

    def together() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return alone * len(actions) / seconds(together)


@contextmanager
def on_cpus(cpus: set[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# ── The system calls ────────────────────────────────────────────────────────────────────────────────────


def bare_replace(directory: str, name: str, data: bytes) -> None:
    path, temporary = f"{directory}/{name}", f"{directory}/.temporary"
    file = os.open(path, os.O_RDONLY)
    os.read(file, 65536)
    os.close(file)
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(file, data)
    os.fsync(file)
    os.close(file)
    os.rename(temporary, path)
    file = os.open(directory, os.O_RDONLY)
    os.fsync(file)
    os.close(file)


def bare_append(directory: str, line: bytes) -> None:
    """Locked while it writes and not while it syncs, as the store is."""
    lock = os.open(directory, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    file = os.open(f"{directory}/messages.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, line)
    os.close(lock)
    os.fsync(file)
    os.close(file)


def bare_list(directory: str) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries]


# ── What is measured ────────────────────────────────────────────────────────────────────────────────────


# Made once: what it costs to make a message is not the store's.
MESSAGE = ThreadMessage(role=MessageRole.user, content=[ContentBlock.of_text("hello " * 20)])


def append(store: ThreadStore, thread_id: str) -> object:
    return store.append_message(thread_id, MESSAGE)


def line_of(store: ThreadStore, thread_id: str) -> bytes:
    append(store, thread_id)
    return store.thread_dir(thread_id).joinpath("messages.jsonl").read_bytes().splitlines(keepends=True)[-1]


def replacing(root: Path, rounds: int) -> Iterator[Ratio]:
    store = ThreadStore(root)
    store.create_thread(Thread(id="T"))
    for run_id in ("ours", "bare"):
        store.create_run("T", Run(id=run_id))
    numbers = iter(range(10**6, 10**7))
    document = store.read_document(DocumentKey("T", "ours"))[0]
    directory = str(store.run_dir("T", "bare"))
    ours, bare = medians(
        rounds,
        lambda: store.patch_document(DocumentKey("T", "ours"), {"model": str(next(numbers))}),
        lambda: bare_replace(directory, "status.json", document),
    )
    yield Ratio("patch_document of a run / bare replace", ours, bare, target=1.3)


def appending(root: Path, rounds: int) -> Iterator[Ratio]:
    store = ThreadStore(root)
    for thread_id in ("ours", "bare"):
        store.create_thread(Thread(id=thread_id))
    line = line_of(store, "ours")
    directory = str(store.thread_dir("bare"))
    ours, bare = medians(rounds, lambda: append(store, "ours"), lambda: bare_append(directory, line))
    yield Ratio("append_message / bare append", ours, bare, target=1.3)


def appending_at_once(root: Path, rounds: int) -> Iterator[Ratio]:
    store = ThreadStore(root)
    ids = [f"T{number}" for number in range(WRITERS)]
    for thread_id in ids:
        store.create_thread(Thread(id=thread_id))
        line = line_of(store, thread_id)

    def ratio(what: str, logs: list[str]) -> Ratio:
        ours: list[Action] = [partial(append, store, thread_id) for thread_id in logs]
        bare: list[Action] = [partial(bare_append, str(store.thread_dir(name)), line) for name in logs]
        gains = [(gain(rounds // 5, ours), gain(rounds // 5, bare)) for _ in range(9)]
        our_gain, bare_gain = (median(side) for side in zip(*gains, strict=True))
        return Ratio(f"gain of {WRITERS} threads on {what} / of bare", our_gain, bare_gain, 0.7, is_gain=True)

    one_log = ids[:1] * WRITERS
    yield ratio(f"{WRITERS} logs", ids)
    yield ratio("one log", one_log)
    with on_cpus(ALL_CPUS):
        yield ratio(f"{WRITERS} logs, {len(ALL_CPUS)} CPUs", ids)
        yield ratio(f"one log, {len(ALL_CPUS)} CPUs", one_log)


def long_log(root: Path, rounds: int, lines: int) -> Iterator[Ratio]:
    store = ThreadStore(root)
    for thread_id in ("long", "short"):
        store.create_thread(Thread(id=thread_id))
        line = line_of(store, thread_id)
    with store.thread_dir("long").joinpath("messages.jsonl").open("ab") as log:
        log.writelines(line for _ in range(lines))
        os.fsync(log.fileno())
    long, short = medians(rounds, lambda: append(store, "long"), lambda: append(store, "short"))
    yield Ratio(f"append after {lines:,} lines / after 1 line", long, short, target=1.25)


def make_entries(directory: Path, count: int, document: str) -> None:
    """Directories that hold *document*, by links to a few files, which is quicker than as many files."""
    directory.mkdir(exist_ok=True)
    original = directory / ".original"
    for number in range(count):
        if number % 50_000 == 0:
            original.unlink(missing_ok=True)
            original.write_text('{"created_at": 1, "status": "queued"}')
        entry = f"{directory}/entry_{number:032}"
        os.mkdir(entry)
        os.link(original, f"{entry}/{document}")
    original.unlink(missing_ok=True)


def listing(root: Path, rounds: int, entries: int) -> Iterator[Ratio]:
    make_entries(root / "threads", entries, "meta.json")
    runs = ThreadStore(root / "runs")
    runs.create_thread(Thread(id="T"))
    make_entries(root / "runs" / "T" / "runs", entries, "status.json")
    time.sleep(3.1)  # As in a store in which no thread was made a moment ago (`store.disk.listing`).
    yield from comparing_lists(
        f"list_thread_ids of {entries:,}",
        rounds,
        root / "threads",
        root / "threads",
        ThreadStore.list_thread_ids,
    )
    yield from comparing_lists(
        f"list_run_ids of {entries:,}",
        rounds,
        root / "runs",
        root / "runs" / "T" / "runs",
        lambda store: store.list_run_ids("T"),
    )


def comparing_lists(
    name: str, rounds: int, location: Path, listed: Path, ids: Callable[[ThreadStore], list[str]]
) -> Iterator[Ratio]:
    store = ThreadStore(location)
    assert sorted(ids(store)) == sorted(bare_list(str(listed)))
    first, again, bare = medians(
        rounds, lambda: ids(ThreadStore(location)), lambda: ids(store), lambda: bare_list(str(listed))
    )
    yield Ratio(f"{name}, first / os.scandir", first, bare)
    yield Ratio(f"{name}, repeated / os.scandir", again, bare, target=1.5)


def opening(root: Path, rounds: int, entries: int) -> Iterator[Ratio]:
    make_entries(root / "many", entries, "meta.json")
    make_entries(root / "few", 10, "meta.json")
    many, few = medians(rounds, lambda: ThreadStore(root / "many"), lambda: ThreadStore(root / "few"))
    yield Ratio(f"opening a store of {entries:,} threads / of 10", many, few, target=1.25)


# ── The table ───────────────────────────────────────────────────────────────────────────────────────────


def all_ratios(root: Path, entries: int, *, quick: bool) -> Iterator[Ratio]:
    rounds = 200 if quick else 1000
    yield from replacing(root / "replacing", rounds)
    yield from appending(root / "appending", rounds)
    yield from appending_at_once(root / "appending-at-once", rounds)
    yield from long_log(root / "long-log", rounds, LINES // 10 if quick else LINES)
    (root / "listing").mkdir()
    yield from listing(root / "listing", 5 if quick else 11, min(entries, LISTED))
    (root / "opening").mkdir()
    yield from opening(root / "opening", rounds, entries)


@contextmanager
def temporary_directory(parent: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=parent or Path(__file__).parents[1]) as root:
        yield Path(root)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.store", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and 10,000 entries")
    parser.add_argument("--entries", type=int, metavar="N", help="threads in the store that is opened")
    parser.add_argument("--dir", type=Path, help="where to work (the repository's directory): no tmpfs")
    options = parser.parse_args()
    entries = options.entries or (10_000 if options.quick else 1_000_000)
    missed = False
    print(HEADER)
    with on_cpus({max(ALL_CPUS)}), temporary_directory(options.dir) as root:
        for ratio in all_ratios(root, entries, quick=options.quick):
            print(ratio.row(), flush=True)
            missed = missed or ratio.is_missed
    return 1 if missed else 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
