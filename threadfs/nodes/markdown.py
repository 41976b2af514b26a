"""A conversation as Markdown: how a message and the end of a run are written. Pure functions."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime

from store import Run, ThreadMessage
from threadfs.journal import printable

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
# What Markdown takes for the end of a line.
_LINE_END = re.compile(r"\r\n|\r|\n")
# Lines of a message that would look like ours.
_OURS = re.compile(r" {0,3}(## |> Run `)")


def head(thread_id: str) -> str:
    return f"# {printable(thread_id)}\n"


def paragraph(message: ThreadMessage) -> str:
    blocks = ["" if block.type == "text" else f"*({printable(block.type)})*\n" for block in message.content]
    text = "".join(blocks) + message.text
    return f"\n## {message.role.value.capitalize()}, {_time(message.created_at)}\n\n{_contained(text)}\n"


def outcome(run: Run) -> str:
    by = f" by {printable(run.model)}" if run.model else ""
    why = f": {printable(run.last_error.message)}" if run.last_error else ""
    return f"\n> Run `{printable(run.id)}`{by} {run.status.value}{why}\n"


def ended_at(run: Run) -> int:
    """When a run that has ended did, in Unix seconds, or the latest time that is known of it."""
    times = (run.cancelled_at, run.failed_at, run.completed_at, run.started_at, run.created_at)
    return next(at for at in times if at is not None)


def _time(seconds: int) -> str:
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return "at an unknown time"


def _contained(text: str) -> str:
    """*text* such that it cannot pass for another message: our headings escaped, code blocks closed."""
    lines = []
    fence = ""
    for line in _LINE_END.split(text):
        match = _FENCE.match(line)
        if match and not fence:
            fence = match[1]
        elif match and match[1].startswith(fence) and not match[2].strip():
            fence = ""
        lines.append("\\" + line.lstrip(" ") if not fence and _OURS.match(line) else line)
    if fence:
        lines.append(fence)
    return "\n".join(lines)
