"""How long the name and attributes of a node may be remembered.

The nodes only say what ends the life of what they show. How many seconds that is depends on what the store's
watch follows, which `fuse.kernel_cache` knows.
"""

from __future__ import annotations

from enum import Enum, auto


class Life(Enum):
    # The name exists as long as the mount.
    MOUNT = auto()
    # The name exists as long as the mount; what it shows may change at any time without a report.
    NAME = auto()
    # Until the store reports a change: in `Node.listed_in` for the name, in `Node.scope` for the attributes.
    REPORTED = auto()
    # Not at all: it may change or vanish at any time without a report.
    UNREPORTED = auto()
