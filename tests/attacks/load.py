"""A large store under many programs at once: errors, latencies, and what the mount itself comes to need.

    python -m tests.attacks.load --threads 100000 --messages 1000000 --clients 200 --minutes 10

Prints a table. Ends with status 1 when a call failed that should not have.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles

from store import ContentBlock, DocumentKey, MessageRole, Run, ThreadMessage, ThreadStore, documents, names
from tests.mount.conftest import Mount, start, stop

SAMPLE_S = 5.0


def fill(store: Path, threads: int, messages: int) -> None:
    """Writes the files as FORMAT.md says, without a sync for each."""
    each = max(1, messages // threads)
    for number in range(threads):
        thread_id = f"thread_{number:08d}"
        directory = store / thread_id
        (directory / "runs" / "run").mkdir(parents=True)
        meta = {"id": thread_id, "object": "thread", "created_at": 1700000000, "metadata": {}}
        (directory / "meta.json").write_text(json.dumps(meta, indent=2))
        lines = []
        for text in range(each):
            content = [ContentBlock.of_text(f"message {text} of {number}")]
            message = ThreadMessage(thread_id=thread_id, role=MessageRole.user, content=content)
            lines.append(documents.line(message))
        (directory / "messages.jsonl").write_bytes(b"".join(lines))
        run = Run(id="run", thread_id=thread_id, created_at=1700000000)
        (directory / "runs" / "run" / "status.json").write_bytes(documents.pretty(run))


class Client:
    """One program: works on any thread, and on some of its own that nobody else changes."""

    def __init__(self, root: str, number: int, threads: int) -> None:
        self.root = root
        self.random = random.Random(number)
        self.threads = threads
        self.own = f"{root}/threads/client_{number}"
        self.said = 0
        self.runs = 0

    def any_thread(self) -> str:
        return f"{self.root}/threads/thread_{self.random.randrange(self.threads):08d}"

    def read_log(self) -> None:
        assert Path(self.any_thread(), "messages.jsonl").read_bytes()

    def read_status(self) -> None:
        json.loads(Path(self.any_thread(), "runs", "run", "status").read_bytes())

    def list_thread(self) -> None:
        assert "meta.json" in os.listdir(self.any_thread())

    def read_transcript(self) -> None:
        name = os.path.basename(self.any_thread())
        assert Path(self.root, "transcripts", f"{name}.md").read_bytes()

    def say(self) -> None:
        Path(self.any_thread(), "say").write_text("more")

    def say_on_own(self) -> None:
        Path(self.own, "say").write_text(f"{self.said}")
        self.said += 1

    def set_status(self) -> None:
        patch = json.dumps({"metadata": {"n": f"{self.random.random()}"}})
        Path(self.any_thread(), "runs", "run", "status").write_text(patch)

    def run(self) -> None:
        self.runs += 1
        run_id = f"r{self.runs}"
        Path(self.own, "start").write_text(json.dumps({"id": run_id}))
        name = f"{run_id}@{os.path.basename(self.own)}"
        os.rename(f"{self.root}/runs/queued/{name}", f"{self.root}/runs/in_progress/{name}")
        Path(self.own, "runs", run_id, "status").write_text("completed")

    def make_and_remove(self) -> None:
        os.mkdir(f"{self.own}_x")
        os.rmdir(f"{self.own}_x")

    def actions(self) -> dict[str, tuple[int, Callable[[], None]]]:
        """What it does, and how often."""
        return {
            "read a log": (30, self.read_log),
            "read a status": (25, self.read_status),
            "list a thread": (15, self.list_thread),
            "read a transcript": (5, self.read_transcript),
            "say": (10, self.say),
            "say, own thread": (5, self.say_on_own),
            "patch a status": (5, self.set_status),
            "start, claim, complete": (3, self.run),
            "mkdir, rmdir": (2, self.make_and_remove),
        }

    def work(self, end_s: float) -> tuple[dict[str, list[float]], list[str]]:
        """Latencies in seconds by action, and what failed."""
        os.makedirs(self.own)
        latencies: dict[str, list[float]] = defaultdict(list)
        failed: list[str] = []
        table = self.actions()
        weights = [weight for weight, _ in table.values()]
        while time.monotonic() < end_s:
            (name,) = self.random.choices(list(table), weights)
            began = time.perf_counter()
            try:
                table[name][1]()
            except (OSError, AssertionError, ValueError) as error:
                failed.append(f"{name}: {error!r}")
            latencies[name].append(time.perf_counter() - began)
            time.sleep(self.random.uniform(0, 0.2))
        lines = Path(self.own, "messages.jsonl").read_text().splitlines()
        texts = [json.loads(line)["content"][0]["text"]["value"] for line in lines]
        if texts != [f"{number}" for number in range(self.said)]:
            failed.append(f"the messages of {self.own} are others than those said")
        return latencies, failed


def _client(root: str, number: int, threads: int, end_s: float) -> tuple[dict[str, list[float]], list[str]]:
    return Client(root, number, threads).work(end_s)


class Process:
    """What the mount's process needs, sampled: the time in seconds, KiB of memory, descriptors, threads."""

    def __init__(self, mount: Mount) -> None:
        self._process = Path("/proc") / str(mount.process.pid)
        self.samples: list[tuple[float, int, int, int]] = []

    def sample(self) -> None:
        fields = dict(
            line.split(":", 1) for line in (self._process / "status").read_text().splitlines() if ":" in line
        )
        files = len(os.listdir(self._process / "fd"))
        self.samples.append(
            (time.monotonic(), int(fields["VmRSS"].split()[0]), files, int(fields["Threads"]))
        )

    def table(self) -> Iterator[str]:
        yield f"{'seconds':>10} {'MiB':>8} {'files':>8} {'threads':>8}"
        first = self.samples[0][0]
        step = max(1, len(self.samples) // 8)
        for when, kib, files, threads in [*self.samples[:-1:step], self.samples[-1]]:
            yield f"{when - first:10.0f} {kib / 1024:8.0f} {files:8} {threads:8}"


@contextmanager
def mounted(place: Path) -> Iterator[Mount]:
    mount = start(place / "store", place / "mnt", place / "log")
    try:
        yield mount
    finally:
        stop(mount)


def latency_table(latencies: dict[str, list[float]]) -> Iterator[str]:
    yield f"{'action':<24} {'calls':>8} {'p50 ms':>8} {'p90 ms':>8} {'p99 ms':>8} {'max ms':>8}"
    for name, each in sorted(latencies.items()):
        cuts = quantiles(each, n=100) if len(each) > 1 else each * 99
        figures = "".join(f" {1000 * seconds:8.1f}" for seconds in (cuts[49], cuts[89], cuts[98], max(each)))
        yield f"{name:<24} {len(each):8}{figures}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2000)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--place", type=Path, help="where the store is made (default: the system's /tmp)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.place) as directory:
        place = Path(directory)
        (place / "store").mkdir()
        fill(place / "store", asked.threads, asked.messages)
        with mounted(place) as mount:
            return attack(mount, asked.threads, asked.clients, asked.minutes)


def attack(mount: Mount, threads: int, clients: int, minutes: float) -> int:
    began = time.perf_counter()
    queued = len(os.listdir(mount.path("runs", "queued")))
    print(
        f"{threads} threads, {queued} queued runs; listed in {time.perf_counter() - began:.1f} s", flush=True
    )
    process = Process(mount)
    latencies: dict[str, list[float]] = defaultdict(list)
    failed: list[str] = []
    end_s = time.monotonic() + 60 * minutes
    with multiprocessing.get_context("fork").Pool(clients) as pool:
        work = [(str(mount.root), number, threads, end_s) for number in range(clients)]
        result = pool.starmap_async(_client, work, chunksize=1)
        while not result.ready():
            process.sample()
            result.wait(SAMPLE_S)
        for some, wrong in result.get():
            failed += wrong
            for name, each in some.items():
                latencies[name] += each
    process.sample()
    calls = sum(map(len, latencies.values()))
    print(f"{clients} clients, {minutes:g} minutes: {calls} actions, {len(failed)} failed")
    print(*latency_table(latencies), "", *process.table(), *failed[:20], sep="\n")
    unread = [key for key in _sample_of(mount, threads) if not _is_readable(mount, key)]
    print(f"{len(unread)} of the documents looked at afterwards cannot be read")
    return 1 if failed or unread or "Traceback" in mount.log.read_text() else 0


def _sample_of(mount: Mount, threads: int) -> list[DocumentKey]:
    chosen = random.sample(range(threads), min(threads, 1000))
    return [DocumentKey(f"thread_{number:08d}", "run") for number in chosen]


def _is_readable(mount: Mount, key: DocumentKey) -> bool:
    assert names.is_id(key.thread_id)
    stored = ThreadStore(mount.store).read_document(key)[0]
    return mount.path("threads", key.thread_id, "runs", "run", "status").read_bytes() == stored


if __name__ == "__main__":
    sys.exit(main())
