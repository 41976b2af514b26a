"""What a worker is told on its command line, and how long it waits for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

_DAY_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of ``threadfs work``; then times, which only tests change.

    ``pauses_s``: before a request that failed is made again, ``longest_pause_s`` if the endpoint says when.
    ``probes_s``: how often an endpoint that fails is looked at. ``compares_s``: how often to look at what no
    watch covers, ``checks_s``: at a run that is being answered. ``store_pause_s``: until what a store refused
    is tried again. ``old_s``: a run that was queued longer ago is not answered without ``backlog``.
    ``stops_s``: how long handing runs back may take.
    """

    model: str = ""
    only: Sequence[str] = ()
    jobs: int = 4
    instructions: str | None = None
    patience_s: float = 600.0
    backlog: bool = False
    once: bool = False

    pauses_s: Sequence[float] = (1.0, 2.0, 4.0)
    longest_pause_s: float = 60.0
    probes_s: float = 5.0
    compares_s: float = 1.0
    checks_s: float = 0.15
    store_pause_s: float = 1.0
    old_s: float = _DAY_S
    stops_s: float = 0.5

    def wants(self, model: str) -> bool:
        """Whether runs of *model* are claimed."""
        return not self.only or any(fnmatchcase(model, pattern) for pattern in self.only)
