"""A store to measure: as many threads, runs and messages as wanted, about as fast as the disk makes files.

    python -m bench.generate DIRECTORY [--threads N] [--runs M] [--messages K] [--queued Q]

Names and contents follow from their numbers, so that `floor.py` can show the same tree without a store.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path

# An inode of ext4 takes 65,000 links.
_LINKS = 50_000
_CREATED_AT = 1_700_000_000


@dataclass(frozen=True, slots=True)
class Shape:
    """What is in a store. The first run of the first *queued* threads is queued; all others are completed."""

    threads: int
    runs: int = 1
    messages: int = 2
    queued: int = 0
    # Completed runs share a few files: quicker to make, and not to be written to.
    links: bool = False
    # Bytes of the log of the first thread, in addition to its messages.
    long_log: int = 0


def thread_id(number: int) -> str:
    return f"thread_{number:032x}"


def run_id(number: int) -> str:
    return f"run_{number:032x}"


def meta(thread: int) -> bytes:
    fields = {"id": thread_id(thread), "object": "thread", "created_at": _CREATED_AT, "metadata": {}}
    return json.dumps(fields, indent=2).encode()


def line(thread: int, number: int, size: int = 120) -> bytes:
    """A message with about *size* bytes of text."""
    fields = {
        "id": f"msg_{number:032x}",
        "object": "thread.message",
        "created_at": _CREATED_AT,
        "thread_id": thread_id(thread),
        "role": "user",
        "content": [{"type": "text", "text": {"value": "hello " * (size // 6), "annotations": []}}],
    }
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def messages(shape: Shape, thread: int) -> bytes:
    """The whole log of a thread."""
    log = b"".join(line(thread, number) for number in range(shape.messages))
    if thread == 0 and shape.long_log:
        long = line(0, shape.messages, 1000)
        log += long * (shape.long_log // len(long))
    return log


def status(shape: Shape, thread: int, run: int) -> bytes:
    fields = {
        "id": run_id(run),
        "object": "thread.run",
        "created_at": _CREATED_AT,
        "thread_id": thread_id(thread),
        "status": "queued" if run == 0 and thread < shape.queued else "completed",
        "model": "a-model-of-some-name",
        "metadata": {"why": "what a run of this kind carries along " * 6},
    }
    return json.dumps(fields, indent=2).encode()


def _write(path: str, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        os.write(file, data)
    finally:
        os.close(file)


def generate(root: Path, shape: Shape) -> Path:
    """Makes a store at *root*, which is returned. (Nothing is synced.)"""
    root.mkdir(parents=True)
    shared = 0
    original = f"{root}/.original"
    for thread in range(shape.threads):
        directory = f"{root}/{thread_id(thread)}"
        os.mkdir(directory)
        _write(f"{directory}/meta.json", meta(thread))
        if log := messages(shape, thread):
            _write(f"{directory}/messages.jsonl", log)
        if shape.runs:
            os.mkdir(f"{directory}/runs")
        for run in range(shape.runs):
            path = f"{directory}/runs/{run_id(run)}"
            os.mkdir(path)
            if not shape.links or (run == 0 and thread < shape.queued):
                _write(f"{path}/status.json", status(shape, thread, run))
                continue
            if shared % _LINKS == 0:
                Path(original).unlink(missing_ok=True)
                _write(original, status(shape, thread, run))
            os.link(original, f"{path}/status.json")
            shared += 1
    Path(original).unlink(missing_ok=True)
    return root


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.generate", description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path, help="where the store is to be: not there yet")
    parser.add_argument("--threads", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=1, help="of each thread")
    parser.add_argument("--messages", type=int, default=2, help="of each thread")
    parser.add_argument("--queued", type=int, default=0, help="threads whose first run is queued")
    options = parser.parse_args()
    shape = Shape(options.threads, options.runs, options.messages, options.queued)
    generate(options.directory, shape)


if __name__ == "__main__":
    main()
