"""``threadfs export`` in this process, and stores to export."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from store import RunContents, ThreadStore
from threadfs.cli import main

CREATED_S = 1_764_324_000  # 2025-11-28 10:00:00 UTC


def export(*arguments: object) -> tuple[int, str, str]:
    """``threadfs export ARGUMENTS``: its status, stdout and stderr."""
    stdout, stderr = io.TextIOWrapper(io.BytesIO(), "utf-8", newline=""), io.StringIO()
    with redirect_stdout(stdout), redirect_stderr(stderr):
        status = main(["export", *map(str, arguments)])
    stdout.seek(0)
    assert "Traceback" not in stderr.getvalue()
    return status, stdout.read(), stderr.getvalue()


def exported(*arguments: object) -> str:
    """What an export that succeeds wrote to stdout."""
    status, stdout, stderr = export(*arguments)
    assert (status, stderr) == (0, "")
    return stdout


def message(role: str, content: Any, at_s: int = CREATED_S, **fields: Any) -> bytes:
    blocks = [{"type": "text", "text": {"value": content, "annotations": []}}]
    blocks = blocks if isinstance(content, str) else content
    made = document(
        id=f"{role}-{at_s}", object="thread.message", created_at=at_s, role=role, content=blocks, **fields
    )
    return made + b"\n"


def run(run_id: str, *steps: Any, at_s: int = CREATED_S) -> dict[str, RunContents]:
    """A run; each of *steps* is the id of a message, or a list of calls."""
    documents = {}
    for position, step in enumerate(steps):
        is_message = isinstance(step, str)
        details = {"message_id": step} if is_message else {"type": "tool_calls", "tool_calls": step}
        kind = "message_creation" if is_message else "tool_calls"
        documents[f"step-{position}"] = document(
            step_type=kind, status="completed", created_at=at_s, step_details=details
        )
    made = document(object="thread.run", status="completed", created_at=at_s, model="m")
    return {run_id: RunContents(made, documents)}


def function(name: str, arguments: str, output: str | None = None, call_id: str = "call_1") -> dict[str, Any]:
    own = {"name": name, "arguments": arguments} | ({} if output is None else {"output": output})
    return {"id": call_id, "type": "function", "function": own}


def document(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def add(
    store: Path,
    thread_id: str,
    *messages: bytes,
    runs: dict[str, RunContents] | None = None,
    created_s: int = CREATED_S,
    **metadata: Any,
) -> None:
    """A thread in the store, which is made if it is missing."""
    made = document(created_at=created_s, metadata=metadata)
    ThreadStore(store).import_thread(thread_id, made, messages, runs or {})
