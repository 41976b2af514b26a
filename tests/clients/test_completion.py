"""The tabulator in an interactive bash, set up as docs/recipes.md says."""

from __future__ import annotations

import re
from pathlib import Path

from tests.clients.terminal import Terminal
from tests.mount.conftest import EXAMPLES, Mount, wait_until
from tests.mount.scripts import document

RECIPES = EXAMPLES.parent / "docs" / "recipes.md"


def test_bash_completes_names_of_runs_beyond_their_at_sign(mount: Mount, tmp_path: Path) -> None:
    (made,) = mount.path("runs", "in_progress").iterdir()
    lines = re.findall(r"(?m)^    ((?:shopt|bind) .*\n)", RECIPES.read_text())
    assert "shopt -u hostcomplete\n" in lines
    settings = tmp_path / "bashrc"
    settings.write_text("".join(["PS1='ready> '\n", *lines]))
    bash = ["bash", "--noprofile", "--rcfile", str(settings)]
    terminal = Terminal(tmp_path / "tmux", bash, mount.root, {"HISTFILE": "/dev/null"})
    try:
        terminal.wait_for("ready>")
        run, _, thread = made.name.partition("@")
        terminal.type(f"echo 1 > runs/in_progress/{run}@{thread[:8]}")
        terminal.press("Tab")
        terminal.type("can")
        terminal.press("Tab", "Enter")
        wait_until(lambda: not made.is_symlink())
        assert document(mount.path("runs", "cancelled", made.name, "status"))["status"] == "cancelled"
    finally:
        terminal.close()
