"""llm's logs.db: both schemas, and a database that another process is using."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from store import ThreadStore
from tests.importing.conftest import (
    FIXTURES,
    everything,
    imported,
    lines_of,
    runs_of,
    said,
    steps_of,
)

RESPONSES = """
CREATE TABLE conversations (id TEXT PRIMARY KEY, name TEXT, model TEXT);
CREATE TABLE responses (id TEXT PRIMARY KEY, model TEXT, prompt TEXT, system TEXT, response TEXT,
    conversation_id TEXT, datetime_utc TEXT, reasoning TEXT);
"""
# The tables of version 0.32, with the columns that are read.
THREADS = """
CREATE TABLE fragments (id INTEGER PRIMARY KEY, content TEXT);
CREATE TABLE attachments (id TEXT PRIMARY KEY, type TEXT, path TEXT, url TEXT, content BLOB);
CREATE TABLE messages (hash TEXT PRIMARY KEY, parent_hash TEXT, role TEXT, provider_metadata TEXT);
CREATE TABLE parts (id INTEGER PRIMARY KEY, message_hash TEXT, position INTEGER, type TEXT,
    tool_name TEXT, text TEXT, payload TEXT);
CREATE TABLE threads (id TEXT PRIMARY KEY, name TEXT, tip_message_hash TEXT, forked_from TEXT,
    datetime_utc TEXT);
CREATE TABLE turns (id TEXT PRIMARY KEY, thread_id TEXT, parent_message_hash TEXT, tip_message_hash TEXT,
    model TEXT, datetime_utc TEXT);
