"""Text on its way from the endpoint into the store.

The event loop never waits for the disk: a thread writes, and what comes meanwhile is written together. The
store keeps in memory what it could not write, so that a full disk costs others the sight of the text only.
"""

from __future__ import annotations

import logging
from collections import deque

import trio

from store import StorageFailed
from store.errors import RunLost
from store.working import Answer

log = logging.getLogger("threadfs")


class Growth:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._pieces: deque[str] = deque()
        self._came = trio.Event()
        self._is_refused = False

    def add(self, text: str) -> None:
        """Takes a piece of text, without waiting."""
        self._pieces.append(text)
        self._came.set()

    async def write_on(self) -> None:
        """Writes what comes, until it is cancelled."""
        while True:
            await self._came.wait()
            self._came = trio.Event()
            await self.write()

    async def write(self) -> None:
        """Gives the store all that has come."""
        if self._pieces:
            await trio.to_thread.run_sync(self._write)

    def _write(self) -> None:
        # Taken here, not before: a cancelled call that has not begun must not take anything with it.
        text = "".join(self._pieces.popleft() for _ in range(len(self._pieces)))
        try:
            self._answer.append(text)
        except RunLost:
            pass  # It was deleted; whoever looks at the run will hear of that.
        except StorageFailed as error:
            if not self._is_refused:
                log.warning("%s@%s: %s", self._answer.run.id, self._answer.run.thread_id, error)
            self._is_refused = True
