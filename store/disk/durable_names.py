"""Whose names are known to survive a power cut.

A program that was killed may have made a thread or a run and not have synced its name. What is done in such
a directory would go with it, so its name is synced before anything in it is acknowledged, once.
"""

from __future__ import annotations

import os

from store.disk.layout import Parts
from store.disk.paths import opened, storage_errors
from store.disk.system_calls import SystemCalls

# More than these are forgotten, which costs a sync when they are used again.
_REMEMBERED = 100_000


class DurableNames:
    def __init__(self, root: str, calls: SystemCalls) -> None:
        self._root = root
        self._calls = calls
        # The inode of what each path below the root is known to name durably.
        self._inodes: dict[Parts, int] = {}

    def ensure(self, parts: Parts, inode: int) -> None:
        """Syncs the name that *parts* lead to, which is that of *inode*, unless that was done before."""
        if self._inodes.get(parts) == inode:
            return
        with opened(self._root, *parts[:-1]) as parent:
            if parent is not None:
                with storage_errors("/".join(parts)):
                    self._calls.sync(parent)
        if len(self._inodes) >= _REMEMBERED:
            self._inodes.clear()
        self._inodes[parts] = inode

    def made(self, parts: Parts, parent: int) -> None:
        """Syncs the name of what was made in *parent* just now."""
        self.forget(parts)
        self._calls.sync(parent)
        self._inodes[parts] = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False).st_ino

    def forget(self, parts: Parts) -> None:
        """Something new has this name, perhaps with the inode number of what had it before."""
        self._inodes.pop(parts, None)
