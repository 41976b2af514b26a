"""Loose directories, with loose files, links and directories in them, as on any disk."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from threadfs.nodes.base import Attributes, Directory, Node, NoSuchName, Refused, Tree
from threadfs.nodes.loose import LooseLink, LooseNode
from threadfs.nodes.loose_files import LooseFile
from threadfs.nodes.quota import Quota


@runtime_checkable
class AcceptsDrafts(Protocol):
    """A directory that turns a loose directory into a thread when it is moved here."""

    def accept_draft(
        self, draft: LooseDirectory, name: str, source: LooseDirectory, new_name: str
    ) -> None: ...


class LooseDirectory(LooseNode, Directory):
    """A loose directory. Trees may be of any depth, so no method here is recursive."""

    kind = stat.S_IFDIR

    def __init__(self, tree: Tree, quota: Quota, parent: LooseNode | str, name: str) -> None:
        super().__init__(tree, quota, parent, name, 0o755)
        self.children: dict[str, LooseNode] = {}

    def attributes(self) -> Attributes:
        return LooseNode.attributes(self)

    def lookup(self, name: str) -> LooseNode:
        try:
            return self.children[name]
        except KeyError:
            raise NoSuchName(name) from None

    def entries(self) -> Iterable[tuple[str, Node]]:
        return list(self.children.items())

    def below(self) -> Iterable[LooseNode]:
        """All nodes below it, at any depth."""
        directories = [self]
        while directories:
            for child in directories.pop().children.values():
                yield child
                if isinstance(child, LooseDirectory):
                    directories.append(child)

    def make_directory(self, name: str) -> LooseNode:
        self._refuse_taken(name)
        return self._add(name, LooseDirectory(self.tree, self._quota, self, name))

    def make_file(self, name: str, *, is_exclusive: bool = False) -> LooseNode:
        self._refuse_taken(name)
        return self._add(name, LooseFile(self.tree, self._quota, self, name))

    def make_link(self, name: str, target: str) -> LooseNode:
        self._refuse_taken(name)
        return self._add(name, LooseLink(self.tree, self._quota, self, name, target))

    def _refuse_taken(self, name: str) -> None:
        if not self.has_name:  # It may still be a working directory.
            raise Refused(errno.ENOENT, "this directory has gone")
        if name in self.children:
            raise Refused(errno.EEXIST, f"there is a {name!r} already")

    def _add(self, name: str, node: LooseNode) -> LooseNode:
        self.children[name] = node
        self.modified()
        return node

    def remove(self, name: str) -> None:
        node = self.lookup(name)
        if isinstance(node, LooseDirectory):
            raise Refused(errno.EISDIR, f"{name!r} is a directory: use rmdir")
        self.take(name).removed()

    def remove_directory(self, name: str) -> None:
        node = self.lookup(name)
        if not isinstance(node, LooseDirectory):
            raise Refused(errno.ENOTDIR, f"{name!r} is no directory")
        if node.children:
            raise Refused(errno.ENOTEMPTY, f"{name!r} is not empty")
        self.take(name).removed()

    def take(self, name: str) -> LooseNode:
        """Removes a child from this directory and returns it."""
        node = self.children.pop(name)
        self.modified()
        return node

    def put(self, name: str, node: LooseNode) -> None:
        node.moved(self, name)
        self._add(name, node)

    def removed(self) -> None:
        """Removes the nodes below it too, and drops the references between them."""
        for node in list(self.below()):
            if isinstance(node, LooseDirectory):
                node.children = {}
                LooseNode.removed(node)
            else:
                node.removed()
        self.children = {}
        super().removed()

    def is_above(self, node: LooseNode | str) -> bool:
        """Whether *node* is this directory, or below it at any depth."""
        while isinstance(node, LooseNode) and node is not self:
            node = node.parent
        return node is self

    def rename(self, name: str, target: Directory, new_name: str, *, replace: bool) -> None:
        node = self.lookup(name)
        if not isinstance(target, LooseDirectory):
            if isinstance(node, LooseDirectory):
                if not isinstance(target, AcceptsDrafts):
                    raise Refused(errno.EACCES, "a draft can be moved into threads/ only")
                target.accept_draft(node, name, self, new_name)
                return
            raise Refused(errno.EXDEV, "a file is copied out of drafts/, not moved")
        if isinstance(node, LooseDirectory) and node.is_above(target):
            raise Refused(errno.EINVAL, "a directory cannot be moved into itself")
        if not target.has_name:
            raise Refused(errno.ENOENT, "the directory has gone that this is moved to")
        present = target.children.get(new_name)
        if present is node:
            return
        if present is not None:
            target._refuse_replacing(present, node, new_name, replace=replace)
            target.take(new_name).removed()
        self.take(name)
        target.put(new_name, node)

    @staticmethod
    def _refuse_replacing(present: LooseNode, node: LooseNode, name: str, *, replace: bool) -> None:
        if not replace:
            raise Refused(errno.EEXIST, f"there is a {name!r} already")
        if isinstance(present, LooseDirectory):
            if not isinstance(node, LooseDirectory):
                raise Refused(errno.EISDIR, f"{name!r} is a directory")
            if present.children:
                raise Refused(errno.ENOTEMPTY, f"{name!r} is not empty")
        elif isinstance(node, LooseDirectory):
            raise Refused(errno.ENOTDIR, f"{name!r} is no directory")
