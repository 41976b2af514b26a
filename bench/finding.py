"""Finding things in a store: making its catalogue, comparing it, searching it, beside doing without.

    python -m bench.finding [--threads N] [--messages M] [--dir DIRECTORY]

The store has N threads (10,000) of a run and M messages (10): words of a made language, as often as words
are, with lines of code and of Chinese. It lies in DIRECTORY (the repository's), and so does the catalogue.
All times but those of a first listing are CPU times, also of what runs as a process, and are compared with
what was measured beside it in the same run, the store being in the kernel's memory. Exits 1 when a target is
missed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import accumulate
from pathlib import Path

from bench import generate
from bench.generate import Shape, run_id, thread_id
from bench.table import is_missed
from store import ThreadStore
from store.catalogue import schema
from store.catalogue.folding import folded
from store.catalogue.queries import parsed
from store.catalogue.tables import NUMBERS
from store.disk import known

WORDS = 30_000
CREATED_AT = 1_780_000_000
ROUNDS = 9
# As many threads in one change as the catalogue takes.
_TOGETHER = 200

# What it is, how much, of what unit, and at most how much.
Row = tuple[str, float, str, float | None]


class Texts:
    """Texts of about 370 characters, the same each time."""

    def __init__(self) -> None:
        self._random = random.Random(20)
        syllables = [a + b for a in "bdfgklmnprstv" for b in ("a", "e", "i", "o", "u", "an", "er", "os")]
        self.words = ["".join(self._random.choices(syllables, k=1 + n % 4)) for n in range(WORDS)]
        self._weights = list(accumulate(1 / (n + 2) for n in range(WORDS)))
        self.chinese = "的一是不了人我在有他这中大来上国和地到以说时要就出会可也你对生能而子那得于着下自之年"

    def one(self) -> str:
        said = self._random.choices(self.words, cum_weights=self._weights, k=60)
        match self._random.randrange(10):
            case 0:
                said.append("".join(self._random.choices(self.chinese, k=30)))
            case 1:
                said.append(f"\n    return fetch_{said[0]}_by_id(src/{said[1]}.py, {self._random.random()})")
        return " ".join(said)


def make(root: Path, threads: int, messages: int, texts: Texts) -> int:
    """Returns the bytes of all logs."""
    generate.generate(root, Shape(threads, messages=0))
    log_bytes = 0
    for number in range(threads):
        lines = []
        for line in range(messages):
            fields = json.loads(generate.line(number, line))
            fields["created_at"] = CREATED_AT + number * 600 + line
            fields["content"][0]["text"]["value"] = texts.one()
            lines.append(json.dumps(fields, ensure_ascii=False).encode() + b"\n")
        path = root / thread_id(number)
        meta = json.loads(generate.meta(number))
        meta |= {"created_at": CREATED_AT + number * 600, "metadata": {"title": texts.one()[:40]}}
        (path / "meta.json").write_text(json.dumps(meta, indent=2))
        (path / "messages.jsonl").write_bytes(b"".join(lines))
        log_bytes += sum(map(len, lines))
    return log_bytes


def cpu_s(action: Callable[[], object]) -> float:
    """Of this process, and of those that it has started and that have ended."""
    began = os.times()
    action()
    ended = os.times()
    return sum(ended[:4]) - sum(began[:4])


def ms(action: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Of one time, after a first one. (The clock of CPU times is coarse.)"""
    action()
    return cpu_s(lambda: [action() for _ in range(rounds)]) / rounds * 1000


def bare_stats(root: Path, threads: int) -> None:
    for number in range(threads):
        path = f"{root}/{thread_id(number)}"
        run = f"{path}/runs/{run_id(0)}"
        os.scandir(path).close()
        for one in (
            path,
            f"{path}/meta.json",
            f"{path}/messages.jsonl",
            f"{path}/runs",
            f"{run}/status.json",
        ):
            os.stat(one, follow_symlinks=False)


