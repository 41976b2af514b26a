"""The command in this process, and what it left in a store."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from store import DocumentKey, Store, ThreadStore
from threadfs.cli import main

FIXTURES = Path(__file__).with_name("fixtures")
CASES = sorted(path.parent for path in FIXTURES.glob("*/*/expected.json"))
_SUMMARY = re.compile(
    r"(?P<imported>\d+) imported, (?P<extended>\d+) extended, (?P<branch>\d+) branch(?:es)?,"
    r" (?P<left>\d+) were there already, (?P<empty>\d+) empty, (?P<skipped>\d+) skipped.*\n"
)

# That a store is new, which tests/cli/test_foreign.py is about.
_NEW = re.compile(
    r"threadfs: (made a new store: .*|.* is not there yet: what is imported makes it"
    r"|.* has no thread yet: it is taken for a new store)\n"
)

Fields: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Result:
    status: int
    stdout: str
    stderr: str

    @property
    def counts(self) -> dict[str, int]:
        found = _SUMMARY.fullmatch(self.stdout)
        assert found, self.stdout
        return {name: int(number) for name, number in found.groupdict().items()}

    def has(self, **counts: int) -> None:
        """These numbers are in the summary, and no other is."""
        given = dict.fromkeys(self.counts, 0) | counts
        assert self.counts == given, self.stderr


def complaints(stderr: str) -> str:
    """What an import says on stderr, without that its store is new."""
    return _NEW.sub("", stderr)


def imported(*arguments: object, stdin: bytes = b"") -> Result:
    """``threadfs import ARGUMENTS``, and its `complaints`."""
    stdout, stderr = io.StringIO(), io.StringIO()
    before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(stdin))
    try:
        with redirect_stdout(stdout), redirect_stderr(stderr):
            status = main(["import", *map(str, arguments)])
    finally:
        sys.stdin = before
    assert "Traceback" not in stderr.getvalue()
    return Result(status, stdout.getvalue(), complaints(stderr.getvalue()))


def everything(root: Path) -> dict[str, bytes]:
    """All files of a store, with their times."""
    return {
        f"{path.relative_to(root)} {path.stat().st_mtime_ns}": path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def bytes_of(root: Path) -> dict[str, bytes]:
    """All files of a store."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def lines_of(store: Store, thread_id: str) -> list[Fields]:
    log = store.open_log(thread_id)
    try:
        return [json.loads(line) for line in log.read(0, 1 << 24).splitlines()]
    finally:
        log.close()


def said(store: Store, thread_id: str) -> list[list[str]]:
    """Role and text of each message."""
    return [[message.role.value, message.text] for message in store.list_messages(thread_id)]


def steps_of(store: Store, thread_id: str, run_id: str) -> list[Fields]:
    return [
        json.loads(store.read_document(DocumentKey(thread_id, run_id, step.id))[0])
        for step in store.list_steps(thread_id, run_id)
    ]


def runs_of(store: Store, thread_id: str) -> list[Fields]:
    """The runs, the oldest first."""
    runs = [store.get_run(thread_id, run_id) for run_id in store.list_run_ids(thread_id)]
    return [run.fields() for run in sorted(runs, key=lambda run: (run.created_at, run.id))]


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def chatgpt(*turns: str, conversation_id: str = "c", **fields: Any) -> Fields:
    """A conversation of ChatGPT: the user and the assistant take turns."""
    mapping: Fields = {"root": {"id": "root", "parent": None, "message": None}}
    parent = "root"
    for number, turn in enumerate(turns):
        node = f"{conversation_id}-{number}"
        role = "assistant" if number % 2 else "user"
        message = {
            "id": node,
            "author": {"role": role},
            "create_time": 1_700_000_000 + number,
            "content": {"content_type": "text", "parts": [turn]},
            "recipient": "all",
        }
        mapping[node] = {"id": node, "parent": parent, "message": message}
        parent = node
    made = {"title": "Title", "conversation_id": conversation_id, "create_time": 1_700_000_000.0}
    return {**made, "current_node": parent, "mapping": mapping, **fields}


def written(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


# The location of a new store, and the store there.
Place: TypeAlias = tuple[str, Callable[[], Store]]


@pytest.fixture(params=["disk", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "disk":
        location = os.fspath(tmp_path / "store")
        yield location, lambda: ThreadStore(location)
    else:
        yield request.getfixturevalue("url"), request.getfixturevalue("open_store")
