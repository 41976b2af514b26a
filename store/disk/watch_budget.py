"""How many watches the threads and runs of a store may take, and which of them get one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from store.api import DocumentKey
from store.disk.watching import DiskWatch
from store.errors import StorageFailed

# With no more watches left than these, they are scarce.
_SCARCE: Final = 200
_MAX_WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")


class WatchBudget:
    def __init__(self, watch: DiskWatch, max_watches: int | None, free: Callable[[], bool]) -> None:
        """By default two thirds of the user's watches, since other programs need some, too.

        *free* gives some watches back, if it can, and says whether it did.

        Raises:
            OSError: there are no watches.
        """
        self._watch = watch
        self._free = free
        self._is_closed = False
        # How many watches the threads will take at least that are still to be followed.
        self.promised = 0
        self.max_watches = int(_MAX_WATCHES.read_text()) * 2 // 3 if max_watches is None else max_watches

    def close(self) -> None:
        """Nothing is followed from now on."""
        self._is_closed = True

    @property
    def is_scarce(self) -> bool:
        return self._watch.in_use + _SCARCE > self.max_watches

    def follow_thread(self, thread_id: str) -> bool:
        return self._follow(thread_id)

    def follow_run(self, thread_id: str, run_id: str, *, has_ended: bool) -> bool:
        """One that has ended only while watches are left, and enough for all threads, and else no longer."""
        some_are_left = self._watch.in_use + self.promised < self.max_watches
        if (some_are_left or not has_ended) and self._follow(thread_id, run_id):
            return True
        self.forget_runs(thread_id, [run_id])
        return False

    def forget_thread(self, thread_id: str, *, but_itself: bool) -> None:
        """*but_itself*: its directory is followed still, for its document."""
        itself = DocumentKey(thread_id)
        self._watch.forget(itself.list_in_it)
        if not but_itself:
            self._watch.forget(itself)

    def forget_runs(self, thread_id: str, run_ids: Iterable[str]) -> None:
        for run_id in run_ids:
            key = DocumentKey(thread_id, run_id)
            self._watch.forget(key)
            self._watch.forget(key.list_in_it)

    def _follow(self, thread_id: str, run_id: str | None = None) -> bool:
        if self._is_closed:
            return False
        key = DocumentKey(thread_id, run_id)
        try:
            is_followed = self._watch.covers(key) and self._watch.covers(key.list_in_it)
            return (is_followed or self._has_room()) and self._watch.follow(key, with_list=True)
        except StorageFailed:
            return False

    def _has_room(self) -> bool:
        while self._watch.in_use >= self.max_watches and self._free():
            pass
        return self._watch.in_use < self.max_watches
