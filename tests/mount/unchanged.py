"""A thread that a test must leave as it was, every file of it that can be written, and how a write ends."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.mount.conftest import Mount

DOCUMENTS = {
    "meta.json": "meta.json",
    "status": "runs/R/status",
    "step": "runs/R/steps/S.json",
    "new step": "runs/R/steps/new.json",
}
CONTROLS = {"say": "say", "ask": "ask", "start": "start", "cancel": "runs/R/cancel"}
WRITABLE = {**DOCUMENTS, **CONTROLS, "messages.jsonl": "messages.jsonl"}
STORED = {name: path for name, path in WRITABLE.items() if name not in CONTROLS and name != "new step"}

State = dict[str, tuple[bytes, int, int]]


def made(mount: Mount) -> Path:
    """The thread, which is made when it is not there yet."""
    thread = mount.path("threads", "T")
    if not thread.exists():
        thread.mkdir()
        (thread / "runs" / "R").mkdir()
        (thread / "runs" / "R" / "steps" / "S.json").write_text('{"step_type":"tool_calls"}')
        (thread / "messages.jsonl").write_text('{"role":"user","content":"one"}\n' * 2)
    return thread


@contextmanager
def unchanged(mount: Mount) -> Iterator[Path]:
    """The thread; afterwards all that is stored must be the same, down to the files that hold it."""
    thread = made(mount)
    before = _state(mount)
    yield thread
    assert _state(mount) == before


def _state(mount: Mount) -> State:
    found = {}
    for path in mount.store.glob("**/*"):
        if path.is_file():
            status = path.stat()
            found[str(path)] = (path.read_bytes(), status.st_mtime_ns, status.st_ino)
    return found


def refusal(path: Path, data: bytes, *, at: int = 0, flags: int = os.O_TRUNC | os.O_CREAT) -> str:
    """The name of the errno that writing *data* and syncing it ends with."""
    file = os.open(path, os.O_WRONLY | flags)
    found = "accepted"
    try:
        while data:
            written = os.pwrite(file, data, at)
            at, data = at + written, data[written:]
        os.fsync(file)
    except OSError as error:
        found = errno.errorcode[error.errno or 0]
    with suppress(OSError):  # Closing half a line is one refusal more.
        os.close(file)
    return found