"""


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "logs.db", isolation_level=None)) as database:
        yield database


def respond(
    database: sqlite3.Connection, at: int, prompt: str, response: str, reasoning: str | None = None
) -> None:
    values = (f"r{at}", "m", prompt, None, response, "01x", f"2025-07-01T10:00:{at:02}", reasoning)
    database.execute("INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)


def add(database: sqlite3.Connection, name: str, parent: str | None, role: str, *parts: object) -> None:
    """A message; a part is its text, or (type, payload)."""
    database.execute("INSERT INTO messages VALUES (?, ?, ?, NULL)", (name, parent, role))
    for position, part in enumerate(parts):
        kind, payload = part if isinstance(part, tuple) else ("text", None)
        text = part if isinstance(part, str) else None
        values = (name, position, kind, text, json.dumps(payload) if payload else None)
        database.execute(
            "INSERT INTO parts (message_hash, position, type, text, payload) VALUES (?, ?, ?, ?, ?)", values
        )


def turn(database: sqlite3.Connection, thread_id: str, tip: str, at: int) -> None:
    values = (f"{thread_id}-{at}", thread_id, None, tip, f"m{at}", f"2026-08-01T10:00:{at:02}+00:00")
    database.execute("INSERT INTO turns VALUES (?, ?, ?, ?, ?, ?)", values)


def logged(path: Path) -> list[list[str]]:
    (thread_id,) = ThreadStore(path).list_thread_ids()
    return said(ThreadStore(path), thread_id)


# ── The table of responses ──────────────────────────────────────────────────────────────────────────────


def test_a_conversation_that_goes_on_is_extended(logs: sqlite3.Connection, tmp_path: Path) -> None:
    logs.executescript(RESPONSES)
    respond(logs, 1, "q", "a")
    imported(tmp_path / "s", tmp_path / "logs.db").has(imported=1)
    respond(logs, 2, "more", "b", "Hm.")
    imported(tmp_path / "s", tmp_path / "logs.db").has(extended=1)
    imported(tmp_path / "s", tmp_path / "logs.db").has(left=1)
    assert [text for _, text in logged(tmp_path / "s")] == ["q", "a", "more", "b"]
    store = ThreadStore(tmp_path / "s")
    (run,) = runs_of(store, "llm-01x")
    assert [step["reasoning"] for step in steps_of(store, "llm-01x", run["id"])] == [["Hm."]]


def test_fragments_and_attachments_are_in_the_message(logs: sqlite3.Connection, tmp_path: Path) -> None:
    logs.executescript(
        RESPONSES
        + """
        CREATE TABLE fragments (id INTEGER PRIMARY KEY, content TEXT);
        CREATE TABLE prompt_fragments (response_id TEXT, fragment_id INTEGER, "order" INTEGER);
        CREATE TABLE system_fragments (response_id TEXT, fragment_id INTEGER, "order" INTEGER);
        CREATE TABLE attachments (id TEXT PRIMARY KEY, type TEXT, path TEXT, url TEXT, content BLOB);
        CREATE TABLE prompt_attachments (response_id TEXT, attachment_id TEXT, "order" INTEGER);
        INSERT INTO fragments VALUES (1, 'A novel.'), (2, 'Be brief.');
        INSERT INTO prompt_fragments VALUES ('r1', 1, 0);
        INSERT INTO system_fragments VALUES ('r1', 2, 0);
        INSERT INTO attachments VALUES ('f1', 'image/png', '/home/ada/a.png', NULL, NULL);
        INSERT INTO attachments VALUES ('f2', 'text/plain', NULL, 'https://example.org/b.txt?x=1', NULL);
        INSERT INTO prompt_attachments VALUES ('r1', 'f1', 0), ('r1', 'f2', 1);
        """
    )
    respond(logs, 1, "Read.", "Read.")
    imported(tmp_path / "s", tmp_path / "logs.db").has(imported=1)
    store = ThreadStore(tmp_path / "s")
    first = lines_of(store, "llm-01x")[0]
    assert [block["type"] for block in first["content"]] == ["image_file", "text", "text"]
    assert said(store, "llm-01x")[0] == ["user", "A novel.\nRead."]
    assert first["attachments"] == [{"file_id": "f2"}]
    assert first["metadata"] == {"files": "a.png\nb.txt"}
    assert store.get_thread("llm-01x").metadata["instructions"] == "Be brief."


# ── Messages that know what they follow ─────────────────────────────────────────────────────────────────


def test_the_new_tables_are_read(logs: sqlite3.Connection, tmp_path: Path) -> None:
    logs.executescript(THREADS)
    logs.execute("INSERT INTO fragments VALUES (1, 'A novel.')")
    pieces = [{"fragment": 1}, {"literal": " Which?"}]
    call = {"name": "count", "arguments": {"of": "drones"}, "tool_call_id": "t1"}
    outcome = {"name": "count", "output": "", "tool_call_id": "t1", "exception": "ValueError"}
    add(logs, "b2:s", None, "system", "Guess.")
    add(logs, "b2:u", "b2:s", "user", ("text", {"text_ref": pieces}))
    add(logs, "b2:a", "b2:u", "assistant", ("reasoning", None), ("tool_call", call))
    logs.execute("UPDATE parts SET text = 'Hm.' WHERE type = 'reasoning'")
    add(logs, "b2:t", "b2:a", "tool", ("tool_result", outcome))
    add(logs, "b2:b", "b2:t", "assistant", "None.")
    add(logs, "b2:fork", "b2:u", "assistant", "Another.")
    logs.execute("INSERT INTO threads VALUES ('01n', 'Count', 'b2:b', NULL, NULL)")
    logs.execute("INSERT INTO threads VALUES ('01f', NULL, NULL, '01n', NULL)")
    turn(logs, "01n", "b2:a", 1)
    turn(logs, "01n", "b2:b", 2)
    turn(logs, "01f", "b2:fork", 3)
    imported(tmp_path / "s", tmp_path / "logs.db").has(imported=2)
    store = ThreadStore(tmp_path / "s")
    assert said(store, "llm-01n") == [["user", "A novel. Which?"], ["assistant", "None."]]
    assert said(store, "llm-01f") == [["user", "A novel. Which?"], ["assistant", "Another."]]
    thread = store.get_thread("llm-01n")
    assert (thread.metadata["title"], thread.metadata["instructions"]) == ("Count", "Guess.")
    assert thread.created_at == 1_785_578_401
    (run,) = runs_of(store, "llm-01n")
    called, spoke = steps_of(store, "llm-01n", run["id"])
    assert (run["model"], called["reasoning"], called["status"]) == ("m2", ["Hm."], "failed")
    assert called["step_details"]["tool_calls"][0]["function"] == {
        "name": "count",
        "arguments": '{"of": "drones"}',
        "output": "",
    }
    assert spoke["step_details"] == {"message_id": "b2:b"}


def test_a_conversation_that_went_on_in_the_new_tables_is_extended(
    logs: sqlite3.Connection, tmp_path: Path
) -> None:
    logs.executescript(RESPONSES)
    respond(logs, 1, "q", "a")
    imported(tmp_path / "s", tmp_path / "logs.db").has(imported=1)
    logs.executescript(THREADS)
    add(logs, "b2:1", None, "user", "q")
    add(logs, "b2:2", "b2:1", "assistant", "a")
    add(logs, "b2:3", "b2:2", "user", "more")
    logs.execute("INSERT INTO threads VALUES ('01x', 'q', 'b2:3', NULL, NULL)")
    imported(tmp_path / "s", tmp_path / "logs.db").has(extended=1)
    assert [text for _, text in logged(tmp_path / "s")] == ["q", "a", "more"]


def test_messages_in_a_circle_end(logs: sqlite3.Connection, tmp_path: Path) -> None:
    logs.executescript(THREADS)
    add(logs, "b2:1", "b2:2", "user", "q")
    add(logs, "b2:2", "b2:1", "assistant", "a")
    logs.execute("INSERT INTO threads VALUES ('01c', NULL, 'b2:2', NULL, NULL)")
    imported(tmp_path / "s", tmp_path / "logs.db").has(imported=1)
    assert [text for _, text in logged(tmp_path / "s")] == ["q", "a"]


# ── A database in use ───────────────────────────────────────────────────────────────────────────────────

WRITER = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute(f"PRAGMA journal_mode = {sys.argv[2]}")
database.execute("PRAGMA wal_autocheckpoint = 20")
at = 0
while True:
    at += 1
    database.execute("BEGIN IMMEDIATE")
    for half in ("a", "b"):
        database.execute("INSERT INTO responses VALUES (?, 'm', ?, NULL, ?, '01x', ?, NULL)",
            (f"{at:06}{half}", f"q{at}{half}", "x" * 3000, f"2025-07-01T10:{at:06}{half}"))
    database.execute("COMMIT")
    print(flush=True)
    time.sleep(float(sys.argv[3]))
"""


