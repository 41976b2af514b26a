"""Scripts in the shells that people use, and what the store holds, for tests of the mount."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.mount.conftest import EXAMPLES, Mount

ROOT = EXAMPLES.parent
SHELLS = {"bash": ["bash", "-c"], "dash": ["dash", "-c"], "zsh": ["zsh", "-fc"]}
_numbers = itertools.count(1)


def run(script: str, cwd: Path, shell: str = "bash") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        [*SHELLS[shell], script], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def succeeds(script: str, cwd: Path, shell: str = "bash") -> str:
    """What the script printed. It must end with status 0 and without a warning."""
    result = run(script, cwd, shell)
    assert (result.returncode, result.stderr) == (0, ""), f"{shell}: {script}: {result}"
    return result.stdout


def install_threadfs(directory: Path) -> None:
    """Puts the command ``threadfs`` into a new *directory*, for the PATH of a script."""
    directory.mkdir(parents=True)
    program = directory / "threadfs"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m threadfs.cli "$@"\n')
    program.chmod(0o755)


def new_thread(mount: Mount) -> Path:
    """A thread of its own in *mount*, with a name that has to be quoted."""
    thread = mount.path("threads", f"Idee № {next(_numbers)}")
    thread.mkdir()
    return thread


def new_run(thread: Path, status: str = "queued") -> Path:
    made = thread / "runs" / f"Lauf {next(_numbers)}"
    made.mkdir()
    if status != "queued":
        (made / "status").write_text(status)
    return made


def new_work(mount: Mount) -> Path:
    """A run in progress that has a model and a step, in a thread of its own with a message."""
    thread = new_thread(mount)
    (thread / "say").write_text("Hello")
    made = new_run(thread)
    (made / "status").write_text('{"model":"llama3","status":"in_progress"}')
    (made / "steps" / "S.json").write_text('{"step_type":"tool_calls"}')
    return made


def make_older(thread: Path) -> None:
    """Sets the times of its documents back by an hour.

    To rsync, what has the same size and was written in the same second is the same: here, what it has just
    made itself, before it compares.
    """
    an_hour_ago = time.time() - 3600
    for document in (thread / "meta.json", *thread.glob("runs/*/status")):
        os.utime(document, (an_hour_ago, an_hour_ago))


def stored(mount: Mount, shown: Path) -> Path:
    """Where the store keeps what is shown in the mount."""
    relative = shown.relative_to(mount.path("threads"))
    return mount.store / (relative.with_name("status.json") if relative.name == "status" else relative)


def contents(directory: Path) -> dict[str, bytes]:
    """The bytes of each file below *directory*, and its empty directories."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else b""
        for path in directory.glob("**/*")
        if path.is_file() or not any(path.iterdir())
    }


def document(path: Path) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(path.read_text())
    return parsed


def messages(thread: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (thread / "messages.jsonl").read_text().splitlines()]


def texts(thread: Path) -> list[str]:
    return ["".join(part["text"]["value"] for part in message["content"]) for message in messages(thread)]


def commits(mount: Mount) -> int:
    return stats(mount)["commits"]


def stats(mount: Mount) -> dict[str, int]:
    lines = mount.path(".threadfs", "stats").read_text().splitlines()
    return {name: int(value) for name, value in (line.split(" ") for line in lines)}
