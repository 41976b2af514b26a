"""The conversation that a new store begins with: what it tells to do works, wherever it is mounted."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount import scripts
from tests.mount.conftest import EXAMPLES, Mount, start, stop
from tests.mount.scripts import document, succeeds


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    store = Path(shutil.copytree(EXAMPLES / "welcome", tmp_path / "store"))
    mounted = start(store, tmp_path / "any where", tmp_path / "log")
    try:
        yield mounted
    finally:
        stop(mounted)


@pytest.mark.parametrize("shell", scripts.SHELLS)
def test_the_welcome_can_be_followed_from_the_top_of_the_mount(mount: Mount, shell: str) -> None:
    # Another conversation is there too by then, with a run that waits.
    succeeds("mkdir threads/thread_other; echo m > threads/thread_other/start", mount.root)
    (thread,) = mount.path("threads").glob("thread_26dd*")
    blocks = re.findall(r"```sh\n(.*?)```", scripts.texts(thread)[1], re.DOTALL)
    assert len(blocks) == 4
    printed = succeeds("set -e\n" + "".join(blocks), mount.root, shell)
    assert "# Welcome\n" in printed
    assert "run_759c63540e288a432c75928808d48adf@" in printed
    assert scripts.texts(thread)[-1] == "Thank you, that was all."
    assert document(next(thread.glob("runs/run_759c*/status")))["status"] == "cancelled"


def test_the_welcome_names_no_mount_point() -> None:
    (log,) = (EXAMPLES / "welcome").glob("*/messages.jsonl")
    assert "~" not in log.read_text()
