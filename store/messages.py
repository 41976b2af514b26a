"""The messages in the lines of a log, by their model."""

from __future__ import annotations

from store import documents
from store.documents import MAX_LINE_BYTES
from store.errors import InvalidDocument
from store.models import ThreadMessage


def message_of(line: bytes, thread_id: str) -> ThreadMessage | None:
    """The message in a line of a log; ``None`` when it holds none."""
    if not line.strip() or len(line) > MAX_LINE_BYTES:
        return None
    try:
        return ThreadMessage.of({**documents.parse(line), "thread_id": thread_id})
    except InvalidDocument:
        return None
