"""What `telling` remembers, to say what has become of it: little, and of the threads that changed last."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from threadfs.events.states import State
from threadfs.nodes.reading_on import LogPlace

_MAX_THREADS: Final = 5_000


@dataclass(slots=True)
class KnownThread:
    document: State | None = None
    # How far its messages have been told.
    log: LogPlace | None = None
    runs: dict[str, State] = field(default_factory=dict)
    steps: dict[tuple[str, str], State] = field(default_factory=dict)

    def remember(self, run_id: str | None, state: State) -> None:
        """What was told of the thread or run, unless something later is known."""
        if run_id is not None:
            self.runs.setdefault(run_id, state)
        elif self.document is None:
            self.document = state


class KnownThreads:
    """What was not heard of lately is not known: *since_s* tells what of it is new.

    In seconds since 1970: all that was created since then was told, or its thread is known.
    """

    def __init__(self, since_s: int) -> None:
        self.since_s = since_s
        self._threads: OrderedDict[str, KnownThread] = OrderedDict()

    def __getitem__(self, thread_id: str) -> KnownThread:
        """What is known of a thread, nothing at first."""
        known = self._threads.setdefault(thread_id, KnownThread())
        self._threads.move_to_end(thread_id)
        return known

    def begin(self, thread_id: str, document: State) -> KnownThread:
        """It has come, or gone, and nothing that was known of its contents holds."""
        self._threads[thread_id] = KnownThread(document)
        return self[thread_id]

    def limit(self, now_s: int) -> None:
        """Forgets what was not heard of for longest, if there is much."""
        while len(self._threads) > _MAX_THREADS:
            self._threads.popitem(last=False)
            self.since_s = now_s

    def clear(self, now_s: int) -> None:
        self._threads.clear()
        self.since_s = now_s
