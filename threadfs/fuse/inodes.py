"""Inode numbers: which node each stands for, and how often the kernel holds it.

A node has one number for as long as the kernel holds it, and no other node ever gets that. When a document
changes while somebody still reads the version before, the number stays with that reader (`detach`) and the
document gets a new one: the page cache belongs to the number, and would mix the two versions.
"""

from __future__ import annotations

import stat
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, cast

import pyfuse3

from threadfs.fuse import shim
from threadfs.fuse.listing import Listing
from threadfs.nodes.base import Node, Reader

# Of how many directories, and of how many files, the numbers are remembered.
_MAX_DIRECTORIES, _MAX_FILES = 10_000, 1_000


class SharedOpens(Protocol):
    """Further opens of a file get the reader of one that has been opened; the `shim` answers them."""

    reader: Reader | None

    def end_sharing(self) -> None:
        """Whoever has it open still is one of the readers from now on."""
        ...


class Inode:
    """A directory, or a link. There are 100,000s of them, so what only a file needs is in `FileInode`."""

    __slots__ = (
        *("changes_seen", "entry", "is_followed", "kernel_has_attributes", "listed_without_attributes"),
        *("listing", "lookups", "node", "number", "removed_ns"),
    )

    # Readers whose bytes the kernel caches under this number, and how many write.
    readers: list[Reader] = cast("list[Reader]", ())
    writers: int = 0
    # The reader of its latest version while it is known to be that.
    latest_reader: Reader | None = None
    # What ends that the shim answers opens for reading, while it does.
    shared: SharedOpens | None = None
    # The size that a text that is rendered had when it was last asked for or opened.
    told_bytes: int = 0
    # The version of the attributes that the kernel got, and that of the pages that it may hold.
    told_version: object = None
    cached_version: object = None
    # A time of change that was given while somebody writes: it holds after the commit, too.
    given_time_ns: int | None = None
    # The version that a detached inode goes on showing.
    pinned_reader: Reader | None = None

    def __init__(self, number: int, node: Node) -> None:
        self.number = number
        self.node = node
        self.lookups = 0
        # Whether a listing gave its name alone.
        self.listed_without_attributes = False
        # Whether its changes are followed.
        self.is_followed = False
        # Its entry, while it is known to be right; if it is a directory, its listing; whether the kernel may
        # hold its attributes; how many changes have taken these, and the reader, away.
        self.entry: pyfuse3.EntryAttributes | None = None
        self.listing: Listing | None = None
        self.kernel_has_attributes = False
        self.changes_seen = 0
        # When the directory that it was lost its name, in nanoseconds since 1970. What is stored has no state
        # of its own that would tell those who still hold it.
        self.removed_ns: int | None = None

    # What is to be remembered was read when *changes_seen* changes had been seen. The count is compared after
    # it is set: a change counts itself first, and then takes away what it finds.

    @property
    def readers_now(self) -> list[Reader]:
        """The readers, with one for those whose opens the shim has answered."""
        shared = self.shared
        if shared is None or shared.reader is None or not shim.opens_shared(self.number):
            return self.readers
        return [*self.readers, shared.reader]

    def end_sharing(self) -> None:
        """The next open is asked for. May be called by any thread."""
        if (shared := self.shared) is not None:
            shared.end_sharing()

    def remember_entry(self, entry: pyfuse3.EntryAttributes, changes_seen: int) -> bool:
        """Whether *entry* is still right, and so remembered, unless the store does that."""
        if self.node.store_remembers_attributes:
            return self.changes_seen == changes_seen
        self.entry = entry
        if self.changes_seen == changes_seen:
            return True
        self.entry = None
        return False

    def remember_listing(self, listing: Listing, changes_seen: int) -> None:
        listing.is_current = listing.was_current = True
        if self.changes_seen != changes_seen:
            listing.is_current = False

    def remember_reader(self, reader: Reader, changes_seen: int) -> None:
        self.latest_reader = reader
        if self.changes_seen != changes_seen:
            self.latest_reader = None

    def lose_entry(self) -> bool:
        """Counted first, as below. Returns whether the kernel may have kept a listing."""
        self.changes_seen += 1
        self.entry = None
        self.end_sharing()
        listing = self.listing
        if listing is None or not listing.is_current:
            return False
        listing.is_current = False
        return listing.told_s > 0

    def lose_reader(self) -> None:
        """Counted first: a reader of before the change that is kept meanwhile is taken away then."""
        self.changes_seen += 1
        self.drop_reader()

    def drop_reader(self) -> None:
        """The next open reads anew."""


class FileInode(Inode):
    """A file, which may be open."""

    __slots__ = (
        *("cached_version", "given_time_ns", "latest_reader", "pinned_reader", "readers", "shared"),
        *("told_bytes", "told_version", "writers"),
    )

    def __init__(self, number: int, node: Node) -> None:
        super().__init__(number, node)
        self.readers = []
        self.writers = 0
        self.told_bytes = 0
        self.latest_reader = self.shared = self.pinned_reader = None
        self.told_version = self.cached_version = self.given_time_ns = None

    def drop_reader(self) -> None:
        self.latest_reader = None
        self.end_sharing()


