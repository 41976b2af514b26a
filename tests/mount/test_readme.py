"""The session in README.md, run as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import EXAMPLES
from tests.mount.scripts import ROOT, install_threadfs


def _session(text: str) -> list[tuple[str, str]]:
    """(command, output) of each command in the walk."""
    walk = text.split("## A walk")[1].split("\n## ")[0]
    lines = [line[4:] for line in walk.splitlines() if line.startswith("    ") or not line.strip()]
    steps: list[tuple[str, str]] = []
    for line in lines:
        if line.startswith("$ "):
            steps.append((line[2:], ""))
        elif steps:
            command, output = steps[-1]
            steps[-1] = command, output + line + "\n"
    return [(command, output.rstrip("\n")) for command, output in steps]


def _pattern(output: str) -> str:
    return ".*".join(re.escape(part) for part in output.split("…"))


@pytest.fixture
def model_url() -> Iterator[str]:
    """The address of a small model that answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.work.model_server"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


def test_the_walk_in_the_readme_is_true(tmp_path: Path, model_url: str) -> None:
    steps = _session((ROOT / "README.md").read_text())
    assert len(steps) > 20
    shutil.copytree(EXAMPLES / "household", tmp_path / "examples" / "household")
    install_threadfs(tmp_path / ".venv" / "bin")
    script = "cd %s\n" % tmp_path  # noqa: UP031 - braces would clash
    for command, _ in steps:
        there = command.replace("/tmp/", f"{tmp_path}/").replace("./mount.sh", f"{ROOT}/mount.sh")
        there = there.replace("http://127.0.0.1:8080", model_url)
        script += f"{there}\necho '<-->'\n"
    try:
        result = subprocess.run(
            ["bash", "-c", script],
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    finally:
        subprocess.run(["fusermount3", "-uzq", str(tmp_path / "household")], check=False)
    outputs = result.stdout.replace(f"{tmp_path}/", "/tmp/").split("<-->\n")
    for (command, expected), printed in zip(steps, outputs, strict=False):
        if command.startswith("ls runs") and "\n" not in expected and "  " in expected:
            printed = "  ".join(printed.split())  # On a terminal ls makes columns.
        if not re.fullmatch(_pattern(expected), printed.rstrip("\n"), re.DOTALL):
            pytest.fail(f"$ {command}\nexpected: {expected}\nprinted:  {printed}")
