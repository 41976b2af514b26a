"""Whether the server is known to be away. While it is, calls fail at once, and it is looked for all the time.

It is known to be away once a call has given up, and not before: a restart takes a second or two, for which
calls wait. In the moments after that they still wait a little. Perhaps the server is there, and only that
connection was lost on which the call waited: the first looks tell.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg

from store.postgres.failures import ServerAway, words

log = logging.getLogger("threadfs.outage")
# For the log of a mount; a command reports its own failure.
log.addHandler(logging.NullHandler())

# For how long after it has become known calls wait for the first looks; later they do not wait at all.
_FIRST_LOOKS_S = 0.8
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
# A look may take as long as connecting may: where the network swallows packets, TCP sends its first one again
# after 1, 3 and 7 seconds. The next look does not wait for that, so that the return is noticed in a second.
_MOST_LOOKS = 8


@dataclass(slots=True)
class _Absence:
    reason: str
    since_s: float
    over: threading.Event = field(default_factory=threading.Event)


class Outage:
    """Whether the server is known to be away. *look* connects to it, or raises psycopg.Error."""

    def __init__(self, look: Callable[[], object]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._absence: _Absence | None = None
        self._answered_s = 0.0
        self._looks = 0
        self._wakes: weakref.WeakSet[threading.Event] = weakref.WeakSet()

    @property
    def is_known(self) -> bool:
        return self._absence is not None

    def answered(self) -> None:
        """The server has answered a call just now."""
        self._answered_s = time.monotonic()
        if self._absence is not None and (over := self.end()):
            log.warning("the database is back after %.0f s", self._answered_s - over.since_s)

    def begin(self, tried_since_s: float, reason: str) -> bool:
        """A call that began then (`time.monotonic`) has given up. Whether an outage becomes known by this.

        There is no outage if other calls were answered meanwhile. (An answer soon after the call began does
        not count.)
        """
        now_s = time.monotonic()
        with self._lock:
            if self._absence is not None or self._answered_s > (tried_since_s + now_s) / 2:
                return False
            absence = self._absence = _Absence(reason, now_s)
        log.warning("no connection to the database; calls fail at once until there is one: %s", reason)
        threading.Thread(target=self._look_for_it, args=(absence,), name="look", daemon=True).start()
        return True

    def end(self) -> _Absence | None:
        """The server is back, or the store is closed. Returns the outage that ends, if any."""
        with self._lock:
            absence, self._absence = self._absence, None
            wakes = list(self._wakes)
        if absence is not None:
            absence.over.set()
            for wake in wakes:
                wake.set()
        return absence

    def wakes(self, event: threading.Event) -> None:
        """Has *event* set when an outage is over, for code that connects by itself."""
        with self._lock:
            self._wakes.add(event)

    def check(self) -> None:
        """Raises ServerAway, at once, or a moment after that has become known."""
        absence = self._absence
        if absence is not None and not self.is_over_by(absence.since_s + _FIRST_LOOKS_S):
            raise ServerAway(absence.reason)

    def is_over_by(self, until_s: float) -> bool:
        """Waits for the return of the server until then (`time.monotonic`) at most."""
        absence = self._absence
        return absence is None or absence.over.wait(max(0.0, until_s - time.monotonic()))

    def _look_for_it(self, absence: _Absence) -> None:
        pause_s = _FIRST_PAUSE_S
        while not absence.over.is_set():
            with self._lock:
                may_look = self._looks < _MOST_LOOKS
                self._looks += may_look
            if may_look:
                threading.Thread(target=self._look_once, args=(absence,), name="look", daemon=True).start()
            # So that not all hosts connect at the same moment.
            absence.over.wait(pause_s * random.uniform(0.5, 1))
            pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)

    def _look_once(self, absence: _Absence) -> None:
        try:
            self._look()
        except (psycopg.Error, OSError) as error:
            absence.reason = words(error)
        finally:
            with self._lock:
                self._looks -= 1
