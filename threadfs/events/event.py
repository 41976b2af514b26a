"""An event and its line."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Final, NamedTuple

MISSED: Final = "changes.missed"
_NS: Final = 1_000_000_000


class Event(NamedTuple):
    """What happened, to what, and when (nanoseconds since 1970).

    ``name`` has the kind of object first: ``thread.created``, ``thread.updated``, ``thread.deleted``;
    ``message.created``; ``run.<status>``, ``run.updated``, ``run.deleted``; ``step.created``,
    ``step.<status>``, ``step.updated``, ``step.deleted``. Or it is `MISSED`: more may have happened than was
    told.
    """

    time_ns: int
    name: str
    thread_id: str = ""
    run_id: str | None = None
    message_id: str | None = None
    step_id: str | None = None
    status: str | None = None

    def line(self) -> bytes:
        """A JSON object with a newline; what does not apply is not in it."""
        fields: dict[str, str] = {"time": time_text(self.time_ns), "event": self.name}
        ids = {
            "thread_id": self.thread_id or None,
            "run_id": self.run_id,
            "message_id": self.message_id,
            "step_id": self.step_id,
            "status": self.status,
        }
        fields.update((name, value) for name, value in ids.items() if value is not None)
        return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def time_text(time_ns: int) -> str:
    """As ISO 8601 has it, in UTC, with milliseconds."""
    seconds, rest_ns = divmod(time_ns, _NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns // 1_000_000:03}Z"


def of_seconds(time_s: int) -> int:
    """Nanoseconds of a time in a document, which any program may have written."""
    return time_s * _NS if 0 <= time_s < 1 << 33 else 0


def event_of(line: bytes) -> Event:
    """The reverse of `Event.line`. Raises ValueError."""
    fields = json.loads(line)
    time_ns = round(datetime.fromisoformat(fields.pop("time")).timestamp() * 1000) * (_NS // 1000)
    return Event(time_ns, fields.pop("event"), **fields)
