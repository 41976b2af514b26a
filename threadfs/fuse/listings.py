"""What a listing tells.

A directory is listed by its inode number, not by a handle, as the kernel opens none where the `shim` is in
effect. It then keeps what it got until the directory has another time, or until it is told to forget it.

pyfuse3 answers each READDIR as READDIRPLUS, with the attributes of each entry. Where they cost system calls
a listing leaves them out until a program wants them: `ls -l` asks for the attributes of an entry that was
listed without, and gets those of all that follow; after `grep -r` did so for a file the next short listings
have them at once.
"""

from __future__ import annotations

import stat

import pyfuse3
import trio

from threadfs.fuse.answers import Answers
from threadfs.fuse.asking import in_thread, run_inline_or_in_thread
from threadfs.fuse.inodes import Inode, Inodes
from threadfs.fuse.kernel_cache import WATCHED_S, KernelCache
from threadfs.fuse.listing import DOTS, Listing
from threadfs.nodes.base import Directory

_SHORT_LIST = 100
# For how many listings it counts that a program wanted the attributes of files.
_LISTINGS_WITH_ATTRIBUTES = 16
# The number of the directory above, which nobody believes, as libfuse says it.
_UNKNOWN_NUMBER = 0xFFFFFFFF


class Listings:
    def __init__(self, inodes: Inodes, answers: Answers, kernel_cache: KernelCache) -> None:
        self._inodes = inodes
        self._answers = answers
        self._kernel_cache = kernel_cache
        # Held while a directory is looked into: two at once would give one cookie twice.
        self._looking: dict[int, trio.Lock] = {}
        # How often a program wanted attributes that a listing had left out, and how many listings have begun
        # since these were the attributes of a file.
        self._times_wanted = 0
        self._listings_since = _LISTINGS_WITH_ATTRIBUTES

    def attributes_wanted(self, inode: Inode) -> None:
        """The kernel asks for the attributes of *inode*."""
        if inode.listed_without_attributes:
            inode.listed_without_attributes = False
            self._times_wanted += 1
            if inode.node.kind == stat.S_IFREG:  # A walk through a tree always asks for those of directories.
                self._listings_since = 0

    async def reply(
        self, inode: Inode, directory: Directory, cookie: int, token: pyfuse3.ReaddirToken
    ) -> None:
        """Fills the answer to a READDIR that goes on after *cookie*, or begins with 0."""
        listing = inode.listing
        if cookie == 0 or listing is None:
            listing = await self._begun(inode, directory)
        if self._times_wanted != listing.times_wanted:
            listing.gives_attributes = True
        for dot, name, number in zip(DOTS, (b".", b".."), (inode.number, _UNKNOWN_NUMBER), strict=True):
            if dot > cookie and not pyfuse3.readdir_reply(token, name, self._answers.dot(number), dot):
                return
        gives_attributes = listing.gives_attributes
        start = listing.after(cookie)
        if gives_attributes:
            await listing.know_from(start, self._answers.attributes_are_costly)
        for index in range(start, len(listing.names)):
            node = listing.nodes[index]
            if gives_attributes and node not in listing.known:
                return  # The kernel asks for more.
            if not self._tell(listing, index, token):
                return

    def _tell(self, listing: Listing, index: int, token: pyfuse3.ReaddirToken) -> bool:
        """Whether the kernel takes this entry."""
        inode = self._inodes.of(listing.nodes[index])
        entry = inode.entry or self._answers.listed(inode, listing)
        inode.kernel_has_attributes = True
        if pyfuse3.readdir_reply(token, listing.names[index], entry, listing.cookies[index]):
            inode.lookups += 1
            return True
        self._inodes.release(inode)
        return False

    async def _begun(self, inode: Inode, directory: Directory) -> Listing:
        """What the directory holds now."""
        lock = self._looking.setdefault(inode.number, trio.Lock())
        try:
            async with lock:
                listing = inode.listing
                if listing is None or not listing.is_current or not directory.lists_store:
                    listing = await self._looked_into(inode, directory)
        finally:
            if not lock.statistics().tasks_waiting:
                self._looking.pop(inode.number, None)
        # A walk through a tree wants of the next short listing what it wanted of the last ones.
        is_short = len(listing.names) <= _SHORT_LIST
        listing.gives_attributes = is_short and self._listings_since < _LISTINGS_WITH_ATTRIBUTES
        listing.times_wanted = self._times_wanted
        self._listings_since += 1
        return listing

    async def _looked_into(self, inode: Inode, directory: Directory) -> Listing:
        await self._answers.hold(inode)
        changes_seen = inode.changes_seen
        if directory.is_slow:
            listing = await in_thread(Listing, directory, inode.listing)
        else:
            listing = await run_inline_or_in_thread(directory, Listing, directory, inode.listing)
        inode.listing = listing
        if directory.lists_store and self._kernel_cache.covers_names_in(directory):
            listing.names_timeout_s = WATCHED_S
            inode.remember_listing(listing, changes_seen)
        return listing
