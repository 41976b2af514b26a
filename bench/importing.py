"""What an import costs: a large export of ChatGPT in a zip, the files that plain conversations make, and many
sessions of a coding agent, imported again by a timer.

    .venv/bin/python3 -m bench.importing [--quick] [--dir DIRECTORY] [export|sessions]

The export has 25,000 conversations, which are 1 GiB of JSON, and so are 20,000 files of sessions; --quick: a
twentieth. The CPU time of reading it is that of the process without that of the store's methods. DIRECTORY
(the repository's) must be on a real disk, with room for 6 GB. Exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.table import is_missed

CONVERSATIONS = 25_000
JSON_BYTES = 1 << 30
PLAIN = 10_000
MEMORY_LIMIT_MIB = 200
CPU_LIMIT_S = 120
FILES_LIMIT = 2.1
SESSIONS = 20_000
# Of the time of the first import.
AGAIN_LIMIT = 0.25
_WORDS = 20_000


def conversation(number: int, size: int, texts: list[str], rest: random.Random) -> dict[str, Any]:
    """A conversation of about *size* bytes, as an export of ChatGPT has it."""
    mapping: dict[str, Any] = {"root": {"id": "root", "parent": None, "message": None, "children": []}}
    parent, made = "root", 400
    turn = 0
    while made < size or not turn:
        node = f"{number:08x}-0000-4000-8000-{turn:012x}"
        role = "assistant" if turn % 2 else "user"
        said = rest.choice(texts)
        message = {
            "id": node,
            "author": {"role": role, "name": None, "metadata": {}},
            "create_time": 1_700_000_000.5 + number * 60 + turn,
            "content": {"content_type": "text", "parts": [said]},
            "status": "finished_successfully",
            "weight": 1.0,
            "recipient": "all",
            "channel": None,
            "metadata": {"model_slug": "gpt-5"} if turn % 2 else {},
        }
        mapping[parent]["children"].append(node)
        mapping[node] = {"id": node, "parent": parent, "message": message, "children": []}
        parent, turn = node, turn + 1
        made += len(said) + 520
    return {
        "title": f"Conversation {number}",
        "create_time": 1_700_000_000.5 + number * 60,
        "update_time": 1_700_000_000.5 + number * 60 + turn,
        "mapping": mapping,
        "current_node": parent,
        "conversation_id": f"{number:08x}-1111-4000-8000-000000000000",
        "default_model_slug": "gpt-5",
        "is_archived": False,
    }


def texts_of(rest: random.Random) -> list[str]:
    words = [
        "".join(rest.choices("abcdefghijklmnoprstuvwyäöüé", k=rest.randint(2, 10))) for _ in range(_WORDS)
    ]
    return [" ".join(rest.choices(words, k=rest.randint(10, 500))) for _ in range(5_000)]


def export(path: Path, conversations: int, json_bytes: int) -> int:
    """Makes an export; how many bytes of JSON are in it."""
    rest = random.Random(19)
    texts = texts_of(rest)
    written = 0
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("conversations.json", "w", force_zip64=True) as member,
    ):
        member.write(b"[")
        for number in range(conversations):
            # So large that all together are as large as wanted.
            size = (json_bytes - written) // (conversations - number)
            data = json.dumps(conversation(number, size, texts, rest)).encode()
            member.write(b"," * bool(number) + data)
            written += len(data) + 1
        member.write(b"]")
    return written


def sessions(directory: Path, files: int, all_bytes: int) -> None:
    """Makes sessions of Claude Code: questions, and answers that think, call tools and speak."""
    rest = random.Random(23)
    texts = texts_of(rest)
    for number in range(files):
        path = (
            directory / f"-home-ada-project-{number % 50}" / f"{number:08x}-2222-4000-8000-000000000000.jsonl"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as written:
            for line in session(number, all_bytes // files, texts, rest):
                written.write(line + "\n")


def session(number: int, size: int, texts: list[str], rest: random.Random) -> Iterator[str]:
    """The lines of a session of about *size* bytes."""
    parent: str | None = None
    made = turn = at = 0
    while made < size:
        call = f"toolu_{number}_{turn}"
        output = rest.choice(texts)
        answer = {"id": f"msg_{number}_{turn}", "type": "message", "role": "assistant", "model": "claude-x"}
        used = {"type": "tool_use", "id": call, "name": "Bash", "input": {"command": rest.choice(texts)[:80]}}
        done = {"type": "tool_result", "tool_use_id": call, "content": output}
        spoken = {**answer, "id": f"msg_{number}_{turn}b"}
        for kind, given in (
            ("user", {"role": "user", "content": rest.choice(texts)}),
            ("assistant", {**answer, "content": [{"type": "thinking", "thinking": rest.choice(texts)}]}),
            ("assistant", {**answer, "content": [used]}),
            ("user", {"role": "user", "content": [done]}),
            ("assistant", {**spoken, "content": [{"type": "text", "text": rest.choice(texts)}]}),
        ):
            uuid = f"{number:08x}-0000-4000-8000-{at:012x}"
            line: dict[str, Any] = {
                "parentUuid": parent,
                "isSidechain": False,
                "cwd": "/home/ada/project",
                "sessionId": f"{number:08x}-2222-4000-8000-000000000000",
                "version": "2.1.0",
                "gitBranch": "main",
                "type": kind,
                "message": given,
                "uuid": uuid,
                "timestamp": f"2026-01-{1 + number % 28:02}T{at // 60 % 24:02}:{at % 60:02}:00Z",
            }
            if given["content"] == [done]:
                line["toolUseResult"] = {"stdout": output, "stderr": "", "interrupted": False}
            text = json.dumps(line)
            made += len(text) + 1
            yield text
            parent, at = uuid, at + 1
        turn += 1


# ── Measuring, in a process of its own ──────────────────────────────────────────────────────────────────


def measured(store: str, files: list[str]) -> None:
    """Imports, and writes what it cost as JSON: seconds, of the CPU and of the store's CPU, peak in KiB."""
    from store import ThreadStore
    from threadfs.cli import main

    stores_s = 0.0

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def timing(*arguments: Any, **options: Any) -> Any:
            nonlocal stores_s
            began = time.process_time()
            try:
                return call(*arguments, **options)
            finally:
                stores_s += time.process_time() - began

        return timing

    for name in ("__init__", "open_log", "import_thread", "extend_thread", "document_info", "get_thread"):
        setattr(ThreadStore, name, timed(getattr(ThreadStore, name)))
    began, began_at = time.process_time(), time.monotonic()
    status = main(["import", store, *files])
    usage = resource.getrusage(resource.RUSAGE_SELF)
    told = {
        "status": status,
        "cpu_s": time.process_time() - began,
        "elapsed_s": time.monotonic() - began_at,
        "store_s": stores_s,
        "peak_kib": usage.ru_maxrss,
    }
    print(json.dumps(told))