class Inodes:
    def __init__(self, root: Node) -> None:
        self._on_dropped: Callable[[Inode], None] = lambda inode: None
        self._by_number: dict[int, Inode] = {}
        # By class, too: many nodes of a thread are equal but for that, and would be in each other's way.
        self._by_node: defaultdict[type[Node], dict[Node, Inode]] = defaultdict(dict)
        # The numbers of stored directories and files that the kernel has forgotten. They get them again, as
        # programs that remove trees compare the numbers of directories, and editors those of the files that
        # they have saved. The kernel has dropped the pages with the number.
        self._directories: OrderedDict[Node, int] = OrderedDict()
        self._files: OrderedDict[Node, int] = OrderedDict()
        # Those in a thread, by its id and their number: all of them are others when the thread is.
        self._within: dict[str, dict[int, Inode]] = {}
        # Those that are read still, though their node has another number by now.
        self._detached: dict[Node, list[Inode]] = {}
        self._next = pyfuse3.ROOT_INODE
        self.of(root).lookups = 1

    def when_dropped(self, call: Callable[[Inode], None]) -> None:
        self._on_dropped = call

    def __getitem__(self, number: int) -> Inode:
        return self._by_number[number]

    def get(self, number: int) -> Inode | None:
        return self._by_number.get(number)

    def __len__(self) -> int:
        return len(self._by_number)

    def of(self, node: Node) -> Inode:
        """The inode of *node*, made when it has none."""
        by_node = self._by_node[type(node)]
        inode = by_node.get(node)
        if inode is None:
            remembered = self._remembered(node)
            number = remembered.pop(node, None) if remembered else None
            if number is None:
                number, self._next = self._next, self._next + 1
            inode = (FileInode if node.kind == stat.S_IFREG else Inode)(number, node)
            self._by_number[number] = by_node[node] = inode
            if node.is_within_thread and (scope := node.scope) is not None:
                self._within.setdefault(scope.thread_id, {})[inode.number] = inode
        return inode

    def _remembered(self, node: Node) -> OrderedDict[Node, int]:
        return self._directories if node.kind == stat.S_IFDIR else self._files

    def existing(self, node: Node) -> Inode | None:
        return self._by_node[type(node)].get(node)

    def within(self, thread_id: str, run_id: str | None = None) -> list[Inode]:
        """All that is in a thread, or in a run of it."""
        found = list(self._within.get(thread_id, {}).values())
        return [inode for inode in found if run_id in (None, inode.node.scope and inode.node.scope.run_id)]

    def held(self) -> list[Inode]:
        return list(self._by_number.values())

    def detach(self, inode: Inode) -> None:
        """Leaves the number to the readers of the version that they opened; the node gets a new one."""
        inode.drop_reader()
        if not inode.readers:  # They have closed it just now.
            return
        inode.pinned_reader = inode.readers[0]
        self._detached.setdefault(inode.node, []).append(inode)
        if self.existing(inode.node) is inode:
            self._lose_node(inode.node)

    def detached(self, node: Node) -> list[Inode]:
        return list(self._detached.get(node, ()))

    def renew(self, node: Node) -> None:
        """Leaves the number to its holders, as the kernel believes that the file was removed."""
        inode = self.existing(node)
        if inode is not None:
            inode.end_sharing()
        if inode is not None and inode.readers:
            self.detach(inode)  # They hear of what comes.
        elif inode is not None:
            self._lose_node(node)

    def _lose_node(self, node: Node) -> None:
        del self._by_node[type(node)][node]

    def remove(self, directory: Node) -> None:
        """As `renew`, for a directory that has gone."""
        inode = self.existing(directory)
        if inode is not None and directory.scope is not None:
            inode.removed_ns = time.time_ns()
        self.renew(directory)

    def forget(self, counts: Iterable[tuple[int, int]] | Sequence[tuple[int, int]]) -> None:
        for number, count in counts:
            inode = self._by_number.get(number)
            if inode is not None:
                inode.lookups -= count
                self.release(inode)

    def release(self, inode: Inode) -> None:
        """Drops an inode that neither the kernel nor an open file holds."""
        if inode.lookups <= 0:
            inode.end_sharing()
        if inode.lookups <= 0 and not inode.readers and not inode.writers:
            self._leave_thread(inode)
            if self._by_number.pop(inode.number, None) is not None:
                self._on_dropped(inode)
            if inode.pinned_reader is not None:
                self._detached[inode.node].remove(inode)
                if not self._detached[inode.node]:
                    del self._detached[inode.node]
                inode.pinned_reader = None
            if self.existing(inode.node) is inode:
                self._lose_node(inode.node)
                if inode.node.scope is not None:
                    numbers = self._remembered(inode.node)
                    numbers[inode.node] = inode.number
                    if len(numbers) > (_MAX_DIRECTORIES if numbers is self._directories else _MAX_FILES):
                        numbers.popitem(last=False)

    def _leave_thread(self, inode: Inode) -> None:
        if inode.node.is_within_thread and (scope := inode.node.scope) is not None:
            others = self._within.get(scope.thread_id, {})
            others.pop(inode.number, None)
            if not others:
                self._within.pop(scope.thread_id, None)
