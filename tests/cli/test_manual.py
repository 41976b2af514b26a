"""The manual page, which is made from the definition of the command line."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.cli.conftest import ROOT
from threadfs.commands import COMMANDS

PAGE = ROOT / "docs" / "threadfs.1"


def test_the_manual_page_is_what_the_command_line_says() -> None:
    """If not: .venv/bin/python docs/make_manual.py"""
    made = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_manual.py", "-"], capture_output=True, text=True, check=True
    )
    assert made.stdout == PAGE.read_text()


@pytest.mark.skipif(shutil.which("man") is None, reason="there is no man here")
def test_man_shows_every_command_without_a_warning() -> None:
    shown = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", str(PAGE)],
        capture_output=True,
        text=True,
        check=True,
        env={"MANWIDTH": "100", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    )
    assert shown.stderr == ""
    assert all(f"threadfs {name}" in shown.stdout for name in COMMANDS)
