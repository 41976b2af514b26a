"""Every way to damage a store on purpose, for the tests of `threadfs fsck`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.documents import MAX_LINE_BYTES
from tests.cli.conftest import OSLO

RUN = "run_c46007e0acda2f49db1368177542ef51"
STEP = "step-26e340b3366015430b70fc6674a1582d"
LONG_AGO = (1_000_000_000, 1_000_000_000)


def edit(path: Path, **fields: Any) -> None:
    """Sets fields of a stored document; ``None`` takes one out."""
    document = {**json.loads(path.read_bytes()), **fields}
    path.write_text(json.dumps({name: value for name, value in document.items() if value is not None}))


def edit_line(path: Path, number: int, change: Callable[[bytes], bytes]) -> None:
    lines = path.read_bytes().split(b"\n")
    lines[number - 1] = change(lines[number - 1])
    path.write_bytes(b"\n".join(lines))


def replaced_by_fifo(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    os.mkfifo(path)


def replaced_by_link(path: Path) -> None:
    shutil.rmtree(path)
    path.symlink_to("/")


def leave(path: Path) -> None:
    path.write_text("half")
    os.utime(path, LONG_AGO)


@dataclass(frozen=True)
class Damage:
    """How a thread is damaged, where fsck is to see it, and how bad that is."""

    name: str
    make: Callable[[Path], object]
    path: str
    words: str
    severity: str = "error"


META, LOG = f"{OSLO}/meta.json", f"{OSLO}/messages.jsonl"
STATUS = f"{OSLO}/runs/{RUN}/status.json"
STEP_FILE = f"{OSLO}/runs/{RUN}/steps/{STEP}.json"
DAMAGES = [
    Damage("a document that is cut off", lambda s: (s / META).write_text('{"id": "Tr'), META, "not JSON"),
    Damage("an empty document", lambda s: (s / META).write_bytes(b""), META, "not JSON"),
    Damage("zeros", lambda s: (s / STATUS).write_bytes(bytes(400)), STATUS, "not JSON"),
    Damage("not UTF-8", lambda s: (s / STATUS).write_bytes(b'{"\xff": 1}'), STATUS, "not UTF-8"),
    Damage("not an object", lambda s: (s / STATUS).write_text("[]"), STATUS, "not a JSON object"),
    Damage("a list that is very deep", lambda s: (s / STATUS).write_text("[" * 99_999), STATUS, "nested"),
    Damage(
        "half of a surrogate pair",
        lambda s: edit(s / META, metadata={"a": "\ud800"}),
        META,
        "surrogate",
    ),
    Damage(
        "half of a surrogate pair in a run",
        lambda s: edit(s / STATUS, note="\ud800"),
        STATUS,
        "surrogate",
    ),
    Damage(
        "half of a surrogate pair in a line",
        lambda s: edit_line(s / LOG, 1, lambda line: line[:-1] + b',"note":"\\ud800"}'),
        LOG,
        "line 1: a text holds half",
    ),
    Damage("NaN", lambda s: edit(s / META, metadata=float("nan")), META, "NaN"),
    Damage("an unknown status", lambda s: edit(s / STATUS, status="lost"), STATUS, "status"),
    Damage("no time", lambda s: edit(s / META, created_at=None), META, "created_at"),
    Damage("a damaged step", lambda s: (s / STEP_FILE).write_text("?"), STEP_FILE, "not JSON"),
    Damage("a FIFO for a document", lambda s: replaced_by_fifo(s / META), META, "not a regular file"),
    Damage("a FIFO for a log", lambda s: replaced_by_fifo(s / LOG), LOG, "not a regular file"),
    Damage(
        "a FIFO for the runs",
        lambda s: replaced_by_fifo(s / OSLO / "runs"),
        f"{OSLO}/runs",
        "not a directory",
    ),
    Damage(
        "a link for the steps",
        lambda s: replaced_by_link(s / OSLO / "runs" / RUN / "steps"),
        f"{OSLO}/runs/{RUN}/steps",
        "not a directory",
    ),
    Damage(
        "a document of another thread",
        lambda s: edit(s / META, id="other"),
        META,
        "id: 'other'",
        "warning",
    ),
    Damage(
        "a run of another thread",
        lambda s: edit(s / STATUS, thread_id="other"),
        STATUS,
        "thread_id: 'other'",
        "warning",
    ),
    Damage(
        "a line that is no JSON", lambda s: edit_line(s / LOG, 2, lambda _: b"?"), LOG, "line 2: not JSON"
    ),
    Damage(
        "a line that is no message",
        lambda s: edit_line(s / LOG, 1, lambda _: b'{"id": 1}'),
        LOG,
        "line 1: created_at: missing",
    ),
    Damage(
        "a line that is too long",
        lambda s: edit_line(s / LOG, 1, lambda _: b"x" * (MAX_LINE_BYTES + 1)),
        LOG,
        "line 1: longer",
    ),
    Damage(
        "a message of another thread",
        lambda s: edit_line(s / LOG, 1, lambda line: line.replace(OSLO.encode(), b"Trip to Rome")),
        LOG,
        "line 1: thread_id: 'Trip to Rome'",
        "warning",
    ),
    Damage(
        "a last line without its end",
        lambda s: (s / LOG).write_bytes((s / LOG).read_bytes()[:-1]),
        LOG,
        "has no end",
        "warning",
    ),
    Damage(
        "half a last line",
        lambda s: (s / LOG).write_bytes((s / LOG).read_bytes()[:-9]),
        LOG,
        "has no end",
        "warning",
    ),
    Damage(
        "a step whose message is not there",
        lambda s: edit(s / STEP_FILE, step_details={"message_id": "msg_9"}),
        STEP_FILE,
        "there is no message 'msg_9'",
        "warning",
    ),
    Damage("a thread without document", lambda s: (s / META).unlink(), OSLO, "without meta.json"),
    Damage(
        "a run without document",
        lambda s: (s / STATUS).unlink(),
        f"{OSLO}/runs/{RUN}",
        "without status.json",
    ),
    Damage("a name that is no id", lambda s: (s / OSLO).rename(s / "a@b"), "a@b", "not shown"),
    Damage(
        "a name that is not UTF-8",
        lambda s: (s / OSLO).rename(Path(os.fsdecode(os.fsencode(s) + b"/\xff"))),
        "\\udcff",
        "UTF-8",
    ),
    Damage(
        "a name with a newline",
        lambda s: (s / OSLO).rename(s / "two\nlines"),
        "two\\nlines",
        "control characters",
    ),
    Damage(
        "a run whose name is no id",
        lambda s: (s / OSLO / "runs" / RUN).rename(s / OSLO / "runs" / "a@b"),
        f"{OSLO}/runs/a@b",
        "not shown",
    ),
    Damage(
        "a step whose name is no id",
        lambda s: (s / STEP_FILE).rename((s / STEP_FILE).with_name("a@b.json")),
        f"{OSLO}/runs/{RUN}/steps/a@b.json",
        "not shown",
    ),
    Damage(
        "a temporary file", lambda s: leave(s / OSLO / ".tmpAb12Cd"), f"{OSLO}/.tmpAb12Cd", "left", "warning"
    ),
]

# Every field without which another program of this format could not read a document.
REQUIRED = {
    META: ("id", "object", "created_at", "metadata"),
    STATUS: ("id", "object", "created_at", "thread_id", "status", "model"),
    STEP_FILE: ("id", "object", "run_id", "thread_id", "step_type", "status", "created_at"),
    LOG: ("id", "object", "created_at", "thread_id", "role", "content"),
}
GONE = object()


def set_field(path: Path, steps: tuple[str | int, ...], value: Any) -> None:
    """Sets a field of a document, or of the first line of a log, or takes it out; the rest stays."""
    first, *rest = path.read_bytes().split(b"\n") if path.suffix == ".jsonl" else [path.read_bytes()]
    document = json.loads(first)
    inner: Any = document
    for step in steps[:-1]:
        inner = inner[step]
    if value is GONE:
        del inner[steps[-1]]
    else:
        inner[steps[-1]] = value
    compact = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    path.write_bytes(b"\n".join([compact.encode(), *rest]))


def field_damage(path: str, steps: tuple[str | int, ...], how: str, value: Any) -> Damage:
    name = ".".join(map(str, steps))
    words = f"{name}: missing" if value is GONE else name.split(".text")[0]
    return Damage(f"{how} {name} of {path}", lambda s: set_field(s / path, steps, value), path, words)


DAMAGES += [
    field_damage(path, (name,), how, value)
    for path, names in REQUIRED.items()
    for name in names
    for how, value in (("no", GONE), ("null for", None), ("a list for", ["x"]))
    # Of metadata the format says nothing more.
    if value is GONE or name != "metadata"
]
BLOCK, TEXT = ("content", 0), ("content", 0, "text")
DAMAGES += [
    field_damage(LOG, steps, how, value)
    for steps in ((*BLOCK, "type"), TEXT, (*TEXT, "value"), (*TEXT, "annotations"))
    for how, value in (("no", GONE), ("null for", None), ("a number for", 7))
    if value is not GONE or steps[-1] in ("type", "annotations")
]
DAMAGES += [
    field_damage(STATUS, ("last_error",), "no message in", {"code": "c"}),
    field_damage(STATUS, ("created_at",), "too large a time for", 2**63),
    field_damage(STATUS, ("created_at",), "a fraction for", 1.5),
    field_damage(STEP_FILE, ("created_at",), "a time before 1970 for", -7),
]
