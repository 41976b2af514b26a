"""Options of all tests."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long", action="store_true", help="attack for about two hours, as docs/reliability.md reports it"
    )


def pytest_report_header(config: pytest.Config) -> str:
    return "attacks: long" if config.getoption("long") else "attacks: short (--long: for about two hours)"
