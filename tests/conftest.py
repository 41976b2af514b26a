"""Options of all tests."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long", action="store_true", help="attack for about two hours, as docs/reliability.md reports it"
    )


def pytest_report_header(config: pytest.Config) -> str:
    return "attacks: long" if config.getoption("long") else "attacks: short (--long: for about two hours)"


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
