"""Has a process of its own build a catalogue, so that no thread of this one keeps the others from running.

The process (`building`) gets no descriptor of ours but two pipes, and ends when we do. Nothing depends on it:
where it cannot be started, or fails, the log says so once, and whoever asks does what is left.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from store import processes
from store.catalogue import place
from store.catalogue.place import NoPlace
from store.disk.building import IS_BUILT, LISTS, STEP, WORDS
from store.errors import StorageFailed
from store.printing import printable

log = logging.getLogger("threadfs")

# For how long nothing has to come of the process, until it is not waited for any more. It lists all threads
# before the first step, and whoever took over from one that is only slow would be slower.
_STUCK_S: Final = 30.0
# How long the end of the process is waited for, when nobody wants it any more.
_ENDS_S: Final = 1.0


class Builder:
    """*keeps_words*: the words are built, too."""

    def __init__(self, root: str, *, keeps_words: bool) -> None:
        self._root = root
        self._keeps_words = keeps_words
        # Guards what follows; nothing is waited for while it is held.
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._is_awaited = False
        self._steps = 0
        # Whether nothing has to be waited for: the lists are built, or no process is at it.
        self.has_lists = True
        self._has_failed = False
        self._is_closed = False

    @property
    def is_of_use(self) -> bool:
        """Whether a process can be started, as far as is known."""
        return not self._has_failed

    @property
    def is_at_work(self) -> bool:
        """Whether a process builds the catalogue, or is about to."""
        return self._thread is not None

    def start(self, if_: Callable[[], bool] = lambda: True) -> None:
        """Has a process build the catalogue in the background, unless one does, *if_* there is need to."""
        with self._changed:
            if self._thread is not None or self._has_failed or self._is_closed:
                return
            self.has_lists = self._is_awaited = False
            self._thread = threading.Thread(target=self._run, args=(if_,), name="build", daemon=True)
            self._thread.start()

    def wait_for_lists(self) -> None:
        """Returns when the titles, times and runs have been built, or no process is at it, or it is stuck.

        It has the normal priority until then.
        """
        with self._changed:
            self._is_awaited = True
            self._hurry()
            steps = -1
            while not self.has_lists and steps != self._steps:
                steps = self._steps
                self._changed.wait(_STUCK_S)

    def close(self) -> None:
        """Ends the process."""
        with self._changed:
            self._is_closed = self.has_lists = True
            self._changed.notify_all()
            thread = self._thread
            if self._process is not None:
                processes.close(self._process)
        if thread is not None:
            thread.join(_ENDS_S)

    # ── In the background ────────────────────────────────────────────────────────────────────────────

    def _run(self, if_: Callable[[], bool]) -> None:
        try:
            if if_():
                while (status := self._follow()) == IS_BUILT:
                    self._tell_lists()  # Whoever waits does not wait for a process of others.
                    self._wait_for_others()
                self._has_failed = status != 0
        except (OSError, NoPlace, StorageFailed) as error:
            self._has_failed = True
            if not self._is_closed:
                log.warning("no process can build the catalogue: %s", printable(str(error)))
        finally:
            self._tell_lists()
            with self._changed:
                self._thread = None

    def _follow(self) -> int:
        """Starts a process and returns its exit status when it has ended."""
        with self._changed:
            if self._is_closed:
                return 0
            kind = WORDS if self._keeps_words else LISTS
            process = self._process = processes.started("store.disk.building", self._root, kind)
            if self._is_awaited:
                self._hurry()
        said = ""
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                said = line.decode(errors="replace").strip()
                if said == STEP:
                    self._tell_step()
                elif said == LISTS:
                    self._tell_lists()
        status = process.wait()
        with self._changed:
            processes.close(process)
            self._process = None
            is_wanted = not self._is_closed
        if status not in (0, IS_BUILT) and is_wanted:
            log.warning("the process that builds the catalogue has ended: %s", processes.why(status, said))
        return status

    def _wait_for_others(self) -> None:
        identity = place.identity_of(self._root, with_words=self._keeps_words)
        with place.directory_of(place.base(os.environ), identity) as directory:
            place.wait_for_builder(directory)

    def _tell_step(self) -> None:
        with self._changed:
            self._steps += 1
            self._changed.notify_all()

    def _tell_lists(self) -> None:
        with self._changed:
            self.has_lists = True
            self._changed.notify_all()

    def _hurry(self) -> None:
        """Tells the process, if there is one, that it is waited for; called with the lock held."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError, ValueError):  # It has ended.
                self._process.stdin.write(b"!")
