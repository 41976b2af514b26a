"""An archive of sessions, which a timer extends: the units in contrib/."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from store import ThreadStore
from tests.importing.conftest import complaints, everything, said
from tests.importing.test_sessions import CLAUDE, CODEX, in_order, jsonl, line, meta, typed

ROOT = Path(__file__).parents[2]
UNITS = ("threadfs-import@.service", "threadfs-import@.timer")


def test_the_units_are_such_that_systemd_accepts(tmp_path: Path) -> None:
    for name in UNITS:
        text = (ROOT / "contrib" / name).read_text()
        # systemd-analyze insists that the program and its manual are there.
        text = text.replace("%h/.local/bin/threadfs", "/bin/true")
        (tmp_path / name).write_text(text.replace("Documentation=man:threadfs(1)\n", ""))
    checked = subprocess.run(
        ["systemd-analyze", "--user", "verify", *(str(tmp_path / name) for name in UNITS)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def run_unit(home: Path, store: Path) -> dict[str, object]:
    """Does what systemd does with the service, for a user with this home; what the journal gets."""
    unit = (ROOT / "contrib" / UNITS[0]).read_text()
    (sessions,) = re.findall(r'(?m)^Environment="SESSIONS=(.*)"$', unit)
    (command,) = re.findall(r"(?m)^ExecStart=(.*)$", unit)
    command = command.replace("$SESSIONS", sessions).replace("%h", str(home)).replace("%f", str(store))
    program, *arguments = shlex.split(command)
    assert program == f"{home}/.local/bin/threadfs"
    done = subprocess.run(
        [sys.executable, "-m", "threadfs.cli", *arguments], cwd=ROOT, capture_output=True, check=True
    )
    assert complaints(done.stderr.decode()) == ""
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_what_the_agents_delete_stays_and_what_grows_is_extended(tmp_path: Path) -> None:
    store = tmp_path / "assistants"
    store.mkdir()
    lines = in_order(
        line("u", None, text="Go."), line("a", "u", answer="Gone."), line("u2", "a", text="Back.")
    )
    session = tmp_path / ".claude/projects/-home-ada/S.jsonl"
    jsonl(session, *lines[:2])
    jsonl(tmp_path / ".codex/sessions/2026/03/04/rollout-R.jsonl", meta(), *typed("Go."))
    told = run_unit(tmp_path, store)
    assert (told["imported"], told["extended"], told["left"]) == (2, 0, 0)
    jsonl(session, *lines)
    told = run_unit(tmp_path, store)
    assert (told["imported"], told["extended"], told["left"]) == (0, 1, 1)
    before = everything(store)
    assert run_unit(tmp_path, store)["left"] == 2
    assert everything(store) == before
    session.unlink()
    jsonl(session.with_name("N.jsonl"), line("n", None, text="New.", sessionId="N"))
    assert run_unit(tmp_path, store)["imported"] == 1
    assert [text for _, text in said(ThreadStore(store), CLAUDE)] == ["Go.", "Gone.", "Back."]
    assert said(ThreadStore(store), CODEX) == [["user", "Go."]]
