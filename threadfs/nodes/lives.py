"""How long a name, and what it shows, may be remembered."""

from __future__ import annotations

from enum import Enum, auto


class Life(Enum):
    # The name exists as long as the mount.
    MOUNT = auto()
    # Until the store reports a change: in `Node.listed_in` for the name, in `Node.scope` for the rest.
    REPORTED = auto()
    # The name, and the rest, may change or vanish at any time without a report.
    UNREPORTED = auto()
