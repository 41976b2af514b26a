"""Programs that people already use, on a mount; and the table in docs/clients.md of what works with them.

Each test names its program with the marker ``program``; its own name is the sentence in the table. The
table is written from what the tests find:

    pytest tests/clients --clients-table docs/clients.md
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clients import table
from tests.clients.programs import require
from tests.clients.terminal import Terminal
from tests.clients.windows import Desktop
from tests.mount.conftest import Mount, checked_mount


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--clients-table", metavar="FILE", help="write the table of programs that work")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "program(title): the program whose behaviour a test shows")
    path = config.getoption("--clients-table", default=None)
    if path is not None:
        config.pluginmanager.register(table.Writer(Path(path)))


@pytest.fixture(autouse=True)
def programs_are_there(request: pytest.FixtureRequest) -> None:
    for title in table.titles(request.node):
        require(title)


@contextmanager
def outside_tmp() -> Iterator[Path]:
    """An empty directory where vim and emacs make backups, as they do not in /tmp."""
    path = Path(tempfile.mkdtemp(prefix="threadfs-", dir="/var/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)  # Programs that end may still be removing files of theirs.


@pytest.fixture
def place() -> Iterator[Path]:
    with outside_tmp() as path:
        yield path


@pytest.fixture
def home(place: Path) -> Path:
    """A home directory without any settings."""
    path = place / "home"
    path.mkdir()
    return path


@pytest.fixture
def mount(place: Path) -> Iterator[Mount]:
    with checked_mount(place) as mounted:
        yield mounted


@pytest.fixture(scope="module")
def shared_mount() -> Iterator[Mount]:
    """One for all tests of a module, each of which works on a run of its own."""
    with outside_tmp() as path, checked_mount(path) as mounted:
        yield mounted


@pytest.fixture
def environment(home: Path) -> Mapping[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}


@pytest.fixture
def terminal(mount: Mount, place: Path, environment: Mapping[str, str]) -> Iterator[Callable[..., Terminal]]:
    """Starts a program in a terminal: ``terminal(command, cwd)``. It ends before the mount does."""
    opened: list[Terminal] = []

    def open_terminal(command: list[str], cwd: Path) -> Terminal:
        opened.append(Terminal(place / f"terminal{len(opened)}", command, cwd, environment))
        return opened[-1]

    yield open_terminal
    for each in opened:
        each.close()


@pytest.fixture(scope="session")
def desktop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desktop]:
    found = Desktop(tmp_path_factory.mktemp("desktop"))
    yield found
    found.close()
