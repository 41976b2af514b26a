"""Names that are known to survive a power cut.

A killed program may have made a thread or a run without syncing its name. A power cut would then remove the
directory with all later changes in it. So its name is synced, once, before a change in it is acknowledged.
That is done after the change itself is synced, with which a journal has most often written the names, and
side by side if there are several.

Source: "calling fsync() does not necessarily ensure that the entry in the directory … has also reached disk",
https://man7.org/linux/man-pages/man2/fsync.2.html
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TypeAlias

from store.disk.layout import Parts
from store.disk.paths import opened, storage_errors
from store.disk.system_calls import SystemCalls

# When there are more, all are forgotten, which costs a sync when they are used again.
_REMEMBERED = 100_000


# By path below the root: the inode number that the path names.
NamesToSync: TypeAlias = dict[Parts, int]


class DurableNames:
    def __init__(self, root: str, calls: SystemCalls) -> None:
        self._root = root
        self._calls = calls
        # Those that are known to be durable.
        self._inodes: NamesToSync = {}

    @contextmanager
    def syncing(self) -> Iterator[NamesToSync]:
        """Syncs the names that a block finds unknown when the block has ended; to be left before it counts.

        Raises:
            StorageFailed: what was done in the block may or may not be on disk.
        """
        names: NamesToSync = {}
        yield names
        if not names:
            return
        failures: list[BaseException] = []

        def sync(parts: Parts, inode: int) -> None:
            try:
                self._sync(parts, inode)
            except BaseException as error:
                failures.append(error)

        here, *beside = names.items()
        threads = []
        for name in beside:
            thread = threading.Thread(target=sync, args=name)
            try:
                thread.start()
            except RuntimeError:  # There are too many threads.
                sync(*name)
            else:
                threads.append(thread)
        sync(*here)
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def note(self, names: NamesToSync, parts: Parts, inode: int) -> None:
        """Has the last name of *parts* synced, unless it is known to name *inode* durably."""
        if self._inodes.get(parts) != inode:
            names[parts] = inode

    def _sync(self, parts: Parts, inode: int) -> None:
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
        with suppress(FileNotFoundError):  # Another program has removed it by now.
            self._inodes[parts] = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False).st_ino

    def forget(self, parts: Parts) -> None:
        """Something new has this name, and perhaps the inode number of the one before."""
        self._inodes.pop(parts, None)
