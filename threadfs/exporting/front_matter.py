"""The head of a note: its properties in programs for notes, and the id by which it is found again."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import IO

from store import MessageRole, Store, Thread
from store.printing import printable_json
from threadfs.nodes import markdown

_MARK = "---"
# A longer head is not read to its end: it is none of ours.
_MAX_BYTES = 64 * 1024
_MAX_TITLE = 1000
# Of a thread without a title: so much of the first line that the user said.
_MAX_FIRST_LINE = 80


def title_of(store: Store, thread: Thread) -> str:
    """The title of a thread; without one, the first line that the user said; else its id."""
    if title := markdown.title_of(thread.metadata):
        return title[:_MAX_TITLE]
    texts = (message.text for message in store.iter_messages(thread.id) if message.role is MessageRole.user)
    line = next((line.strip() for text in texts for line in text.splitlines() if line.strip()), thread.id)
    return line if len(line) <= _MAX_FIRST_LINE else f"{line[: _MAX_FIRST_LINE - 1].rstrip()}…"


def front_matter(thread: Thread, title: str, updated_s: int | None) -> str:
    """The head, to the line that ends it; *updated_s* is ``None`` for a thread in which nothing was said."""
    source = thread.metadata.get("source") if isinstance(thread.metadata, dict) else None
    properties = {
        "title": _quoted(title),
        "created": _time(thread.created_at),
        "updated": _time(thread.created_at if updated_s is None else updated_s),
        "source": _quoted(source if isinstance(source, str) else ""),
        "id": _quoted(thread.id),
    }
    lines = [_MARK, *(f"{name}: {value}" for name, value in properties.items()), _MARK]
    return "".join(f"{line}\n" for line in lines)


def id_in(file: IO[bytes]) -> str:
    """The id in the head of a file; none if it has none."""
    first, *others = file.read(_MAX_BYTES).decode(errors="replace").split("\n")
    if first.strip() != _MARK:
        return ""
    for line in others:
        if line.strip() == _MARK:
            break
        if line.startswith("id:"):
            return _unquoted(line.removeprefix("id:").strip())
    return ""


def _quoted(text: str) -> str:
    """A text in YAML, of which JSON is a part as long as all its characters can be printed."""
    return printable_json(json.dumps(text, ensure_ascii=False))


def _unquoted(text: str) -> str:
    """Programs for notes write a head anew, without the quotes that it had."""
    with suppress(ValueError, RecursionError):
        value = json.loads(text)
        return value if isinstance(value, str) else text
    return text


def _time(seconds: int) -> str:
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return "null"
