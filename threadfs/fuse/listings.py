"""What a listing tells.

pyfuse3 answers each READDIR as READDIRPLUS, with the attributes of each entry. Where they cost system calls
a listing leaves them out until a program wants them: `ls -l` asks for the attributes of an entry that was
listed without, and gets those of all that follow; after `grep -r` did so for a file the next short listings
have them at once.
"""

from __future__ import annotations

import stat

import pyfuse3

from threadfs.fuse.answers import Answers
from threadfs.fuse.asking import in_thread, run_inline_or_in_thread
from threadfs.fuse.inodes import Inode, Inodes
from threadfs.fuse.kernel_cache import WATCHED_S, KernelCache
from threadfs.fuse.listing import Listing, entries_of
from threadfs.fuse.strangers import Strangers
from threadfs.nodes.base import Directory

_SHORT_LIST = 100
# For how many listings it counts that a program wanted the attributes of files.
_LISTINGS_WITH_ATTRIBUTES = 16


class Listings:
    """The open directories, by their handles."""

    def __init__(
        self, inodes: Inodes, answers: Answers, kernel_cache: KernelCache, strangers: Strangers
    ) -> None:
        self._inodes = inodes
        self._answers = answers
        self._kernel_cache = kernel_cache
        self._strangers = strangers
        self._open: dict[int, Listing] = {}
        self._last_handle = 0
        # How often a program wanted attributes that a listing had left out, and how many directories were
        # opened since these were the attributes of a file.
        self._times_wanted = 0
        self._listings_since = _LISTINGS_WITH_ATTRIBUTES

    async def open(self, inode: Inode, directory: Directory, uid: int) -> int:
        """The handle of what the directory holds now, for the user *uid*."""
        listing = await self._begun(inode, directory, uid)
        self._last_handle += 1
        self._open[self._last_handle] = listing
        return self._last_handle

    def close(self, handle: int) -> None:
        self._open.pop(handle, None)

    def attributes_wanted(self, inode: Inode) -> None:
        """The kernel asks for the attributes of *inode*."""
        if inode.listed_without_attributes:
            inode.listed_without_attributes = False
            self._times_wanted += 1
            if inode.node.kind == stat.S_IFREG:  # A walk through a tree always asks for those of directories.
                self._listings_since = 0

    async def _begun(self, inode: Inode, directory: Directory, uid: int) -> Listing:
        """What the directory holds now."""
        entries = inode.listing
        if entries is None or not directory.lists_store:
            await self._answers.hold(inode)
            changes_seen = inode.changes_seen
            if directory.is_slow:
                async with self._strangers.turn(uid, directory):
                    entries = await in_thread(entries_of, directory)
            else:
                entries = await run_inline_or_in_thread(directory, entries_of, directory)
            if directory.lists_store and self._kernel_cache.covers_names_in(directory):
                entries.names_timeout_s = WATCHED_S
                inode.remember_listing(entries, changes_seen)
        # A walk through a tree wants of the next short listing what it wanted of the last ones.
        is_short = len(entries.names) <= _SHORT_LIST
        gives_attributes = is_short and self._listings_since < _LISTINGS_WITH_ATTRIBUTES
        self._listings_since += 1
        return Listing(inode, directory, uid, entries, self._times_wanted, gives_attributes=gives_attributes)

    async def reply(self, handle: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """Fills the answer to a READDIR that goes on after the entry *start_id*."""
        listing = self._open[handle]
        if start_id == 0 and listing.is_begun:  # rewinddir(3)
            listing = self._open[handle] = await self._begun(listing.inode, listing.directory, listing.uid)
        listing.is_begun = True
        if self._times_wanted != listing.times_wanted:
            listing.gives_attributes = True
        if start_id < len(listing.dots):
            for position, (name, number) in enumerate(listing.dots[start_id:], start_id + 1):
                if not pyfuse3.readdir_reply(token, name, self._answers.dot(number), position):
                    return
        names, nodes, inodes = listing.names, listing.nodes, listing.inodes
        start = max(0, start_id - len(listing.dots))
        for index in range(start, await listing.prepared_to(start, self._answers.attributes_are_costly)):
            inode = inodes[index]
            if inode is None or not inode.owns_node:
                inode = inodes[index] = self._inodes.of(nodes[index])
            entry = inode.entry
            if entry is None:
                entry = self._answers.listed(inode, listing)
            inode.kernel_has_attributes = True
            if not pyfuse3.readdir_reply(token, names[index], entry, len(listing.dots) + index + 1):
                self._inodes.release(inode)
                return
            inode.lookups += 1
