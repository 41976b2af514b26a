"""Names that are known to survive a power cut.

A killed program may have made a thread or a run without syncing its name. A power cut would then remove the
directory with all later changes in it. So its name is synced, once, before a change in it is acknowledged.

Source: "calling fsync() does not necessarily ensure that the entry in the directory … has also reached disk",
https://man7.org/linux/man-pages/man2/fsync.2.html
"""

from __future__ import annotations

import os

from store.disk.layout import Parts
from store.disk.paths import opened, storage_errors
from store.disk.system_calls import SystemCalls

# When there are more, all are forgotten, which costs a sync when they are used again.
_REMEMBERED = 100_000


class DurableNames:
    def __init__(self, root: str, calls: SystemCalls) -> None:
        self._root = root
        self._calls = calls
        # By path below the root: the inode number that the path is known to name durably.
        self._inodes: dict[Parts, int] = {}

    def sync_if_unknown(self, parts: Parts, inode: int) -> None:
        """Syncs the last name of *parts*, unless it is known to name *inode* durably."""
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
        """Syncs the last name of *parts*, which was made in *parent* just now."""
        self.forget(parts)
        self._calls.sync(parent)
        self._inodes[parts] = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False).st_ino

    def forget(self, parts: Parts) -> None:
        """Something new has this name, and perhaps the inode number of the one before."""
        self._inodes.pop(parts, None)
