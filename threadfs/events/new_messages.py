"""Where in a log the new messages begin."""

from __future__ import annotations

from typing import Final

from store.api import LogReader
from store.messages import message_of
from threadfs.nodes.reading_on import LogPlace

_WINDOW_BYTES: Final = 1 << 16


def place_before_new(log: LogReader, thread_id: str, since_s: int) -> LogPlace:
    """The place before the messages at the end that were created since a time, in seconds since 1970."""
    place = LogPlace()
    place.is_in(log)
    size = end = log.info().size_bytes
    window = _WINDOW_BYTES
    while end:
        start = max(0, size - window)
        # The first line of a window is whole if the window begins with the log.
        lines = log.read(start, end - start).splitlines(keepends=True)
        for line in reversed(lines[1 if start else 0 :]):
            message = message_of(line.rstrip(b"\n"), thread_id)
            if message is not None and message.created_at < since_s:
                place.passed(line.rstrip(b"\n"), end)
                return place
            end -= len(line)
        if not start:
            break
        window *= 4
    return place
