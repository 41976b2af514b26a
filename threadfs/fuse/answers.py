"""Answers about inodes: number, attributes, and for how long the kernel may remember them."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from contextlib import suppress

import pyfuse3

from store import NotFound, StoreError, WouldWait, without_waiting
from store.waiting import is_refused
from threadfs.fuse.asking import in_thread, run_inline_or_in_thread
from threadfs.fuse.inodes import Inode, Inodes
from threadfs.fuse.kernel_cache import WATCHED_S, KernelCache
from threadfs.fuse.ownership import Ownership
from threadfs.nodes.base import Attributes, BytesReader, Node, Readable, Reader, is_readable
from threadfs.nodes.lives import Life


def is_rendered(node: Node) -> bool:
    """Whether even its size takes a thread of its own."""
    return node.is_slow and node.kind == stat.S_IFREG


def _shown_by(reader: Reader) -> Attributes | None:
    """Those of the version that a reader of a document has opened."""
    attributes = reader.attributes() if isinstance(reader, BytesReader) else None
    return attributes if attributes and attributes.version else None


def _look(node: Readable) -> tuple[object, Attributes]:
    """The version of a file, as a reader opens it now, and its attributes."""
    reader = node.open_for_reading()
    try:
        return reader.version, reader.attributes()
    finally:
        reader.close()


class Answers:
    def __init__(self, inodes: Inodes, kernel_cache: KernelCache, ownership: Ownership) -> None:
        self._inodes = inodes
        self._kernel_cache = kernel_cache
        self._following = kernel_cache.following
        self._ownership = ownership
        self._bare = {kind: self._bare_entry(kind) for kind in (stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK)}

    def _made(
        self,
        inode: Inode,
        attributes: Attributes,
        changes_seen: int | None = None,
        name_timeout_s: float | None = None,
    ) -> pyfuse3.EntryAttributes:
        """The entry of an inode. *name_timeout_s*: for how long its name may be remembered, if that is known.

        With *changes_seen*, the attributes were read while a watch covered the inode, after so many changes:
        the entry is kept until the next change.
        """
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode.number
        node = inode.node
        entry.st_mode = attributes.mode if node.keeps_permissions else self._ownership.shown(attributes.mode)
        entry.st_nlink = attributes.links
        entry.st_uid, entry.st_gid = self._ownership.uid, self._ownership.gid
        entry.st_size = attributes.size_bytes
        entry.st_blksize = 4096
        entry.st_blocks = -(-attributes.size_bytes // 512)
        entry.st_atime_ns = entry.st_mtime_ns = modified_ns = attributes.modified_ns
        entry.st_ctime_ns = modified_ns if attributes.changed_ns is None else attributes.changed_ns
        inode.kernel_has_attributes = True
        if is_rendered(node):
            inode.told_bytes = attributes.size_bytes
        if inode.pinned_reader is not None:
            entry.entry_timeout = entry.attr_timeout = 0
            return entry
        if inode.told_version != attributes.version:
            inode.end_sharing()  # Its pages are those of another version than the size.
            inode.told_version = attributes.version
        if name_timeout_s is None:
            name_timeout_s = self._kernel_cache.entry_timeout_s(node)
        entry.entry_timeout = name_timeout_s
        if changes_seen is not None:
            entry.attr_timeout = WATCHED_S
            if inode.remember_entry(entry, changes_seen):
                return entry
        entry.attr_timeout = self._kernel_cache.uncovered_timeout_s(node)
        return entry

    def _bare_entry(self, kind: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        permissions = {stat.S_IFDIR: 0o755, stat.S_IFREG: 0o644, stat.S_IFLNK: 0o777}[kind]
        entry.st_mode = self._ownership.shown(kind | permissions)
        entry.st_nlink = 1
        entry.st_uid, entry.st_gid = self._ownership.uid, self._ownership.gid
        entry.attr_timeout = 0
        return entry

    async def entry_of(self, inode: Inode) -> pyfuse3.EntryAttributes:
        if inode.removed_ns is not None:
            return self._made(inode, Attributes(stat.S_IFDIR | 0o755, 0, inode.removed_ns, links=0))
        if not inode.readers_now:
            return await self._entry_of(inode, None, None)
        changes_seen = self._changes_seen(inode)
        found = await self._detach_if_changed(inode)
        return await self._entry_of(inode, found, changes_seen)

    async def _entry_of(
        self, inode: Inode, found: Attributes | None, changes_seen: int | None
    ) -> pyfuse3.EntryAttributes:
        """With what was *found* after *changes_seen* changes, if anything was."""
        node = inode.node
        if inode.pinned_reader is not None:
            pinned = await run_inline_or_in_thread(node, inode.pinned_reader.attributes)
            # The name, if it is still there, is that of another number.
            return self._made(inode, pinned._replace(links=0))
        if (entry := inode.entry) is not None:
            inode.kernel_has_attributes = True
            return entry
        if is_rendered(node):
            return self._made(inode, found if found is not None else await in_thread(node.attributes))
        if found is not None:
            return self._made(inode, found, changes_seen)
        changes_seen = self._changes_seen(inode)
        return self._made(inode, await run_inline_or_in_thread(node, node.attributes), changes_seen)

    def at_hand(self, inode: Inode, name_timeout_s: float | None = None) -> pyfuse3.EntryAttributes | None:
        """The entry of an inode that shows the latest version, if it can be made without waiting.

        *name_timeout_s*: for how long its name may be remembered, if that is known.
        """
        node = inode.node
        if (entry := inode.entry) is not None:
            inode.kernel_has_attributes = True
            return entry
        if node.tree.store.is_remote or is_rendered(node):
            return None
        changes_seen = self._changes_seen(inode)
        try:
            if is_refused():
                attributes = node.attributes()
            else:
                with without_waiting():
                    attributes = node.attributes()
        except WouldWait:
            return None
        return self._made(inode, attributes, changes_seen, name_timeout_s)

    def _changes_seen(self, inode: Inode) -> int | None:
        """How many changes have been seen, if all are reported. To be called before the inode is read."""
        changes_seen = inode.changes_seen  # Read first, then checked whether all are reported.
        return changes_seen if self._kernel_cache.covers(inode.node) else None

    async def _detach_if_changed(self, inode: Inode) -> Attributes | None:
        """Leaves this inode number to the readers of an old version, before the kernel hears of a new one.

        Returns:
            The attributes, if the file had to be opened, and is the one that they read.
        """
        node = inode.node
        readers = inode.readers_now
        if readers and inode.pinned_reader is None and is_readable(node):
            opened = readers[0].version
            if inode.latest_reader is not None and inode.latest_reader.version == opened:
                return None
            found = version = None
            try:
                version, found = await run_inline_or_in_thread(inode.node, _look, node)
            except NotFound:
                pass
            except StoreError:
                return None
            if found is not None and version == opened:
                return (
                    found if found.version else None
                )  # Control files have one reader, which knows no times.
            if inode.readers_now and inode.pinned_reader is None:
                self._kernel_cache.detach(inode)  # Its readers go on with the version that they opened.
        return None

    def attributes_are_costly(self, node: Node) -> bool:
        """Whether a listing leaves out the attributes until a program wants them: they cost system calls."""
        if is_rendered(node) or (node.has_cheap_attributes and not node.store.is_remote):
            return False
        inode = self._inodes.existing(node)
        return not (inode and inode.entry) and not self._kernel_cache.covers(node)

    def listed(
        self,
        inode: Inode,
        known: Mapping[Node, Attributes | None] | None,
        name_timeout_s: float | None,
        listed_s: float,
        looked_s: float,
    ) -> pyfuse3.EntryAttributes:
        """The entry for a listing, which must cost little: the kernel asks when it needs more.

        Args:
            known: attributes that a program wants; without, they are left out where they cost something.
            name_timeout_s: for how long the name may be remembered that leads to the same node until the
                store reports a change; without, the node tells.
            listed_s: when it was looked for the names, by the monotonic clock.
            looked_s: when it was looked at what is *known*.
        """
        node = inode.node
        if readers := inode.readers_now:
            # A later size would cut their pages. A lookup of the name asks again.
            shown = _shown_by(readers[0])
            if shown is None:
                return self._without_attributes(inode, timeout_s=0)
            of_readers = self._made(inode, shown)
            of_readers.entry_timeout = of_readers.attr_timeout = 0
            return of_readers
        is_reported = node.life is not Life.UNREPORTED
        if known and (attributes := known.get(node)):
            told = self._made(inode, attributes)
            if lent_s := self._kernel_cache.lend(inode, listed_s, looked_s):
                told.entry_timeout = told.attr_timeout = lent_s
            return told
        # What the kernel got before, and keeps, an entry without would take away.
        was_told = is_reported and inode.kernel_has_attributes and not inode.listed_without_attributes
        if node.has_cheap_attributes or known is not None or was_told:
            with suppress(StoreError):  # It has gone, or is not readable; a lookup will tell.
                is_known = name_timeout_s and node.life is Life.REPORTED
                if entry := self.at_hand(inode, name_timeout_s if is_known else None):
                    return entry
        inode.listed_without_attributes = True
        return self._without_attributes(inode, name_timeout_s if is_reported else 0)

    def lasts(self, inode: Inode) -> bool:
        """Whether to list it again tells no attributes that the kernel has forgotten by itself."""
        return is_rendered(inode.node) or self._kernel_cache.covers(inode.node)

    def counted(self, inode: Inode) -> pyfuse3.EntryAttributes:
        """The entry for a lookup, counted, of what need not be there: the store is not asked."""
        inode.lookups += 1
        readers = inode.readers_now
        shown = _shown_by(readers[0]) if readers else None
        entry = self._without_attributes(inode, 0) if shown is None else self._made(inode, shown)
        entry.entry_timeout = entry.attr_timeout = 0
        return entry

    def dot(self, number: int) -> pyfuse3.EntryAttributes:
        """The entry for the directory itself in its listing, and for the one above."""
        entry = self._bare[stat.S_IFDIR]
        entry.st_ino = number
        return entry

    def _without_attributes(self, inode: Inode, timeout_s: float | None = None) -> pyfuse3.EntryAttributes:
        """One entry serves for all, as the caller passes it on at once."""
        entry = self._bare[inode.node.kind]
        entry.st_ino = inode.number
        # Of two answers about a file at once, the kernel keeps the first: who seeks its end may get this one.
        entry.st_size = inode.told_bytes
        if timeout_s is None:
            timeout_s = (
                0 if inode.pinned_reader is not None else self._kernel_cache.entry_timeout_s(inode.node)
            )
        entry.entry_timeout = timeout_s
        return entry

    async def remember(self, node: Node) -> pyfuse3.EntryAttributes:
        """The entry for a lookup, counted."""
        inode = self._inodes.of(node)
        changes_seen = self._changes_seen(inode)
        found = await self._detach_if_changed(inode)
        inode = self._inodes.of(node)
        inode.lookups += 1
        try:
            # First follow, then read: a change in between is reported once too often, never too rarely.
            await self.hold(inode)
            if node.has_cheap_attributes:
                return await self._entry_of(inode, found, changes_seen)
            entry = self.at_hand(inode) if inode.pinned_reader is None else None
            return entry or self._without_attributes(inode)
        except BaseException:
            self._inodes.forget([(inode.number, 1)])
            raise

    def remember_at_once(self, node: Node) -> pyfuse3.EntryAttributes:
        """As `remember`, where waiting is refused. Raises WouldWait, having changed nothing."""
        inode = self._inodes.of(node)
        inode.lookups += 1
        try:
            if inode.readers_now:
                raise WouldWait  # Whether they read the latest version is another question to the store.
            if not inode.is_followed:
                if not self._following.is_heard(node.scope):
                    node.attributes()  # What is not there is not followed.
                self._following.hold(inode)
            entry = self.at_hand(inode)
            if entry is None and node.has_cheap_attributes:
                raise WouldWait
            return entry or self._without_attributes(inode)
        except BaseException:
            self._inodes.forget([(inode.number, 1)])
            raise

    async def hold(self, inode: Inode) -> None:
        """Follows changes of what this inode shows, from now on: the kernel gets to know it."""
        if not inode.is_followed and inode.node.scope is not None:
            await run_inline_or_in_thread(inode.node, self._following.hold, inode)