def bare_lists(root: Path, at: Path) -> None:
    """What the first lists have to do at least, without a check: look, read, and put the same rows there."""
    database = at / "bare"
    database.unlink(missing_ok=True)
    thread_ids = sorted(os.listdir(root))
    with closing(sqlite3.connect(database)) as connection:
        schema.prepare(connection)
        schema.create(connection, {})
        for first in range(0, len(thread_ids), _TOGETHER):
            connection.execute("BEGIN IMMEDIATE")
            for number, name in enumerate(thread_ids[first : first + _TOGETHER], first + 1):
                insert_bare(connection, number, name, f"{root}/{name}")
            connection.execute("COMMIT")


def insert_bare(connection: sqlite3.Connection, number: int, name: str, path: str) -> None:
    (run,) = os.listdir(f"{path}/runs")
    paths = "meta.json", "messages.jsonl", "runs", f"runs/{run}/status.json", f"runs/{run}"
    looks = [os.lstat(f"{path}/{one}") for one in paths]
    document = json.loads(Path(path, paths[0]).read_bytes())
    status = json.loads(Path(path, paths[3]).read_bytes())
    title, created_at, changed_ns = (
        document["metadata"]["title"],
        document["created_at"],
        looks[3].st_mtime_ns,
    )
    numbers = [
        NUMBERS.pack(look.st_ctime_ns, look.st_size, look.st_ino, look.st_mtime_ns, 1) for look in looks
    ]
    for table, row in (
        ("threads", (number, name, title, title, created_at, changed_ns, None, None, None, None)),
        ("texts", (number, number, 1, 1, created_at)),
        ("runs", (number, run, status["status"], "", status["created_at"], changed_ns)),
        ("signatures", (number, "\0".join(paths), b"".join(numbers), 1, 1, 2, 3)),
    ):
        connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
    connection.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (number, folded(title)))


def bare_parsing(root: Path, threads: int) -> None:
    for number in range(threads):
        for line in (root / thread_id(number) / "messages.jsonl").read_bytes().splitlines():
            json.loads(line)


def rows(at: Path, threads: int, of_each: int) -> Iterator[Row]:
    texts = Texts()
    root = at / "store"
    log_bytes = make(root, threads, of_each, texts)
    time.sleep(2.1)  # Or what was just written would be read twice.
    stats_s = ms(lambda: bare_stats(root, threads)) / 1000
    bare_s = ms(lambda: bare_lists(root, at), 1) / 1000
    parsing_s = cpu_s(lambda: bare_parsing(root, threads))
    with closing(ThreadStore(root)) as store:
        catalogue = store.catalogue()
        lists_s = cpu_s(lambda: catalogue.refresh(words=False))
        words_s = cpu_s(lambda: catalogue.refresh(words=True))
        size_bytes = catalogue.statistics().size_bytes
    messages = threads * of_each
    yield f"first titles, times, runs of {threads:,} threads: CPU", lists_s, "s", None
    yield "  a thread", lists_s / threads * 1e6, "us", None
    yield "  a script that reads the same and puts it there unchecked", lists_s / bare_s, "x", 2
    yield f"first words of {messages:,} messages: CPU", words_s, "s", None
    yield "  a message", words_s / messages * 1e6, "us", 100
    yield "  reading and parsing the logs alone", words_s / parsing_s, "x", None
    yield "size: the logs", size_bytes / log_bytes, "x", 0.8 + threads * 1000 / log_bytes
    with closing(ThreadStore(root)) as store:
        catalogue = store.catalogue()
        again_s = cpu_s(lambda: catalogue.refresh(words=True))
        yield "second start, comparing all: CPU", again_s, "s", None
        yield "  a thread", again_s / threads * 1e6, "us", 25
        yield "  bare stats of the same paths", again_s / stats_s, "x", 2
        yield "  the first time", again_s / (lists_s + words_s), "x", 0.1
        grep_ms = ms(lambda: subprocess.run(["grep", "-rlw", texts.words[-1], root], stdout=-3, check=False))
        yield "grep -rl of the store", grep_ms, "ms", None
        # From here on as in a mount, where what has not changed is not compared.
        known._FRESH_S = float("inf")
        queries = {
            "a rare word": texts.words[-1],
            "a word in most messages": texts.words[0],
            "a word in some": texts.words[60],
            "two words": f"{texts.words[40]} {texts.words[90]}",
            "a common word, and not another": f"{texts.words[0]} -{texts.words[1]}",
            "the beginning of a word": f"{texts.words[400]}*",
            "a phrase": f'"{texts.words[2]} {texts.words[3]}"',
            "Chinese": texts.chinese[3:5],
            "no hit": "nosuchwordanywhere",
        }
        for what, text in queries.items():
            query = parsed(text, CREATED_AT)
            found = catalogue.search(query)
            number = f"{len(found.hits) + found.hits_left_out:,}{' or more' if found.is_bounded else ''}"
            links_ms = ms(partial(catalogue.search, query, with_hits=False))
            yield f"links of {what} ({number} hits)", links_ms, "ms", grep_ms / 4
            yield "  with the hits and their snippets", ms(partial(catalogue.search, query)), "ms", None
    command = [sys.executable, "-m", "threadfs.cli", "search", os.fspath(root), texts.words[-1]]
    search_ms = ms(lambda: subprocess.run(command, stdout=-3, check=False))
    yield "threadfs search, the command, a rare word", search_ms, "ms", None
    yield "  grep -rl", search_ms / grep_ms, "x", None
    yield from rows_of_mounts(at, root, threads, command)