@pytest.mark.parametrize(("mode", "pause_s"), [("WAL", 0.002), ("DELETE", 0.1), ("PERSIST", 0.1)])
def test_what_another_process_writes_meanwhile_comes_in_by_whole_transactions(
    mode: str, pause_s: float, logs: sqlite3.Connection, tmp_path: Path
) -> None:
    logs.executescript(RESPONSES)
    command = [sys.executable, "-c", WRITER, str(tmp_path / "logs.db"), mode, str(pause_s)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    try:
        for _ in range(30 if mode == "WAL" else 2):
            writer.stdout.readline()
        before = 0
        for _ in range(4):
            writer.stdout.readline()
            result = imported(tmp_path / "s", tmp_path / "logs.db")
            assert (result.status, result.stderr) == (0, "")
            texts = [text for role, text in logged(tmp_path / "s") if role == "user"]
            assert len(texts) % 2 == 0
            assert len(texts) >= before
            before = len(texts)
            assert texts == [f"q{at}{half}" for at in range(1, len(texts) // 2 + 1) for half in "ab"]
    finally:
        writer.kill()
        writer.communicate()


def test_what_is_not_complete_is_not_there_yet(logs: sqlite3.Connection, tmp_path: Path) -> None:
    logs.execute("PRAGMA cache_size = 2")
    logs.executescript(RESPONSES)
    respond(logs, 1, "q", "a")
    logs.execute("BEGIN")
    for at in range(2, 40):
        respond(logs, at, "x" * 4000, "y")  # So much that it is in the file before it is complete.
    assert b"xxxx" in (tmp_path / "logs.db").read_bytes()
    imported(tmp_path / "s", tmp_path / "logs.db").has(imported=1)
    assert [text for _, text in logged(tmp_path / "s")] == ["q", "a"]
    logs.execute("ROLLBACK")


def test_a_database_that_never_stays_the_same_is_named_and_the_others_come_in(
    logs: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs.executescript(RESPONSES)
    monkeypatch.setattr("threadfs.importing.databases._ATTEMPTS", 2)
    monkeypatch.setattr("threadfs.importing.databases._TICK_NS", 10**18)
    result = imported(tmp_path / "s", tmp_path / "logs.db", FIXTURES / "librechat/export/flat.json")
    result.has(imported=1, skipped=1)
    assert "logs.db: another program keeps changing it: import it again later" in result.stderr


def test_nothing_is_made_beside_the_database_and_it_stays_as_it_is(
    logs: sqlite3.Connection, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with closing(sqlite3.connect(home / "logs.db", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(RESPONSES)
        respond(database, 1, "q", "a")
        before = everything(home)
        names = sorted(path.name for path in home.iterdir())
        imported(tmp_path / "s", home).has(imported=1)
        assert everything(home) == before
        assert sorted(path.name for path in home.iterdir()) == names
    assert logged(tmp_path / "s") == [["user", "q"], ["assistant", "a"]]


def test_a_database_that_may_only_be_read_is_read(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "logs.db").write_bytes((FIXTURES / "llm/responses/logs.db").read_bytes())
    os.chmod(home / "logs.db", 0o444)
    os.chmod(home, 0o555)
    imported(tmp_path / "s", home / "logs.db").has(imported=3, empty=1)


def test_a_database_in_a_zip_comes_with_what_was_not_in_it_yet(
    logs: sqlite3.Connection, tmp_path: Path
) -> None:
    logs.execute("PRAGMA journal_mode = WAL")
    logs.executescript(RESPONSES)
    respond(logs, 1, "q", "a")
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        for name in ("logs.db", "logs.db-wal"):
            archive.write(tmp_path / name, f"backup/{name}")
    imported(tmp_path / "s", tmp_path / "e.zip").has(imported=1)
    assert logged(tmp_path / "s") == [["user", "q"], ["assistant", "a"]]


def test_a_database_on_stdin_is_read(tmp_path: Path) -> None:
    data = (FIXTURES / "llm/responses/logs.db").read_bytes()
    imported(tmp_path / "s", stdin=data).has(imported=3, empty=1)


def test_a_database_that_is_damaged_is_named(tmp_path: Path) -> None:
    data = bytearray((FIXTURES / "llm/responses/logs.db").read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    (tmp_path / "logs.db").write_bytes(data)
    result = imported(tmp_path / "s", tmp_path / "logs.db")
    assert result.status == 1
    assert "logs.db: the database cannot be read to its end" in result.stderr


def test_nothing_is_left_of_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    imported(tmp_path / "s", FIXTURES / "llm/responses/logs.db", FIXTURES / "detect/other.sqlite")
    assert list((tmp_path / "tmp").iterdir()) == []
