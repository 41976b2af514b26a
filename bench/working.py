"""What a worker adds to the time of its endpoint, and what it costs.

    python -m bench.working [--quick] [--dir DIRECTORY]

The endpoint is `bench.endpoint`, which answers at once: its own part of each time is beside it. The store is
in DIRECTORY (the repository's), which should be on a real disk; the worker and the endpoint are processes of
their own. What is read while it grows is read from the store. Exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import trio

from store import ContentBlock, MessageRole, Run, Thread, ThreadMessage, ThreadStore
from store.disk.system_calls import SystemCalls
from threadfs.work.endpoint import Endpoint, base_url
from threadfs.work.settings import Settings
from threadfs.work.worker import work

ENDS_S = 30.0
LOOKS_S = 0.0002


@dataclass(frozen=True, slots=True)
class Figure:
    """*value* is to be at most *target*; *own* is the endpoint's part of the time, which is not in it."""

    name: str
    value: float
    unit: str
    target: float
    own: float | None = None

    @property
    def is_missed(self) -> bool:
        return self.value > self.target

    def row(self) -> str:
        own = "" if self.own is None else f"{self.own:.1f}"
        verdict = "MISSED" if self.is_missed else "ok"
        return (
            f"{self.name:<56}{self.value:>8.2f} {self.unit:<4}{own:>8} {'<=':>5} {self.target:<6g}{verdict}"
        )


