"""What the mount costs beside a file system that does nothing, one in C, and the disk, as a table of ratios.

    python -m bench.mount [--quick] [--threads N] [--only PART...] [--dir DIRECTORY] [--cpu CPU]

All servers and clients are pinned to one CPU, which is the only comparison that repeats: across two, waking a
sleeping CPU costs more than a request. The sides of a row take turns, and medians are compared. "bare" is the
store's own directory on the disk, or the durable system calls that a write cannot do without; "floor" is
`floor.py`. "First" is on a mount just made, with the store's directory in the kernel's memory.

Exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench import mounts, reading, scale, writing
from bench.generate import Shape, generate
from bench.store import ALL_CPUS, on_cpus, temporary_directory
from bench.table import HEADER, Row

THREADS = 100_000
LOG_BYTES = 256 << 20


@dataclass(frozen=True)
class Stores:
    """The stores, each made when it is first asked for."""

    root: Path
    threads: int
    quick: bool

    @property
    def roots(self) -> Path:
        return self.root / "mounts"

    @cached_property
    def many_shape(self) -> Shape:
        """Ten times as many runs as the large list has threads."""
        return Shape(self.threads // 10, runs=100, messages=1, queued=100, links=True)

    @property
    def many_runs(self) -> int:
        return self.many_shape.threads * self.many_shape.runs

    @cached_property
    def many(self) -> Path:
        return generate(self.root / "many", self.many_shape)

    @cached_property
    def half_shape(self) -> Shape:
        """Half as many threads as in the large list, all of which the user's watches may be enough for."""
        return Shape(self.threads // 2, messages=1, links=True)

    @cached_property
    def half(self) -> Path:
        return generate(self.root / "half", self.half_shape)

    @cached_property
    def fifth_shape(self) -> Shape:
        return Shape(self.threads // 5, messages=1, links=True)

    @cached_property
    def fifth(self) -> Path:
        return generate(self.root / "fifth", self.fifth_shape)

    @cached_property
    def listed_shape(self) -> Shape:
        return Shape(self.threads, messages=1, links=True)

    @cached_property
    def listed(self) -> Path:
        return generate(self.root / "listed", self.listed_shape)

    @cached_property
    def middle_shape(self) -> Shape:
        """Every thread with a run, to walk through."""
        return Shape(self.threads // 10)

    @cached_property
    def middle(self) -> Path:
        return generate(self.root / "middle", self.middle_shape)

    @cached_property
    def thousand(self) -> Path:
        return generate(self.root / "thousand", Shape(100, runs=10, queued=100))

    @cached_property
    def few(self) -> Path:
        return generate(self.root / "few", Shape(10))


# ── The parts of the table ──────────────────────────────────────────────────────────────────────────────


def small_files(stores: Stores) -> Iterator[Row]:
    with (
        mounts.sides(stores.middle, stores.middle_shape, stores.roots) as sides,
        mounts.threadfs(stores.middle, stores.roots / "noshim", "-o", "noshim") as without,
    ):
        yield from reading.small_files(sides, without, stores.middle_shape, quick=stores.quick)


def listings(stores: Stores) -> Iterator[Row]:
    yield from reading.listings(stores.listed, stores.listed_shape, stores.roots, quick=stores.quick)
    yield from reading.listings(stores.half, stores.half_shape, stores.roots, quick=stores.quick)


def whole_trees(stores: Stores) -> Iterator[Row]:
    return reading.whole_trees(stores.middle, stores.middle_shape, stores.roots, quick=stores.quick)


def views(stores: Stores) -> Iterator[Row]:
    return reading.views(stores.middle, stores.middle_shape, stores.roots, quick=stores.quick)


def after_mounting(stores: Stores) -> Iterator[Row]:
    return reading.after_mounting(stores.fifth, stores.fifth_shape, stores.roots, quick=stores.quick)


def writes(stores: Stores) -> Iterator[Row]:
    shape = writing.shape_for_writing(quick=stores.quick)
    store = generate(stores.root / "written", shape)
    bare = stores.root / "bare"
    bare.mkdir()
    with mounts.sides(store, shape, stores.roots) as sides:
        yield from writing.writes(sides, shape, bare, quick=stores.quick)


def long_log(stores: Stores) -> Iterator[Row]:
    shape = Shape(10, long_log=LOG_BYTES)
    store = generate(stores.root / "long", shape)
    yield from reading.long_log(store, shape, stores.roots, quick=stores.quick)


def mounting(stores: Stores) -> Iterator[Row]:
    return scale.mounting(stores.few, stores.many, stores.many_runs, stores.roots, quick=stores.quick)


def index(stores: Stores) -> Iterator[Row]:
    yield scale.queued(stores.thousand, stores.many, stores.many_runs, stores.roots)


def stalls(stores: Stores) -> Iterator[Row]:
    return scale.stalls(
        stores.many, stores.many_runs, stores.middle, stores.middle_shape, stores.roots, quick=stores.quick
    )


def memory(stores: Stores) -> Iterator[Row]:
    yield from scale.memory(stores.listed, stores.threads, stores.roots)
    yield from scale.memory(stores.middle, stores.middle_shape.threads, stores.roots)


def idle(stores: Stores) -> Iterator[Row]:
    return scale.idle(stores.few, stores.roots)


PARTS: dict[str, Callable[[Stores], Iterator[Row]]] = {
    "small-files": small_files,
    "writes": writes,
    "long-log": long_log,
    "whole-trees": whole_trees,
    "views": views,
    "listings": listings,
    "after-mounting": after_mounting,
    "mounting": mounting,
    "index": index,
    "stalls": stalls,
    "memory": memory,
    "idle": idle,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.mount", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and 10,000 threads")
    parser.add_argument("--threads", type=int, metavar="N", help=f"in the large store (default: {THREADS:,})")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument("--dir", type=Path, help="where to work (the repository's directory): no tmpfs")
    parser.add_argument("--cpu", type=int, help="which CPU everything is pinned to")
    options = parser.parse_args()
    threads = options.threads or (THREADS // 10 if options.quick else THREADS)
    if threads < 1000:
        parser.error("--threads: at least 1,000")
    cpu = max(ALL_CPUS) if options.cpu is None else options.cpu
    missed = False
    print(HEADER)
    with on_cpus({cpu}), temporary_directory(options.dir) as root:
        stores = Stores(root, threads, options.quick)
        for part in options.only:
            for row in PARTS[part](stores):
                print(row.text(), flush=True)
                missed = missed or row.is_missed
    return 1 if missed else 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
