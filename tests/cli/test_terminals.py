"""Nothing in a store drives the terminal on which a command shows it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from store import Run, RunError, RunStatus, Thread, ThreadMessage, ThreadStore
from tests.cli.conftest import command, fails, succeeds, threadfs

EVIL = "a\x1b[2J\x9b31m\x7f\r\n\u202eb"
SHOWN = "a\\x1b[2J\\x9b31m\\x7f\\x0d\\n\\u{202e}b"
# An id has no control characters, but may turn the direction.
EVIL_ID = "T\u202etxt"
SHOWN_ID = "T\\u{202e}txt"


@pytest.fixture
def store(tmp_path: Path) -> ThreadStore:
    store = ThreadStore(tmp_path / "store")
    store.create_thread(Thread(id=EVIL_ID))
    store.create_run(EVIL_ID, Run(id="R"))
    return store


def test_prune_and_expire_name_threads_safely(store: ThreadStore) -> None:
    assert succeeds(threadfs("expire", store.root, "--older-than", "0s")) == f"R@{SHOWN_ID}\n"
    assert succeeds(threadfs("prune", store.root, "--older-than", "0s")) == f"{SHOWN_ID}\n"


def test_wait_tells_safely_why_a_run_failed(store: ThreadStore) -> None:
    error = RunError(code="server_error", message=EVIL)
    store.update_run_status(EVIL_ID, "R", RunStatus.failed, error=error)
    result = threadfs("wait", store.root, EVIL_ID, "R")
    fails(result, 1)
    assert "a\\x1b[2J\\x9b31m\\x7f \\u{202e}b" in result.stderr


def test_fsck_names_what_it_finds_safely(store: ThreadStore) -> None:
    document = Path(store.root) / EVIL_ID / "meta.json"
    document.write_text(document.read_text().replace('"thread"', json.dumps(EVIL)))
    result = threadfs("fsck", store.root)
    assert result.returncode == 1
    assert result.stdout.startswith(f"{SHOWN_ID}/meta.json: ")
    assert result.stdout.replace("\n", "").isprintable()


def test_import_refuses_safely(tmp_path: Path) -> None:
    line = json.dumps({"id": "T", "object": EVIL, "created_at": 1}) + "\n"
    result = threadfs("import", tmp_path / "other", given=line)
    assert result.returncode == 1
    assert result.stderr.replace("\n", "").isprintable()


def test_what_was_used_wrongly_is_told_safely() -> None:
    result = threadfs("umount", "mnt", EVIL)
    fails(result, 2, SHOWN)


def test_an_export_on_a_terminal_means_the_same_as_in_a_pipe(store: ThreadStore) -> None:
    message = ThreadMessage.of(
        {"id": "m", "created_at": 1, "role": "user", "content": [{"type": "text", "text": {"value": EVIL}}]}
    )
    store.append_message(EVIL_ID, message)
    piped = succeeds(threadfs("export", store.root))
    reading, terminal = pty.openpty()
    subprocess.run(command("export", store.root), stdout=terminal, stderr=subprocess.PIPE, check=True)
    os.close(terminal)
    shown = os.read(reading, 65536).decode().replace("\r\n", "\n")
    os.close(reading)
    assert "\u202e" in piped
    assert "\x9b" in piped
    assert shown.replace("\n", "").isprintable()
    assert [json.loads(line) for line in shown.splitlines()] == [
        json.loads(line) for line in piped.split("\n")[:-1]
    ]
