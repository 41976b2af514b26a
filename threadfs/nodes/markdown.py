"""A conversation as Markdown: its head, a message, the end of a run. Pure functions.

A transcript is not stored text, so control characters in it are escaped: see `store.printing`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime

from store import ContentBlock, Run, TextContent, ThreadMessage
from store.printing import printable, printable_lines

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_BLANKS = re.compile(r"[ \t\n]+")
# Lines in a message that look like our own headings.
_OURS = re.compile(r" {0,3}(## |> Run `)")
# How much of a data: URL is shown: enough to see its type.
_DATA_URL_CHARACTERS = 64


def title_of(metadata: object) -> str:
    """The title of a thread on one line; empty if its metadata have none."""
    title = metadata.get("title") if isinstance(metadata, dict) else None
    return _BLANKS.sub(" ", title).strip() if isinstance(title, str) else ""


def head(thread_id: str, title: str) -> str:
    """The title as a heading, with the id below; without a title the id is the heading."""
    return f"# {printable(title)}\n\n`{printable(thread_id)}`\n" if title else f"# {printable(thread_id)}\n"


def paragraph(message: ThreadMessage) -> str:
    text = "\n".join(_block(block) for block in message.content)
    return f"\n## {message.role.value.capitalize()}, {_time(message.created_at)}\n\n{text}\n"


def _block(block: ContentBlock) -> str:
    if isinstance(block.text, TextContent):
        return _contained(block.text.value)
    kind = f"*({printable(block.type)})*"
    fields = block.fields()
    if block.type == "refusal" and isinstance(words := fields.get("refusal"), str):
        return _contained(f"{kind} {words}")
    image = fields.get("image_url") if block.type == "image_url" else None
    url = image.get("url") if isinstance(image, dict) else None
    return f"{kind} {_url(url)}" if isinstance(url, str) else kind


def _url(url: str) -> str:
    if url.startswith("data:") and len(url) > _DATA_URL_CHARACTERS:
        url = f"{url[:_DATA_URL_CHARACTERS]}…"
    return printable(url)


def outcome(run: Run) -> str:
    by = f" by {printable(run.model)}" if run.model else ""
    why = f": {printable(run.last_error.message)}" if run.last_error else ""
    return f"\n> Run `{printable(run.id)}`{by} {run.status.value}{why}\n"


def ended_at(run: Run) -> int:
    """When a run ended, in Unix seconds; if that is unknown, the latest time in its document."""
    times = (run.cancelled_at, run.failed_at, run.completed_at, run.started_at, run.created_at)
    return next(at for at in times if at is not None)


def _time(seconds: int) -> str:
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return "at an unknown time"


def _contained(text: str) -> str:
    """*text* with our headings escaped and code blocks closed: it cannot look like another message."""
    lines = []
    fence = ""
    for line in printable_lines(text).split("\n"):
        match = _FENCE.match(line)
        if match and not fence:
            fence = match[1]
        elif match and match[1].startswith(fence) and not match[2].strip():
            fence = ""
        lines.append("\\" + line.lstrip(" ") if not fence and _OURS.match(line) else line)
    if fence:
        lines.append(fence)
    return "\n".join(lines)
