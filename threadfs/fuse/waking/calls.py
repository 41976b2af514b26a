"""What the waker calls: each call makes the events that a program would have made, and changes nothing.

*root* is a descriptor of the root of the mount; paths are relative to it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from threadfs.fuse.inodes import Inode
from threadfs.fuse.waking.subjects import Name
from threadfs.nodes.base import Node

_OPENED = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Modify:
    """IN_OPEN, IN_MODIFY and IN_CLOSE_WRITE of a file."""

    path: str

    def make(self, root: int) -> None:
        file = os.open(self.path, _OPENED, dir_fd=root)
        try:
            os.write(file, b"\n")
        finally:
            os.close(file)


@dataclass(frozen=True, slots=True)
class Touch:
    """IN_ATTRIB; with *earlier*, of the file that had the name before."""

    path: str
    earlier: Inode | None = field(default=None, compare=False)

    def make(self, root: int) -> None:
        os.utime(self.path, dir_fd=root, follow_symlinks=False)


@dataclass(frozen=True, slots=True)
class Make:
    """IN_CREATE of *node*, which is there. FileExistsError: the kernel knows it already."""

    path: str
    node: Node

    def make(self, root: int) -> None:
        if self.node.kind == stat.S_IFDIR:
            os.mkdir(self.path, dir_fd=root)
        elif self.node.kind == stat.S_IFLNK:
            os.symlink("-", self.path, dir_fd=root)
        else:
            os.mknod(self.path, stat.S_IFREG | 0o644, dir_fd=root)


@dataclass(frozen=True, slots=True)
class Remove:
    """IN_DELETE of *node*, which has gone with the *name*. *above*: the directories over it that went too."""

    path: str
    node: Node
    name: Name
    above: Mapping[str, Node] = field(default_factory=dict)

    def make(self, root: int) -> None:
        if self.node.kind == stat.S_IFDIR:
            os.rmdir(self.path, dir_fd=root)
        else:
            os.unlink(self.path, dir_fd=root)


@dataclass(frozen=True, slots=True)
class Move:
    """IN_MOVED_FROM and IN_MOVED_TO of a link. FileExistsError: the kernel knows the new one already.

    *above*: the directory over the old one, which may have gone with it.
    """

    old_path: str
    old_node: Node
    path: str
    node: Node
    above: Mapping[str, Node] = field(default_factory=dict)

    def make(self, root: int) -> None:
        os.rename(self.old_path, self.path, src_dir_fd=root, dst_dir_fd=root)


Call: TypeAlias = Modify | Touch | Make | Remove | Move
