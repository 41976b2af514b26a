"""Searching a store in a database at scale, against a server of our own on this machine.

    python -m bench.postgres_words [--threads N] [--messages M]

Loads N threads (10,000) of M messages (10) of about 370 characters, and of a run, of which a hundred are
queued; has their words made; then searches, and lists in a mount. The server syncs as it does by default.
Times are CPU times of the program and the server together, but those of lists. Exits 1 when a target is
missed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg

from bench import generate, mounts
from bench.finding import CREATED_AT, Texts
from bench.generate import Shape, run_id, thread_id
from bench.postgres import Report, seconds, settle
from store import ContentBlock, MessageRole, ThreadMessage
from store.catalogue.api import Catalogue
from store.catalogue.queries import parsed
from store.postgres import PostgresStore, known
from tests.postgres.cluster import Cluster, private_cluster

PROCESSES: Final = multiprocessing.get_context("fork")
_QUEUED: Final = 100
_NOW_NS: Final = CREATED_AT * 10**9
_SIZES: Final = (
    "SELECT pg_total_relation_size('threadfs.words'), pg_relation_size('threadfs.words_of_messages'),"
    " pg_total_relation_size('threadfs.messages')"
)


def load(url: str, threads: int, messages: int) -> None:
    """By two processes, with COPY."""
    PostgresStore(url, create=True).close()
    processes = [PROCESSES.Process(target=_copy, args=(url, threads, messages, part)) for part in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0


def _copy(url: str, threads: int, messages: int, part: int) -> None:
    """Of the numbers that leave this remainder by two."""
    texts, numbers = Texts(), range(part, threads, 2)
    shape = Shape(threads, queued=_QUEUED)
    log_bytes: dict[int, int] = {}

    def lines() -> Iterator[tuple[Any, ...]]:
        for number in numbers:
            start = 0
            for line in range(messages):
                data = _line(number, line, texts.one())
                yield thread_id(number), number, start, data
                start += len(data)
            log_bytes[number] = start

    def documents() -> Iterator[tuple[Any, ...]]:
        for number in numbers:
            title = {"created_at": CREATED_AT + number * 600, "metadata": {"title": texts.one()[:40]}}
            data = json.dumps(json.loads(generate.meta(number)) | title, indent=2).encode()
            yield thread_id(number), data, _NOW_NS, 1, number, log_bytes[number], _NOW_NS, _NOW_NS

    def runs() -> Iterator[tuple[Any, ...]]:
        for number in numbers:
            data = generate.status(shape, number, 0)
            yield thread_id(number), run_id(0), json.loads(data)["status"], data, _NOW_NS, 1

    tables: dict[str, Callable[[], Iterator[tuple[Any, ...]]]] = {
        "messages (thread_id, log_id, start, line)": lines,
        "threads (thread_id, document, modified_ns, version, log_id, log_bytes, log_modified_ns,"
        " runs_modified_ns)": documents,
        "runs (thread_id, run_id, status, document, modified_ns, version)": runs,
    }
    with psycopg.connect(url, options="-csearch_path=threadfs") as connection:
        for table, rows in tables.items():
            with connection.cursor().copy(f"COPY {table} FROM STDIN".encode()) as copy:
                for row in rows():
                    copy.write_row(row)


def _line(thread: int, number: int, text: str) -> bytes:
    fields = json.loads(generate.line(thread, number))
    fields["created_at"] = CREATED_AT + thread * 600 + number
    fields["content"][0]["text"]["value"] = text
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def queries(texts: Texts) -> dict[str, str]:
    often, rare = texts.words[0], texts.words[-1]
    return {
        "a rare word": rare,
        "a word in most messages": often,
        "a word in some": texts.words[60],
        "two words": f"{texts.words[40]} {texts.words[90]}",
        "two words in most messages": f"{often} {texts.words[1]}",
        "a phrase": f'"{texts.words[40]} {texts.words[90]}"',
        "a phrase of words in most messages": f'"{texts.words[2]} {texts.words[3]}"',
        "the beginning of a word": f"{texts.words[400]}*",
        "a common word, and not another": f"{often} -{texts.words[1]}",
        "Chinese": texts.chinese[3:5],
        "what the user said on a day": f"role:user on:{date.fromtimestamp(CREATED_AT + 90_000)}",
        "no hit": "nosuchwordanywhere",
    }


class Measured:
    """A database with threads, on a server of our own."""

    def __init__(self, cluster: Cluster, database: str, report: Report) -> None:
        self._cluster = cluster
        self._database = database
        self._report = report
        self._url = cluster.url(database)

    def _cpu_s(self, action: Callable[[], object], times: int = 1) -> float:
        """Of this process and of the server."""
        began_s = self._used_s()
        for _ in range(times):
            action()
        return (self._used_s() - began_s) / times

    def _used_s(self) -> float:
        assert self._cluster.process is not None
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if str(self._cluster.process.pid) in (stat.parent.name, fields[1]):
                    ticks += sum(map(int, fields[11:15]))
        return sum(os.times()[:2]) + ticks / os.sysconf("SC_CLK_TCK")

    def making(self, messages: int) -> None:
        said = ThreadMessage(role=MessageRole.user, content=[ContentBlock.of_text(Texts().one())])
        with PostgresStore(self._url) as store:
            appended = partial(store.append_message, thread_id(0), said)
            self._cpu_s(appended, 500)  # Connects, and has the statements prepared.
            before_s = self._cpu_s(appended, 500)
            with PostgresStore(self._url) as other:
                reading = other.catalogue(keeps_words=False)
                reading.refresh(words=False)
                spent = self._cpu_s(lambda: reading.search(parsed(Texts().words[-1], CREATED_AT)))
            self._report.row(f"a search that reads {messages:,} messages", f"{spent:.1f} s")
            catalogue = store.catalogue()
            catalogue.refresh(words=False)
            spent = self._cpu_s(lambda: catalogue.refresh(words=True))
            self._report.row("making their words, of 1,000 messages", f"{spent / messages * 1e3:.2f} s")
            ((size, of_index, of_messages),) = self._cluster.sql(_SIZES, database=self._database)
            self._report.row(
                "room of the words", f"{int(str(size)) / int(str(of_messages)):.2f} x", "the messages"
            )
            self._report.row("  of that their index", f"{int(str(of_index)) / int(str(size)):.2f} x")
            settle(self._cluster, self._database)
            ratio = self._cpu_s(appended, 500) / before_s
            self._report.row("an append: without words", f"{ratio:.2f} x", "< 1.1 x", is_met=ratio < 1.1)
            catalogue.refresh(words=True)

    def searches(self) -> None:
        with PostgresStore(self._url) as store:
            catalogue = store.catalogue()
            catalogue.refresh(words=False)
            known._FRESH_S = float("inf")  # From here on as in a mount.
            for what, text in queries(Texts()).items():
                self._search(catalogue, what, text)

    def _search(self, catalogue: Catalogue, what: str, text: str) -> None:
        query = parsed(text, CREATED_AT)
        found = catalogue.search(query)
        number = f"{len(found.hits) + found.hits_left_out:,}{' or more' if found.is_bounded else ''}"
        for name, times, options in (
            (f"links of {what} ({number} hits)", 9, {"with_hits": False}),
            ("  the ten best by relevance", 9, {"limit": 10, "by_relevance": True}),
            ("  with snippets", 5, {}),
        ):
            spent = self._cpu_s(partial(catalogue.search, query, **options), times)
            is_met = spent < 0.1 or not options
            target = "< 100 ms" if options else ""
            self._report.row(name, f"{spent * 1e3:.1f} ms", target, is_met=is_met)

    def lists(self, empty_url: str) -> None:
        """In a mount, and with a command, by the clock; and the memory of the mount."""
        with tempfile.TemporaryDirectory() as place:
            with mounts.threadfs(empty_url, Path(place, "empty")) as mount:
                list(os.scandir(mount.root / "by-title"))
                least = mount.memory_bytes()
            with mounts.threadfs(self._url, Path(place, "mount")) as mount:
                for name in ("runs/queued", ".threadfs/metrics", "threads", "by-title"):
                    show = partial(_shown, mount.root / name)
                    first, again = seconds(show), seconds(show)
                    self._report.row(f"{name}, first", f"{first:.2f} s")
                    self._report.row("  again", f"{again * 1e3:.0f} ms")
                    more = (mount.memory_bytes() - least) / 2**20
                    is_met = more <= 60
                    self._report.row(
                        "  memory of the mount, above an empty one",
                        f"{more:.0f} MiB",
                        "<= 60 MiB",
                        is_met=is_met,
                    )
        command = [sys.executable, "-m", "threadfs.cli", "ls", self._url]
        for which in ("first", "again"):
            spent = seconds(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True))
            self._report.row(f"threadfs ls, {which}", f"{spent:.2f} s")


def _shown(path: Path) -> None:
    if path.is_dir():
        for _ in os.scandir(path):
            pass
    else:
        path.read_bytes()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=10_000)
    parser.add_argument("--messages", type=int, default=10, help="of each thread")
    options = parser.parse_args()
    report = Report()
    with private_cluster(
        fsync="on", full_page_writes="on", autovacuum="on", shared_buffers="'256MB'"
    ) as cluster:
        for database, threads in (("words", options.threads), ("empty", 0)):
            cluster.sql(f"CREATE DATABASE {database}")
            load(cluster.url(database), threads, options.messages)
            settle(cluster, database)
        measured = Measured(cluster, "words", report)
        measured.making(options.threads * options.messages)
        measured.searches()
        measured.lists(cluster.url("empty"))
    return int(report.missed)


if __name__ == "__main__":
    sys.exit(main())
