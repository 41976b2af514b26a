"""A program that watches a mount by inotify, as editors and synchronisers do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inotify_simple import INotify, flags

from tests.mount.conftest import wait_until

# What a program looks at; opening and reading are no changes.
MASK = (
    *(flags.CREATE, flags.DELETE, flags.MOVED_FROM, flags.MOVED_TO, flags.MODIFY, flags.CLOSE_WRITE),
    *(flags.ATTRIB, flags.DELETE_SELF),
)
Seen = tuple[str, str]


class Watcher:
    """Notes (event, path from *root*), in the order of the events. A watched path itself ends with ``/``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._inotify = INotify()
        self._paths: dict[int, str] = {}
        self.seen: list[Seen] = []

    def watch(self, *paths: str) -> None:
        """What is watched is listed first, as programs do."""
        for path in paths:
            place = self._root / path
            if place.is_dir():
                os.listdir(place)
            mask = 0
            for flag in MASK:
                mask |= flag
            self._paths[self._inotify.add_watch(place, mask)] = path

    def watch_all(self, path: str = "") -> None:
        for directory, _, _ in os.walk(self._root / path):
            self.watch(os.path.relpath(directory, self._root))

    def look(self) -> list[Seen]:
        """All that was seen so far."""
        for event in self._inotify.read(timeout=0):
            path = f"{self._paths[event.wd]}/{event.name}"
            self.seen += [
                (str(flag.name), path.removeprefix("./"))
                for flag in flags.from_mask(event.mask)
                if flag in MASK
            ]
        return self.seen

    def waits_for(self, event: str, path: str) -> None:
        wait_until(lambda: (event, path) in self.look())

    def count(self, event: str, path: str) -> int:
        return self.look().count((event, path))

    def close(self) -> None:
        self._inotify.close()


@contextmanager
def watching(root: Path, *paths: str) -> Iterator[Watcher]:
    watcher = Watcher(root)
    try:
        watcher.watch(*paths)
        yield watcher
    finally:
        watcher.close()
