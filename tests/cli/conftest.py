"""The command line as people use it: a process for each command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from store import ThreadStore
from tests import forking
from tests.mount.conftest import EXAMPLES, Mount, start, stop

ROOT = EXAMPLES.parent
# How long any command may take here.
ENDS_S = 60
# What examples/household holds.
RUNNING = ("thread_d25655259bb7bcc4b07a38834469bbc2", "run_cb2d4e5c145209d3d71f5879c47ba779")
OSLO = "Trip to Oslo"

Result = subprocess.CompletedProcess[str]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "threadfs.cli", *map(str, arguments)]


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(home), "XDG_STATE_HOME": str(home / "state"), "PYTHONPATH": str(ROOT)}


def threadfs(*arguments: object, cwd: Path = ROOT, given: str | bytes | None = None) -> Result:
    """Runs ``threadfs ARGUMENTS`` to its end."""
    ended = forking.run(
        ["threadfs.cli", *map(str, arguments)],
        cwd=cwd,
        environment=environment(cwd) if cwd != ROOT else os.environ,
        given=given.encode() if isinstance(given, str) else given or b"",
        timeout_s=ENDS_S,
    )
    return Result(ended.args, ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def succeeds(result: Result) -> str:
    """What a command that must succeed, without a word on stderr, wrote."""
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def fails(result: Result, status: int, *words: str) -> None:
    """The command ends with *status*, and one line on stderr that has the *words*."""
    assert result.returncode == status, result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr


def status_of(store: Path, thread_id: str, run_id: str) -> str:
    document: dict[str, Any] = json.loads((store / thread_id / "runs" / run_id / "status.json").read_bytes())
    return str(document["status"])


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this process, and those that it starts, keep catalogues."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches"


@pytest.fixture
def store(tmp_path: Path, caches: Path) -> Iterator[ThreadStore]:
    with closing(ThreadStore(tmp_path / "store")) as store:
        yield store


@pytest.fixture
def household(tmp_path: Path) -> Path:
    """A copy of the example store, in a directory of its own."""
    return Path(shutil.copytree(EXAMPLES / "household", tmp_path / "store"))


@pytest.fixture
def mounted(household: Path, tmp_path: Path) -> Iterator[Mount]:
    mount = start(household, tmp_path / "mnt", tmp_path / "log")
    try:
        yield mount
    finally:
        stop(mount)
