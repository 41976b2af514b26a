"""What a listing tells, and whether the kernel may keep it.

A directory is listed by its inode number, not by a handle, as the kernel opens none where the `shim` is in
effect. There the kernel keeps those listings that `KernelCache` has it forget when a name comes or goes; for
the others it asks each time (`shim.keep_no_listing`).

Entries that the kernel gets just before a change may arrive just after it has forgotten the listing. So after
a change no listing is kept until these have arrived and been dropped.

pyfuse3 answers each READDIR as READDIRPLUS, with the attributes of each entry. Where they cost system calls
a listing leaves them out until a program wants them: `ls -l` asks for the attributes of an entry that was
listed without, and gets those of all that follow; after `grep -r` did so for a file the next short listings
have them at once.
"""

from __future__ import annotations

import stat
import sys
import time
from contextlib import suppress
from typing import Final

import pyfuse3
import trio

from store import WouldWait, without_waiting
from threadfs.fuse import shim
from threadfs.fuse.answers import Answers
from threadfs.fuse.asking import in_thread
from threadfs.fuse.inodes import Inode, Inodes
from threadfs.fuse.kernel_cache import WATCHED_S, KernelCache
from threadfs.fuse.listing import DOTS, Listing
from threadfs.fuse.strangers import Strangers
from threadfs.nodes.base import Attributes, Directory, Node

_SHORT_LIST = 100
# For how many listings it counts that a program wanted the attributes of files.
_LISTINGS_WITH_ATTRIBUTES = 16
# That of `os.fsencode`, which takes three calls more for each name.
_ENCODING: Final = (sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())
# The number of the directory above, which nobody believes, as libfuse says it.
_UNKNOWN_NUMBER = 0xFFFFFFFF


class Listings:
    def __init__(
        self, inodes: Inodes, answers: Answers, kernel_cache: KernelCache, strangers: Strangers
    ) -> None:
        self._inodes = inodes
        self._answers = answers
        self._kernel_cache = kernel_cache
        self._strangers = strangers
        # Held while a thread looks into a directory: two at once would give one cookie twice.
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
        self,
        inode: Inode,
        directory: Directory,
        cookie: int,
        token: pyfuse3.ReaddirToken,
        *,
        by_stranger: bool,
    ) -> None:
        """Fills the answer to a READDIR that goes on after *cookie*, or begins with 0."""
        listing = inode.listing
        if cookie == 0 or listing is None:
            listing = await self._begun(inode, directory, by_stranger=by_stranger)
        start = listing.after(cookie)
        is_old = cookie and not listing.is_current and len(listing.names) <= _SHORT_LIST
        while start < len(listing.names) and (is_old or not listing.nodes):  # Others may have been told all.
            listing, is_old = await self._looked_into(inode, directory, by_stranger=by_stranger), False
            start = listing.after(cookie)
        if self._times_wanted != listing.times_wanted:
            listing.gives_attributes = True
        if cookie < DOTS[-1]:
            for dot, name, number in zip(DOTS, (b".", b".."), (inode.number, _UNKNOWN_NUMBER), strict=True):
                if dot > cookie and not pyfuse3.readdir_reply(token, name, self._answers.dot(number), dot):
                    return
        if start < len(listing.names):
            await self._tell(inode, directory, listing, start, token)
        elif cookie < DOTS[-1]:
            listing.told_s = time.monotonic()  # An empty one may be kept as well.
            self._has_told(inode, listing, DOTS[-1])
        else:
            listing.is_told()
            if not listing.may_be_kept:
                shim.keep_no_listing()

    async def _tell(
        self, told: Inode, directory: Directory, listing: Listing, start: int, token: pyfuse3.ReaddirToken
    ) -> None:
        nodes = listing.nodes
        known: dict[Node, Attributes | None] | None = None
        if listing.gives_attributes:
            known = await listing.know_from(start, directory, self._answers.attributes_are_costly)
        names_timeout_s = None
        if listing.was_current:  # Names may have gone since.
            names_timeout_s = WATCHED_S if listing.is_current else 0
        is_long = len(listing.names) > _SHORT_LIST
        listing.told_s = time.monotonic()
        for index in range(start, len(listing.names)):
            node = nodes[index]
            if known is not None and node not in known:
                return  # The kernel asks for more.
            inode = self._inodes.of(node)
            entry = inode.entry
            if entry is None:
                entry = self._answers.listed(inode, known, names_timeout_s, listing.began_s, listing.known_s)
                # One that may be remembered for long was covered just now: a change since ends the listing.
                if is_long and entry.attr_timeout < WATCHED_S and not self._answers.lasts(inode):
                    listing.is_lasting = False
            if inode.readers_now:  # When it changes, it gets another number.
                listing.is_lasting = False
            inode.kernel_has_attributes = True
            name = listing.names[index].encode(*_ENCODING)
            if not pyfuse3.readdir_reply(token, name, entry, listing.cookies[index]):
                self._inodes.release(inode)
                return
            inode.lookups += 1
        self._has_told(told, listing, listing.cookies[-1])

    def _has_told(self, directory: Inode, listing: Listing, last_cookie: int) -> None:
        """The kernel got the last entry. It asks on after that."""
        shim.tell_end(directory.number, last_cookie, is_kept=listing.may_be_kept)
        if not listing.may_be_kept:  # By now.
            shim.forget_end(directory.number)
        listing.is_told()

    async def _begun(self, inode: Inode, directory: Directory, *, by_stranger: bool) -> Listing:
        """What the directory holds now."""
        listing = inode.listing
        if listing is None or not listing.is_current or not directory.lists_store:
            listing = await self._looked_into(inode, directory, by_stranger=by_stranger)
        is_kept = self._kernel_cache.keeps_listings and listing.is_current
        if is_kept and listing.kernel_has_other and listing.is_settled:
            await in_thread(self._kernel_cache.forget_listing, inode)
            listing.kernel_dropped_other()
        # A walk through a tree wants of the next short listing what it wanted of the last ones.
        is_short = len(listing.names) <= _SHORT_LIST
        listing.gives_attributes = is_short and self._listings_since < _LISTINGS_WITH_ATTRIBUTES
        listing.times_wanted = self._times_wanted
        listing.is_lasting = True
        self._listings_since += 1
        return listing

    async def _looked_into(self, inode: Inode, directory: Directory, *, by_stranger: bool) -> Listing:
        await self._answers.hold(inode)
        if inode.number not in self._looking and not directory.is_slow and not directory.store.is_remote:
            changes_seen = inode.changes_seen
            with suppress(WouldWait), without_waiting():
                return self._found(inode, directory, Listing(directory, inode.listing), changes_seen)
        asked_s = time.monotonic()
        lock = self._looking.setdefault(inode.number, trio.Lock())
        try:
            async with self._strangers.turn_of(by_stranger, directory):
                try:
                    lock.acquire_nowait()  # `acquire` lets all other tasks go first, even if it is free.
                except trio.WouldBlock:
                    await lock.acquire()
                try:
                    listing = inode.listing
                    if listing is not None and listing.began_s >= asked_s:
                        return listing  # Somebody has looked meanwhile.
                    changes_seen = inode.changes_seen
                    listing = await in_thread(Listing, directory, inode.listing)
                    return self._found(inode, directory, listing, changes_seen)
                finally:
                    lock.release()
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._looking.pop(inode.number, None)

    def _found(self, inode: Inode, directory: Directory, listing: Listing, changes_seen: int) -> Listing:
        inode.listing = listing
        if self._kernel_cache.covers_names_in(directory):
            inode.remember_listing(listing, changes_seen)
        return listing
