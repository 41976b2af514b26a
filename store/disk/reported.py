"""What a store tells of the changes of others."""

from __future__ import annotations

from enum import Enum


class Reported(Enum):
    """What a store tells of the changes of a thread by others."""

    NOTHING = "that it came or went, at most"
    BUT_ENDED = "all but what is forced on a run that has ended"
    ALL = "all"