def rows_of_mounts(at: Path, root: Path, threads: int, search: list[str]) -> Iterator[Row]:
    """A mount that has the catalogue, one that has it built, and one of an empty store."""
    with mounted(at, at / "empty") as (empty, place):
        list(os.scandir(place / "by-title"))
        empty_mib = memory_mib(empty)
    with mounted(at, root) as (mount, place):
        began_s = time.monotonic()
        assert sum(1 for _ in os.scandir(place / "by-title")) == threads
        yield "ls by-title at once after mounting, second mount: time", time.monotonic() - began_s, "s", None
        asked_s = cpu_of(mount)
        beside_ms = ms(lambda: subprocess.run(search, stdout=-3, check=False))
        mount_ms = (cpu_of(mount) - asked_s) / (ROUNDS + 1) * 1000
        yield "threadfs search, the command, beside a mount", beside_ms + mount_ms, "ms", 150
    os.environ["XDG_CACHE_HOME"] = os.path.join(at, "other caches")
    with mounted(at, root) as (mount, place):
        began_s = time.monotonic()
        assert sum(1 for _ in os.scandir(place / "by-title")) == threads
        yield "ls by-title at once after mounting, first mount: time", time.monotonic() - began_s, "s", None
        yield "  CPU of the mount meanwhile, a thread", cpu_of(mount) / threads * 1e6, "us", None
        while b"catalogue_words_behind 0\n" not in (place / ".threadfs/stats").read_bytes():
            time.sleep(0.2)
        yield "  until its words are there, too: time", time.monotonic() - began_s, "s", None
        yield "  CPU of the mount by then, a thread", cpu_of(mount) / threads * 1e6, "us", None
        yield "memory above that of a mount of nothing", memory_mib(mount) - empty_mib, "MiB", 60


@contextmanager
def mounted(at: Path, root: Path) -> Iterator[tuple[int, Path]]:
    """The process, and the mount point."""
    place = at / "mnt"
    place.mkdir(exist_ok=True)
    root.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "threadfs.cli", "-f", "--log", str(at / "log"), str(root), str(place)]
    process = subprocess.Popen(command)
    try:
        while not os.path.ismount(place):
            assert process.poll() is None
            time.sleep(0.02)
        yield process.pid, place
    finally:
        process.terminate()
        process.wait()


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith("VmRSS"))
    return int(kib) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.finding", description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=10_000)
    parser.add_argument("--messages", type=int, default=10, help="of each thread")
    parser.add_argument("--dir", type=Path, default=Path(__file__).parents[1])
    options = parser.parse_args()
    missed = False
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=options.dir) as directory:
        os.environ["XDG_CACHE_HOME"] = os.path.join(directory, "caches")
        for what, value, unit, limit in rows(Path(directory), options.threads, options.messages):
            missed |= is_missed(what, value, unit, limit)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
