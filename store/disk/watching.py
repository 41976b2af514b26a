"""The watch of a store in a directory: what one subscriber follows of it, by inotify."""

from __future__ import annotations

import errno
from collections.abc import Callable

from store.changes import Announcer, Subscriber, Watch
from store.disk.inotify import Watches
from store.names import DocumentKey


class DiskWatch(Watch):
    """Hears of the changes in all that any watch of the store follows."""

    def __init__(self, watches: Watches, announcer: Announcer, on_change: Subscriber | None) -> None:
        super().__init__(announcer, on_change)
        self._watches = watches
        watches.join(self)  # Other watches look at it from now on.

    def start(self) -> OSError | None:
        """Begins to hear of changes by others, unless that has begun. Returns why it cannot."""
        return self._watches.start()

    def is_heard(self, key: DocumentKey) -> bool:
        return self._watches.is_covered(key)

    def _begin(self, key: DocumentKey) -> bool:
        return self.is_heard(key) or self._watches_it(self._watches.watch, key)

    def _begin_with_list(self, key: DocumentKey) -> bool:
        is_heard = self.is_heard(key) and self.is_heard(key.list_in_it)
        return is_heard or self._watches_it(self._watches.watch_with_list, key)

    def _watches_it(self, watch: Callable[[DocumentKey], bool], key: DocumentKey) -> bool:
        if error := self.start():
            self.lack = _why_not(error)
            return False
        # An existing watch is not removed first: adding one again returns the same.
        is_watched = watch(key)
        self.lack = "" if is_watched else "no inotify watch is left (fs.inotify.max_user_watches)"
        return is_watched

    def _end(self, key: DocumentKey) -> None:
        self._watches.forget(key)

    def catch_up(self) -> None:
        """Returns when all subscribers have been called with what changed before this call."""
        self._watches.catch_up()

    @property
    def in_use(self) -> int:
        """How many of the system's watches are in use."""
        return len(self._watches)

    def close(self) -> None:
        super().close()
        self._watches.leave(self)
        for key in self.held():
            self.forget(key)


def _why_not(error: OSError) -> str:
    if error.errno == errno.EMFILE:
        return "no inotify instance is left (fs.inotify.max_user_instances)"
    return f"there is no watch ({error})"
