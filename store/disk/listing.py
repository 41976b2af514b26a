"""Which directories hold a document, found with one look at each."""

from __future__ import annotations

import os
from collections import OrderedDict

from store import names
from store.disk import directories
from store.disk.directories import opened, storage_errors
from store.disk.layout import Parts

# A document is looked for again each time in the directories of a list that is shorter ...
_REMEMBERED_LENGTH = 64
# ... and of so many lists what was found is remembered.
_REMEMBERED_LISTS = 256


class Listing:
    """The threads of a store, the runs of a thread: the directories below one that hold a document."""

    def __init__(self, root: str) -> None:
        self._root = root
        # By parent, the inode number of each directory that was seen with its document.
        self._known: OrderedDict[Parts, dict[str, int]] = OrderedDict()

    def ids(self, parts: Parts, document: str) -> list[str]:
        """The ids of the directories below *parts* that hold *document*, in the order of the disk."""
        with opened(self._root, *parts) as directory:
            if directory is None:
                return []
            with storage_errors("/".join(parts) or self._root):
                found = directories.subdirectories(directory)
            known = self._known.get(parts, {})
            present = {
                name: inode
                for name, inode in found
                if known.get(name) == inode or (names.is_id(name) and _holds(directory, name, document))
            }
        if len(present) >= _REMEMBERED_LENGTH:
            self._remember(parts, present)
        return list(present)

    def _remember(self, parts: Parts, present: dict[str, int]) -> None:
        # Another thread may do the same: each step is one that cannot be interrupted.
        self._known[parts] = present
        if len(self._known) > _REMEMBERED_LISTS:
            self._known.popitem(last=False)

    def forget(self, parts: Parts) -> None:
        """A directory, or its document, has gone."""
        self._known.get(parts[:-1], {}).pop(parts[-1], None)


def _holds(directory: int, name: str, document: str) -> bool:
    try:
        os.stat(f"{name}/{document}", dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return True
