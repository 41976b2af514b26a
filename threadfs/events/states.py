"""What a document says, as far as events are about it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, NamedTuple

from store import DocumentKey, InvalidDocument, RunStatus, documents

# Where a run that has ended says since when.
_TIME_OF: Final = {
    RunStatus.completed.value: "completed_at",
    RunStatus.failed.value: "failed_at",
    RunStatus.cancelled.value: "cancelled_at",
}


class State(NamedTuple):
    """What a document says: a fingerprint of its bytes, its status, and when, in seconds since 1970, it was
    created and got that status, as far as it tells."""

    fingerprint: int
    status: str = ""
    created_s: int = 0
    status_s: int | None = None


# No document is there: it has gone, or there is a directory for it, which may become a thread or run.
GONE: Final = State(0, "gone")
BEING_MADE: Final = State(0, "being made")


def state_of(key: DocumentKey, data: bytes) -> State:
    fields: dict[str, Any] = {}
    with suppress(InvalidDocument):  # It is damaged, and there nevertheless.
        fields = documents.parse(data)
    given = fields.get("status") if key.run_id else None
    status = given if isinstance(given, str) else ""
    since = fields.get(_TIME_OF.get(status, ""))
    created_s = fields.get("created_at")
    return State(
        hash(data),
        status,
        created_s if type(created_s) is int else 0,
        since if type(since) is int else None,
    )
