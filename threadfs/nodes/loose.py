"""Loose nodes: what is in the tree but in no store, such as editors' temporary files and drafts.

They behave as on any disk, and are gone with the mount, however it ends. Unlike other nodes each is itself,
wherever it is moved to. `loose_files` and `loose_directories` are the other two kinds.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from threadfs.nodes.base import Attributes, Node, Refused, Tree
from threadfs.nodes.temporary import TemporarySpace

# Of a longer path, messages show the end.
_SHOWN_PATH = 4096


class Quota:
    """How many loose files there may be, how large all of them together, and the space that they are in."""

    def __init__(self, files: int, size_bytes: int) -> None:
        self.space = TemporarySpace()
        self._lock = threading.Lock()
        self._free_files = files
        self._free_bytes = size_bytes

    def charge(self, files: int, size_bytes: int) -> None:
        """Takes that much, or gives it back when negative. Refuses with ENOSPC."""
        with self._lock:
            if files > self._free_files or size_bytes > max(0, self._free_bytes):
                raise Refused(errno.ENOSPC, "no more room for files that are not part of a thread")
            self._free_files -= files
            self._free_bytes -= size_bytes

    @contextmanager
    def charged(self, size_bytes: int) -> Iterator[None]:
        """Takes that much, and gives it back when what is done in the block fails."""
        self.charge(0, size_bytes)
        try:
            yield
        except BaseException:
            self.charge(0, -size_bytes)
            raise


class LooseNode(Node):
    """A node with a life of its own. *parent* is the directory that it is in, or the path of that."""

    keeps_permissions = True

    # Other nodes are immutable.
    __setattr__ = object.__setattr__

    def __init__(self, tree: Tree, quota: Quota, parent: LooseNode | str, name: str, mode: int) -> None:
        super().__init__(tree)
        quota.charge(1, 0)
        self._quota = quota
        self.parent = parent
        self.name = name
        self._mode = mode
        self._modified_ns = self._changed_ns = time.time_ns()
        self.has_name = True
        # Whether somebody asked for this very time, which then moves with the file.
        self.has_given_time = False
        # When it was made, or closed for the last time, on the monotonic clock.
        self.used_s = time.monotonic()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

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
        """What it holds is another."""
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
        """It has no name any more."""
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
