"""What a store in a database does at scale, against a server of our own on this machine.

    python -m bench.postgres [--quick] [--threads N] [--mounts N]

Loads threads with ten runs each, looks at how the time of single calls grows with that, and has several
mounts, each with a program of its own, claim runs from one queue. The server syncs as it does by default.
Exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from store import (
    DocumentKey,
    Run,
    RunContents,
    RunStatus,
    StatusChanged,
    documents,
)
from store.postgres import PostgresStore
from tests.postgres.cluster import Cluster, private_cluster

PROCESSES = multiprocessing.get_context("fork")
RUNS_IN_THREAD = 10
QUEUED = 1000
DATABASE = "bench"


@dataclass
class Report:
    """Lines of a table; what misses its target is marked."""

    missed: bool = False

    def row(self, name: str, value: str, target: str = "", *, is_met: bool = True) -> None:
        self.missed |= not is_met
        print(f"{name:<58}{value:>16}  {target}{'' if is_met else '  MISSED'}", flush=True)


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def typical(action: Callable[[], object], times: int = 200) -> float:
    return median(seconds(action) for _ in range(times))


def load(url: str, first: int, count: int, status: RunStatus) -> None:
    """Threads of ten runs each, imported by two processes."""
    run = documents.pretty(Run(created_at=1, status=status))
    runs = {f"run_{number}": RunContents(run) for number in range(RUNS_IN_THREAD)}

    def work(offset: int) -> None:
        with PostgresStore(url) as store:
            for number in range(first + offset, first + count, 2):
                store.import_thread(f"thread_{number:07}", b'{"created_at":1}', [], runs)

    processes = [PROCESSES.Process(target=work, args=(offset,)) for offset in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0


def single_calls(store: PostgresStore, threads: int) -> dict[str, float]:
    """How long each takes, for a thread of which nothing is in memory here."""
    ids = iter(random.sample(range(threads), min(threads, 1000)))

    def opened() -> None:
        thread_id = f"thread_{next(ids):07}"
        store.document_info(DocumentKey(thread_id))
        store.log_info(thread_id)
        store.list_run_ids(thread_id)

    def changed() -> None:
        thread_id = f"thread_{next(ids):07}"
        store.force_update_run_status(thread_id, "run_0", RunStatus.completed)

    return {"open a thread": typical(opened), "change a status": typical(changed)}


def settle(cluster: Cluster, database: str = DATABASE) -> None:
    """What the server does after a load in its own time, now, so that it is not measured."""
    cluster.sql("VACUUM ANALYZE", database=database)
    cluster.sql("CHECKPOINT")


def scale(cluster: Cluster, threads: int, report: Report) -> None:
    small, url = 1000, cluster.url(DATABASE)
    with PostgresStore(url) as store:
        load(url, 0, small, RunStatus.completed)
        settle(cluster)
        single_calls(store, small)  # Connects, and has the statements prepared.
        before = single_calls(store, small)
        spent = seconds(lambda: load(url, small, threads - small, RunStatus.completed))
        report.row(f"{threads * RUNS_IN_THREAD:,} runs loaded", f"{(threads - small) / spent:.0f} threads/s")
        load(url, threads, QUEUED // RUNS_IN_THREAD, RunStatus.queued)
        settle(cluster)
        for name, after in single_calls(store, threads).items():
            ratio = after / before[name]
            report.row(
                f"{name}: beside {small} threads",
                f"{after * 1e6:.0f} us {ratio:.2f} x",
                "< 1.5 x",
                is_met=ratio < 1.5,
            )

        def listed(status: RunStatus) -> int:
            return len(list(store.runs_by_status([status])))

        assert listed(RunStatus.queued) == QUEUED
        spent = typical(lambda: listed(RunStatus.queued), 20)
        report.row(
            f"list {QUEUED} queued runs of all", f"{spent * 1e3:.1f} ms", "< 50 ms", is_met=spent < 0.05
        )
        spent = seconds(lambda: sum(1 for _ in store.runs_by_status()))
        report.row("list all runs", f"{spent:.1f} s")
        spent = seconds(store.list_thread_ids)
        report.row("list all threads", f"{spent:.2f} s")


@contextmanager
def mounted(url: str, root: Path) -> Iterator[subprocess.Popen[bytes]]:
    log = root.with_suffix(".log")
    process = subprocess.Popen(
        [sys.executable, "-m", "threadfs.cli", "-f", "--log", str(log), url, str(root)]
    )
    try:
        while not os.path.ismount(root):
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def claim_all(root: Path) -> list[str]:
    """Claims what it can from the queue until there is nothing left; what it has won."""
    queued, claimed, won = root / "runs" / "queued", root / "runs" / "in_progress", []
    while names := os.listdir(queued):
        # Like workers that do not know of each other, but do not all begin with the first one.
        random.shuffle(names)
        for name in names[:1000]:
            with suppress(FileNotFoundError):
                os.rename(queued / name, claimed / name)
                won.append(name)
    return won


def claim_all_in_store(url: str) -> list[str]:
    """The same without a mount: what the database gives."""
    won = []
    with PostgresStore(url) as store:
        while runs := list(store.runs_by_status([RunStatus.queued])):
            random.shuffle(runs)
            for thread_id, run_id, queued in runs[:1000]:
                with suppress(StatusChanged):
                    store.update_run_status(thread_id, run_id, RunStatus.in_progress, expected=queued)
                    won.append(f"{run_id}@{thread_id}")
    return won


def store_claims(cluster: Cluster, programs: int, runs: int, report: Report) -> float:
    """Claims per second of so many programs that use the store without a mount."""
    url = prepared_queue(cluster, f"store_claims_{programs}", runs)
    with PROCESSES.Pool(programs) as pool:
        started = time.perf_counter()
        won = [
            name for names in pool.map(claim_all_in_store, [url] * programs, chunksize=1) for name in names
        ]
        spent = time.perf_counter() - started
    is_once = len(won) == len(set(won)) == runs
    report.row(
        f"{programs} programs claim {runs} runs", f"{runs / spent:.0f} claims/s", "each once", is_met=is_once
    )
    return runs / spent


def prepared_queue(cluster: Cluster, database: str, runs: int) -> str:
    cluster.sql(f"CREATE DATABASE {database}")
    PostgresStore(cluster.url(database), create=True).close()
    load(cluster.url(database), 0, runs // RUNS_IN_THREAD, RunStatus.queued)
    return cluster.url(database)


def peak_memory_mib(process: subprocess.Popen[bytes]) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def claims(cluster: Cluster, mounts: int, runs: int, report: Report) -> float:
    """Claims per second of so many mounts."""
    url = prepared_queue(cluster, f"claims_{mounts}", runs)
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        roots = [Path(place, str(number)) for number in range(mounts)]
        processes = [stack.enter_context(mounted(url, root)) for root in roots]
        with PROCESSES.Pool(mounts) as pool:
            started = time.perf_counter()
            won = [name for names in pool.map(claim_all, roots, chunksize=1) for name in names]
            spent = time.perf_counter() - started
        memory = max(peak_memory_mib(process) for process in processes)
    is_once = len(won) == len(set(won)) == runs
    report.row(
        f"{mounts} mounts claim {runs} runs", f"{runs / spent:.0f} claims/s", "each once", is_met=is_once
    )
    report.row(
        f"{mounts} mounts: memory of the largest", f"{memory:.0f} MiB", "< 200 MiB", is_met=memory < 200
    )
    return runs / spent


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="a twentieth of the threads, a tenth of the claims"
    )
    parser.add_argument("--threads", type=int, default=100_000)
    parser.add_argument("--mounts", type=int, default=8)
    parser.add_argument("--only", choices=["scale", "claims"])
    options = parser.parse_args()
    threads, runs = (options.threads // 20, 1000) if options.quick else (options.threads, 10_000)
    report = Report()
    with private_cluster(
        fsync="on", full_page_writes="on", autovacuum="on", shared_buffers="'256MB'"
    ) as cluster:
        if options.only in (None, "scale"):
            cluster.sql(f"CREATE DATABASE {DATABASE}")
            scale(cluster, threads, report)
        if options.only in (None, "claims"):
            for kind, claim in (("programs", store_claims), ("mounts", claims)):
                one, several = (claim(cluster, count, runs, report) for count in (1, options.mounts))
                report.row(f"{options.mounts} {kind} beside one", f"{several / one:.2f} x")
    return int(report.missed)


if __name__ == "__main__":
    sys.exit(main())
