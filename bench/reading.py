"""Reading through the mount: attributes, small files, listings, whole trees, a long log."""

from __future__ import annotations

import multiprocessing
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from statistics import median

from bench import mounts
from bench.generate import Shape, run_id, thread_id
from bench.mounts import Mount, Sides
from bench.store import Action, medians
from bench.table import Row, against, rate

READERS = 4
_BATCH = 200


def status_paths(sides: Sides, without: Mount, thread: int) -> dict[str, str]:
    """The status of a thread's first run, on each side; the other one is threadfs *without* the shim."""
    run = f"{thread_id(thread)}/runs/{run_id(0)}"
    return {
        "bare": f"{sides.disk}/{run}/status.json",
        "bindfs": f"{sides.bindfs.root}/{run}/status.json",
        "floor": f"{sides.floor.threads}/{run}/status",
        "other": f"{without.threads}/{run}/status",
        "threadfs": f"{sides.threadfs.threads}/{run}/status",
    }


def open_read_close(path: str) -> None:
    file = os.open(path, os.O_RDONLY)
    os.read(file, 65536)
    os.close(file)


def on_each_side(rounds: int, actions: dict[str, Action], repeated: int = 1) -> dict[str, float]:
    """The median time of each action; they take turns, *repeated* times at each turn."""

    def turn(action: Action) -> None:
        for _ in range(repeated):
            action()

    for action in actions.values():
        action()
    times = medians(rounds, *(partial(turn, action) for action in actions.values()))
    return {side: found / repeated for side, found in zip(actions, times, strict=True)}


# ── Small files ─────────────────────────────────────────────────────────────────────────────────────────


def small_files(sides: Sides, without: Mount, shape: Shape, *, quick: bool) -> Iterator[Row]:
    rounds = 15 if quick else 51
    paths = status_paths(sides, without, 0)

    stats: dict[str, Action] = {side: partial(os.stat, path) for side, path in paths.items()}
    yield against("floor", "stat, warm", on_each_side(rounds, stats, _BATCH), 1.2)
    arrived = sides.threadfs.counted("operations", stats["threadfs"])
    yield Row("  requests that arrive", {}, arrived, 0)

    reads: dict[str, Action] = {side: partial(open_read_close, path) for side, path in paths.items()}
    yield against("floor", "status: open, read, close, warm", on_each_side(rounds, reads, _BATCH), 1.0)
    arrived = sides.threadfs.counted("read_bytes", reads["threadfs"]) / os.stat(paths["threadfs"]).st_size
    yield Row("  READ requests that arrive", {}, round(arrived, 1), 0)

    # Half of the runs for each, which nobody has looked at before.
    first_ones = min(shape.threads - 2, 600 if quick else 4000) // 2

    def first(action: Callable[[str], object], start: int) -> dict[str, float]:
        threads = range(start, start + first_ones)
        return first_times(sides, without, action, threads)

    yield against("floor", "status: stat, first time", first(os.stat, 1), 1.6)
    yield against(
        "floor", "status: open, read, close, first time", first(open_read_close, 1 + first_ones), 1.6
    )
    yield four_readers(paths, quick=quick)


def first_times(
    sides: Sides, without: Mount, action: Callable[[str], object], threads: range
) -> dict[str, float]:
    """Each time another run of another thread, of which the kernel and the mount know nothing."""

    def next_one(side: str, mine: Iterator[int]) -> None:
        action(status_paths(sides, without, next(mine))[side])

    actions: dict[str, Action] = {
        side: partial(next_one, side, iter(threads))
        for side in ("bare", "bindfs", "floor", "other", "threadfs")
    }
    return dict(zip(actions, medians(len(threads), *actions.values()), strict=True))


