"""Loose nodes: files of the tree that are in no store, such as editors' temporary files and drafts.

They behave as on any disk, and end with the mount, even when it is killed. Unlike other nodes, a loose node
keeps its identity when it is moved. `loose_files` and `loose_directories` have the other two kinds.
"""

from __future__ import annotations

import os
import stat
import time

from threadfs.nodes.base import Attributes, Node, Tree
from threadfs.nodes.quota import Quota

# Messages show only the end of a longer path.
_SHOWN_PATH = 4096


class LooseNode(Node):
    """A node that lives in memory. *parent* is its directory, or the path of its directory."""

    keeps_permissions = True

    def __init__(self, tree: Tree, quota: Quota, parent: LooseNode | str, name: str, mode: int) -> None:
        self.tree = tree
        quota.charge(1, 0)
        self._quota = quota
        self.parent = parent
        self.name = name
        self._mode = mode
        self._modified_ns = self._changed_ns = time.time_ns()
        self.has_name = True
        # Whether a program set its mtime, which then moves with the file.
        self.has_given_time = False
        # When it was created, or last closed, on the monotonic clock.
        self.used_s = time.monotonic()

    @property
    def path(self) -> str:
        names: list[str] = [self.name]
        above, length = self.parent, len(self.name)
        while isinstance(above, LooseNode) and length < _SHOWN_PATH:
            names.append(above.name)
            length += len(above.name) + 1
            above = above.parent
        if above:
            names.append("…" if isinstance(above, LooseNode) else above)
        return "/".join(reversed(names))

    def attributes(self) -> Attributes:
        return Attributes(
            self.kind | self._mode,
            self.size(),
            self._modified_ns,
            changed_ns=self._changed_ns,
            links=int(self.has_name),
        )

    def size(self) -> int:
        return 0

    @property
    def is_open(self) -> bool:
        return False

    def modified(self) -> None:
        """Its content has changed."""
        self._modified_ns = self._changed_ns = time.time_ns()
        self.has_given_time = False

    def set_modified(self, modified_ns: int) -> None:
        self._modified_ns = modified_ns
        self._changed_ns = time.time_ns()
        self.has_given_time = True

    def set_permissions(self, mode: int) -> None:
        self._mode = mode & 0o7777
        self._changed_ns = time.time_ns()

    def moved(self, parent: LooseNode | str, name: str) -> None:
        self.parent, self.name = parent, name
        self._changed_ns = time.time_ns()

    def removed(self) -> None:
        """Its name has been removed."""
        self._quota.charge(-1, 0)
        self._changed_ns = time.time_ns()
        self.has_name = False


class LooseLink(LooseNode):
    kind = stat.S_IFLNK

    def __init__(self, tree: Tree, quota: Quota, parent: LooseNode | str, name: str, target: str) -> None:
        super().__init__(tree, quota, parent, name, 0o777)
        self._target = target

    def target(self) -> str:
        return self._target

    def size(self) -> int:
        return len(os.fsencode(self._target))
