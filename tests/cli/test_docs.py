"""The sessions in docs/, run as they stand there: each section on a mount of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT
from tests.mount.conftest import EXAMPLES, Mount, start, stop
from tests.mount.scripts import install_threadfs

DOCS = ROOT / "docs"
# How long nothing has changed in the stores of these sessions.
UNCHANGED_S = 2 * 86400


@dataclass(frozen=True)
class Session:
    """One section of a page: its commands, and what they are to print."""

    page: str
    section: str
    steps: tuple[tuple[str, str], ...]


def sessions() -> Iterator[Session]:
    for page in sorted(DOCS.glob("*.md")):
        for section in re.split(r"(?m)^## ", page.read_text())[1:]:
            title, _, text = section.partition("\n")
            if steps := tuple(commands_in(text)):
                yield Session(page.name, title, steps)


def commands_in(text: str) -> Iterator[tuple[str, str]]:
    """Lines that begin with ``$`` are commands, with ``>`` what they go on with; others are their output."""
    command, output = "", ""
    for line in [*re.findall(r"(?m)^    (.*)$|^()$", text), ("$ ", "")]:
        if line[0].startswith("$ "):
            if command:
                yield command, output.strip("\n")
            command, output = line[0][2:], ""
        elif line[0].startswith("> "):
            command += "\n" + line[0][2:]
        elif command:
            output += line[0] + "\n"


def matches(expected: str, printed: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in expected.split("…"))
    return re.fullmatch(pattern, printed.strip("\n"), re.DOTALL) is not None


@pytest.fixture
def household_mount(tmp_path: Path) -> Iterator[Mount]:
    store = Path(shutil.copytree(EXAMPLES / "household", tmp_path / "store"))
    then = time.time() - UNCHANGED_S
    for path in store.rglob("*"):
        os.utime(path, (then, then))
    mount = start(store, tmp_path / "mnt", tmp_path / "log")
    try:
        yield mount
    finally:
        stop(mount)


ALL = list(sessions())


@pytest.mark.parametrize("session", ALL, ids=[f"{session.page}: {session.section}" for session in ALL])
def test_a_session_in_the_documentation_is_true(
    session: Session, household_mount: Mount, tmp_path: Path
) -> None:
    install_threadfs(tmp_path / "bin")
    place = household_mount.root
    if "not connected" in session.section:
        household_mount.process.kill()
        household_mount.process.wait()
        place = tmp_path
    script = "".join(
        f"{command}\necho '<-->'\n".replace("/tmp/", f"{tmp_path}/") for command, _ in session.steps
    )
    result = subprocess.run(
        ["bash", "-c", script],
        cwd=place,
        env={
            **os.environ,
            "STORE": str(household_mount.store),
            "MNT": str(household_mount.root),
            "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    for (command, expected), printed in zip(session.steps, result.stdout.split("<-->\n"), strict=False):
        if not matches(expected, printed):
            pytest.fail(f"$ {command}\nexpected: {expected}\nprinted:  {printed}")


def test_every_page_has_been_read() -> None:
    assert {"recipes.md", "operating.md", "troubleshooting.md"} <= {session.page for session in ALL}
    assert sum(session.page == "recipes.md" for session in ALL) >= 10
