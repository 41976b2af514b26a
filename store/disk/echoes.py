"""Which changes that the watch reports are this store's own, and have been announced.

The store notes the status of each file that it has written, and only then announces the change. A report of
the file comes later. If it has that status still, the report is an echo: whoever heard of the change has seen
nothing older.

Two things could make another program's change look like that. A file that is written in place may keep its
status, within one tick of the clock of files (some milliseconds). So a report of a write is an echo only if
the clock had gone on when the status was noted; it need not have for a rename, which brings another file. And
a file may be moved away and come back. So a report that is no echo ends the note, and a note counts only for
a watch that has seen all since.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeAlias

from store.disk import paths
from store.disk.layout import Parts
from store.errors import StoreError
from store.waiting import WouldWait

# Of how many files. What is not noted any more is announced twice.
_MAX_NOTES = 1024

# CLOCK_REALTIME_COARSE, which Python does not name.
_CLOCK_OF_FILES = 5

Status: TypeAlias = tuple[int, ...]


@dataclass(slots=True)
class _Note:
    number: int
    status: Status
    # Whether each later write gives the file another status.
    is_settled: bool


class Echoes:
    def __init__(self, root: str) -> None:
        self._root = root
        # Whether there is a watch, which reports what this store does.
        self.is_watched = False
        self._lock = threading.Lock()
        self._notes: OrderedDict[Parts, _Note] = OrderedDict()
        # How many there were.
        self.count = 0

    def note(self, *parts: str, inode: int | None = None) -> None:
        """This store has written the file that *parts* lead to; to be called before that is announced.

        With *inode*, that is the file that was written: by now another may have its name.
        """
        if not self.is_watched:
            return
        with self._lock:
            self.count += 1
            number = self.count
        # Before the status: what is written after that gets this time or a later one.
        now_ns = time.clock_gettime_ns(_CLOCK_OF_FILES)
        status = self._status(parts)
        with self._lock:
            self._notes.pop(parts, None)
            if status is not None and inode in (None, status.st_ino):
                self._notes[parts] = _Note(number, _of(status), now_ns > status.st_ctime_ns)
                if len(self._notes) > _MAX_NOTES:
                    self._notes.popitem(last=False)

    def forget(self, *parts: str) -> None:
        with self._lock:
            self._notes.pop(parts, None)

    def holds_what_was_written(self, parts: Parts, since: int) -> bool:
        """Whether a file is as this store has written it, after *since* notes. If not, its note ends."""
        note = self._notes.get(parts)
        if note is None or note.number <= since:
            return False
        status = self._status(parts)
        if status is not None and _of(status) == note.status:
            return True
        with self._lock:
            if self._notes.get(parts) is note:
                del self._notes[parts]
        return False

    def is_settled(self, parts: Parts) -> bool:
        note = self._notes.get(parts)
        return note is not None and note.is_settled

    def _status(self, parts: Parts) -> os.stat_result | None:
        try:
            return paths.stat_file(self._root, *parts)
        except (StoreError, WouldWait):
            return None


def _of(status: os.stat_result) -> Status:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