def run(store: Path, export_file: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.importing", "--measure", str(store), str(export_file)]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    print(f"    {found[0]}")
    told: dict[str, Any] = json.loads(found[-1])
    return told


def rows_of_export(directory: Path, share: int) -> Iterator[tuple[str, float, float | None, str]]:
    """(what, value, limit, unit)"""
    large = directory / "large.zip"
    size = export(large, CONVERSATIONS // share, JSON_BYTES // share)
    what = f"{CONVERSATIONS // share:,} conversations, {size >> 20} MiB"
    first = run(directory / "store", large)
    yield f"{what}: CPU beside the store", first["cpu_s"] - first["store_s"], CPU_LIMIT_S / share, "s"
    yield "  CPU of the store", first["store_s"], None, "s"
    yield "  peak memory", first["peak_kib"] / 1024, MEMORY_LIMIT_MIB, "MiB"
    again = run(directory / "store", large)
    yield "  once more, nothing has changed: CPU", again["cpu_s"], None, "s"
    yield "  peak memory", again["peak_kib"] / 1024, MEMORY_LIMIT_MIB, "MiB"
    plain = directory / "plain.zip"
    export(plain, PLAIN // share, PLAIN // share * 2000)
    run(directory / "plain", plain)
    files = sum(len(found) for _, _, found in os.walk(directory / "plain"))
    yield f"files for {PLAIN // share:,} plain conversations, each", files / (PLAIN // share), FILES_LIMIT, ""


def rows_of_sessions(directory: Path, share: int) -> Iterator[tuple[str, float, float | None, str]]:
    """(what, value, limit, unit)"""
    files = SESSIONS // share
    sessions(directory / "projects", files, JSON_BYTES // share)
    size = sum(path.stat().st_size for path in (directory / "projects").rglob("*.jsonl"))
    store = directory / "archive"
    first = run(store, directory / "projects")
    yield f"{files:,} files of sessions, {size >> 20} MiB", first["elapsed_s"], None, "s"
    yield "  peak memory", first["peak_kib"] / 1024, MEMORY_LIMIT_MIB, "MiB"
    before = state(store)
    again = run(store, directory / "projects")
    yield "  once more, nothing has changed", again["elapsed_s"], None, "s"
    yield "  peak memory", again["peak_kib"] / 1024, MEMORY_LIMIT_MIB, "MiB"
    yield "  of the time of the first", again["elapsed_s"] / first["elapsed_s"], AGAIN_LIMIT, ""
    yield "  files written", len(before ^ state(store)), 0, ""


def state(store: Path) -> set[tuple[str, int, int]]:
    """Every file of a store, with its number and the time of its last change."""
    found = set()
    for at, _, names in os.walk(store):
        for name in names:
            path = os.path.join(at, name)
            info = os.lstat(path)
            found.add((path, info.st_ino, info.st_ctime_ns))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.importing", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--dir", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("part", nargs="?", choices=["export", "sessions"], help="only this part")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measured(options.measure[0], options.measure[1:])
        return 0
    missed = False
    parts = {"export": rows_of_export, "sessions": rows_of_sessions}
    for part in [options.part] if options.part else parts:
        with tempfile.TemporaryDirectory(prefix=".bench-", dir=options.dir) as directory:
            for what, value, limit, unit in parts[part](Path(directory), 20 if options.quick else 1):
                missed |= is_missed(what, value, unit, limit)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
