"""Options of all tests."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long", action="store_true", help="attack for about two hours, as docs/reliability.md reports it"
    )


def pytest_report_header(config: pytest.Config) -> str:
    return "attacks: long" if config.getoption("long") else "attacks: short (--long: for about two hours)"


def open_files(process: int | str = "self") -> list[str]:
    """What each descriptor of a process leads to, by default of this one."""
    found = []
    for descriptor in os.listdir(f"/proc/{process}/fd"):
        with suppress(FileNotFoundError):  # The one that read the listing, or closed since.
            found.append(os.readlink(f"/proc/{process}/fd/{descriptor}"))
    return found


@contextmanager
def inotify_limit(name: str, value: int) -> Iterator[None]:
    """The system's limit, for what begins in the block."""
    limit = Path("/proc/sys/fs/inotify", name)
    before = limit.read_text()
    try:
        limit.write_text(str(value))
    except OSError as error:
        pytest.skip(f"needs root: {error}")
    try:
        yield
    finally:
        limit.write_text(before)


@pytest.fixture
def fuse_for_all() -> Iterator[None]:
    """Where udev runs, everybody may use FUSE; some containers and virtual machines have none."""
    device = Path("/dev/fuse")
    before = stat.S_IMODE(device.stat().st_mode)
    device.chmod(0o666)
    try:
        yield
    finally:
        device.chmod(before)
