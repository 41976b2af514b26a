"""Writing through the mount, every write durable, beside the same durable system calls on the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median

from bench.generate import Shape, line, meta, run_id, status, thread_id
from bench.mounts import Sides
from bench.reading import on_each_side
from bench.store import WRITERS, Action, bare_append, bare_replace, gain
from bench.table import Row, against
from bench.table import gain as shown_gain

# A write costs what the floor's costs, and this many times what the disk asks for.
DURABLE = 1.3


def write(path: str, data: bytes, flags: int = os.O_TRUNC) -> None:
    """As a shell's ``>`` and ``>>`` do."""
    file = os.open(path, os.O_WRONLY | flags)
    os.write(file, data)
    os.close(file)


def shape_for_writing(*, quick: bool) -> Shape:
    """A queued run for each cancel."""
    threads = 2 + (100 if quick else 500)
    return Shape(threads, queued=threads)


def writes(sides: Sides, shape: Shape, disk: Path, *, quick: bool) -> Iterator[Row]:
    rounds = shape.threads - 2
    thread = f"threads/{thread_id(0)}"
    text, message = b"hello " * 20, line(0, 1)
    log = f"{thread}/messages.jsonl"
    bare = bare_thread(disk, shape, "bare")
    append: Action = partial(bare_append, str(bare), message)
    document = status(shape, 0, 0)
    replace: Action = partial(bare_replace, str(bare), "status.json", document)

    def both(name: str, data: bytes, flags: int = os.O_TRUNC) -> dict[str, Action]:
        return {
            "floor": partial(write, f"{sides.floor.root}/{name}", data, flags),
            "threadfs": partial(write, f"{sides.threadfs.root}/{name}", data, flags),
        }

    yield row("say", rounds, {"bare": append} | both(f"{thread}/say", text))
    yield row("append a line to messages.jsonl", rounds, {"bare": append} | both(log, message, os.O_APPEND))

    # A bare word that changes something each time, and ends nothing.
    words = {side: cycle((b"in_progress\n", b"requires_action\n")) for side in ("floor", "threadfs")}
    run = f"{thread}/runs/{run_id(0)}/status"
    paths = {"floor": f"{sides.floor.root}/{run}", "threadfs": f"{sides.threadfs.root}/{run}"}

    def word(side: str) -> None:
        write(paths[side], next(words[side]))

    yield row(
        "bare word to status",
        rounds,
        {"bare": replace, "floor": partial(word, "floor"), "threadfs": partial(word, "threadfs")},
    )
    yield cancels(sides, rounds, replace)
    yield eight_writers(sides, disk, shape, text, quick=quick)


def row(what: str, rounds: int, actions: dict[str, Action]) -> Row:
    found = on_each_side(rounds, actions)
    value = found["threadfs"] / (found["floor"] + DURABLE * found["bare"])
    return Row(what, found, value, 1, f"x (floor + {DURABLE} bare)")


def cancels(sides: Sides, rounds: int, replace: Action) -> Row:
    """Each time another run. The kernel knows the names, as when a shell has completed them."""
    names = [f"threads/{thread_id(number)}/runs/{run_id(0)}/cancel" for number in range(1, rounds + 2)]
    for name in names:
        os.stat(f"{sides.floor.root}/{name}")
        os.stat(f"{sides.threadfs.root}/{name}")

    def cancel(root: Path, mine: Iterator[str]) -> None:
        write(f"{root}/{next(mine)}", b"1\n")

    return row(
        "cancel",
        rounds,
        {
            "bare": replace,
            "floor": partial(cancel, sides.floor.root, iter(names)),
            "threadfs": partial(cancel, sides.threadfs.root, iter(names)),
        },
    )


def bare_thread(disk: Path, shape: Shape, name: str) -> Path:
    directory = disk / name
    directory.mkdir()
    (directory / "meta.json").write_bytes(meta(0))
    (directory / "status.json").write_bytes(status(shape, 0, 0))
    (directory / "messages.jsonl").write_bytes(line(0, 0))
    return directory


def eight_writers(sides: Sides, disk: Path, shape: Shape, text: bytes, *, quick: bool) -> Row:
    """How much more eight threads get written, each to a log of its own, than one."""
    turns = 20 if quick else 100
    bare: list[Action] = [
        partial(bare_append, str(bare_thread(disk, shape, f"bare{number}")), line(0, 0))
        for number in range(WRITERS)
    ]

    def saying(root: Path) -> list[Action]:
        return [partial(write, f"{root}/threads/{thread_id(number)}/say", text) for number in range(WRITERS)]

    ours, least = saying(sides.threadfs.root), saying(sides.floor.root)
    gains = [(gain(turns, bare), gain(turns, ours), gain(turns, least)) for _ in range(5)]
    of_bare, of_threadfs, of_floor = (median(side) for side in zip(*gains, strict=True))
    found = {"bare": of_bare, "threadfs": of_threadfs, "floor": of_floor}
    what = f"gain of {WRITERS} writers on {WRITERS} threads"
    return against("bare", what, found, 0.7, is_least=True, shown=shown_gain)
