"""A directory while it is listed: its entries when it was opened or rewound, in an order that stays."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from store import StoreError
from threadfs.fuse.asking import in_thread
from threadfs.fuse.inodes import Entries, Inode
from threadfs.nodes.base import Attributes, Directory, Node

# About as many entries as the kernel takes at a time.
_LISTED_AT_ONCE = 160
# As libfuse says it.
_UNKNOWN_NUMBER = 0xFFFFFFFF


def entries_of(directory: Directory) -> Entries:
    names, nodes = [], []
    for name, node in directory.entries():
        names.append(os.fsencode(name))
        nodes.append(node)
    return Entries(names, nodes, [None] * len(nodes))


def _attributes_of(nodes: list[Node]) -> dict[Node, Attributes]:
    found = {}
    for node in nodes:
        with suppress(StoreError):  # It has gone, or is not readable; a lookup will tell.
            found[node] = node.attributes()
    return found


class Listing:
    """The entries of one open directory."""

    def __init__(
        self,
        inode: Inode,
        directory: Directory,
        uid: int,
        entries: Entries,
        times_wanted: int,
        *,
        gives_attributes: bool,
    ) -> None:
        self.inode = inode
        self.directory = directory
        # Who lists it.
        self.uid = uid
        self.is_begun = False
        # The kernel neither counts these nor believes what they say of the directory above.
        self.dots = ((b".", inode.number), (b"..", _UNKNOWN_NUMBER))
        self.names, self.nodes, self.inodes = entries.names, entries.nodes, entries.inodes
        self.names_timeout_s = entries.names_timeout_s
        # With `ls -l` the kernel asks for the attributes of each entry: from then on it gets them here.
        self.times_wanted = times_wanted
        self.gives_attributes = gives_attributes
        self.known: dict[Node, Attributes] = {}
        self._known_to = 0

    async def prepared_to(self, start: int, are_costly: Callable[[Node], bool]) -> int:
        """Before which entry the next reply has to end."""
        if not self.gives_attributes:
            return len(self.nodes)
        if start >= self._known_to:
            self._known_to = min(start + _LISTED_AT_ONCE, len(self.nodes))
            nodes = [node for node in self.nodes[start : self._known_to] if are_costly(node)]
            self.known = await in_thread(_attributes_of, nodes) if nodes else {}
        return self._known_to
