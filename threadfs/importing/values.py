"""Reading fields of foreign JSON: each function takes any value, and returns one of the type it should be."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TypeAlias

Fields: TypeAlias = dict[str, Any]

# Times in seconds since 1970 that a store can keep: nanoseconds in 64 bits.
_LATEST_S = (1 << 63) // 1_000_000_000
# From here on a number is milliseconds: as seconds it would be the year 5138.
_MILLISECONDS = 100_000_000_000


def fields(value: Any) -> Fields:
    return value if isinstance(value, dict) else {}


def entries(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def objects(value: Any) -> Iterator[Fields]:
    """The objects in a list."""
    return (entry for entry in entries(value) if isinstance(entry, dict))


def text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def id_of(value: Any) -> str:
    """An id, a text or a number, as text; empty when there is none."""
    if isinstance(value, bool):
        return ""
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else ""


def embedded(address: str) -> str:
    """The bytes that a ``data:`` address holds, as base64; empty for other addresses."""
    return address.partition(";base64,")[2] if address.startswith("data:") else ""


def as_text(value: Any) -> str:
    """A text unchanged, anything else as JSON; empty for null."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def time_s(value: Any) -> int | None:
    """Whole seconds since 1970, of seconds, milliseconds, ISO 8601 or a number as text, if it is a time."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            try:
                moment = datetime.fromisoformat(value)
                value = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
            except (ValueError, OverflowError):
                return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    seconds = value / 1000 if value >= _MILLISECONDS else value
    return int(seconds) if 1 <= seconds < _LATEST_S else None


def digest(value: str, digits: int = 32) -> str:
    """The first *digits* hex digits of a text's SHA-256."""
    return hashlib.sha256(value.encode(errors="replace")).hexdigest()[:digits]


def canonical(value: Any) -> str:
    """JSON that is the same for equal values, whatever the order of their fields."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
