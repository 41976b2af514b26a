"""Text on its way from the endpoint into the store.

The event loop never waits for a disk: a thread of each answer writes, and what comes meanwhile is written
together. The loop waits for no reply, so this costs less than `trio.to_thread` would for each token. The
store keeps in memory what it could not write, so that a full disk costs others the sight of the text only.
"""

from __future__ import annotations

import logging
import threading
from queue import Empty, SimpleQueue

import trio

from store import StoreError
from store.errors import RunLost
from store.working import Answer

log = logging.getLogger("threadfs")


class Growth:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        # Without a text: that was the last one.
        self._pieces: SimpleQueue[str | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_refused = False

    def add(self, text: str) -> None:
        """Takes a piece of text, without waiting."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_on, name="answer", daemon=True)
            self._thread.start()
        self._pieces.put(text)

    async def end(self) -> None:
        """Returns when the store has all of it."""
        if self._thread is not None:
            self._pieces.put(None)
            await trio.to_thread.run_sync(self._thread.join, abandon_on_cancel=True)

    def _write_on(self) -> None:
        while (piece := self._pieces.get()) is not None:
            found: list[str] = [piece]
            is_last = False
            while not is_last:
                try:
                    following = self._pieces.get_nowait()
                except Empty:
                    break
                is_last = following is None
                found.append(following or "")
            self._write("".join(found))
            if is_last:
                return

    def _write(self, text: str) -> None:
        try:
            self._answer.append(text)
        except RunLost:
            pass  # It was deleted; whoever looks at the run will hear of that.
        except StoreError as error:
            if not self._is_refused:
                log.warning("%s@%s: %s", self._answer.run.id, self._answer.run.thread_id, error)
            self._is_refused = True