def four_readers(paths: dict[str, str], *, quick: bool) -> Row:
    """Processes that read the same status, together: how many open-read-close a second."""
    turns = 1000 if quick else 4000

    def read(path: str) -> None:
        for _ in range(turns):
            open_read_close(path)

    def together(path: str) -> None:
        processes = [multiprocessing.Process(target=read, args=(path,)) for _ in range(READERS)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()

    actions: dict[str, Action] = {side: partial(together, path) for side, path in paths.items()}
    times = on_each_side(3 if quick else 7, actions)
    rates = {side: READERS * turns / found for side, found in times.items()}
    return against("floor", f"{READERS} readers of a status", rates, 0.8, is_least=True, shown=rate)


# ── What is first, and what comes again ─────────────────────────────────────────────────────────────────

Serve = Callable[[], AbstractContextManager[Mount]]
# Of the root of a mount.
Command = Callable[[Path], list[str]]


def programs(
    servers: dict[str, Serve],
    rounds: int,
    command: Command,
    again: int = 3,
    *,
    settles: bool = True,
) -> tuple[dict[str, float], dict[str, float]]:
    """The median CPU time of a program and of what serves it, on a fresh mount, and on the same mount again.

    On one CPU that is the time of a clock, less what other programs take meanwhile.
    """
    times: dict[str, tuple[list[float], list[float]]] = {side: ([], []) for side in servers}
    turns = list(servers.items())
    for _ in range(rounds):
        for side, serve in turns:
            with serve() as mount:
                if settles:
                    mount.settle()
                run = partial(cpu_seconds, command(mount.root), mount)
                times[side][0].append(run())
                times[side][1].extend(run() for _ in range(again))
        turns.reverse()
    first, repeated = ({side: median(found[index]) for side, found in times.items()} for index in (0, 1))
    return first, repeated


def cpu_seconds(command: list[str], mount: Mount | None = None) -> float:
    """The CPU time that a program takes, and meanwhile the server of a mount."""
    before = _children_s()
    served = 0.0 if mount is None else mount.precise_cpu_s()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    return _children_s() - before + (0.0 if mount is None else mount.precise_cpu_s() - served)


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def servers(store: Path, shape: Shape, roots: Path) -> dict[str, Serve]:
    """The other side is threadfs without the shim."""
    return {
        "bindfs": partial(mounts.bindfs, store, roots / "bindfs"),
        "floor": partial(mounts.floor, shape, roots / "floor"),
        "other": partial(mounts.threadfs, store, roots / "noshim", "-o", "noshim"),
        "threadfs": partial(mounts.threadfs, store, roots / "threadfs"),
    }


def _bare(command: list[str], rounds: int) -> float:
    """The second time and later: what the disk says is in the kernel's memory on all sides."""
    cpu_seconds(command)
    return median(cpu_seconds(command) for _ in range(rounds))


def _threads(root: Path) -> Path:
    """Where a mount shows the threads; bindfs shows the store itself."""
    return root / "threads" if (root / "threads").is_dir() else root


def listings(store: Path, shape: Shape, roots: Path, *, quick: bool) -> Iterator[Row]:
    rounds = 3 if quick else 5
    for option, first_peer, limits in (("-U", "floor", (1.6, 1.3)), ("-l", "bindfs", (0.5, 1.3))):

        def command(root: Path, option: str = option) -> list[str]:
            return ["ls", option, str(_threads(root))]

        first, again = programs(servers(store, shape, roots), rounds, command)
        bare = {"bare": _bare(["ls", option, str(store)], rounds)}
        name = f"ls {option} of {shape.threads:,} threads"
        yield against(first_peer, f"{name}, first", bare | first, limits[0])
        yield against("floor", f"{name}, again", bare | again, limits[1])


# A walk; its limits the first time, compared with the floor, and again, compared with bindfs and the disk.
_WALKS = (
    ("find", ["find"], 1.2, 0.3, 1.3),
    ("ls -lR", ["ls", "-lR"], None, 0.25, 1.3),
    ("grep -r", ["grep", "-r", "what nobody wrote"], 1.2, 1.0, None),
)


def whole_trees(store: Path, shape: Shape, roots: Path, *, quick: bool) -> Iterator[Row]:
    rounds = 1 if quick else 3
    for name, words, limit_first, limit_again, limit_bare in _WALKS:

        def command(root: Path, words: list[str] = words) -> list[str]:
            return [*words, str(_threads(root))]

        first, again = programs(servers(store, shape, roots), rounds, command)
        bare = {"bare": _bare([*words, str(store)], 3)}
        yield against("floor", f"{name} over {shape.threads:,} threads, first", bare | first, limit_first)
        yield against("bindfs", f"{name} over {shape.threads:,} threads, again", bare | again, limit_again)
        if limit_bare:
            yield against("bare", "  and the disk itself", bare | again, limit_bare)


def views(store: Path, shape: Shape, roots: Path, *, quick: bool) -> Iterator[Row]:
    """A walk through all of the mount, beside one that leaves out the links, and a list of links, beside one
    of threads.
    """
    serve: dict[str, Serve] = {"threadfs": partial(mounts.threadfs, store, roots / "threadfs")}

    def beside(
        name: str, least: Command, command: Command, against: str, limit: float | None = None
    ) -> Iterator[Row]:
        others, ours = (programs(serve, 1 if quick else 3, words) for words in (least, command))
        for which, other, found in zip(("first", "again"), others, ours, strict=True):
            sides = {"other": other["threadfs"], "threadfs": found["threadfs"]}
            yield Row(f"{name}, {which}", sides, sides["threadfs"] / sides["other"], limit, against)

    leaving_out = ["(", "-name", "by-*", "-o", "-name", "search", ")", "-prune", "-o", "-print"]
    yield from beside(
        f"find in a mount of {shape.threads:,} threads",
        lambda root: ["find", str(root), *leaving_out],
        lambda root: ["find", str(root)],
        "x without its links",
        1.1,
    )
    yield from beside(
        f"ls -lt by-title of {shape.threads:,}",
        lambda root: ["ls", "-lt", str(root / "threads")],
        lambda root: ["ls", "-lt", str(root / "by-title")],
        "x ls -lt threads",
    )


def after_mounting(store: Path, shape: Shape, roots: Path, *, quick: bool) -> Iterator[Row]:
    """What is asked for at once, while the store is looked through; the other side is what it takes later.

    The store was mounted before, so that its catalogue is there.
    """
    rounds = 1 if quick else 3
    with mounts.threadfs(store, roots / "threadfs") as mount:
        mount.settle()
    for options in ((), ("-o", "noshim")):
        side: dict[str, Serve] = {
            "threadfs": partial(mounts.threadfs, store, roots / "threadfs", *options),
        }
        for words in (["ls", "-l"], *(walk[1] for walk in _WALKS)):

            def command(root: Path, words: list[str] = words) -> list[str]:
                return [*words, str(_threads(root))]

            later = programs(side, rounds, command)
            at_once = programs(side, rounds, command, settles=False)
            for which, early, late in zip(("first", "again"), at_once, later, strict=True):
                found, other = early["threadfs"], late["threadfs"]
                name = f"{' '.join(words[:2])}, {which}, just mounted{', no shim' if options else ''}"
                sides = {"other": other, "threadfs": found}
                yield Row(name, sides, found / other, 1.5, "x once looked through")


def long_log(store: Path, shape: Shape, roots: Path, *, quick: bool) -> Iterator[Row]:
    name = f"{thread_id(0)}/messages.jsonl"

    def command(root: Path) -> list[str]:
        return ["cat", str(_threads(root) / name)]

    first, again = programs(servers(store, shape, roots), 3 if quick else 7, command)
    bare = {"bare": _bare(["cat", str(store / name)], 5)}
    size = shape.long_log

    def speeds(times: dict[str, float]) -> dict[str, float]:
        return {side: size / found / 1e6 for side, found in times.items()}

    for which, times, limit in (("first", first, 0.7), ("again", again, 0.95)):
        yield against(
            "floor",
            f"log of {size >> 20} MiB, {which}",
            speeds(bare | times),
            limit,
            is_least=True,
            shown=lambda speed: f"{speed:.0f} MB/s",
        )
