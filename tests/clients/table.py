"""The table in docs/clients.md: which programs work, in which version, as the tests find."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from tests.clients.programs import version

HEADER = """\
# Programs that work on a mount

Each row is a test in `tests/clients/`, and what it shows. This page is written from what they find:

    .venv/bin/pytest tests/clients --clients-table docs/clients.md
"""
_HEADINGS = "| Program | Version | What works |\n| --- | --- | --- |\n"

Row = tuple[str, str]


def titles(item: pytest.Item) -> list[str]:
    """The programs that a test is about: the first has its row."""
    return [marker.args[0] for marker in item.iter_markers("program")]


def _row(item: pytest.Function) -> Row:
    name = item.originalname or item.name
    return titles(item)[0], name.removeprefix("test_").replace("_", " ")


def rows(text: str) -> set[Row]:
    """The rows of a page that was written by `Writer`, without the versions."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {(line[0], line[2]) for line in lines if line[0] not in ("Program", "---")}


class Writer:
    """Writes the page: a section for each module of tests, a row for each test that passed.

    The text of a section is the module's docstring. Where nothing is run (``--collect-only``), all rows
    are there, without versions.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._items: list[pytest.Function] = []
        self._failed: set[str] = set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._items = [item for item in session.items if isinstance(item, pytest.Function) and titles(item)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self._failed.add(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        collected_only = bool(session.config.option.collectonly)
        failed = {_row(item) for item in self._items if item.nodeid in self._failed}
        sections: dict[str, list[Row]] = {}
        for item in self._items:
            section = sections.setdefault(inspect.getdoc(item.module) or "", [])
            if (row := _row(item)) not in section and row not in failed:
                section.append(row)
        page = HEADER
        for heading, found in sections.items():
            title, _, text = heading.partition("\n")
            page += f"\n## {title.rstrip('.')}\n{text}{text and chr(10)}\n{_HEADINGS}"
            programs = list(dict.fromkeys(program for program, _ in found))
            for program, sentence in sorted(found, key=lambda row: programs.index(row[0])):
                page += f"| {program} | {'' if collected_only else version(program)} | {sentence} |\n"
        self._path.write_text(page)