class Clock:
    """The endpoint, in a process of its own."""

    def __init__(self, tokens: int, interval_s: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.endpoint", str(tokens), str(interval_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        self._told: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            what, moment = line.split()
            self._told.put((what, int(moment)))

    def next(self, what: str) -> int:
        """When *what* happened next."""
        while True:
            told, moment = self._told.get(timeout=ENDS_S)
            if told == what:
                return moment

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextmanager
def clock(tokens: int, interval_s: float = 0.0) -> Iterator[Clock]:
    made = Clock(tokens, interval_s)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def worker(place: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that is ready."""
    store = ThreadStore(place)
    before = len(store.workers())
    process = subprocess.Popen(
        [sys.executable, "-m", "threadfs.cli", "work", str(place), "--endpoint", url],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: len(store.workers()) > before)
        time.sleep(0.5)
        yield process
    finally:
        process.terminate()
        process.wait()
        store.close()


def wait_for(condition: Callable[[], object], looks_s: float = LOOKS_S) -> None:
    ends_s = time.monotonic() + ENDS_S
    while not condition():
        if time.monotonic() > ends_s:
            raise TimeoutError("it takes too long")
        time.sleep(looks_s)


def ask(store: ThreadStore, thread_id: str, text: str = "go") -> Run:
    message = ThreadMessage(role=MessageRole.user, content=[ContentBlock.of_text(text)])
    return store.ask(thread_id, message, Run())[1]


def growing(store: ThreadStore, thread_id: str) -> bytes:
    for answer in store.growing_answers(thread_id):
        return store.read_answer(answer, 0, 1 << 20) or b""
    return b""


# ── Figures ─────────────────────────────────────────────────────────────────────────────────────────────


def first_text(store: ThreadStore, place: Path, rounds: int) -> Iterator[Figure]:
    took, own = [], []
    with clock(3, 0.1) as endpoint, worker(place, endpoint.url):
        for number in range(rounds):
            thread_id = store.create_thread(Thread()).id
            time.sleep(0.05)
            asked = time.monotonic_ns()
            run = ask(store, thread_id, f"{number}")
            wait_for(lambda thread_id=thread_id: growing(store, thread_id))  # type: ignore[misc]
            seen = time.monotonic_ns()
            sent = int(growing(store, thread_id).split()[0])
            arrived = endpoint.next("asked")
            took.append((seen - asked - (sent - arrived)) / 1e6)
            own.append((sent - arrived) / 1e6)
            wait_for(lambda run=run: _has_ended(store, run), 0.01)  # type: ignore[misc]
    yield Figure("ask to first text readable, less the endpoint's", median(took), "ms", 60, median(own))


def _has_ended(store: ThreadStore, run: Run) -> bool:
    return store.get_run(run.thread_id, run.id).status.is_terminal


def lag_and_cpu(store: ThreadStore, place: Path, tokens: int) -> Iterator[Figure]:
    thread_id = store.create_thread(Thread()).id
    lags = []
    with clock(tokens, 1 / 77) as endpoint, worker(place, endpoint.url) as process:
        warm = ask(store, store.create_thread(Thread()).id, "hold")
        endpoint.next("asked")
        store.cancel_run(warm.thread_id, warm.id)
        endpoint.next("closed")
        before = cpu_s(process.pid)
        run = ask(store, thread_id)
        size = 0
        while not _has_ended(store, run):
            text = growing(store, thread_id)
            seen = time.monotonic_ns()
            if len(text) > size:
                lags.append((seen - int(text.split()[-1])) / 1e6)
                size = len(text)
            time.sleep(LOOKS_S)
        used_s = cpu_s(process.pid) - before
    yield Figure("lag of a token", median(lags), "ms", 15)
    yield Figure(
        f"CPU of the worker a token, {tokens} tokens at 77 a second", used_s / tokens * 1e3, "ms", 0.7
    )


def cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle(place: Path, for_s: float) -> Iterator[Figure]:
    with clock(1) as endpoint, worker(place, endpoint.url) as process:
        time.sleep(12)  # Threads that ran at its start wait so long for more.
        before = cpu_s(process.pid)
        time.sleep(for_s)
        yield Figure(f"CPU of an idle worker in {for_s:.0f} s", (cpu_s(process.pid) - before) * 1e3, "ms", 0)


def cancels(store: ThreadStore, place: Path, rounds: int) -> Iterator[Figure]:
    took = []
    with clock(1) as endpoint, worker(place, endpoint.url):
        for _ in range(rounds):
            thread_id = store.create_thread(Thread()).id
            run = ask(store, thread_id, "hold")
            wait_for(lambda thread_id=thread_id: growing(store, thread_id))  # type: ignore[misc]
            cancelled = time.monotonic_ns()
            store.cancel_run(thread_id, run.id)
            took.append((endpoint.next("closed") - cancelled) / 1e6)
    yield Figure("cancel to closed connection", median(took), "ms", 100)


def deaths(store: ThreadStore, place: Path, rounds: int) -> Iterator[Figure]:
    took = []
    for _ in range(rounds):
        with clock(1) as endpoint, worker(place, endpoint.url) as first:
            thread_id = store.create_thread(Thread()).id
            run = ask(store, thread_id, "hold")
            wait_for(lambda thread_id=thread_id: growing(store, thread_id))  # type: ignore[misc]
            endpoint.next("asked")
            with worker(place, endpoint.url):
                killed = time.monotonic_ns()
                first.kill()
                took.append((endpoint.next("asked") - killed) / 1e6)
                store.cancel_run(thread_id, run.id)
                endpoint.next("closed")
    yield Figure("kill -9 to the request of another worker", median(took), "ms", 100)


class Counting(SystemCalls):
    def __init__(self) -> None:
        super().__init__()
        self.syncs = 0

    def sync(self, descriptor: int) -> None:
        self.syncs += 1
        super().sync(descriptor)


def syncs(store: ThreadStore, place: Path, answers: int) -> Iterator[Figure]:
    for _ in range(answers):
        ask(store, store.create_thread(Thread()).id)
    calls = Counting()
    own = ThreadStore(place, calls=calls)

    async def answer_all(url: str) -> None:
        async with Endpoint(base_url(url)) as endpoint:
            await work(own, endpoint, Settings(once=True))

    with clock(10) as endpoint:
        trio.run(answer_all, endpoint.url)
    own.close()
    yield Figure("fsyncs an answer", calls.syncs / answers, "", 14)


def many(store: ThreadStore, place: Path, threads: int) -> Iterator[Figure]:
    with clock(10) as endpoint, worker(place, endpoint.url), worker(place, endpoint.url):
        ids = [store.create_thread(Thread()).id for _ in range(threads)]
        began_s = time.monotonic()
        runs = [ask(store, thread_id) for _ in range(3) for thread_id in ids]
        wait_for(lambda: all(_has_ended(store, run) for run in runs), 0.02)
        took_s = time.monotonic() - began_s
    for thread_id in ids:
        answered = [message.run_id for message in store.iter_messages(thread_id) if message.run_id]
        in_order = [run.id for run in runs if run.thread_id == thread_id]
        if answered != in_order:
            raise AssertionError(f"{thread_id}: {answered} instead of {in_order}")
    name = f"{threads} threads x 3 asks, two workers, each answered once, in order"
    yield Figure(name, took_s, "s", threads * 0.5)


def figures(store: ThreadStore, place: Path, *, is_quick: bool) -> Iterator[Figure]:
    rounds = 5 if is_quick else 30
    yield from first_text(store, place, rounds)
    yield from lag_and_cpu(store, place, 200 if is_quick else 1000)
    yield from cancels(store, place, rounds)
    yield from deaths(store, place, 2 if is_quick else 7)
    yield from syncs(store, place, 20)
    yield from idle(place, 2 if is_quick else 10)
    yield from many(store, place, 20)


def main() -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--dir", type=Path, default=Path(__file__).parents[1], help="where the store is")
    options = parser.parse_args()
    print(f"{'':<56}{'worker':>8} {'':<4}{'endpoint':>8} {'':>5} target")
    missed = False
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=options.dir) as directory:
        place = Path(directory)
        store = ThreadStore(place)
        for figure in figures(store, place, is_quick=options.quick):
            print(figure.row(), flush=True)
            missed |= figure.is_missed
        store.close()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
