"""A real mount in a process of its own, always torn down, its log free of tracebacks and warnings."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import forking

EXAMPLES = Path(__file__).parents[2] / "examples"
ANSWERS_S = 20.0


def wait_until(condition: Callable[[], bool], timeout_s: float = ANSWERS_S) -> None:
    """Returns as soon as *condition* holds; fails when it does not though it was asked in time.

    However long the asking takes: who begins to look after that time sees it.
    """
    deadline_s = time.monotonic() + timeout_s
    asked_s = time.monotonic()
    while not condition():
        assert asked_s < deadline_s, "it did not happen in time"
        took_s = time.monotonic() - asked_s
        time.sleep(min(max(0.01, took_s), 0.1))  # At most half of a core is spent on asking.
        asked_s = time.monotonic()


@dataclass
class Mount:
    store: Path
    root: Path
    log: Path
    process: forking.Process | subprocess.Popen[bytes]

    def path(self, *parts: str) -> Path:
        return self.root.joinpath(*parts)

    def errors(self) -> str:
        return self.path(".threadfs", "errors").read_text()

    def run(self, status: str) -> Path:
        """The first run in *status*, as its directory in threads/."""
        link = sorted(self.path("runs", status).iterdir())[0]
        return self.path("threads", link.name.split("@")[1], "runs", link.name.split("@")[0])

    def stored(self, run: Path) -> Path:
        """Where the store keeps the status of a run in the mount."""
        return self.store / run.parent.parent.name / "runs" / run.name / "status.json"


def children_of(pid: int, module: str) -> list[int]:
    """The processes of *module* that were started by one, and have not been waited for."""
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").glob("*/children")
        for child in task.read_text().split()
        if module.encode() in _command_of(child)
    ]


def _command_of(pid: str) -> bytes:
    """Empty for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


THREADFS = ("threadfs.cli",)


def start(store: Path, root: Path, log: Path, *options: str, module: Sequence[str] = THREADFS) -> Mount:
    """Mounts by *module*, which may be another one with arguments of its own."""
    arguments = [*module, "-f", "--log", str(log), *options, str(store), str(root)]
    process: forking.Process | subprocess.Popen[bytes]
    if "LD_PRELOAD" in os.environ:  # Which a fork would not load.
        process = subprocess.Popen([sys.executable, "-m", *arguments])
    else:
        process = forking.Process(arguments)
    mount = Mount(store, root, log, process)
    wait_until(lambda: process.poll() is not None or os.path.ismount(root))
    assert process.poll() is None, log.read_text()
    return mount


def stop(mount: Mount) -> None:
    if mount.process.poll() is None:
        mount.process.send_signal(signal.SIGTERM)
        try:
            mount.process.wait(ANSWERS_S)
        except subprocess.TimeoutExpired:
            mount.process.send_signal(signal.SIGTERM)
            mount.process.wait(ANSWERS_S)
    subprocess.run(["fusermount3", "-uzq", str(mount.root)], check=False)


@contextmanager
def checked_mount(
    place: Path, *options: str, warns: str | None = "", module: Sequence[str] = THREADFS
) -> Iterator[Mount]:
    """The household mounted in *place*, torn down whatever happens; the log holds nothing unexpected.

    What it *warns* of has to be there; None stands for anything or nothing.
    """
    store = place / "store"
    shutil.copytree(EXAMPLES / "household", store)
    log = place / "log"
    mounted = start(store, place / "mnt", log, *options, module=module)
    try:
        yield mounted
    finally:
        stop(mounted)
    text = log.read_text()
    assert "Traceback" not in text
    warnings = [line for line in text.splitlines() if " WARNING " in line]
    if warns is not None:
        assert bool(warnings) == bool(warns), warnings
        assert all(warns in line for line in warnings), warnings
    assert " ERROR " not in text
    assert mounted.process.returncode == 0


@pytest.fixture(scope="module")
def shared_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """One for all tests of a module, each of which makes the threads that it changes."""
    with checked_mount(tmp_path_factory.mktemp("shared")) as mounted:
        yield mounted


@pytest.fixture
def own_mount(tmp_path: Path) -> Iterator[Mount]:
    """For a test that ends it, changes what the household holds, or counts its requests."""
    with checked_mount(tmp_path) as mounted:
        yield mounted


@pytest.fixture
def mount(shared_mount: Mount) -> Mount:
    return shared_mount


@pytest.fixture(params=["bash", "dash", "zsh"])
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)
