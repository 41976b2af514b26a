"""Opening files for reading and writing, and committing what was written."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pyfuse3
import trio

from store import NotFound, memory
from threadfs.fuse import openers, shim
from threadfs.fuse.answers import is_rendered
from threadfs.fuse.asking import in_thread, run_inline_or_in_thread
from threadfs.fuse.inodes import Inode, Inodes
from threadfs.fuse.kernel_cache import KernelCache
from threadfs.fuse.recent_readers import RecentReaders
from threadfs.fuse.retried_opens import RetriedOpens
from threadfs.nodes.base import BytesReader, Reader, Refused, Tree, Writer, is_readable, is_writable

_RECENT_BYTES = 32 << 20


class OpenFile:
    """What a file handle stands for. Calls on one handle take turns: ``async with`` it is one."""

    __slots__ = (
        *("inode", "is_cached", "is_judged", "opener", "opens", "reader", "taken_bytes", "writer"),
        *("_handle", "_lock", "_sharing"),
    )

    def __init__(
        self, inode: Inode, reader: Reader | None, writer: Writer | None, *, is_cached: bool, opener: int = 0
    ) -> None:
        self.inode = inode
        # The id of the process (or thread) that has opened it for writing; 0: one that cannot be seen here.
        self.opener = opener
        # Whether what was written has been committed, or refused, at its end.
        self.is_judged = False
        # How many bytes were written, refused ones too.
        self.taken_bytes = 0
        self.reader = reader
        self.writer = writer
        self.is_cached = is_cached
        # How many opens have this handle; while it is shared, the shim counts them.
        self.opens = 1
        self._sharing: Sharing | None = None
        self._handle = 0
        self._lock: trio.Lock | None = None

    @property
    def has_uncommitted(self) -> bool:
        """Whether something was written that has not been committed."""
        return self.writer is not None and self.writer.has_uncommitted

    async def __aenter__(self) -> None:
        if self._lock is None:
            self._lock = trio.Lock()
        try:
            self._lock.acquire_nowait()  # `acquire` lets all other tasks go first, even if it is free.
        except trio.WouldBlock:
            await self._lock.acquire()

    async def __aexit__(self, kind: object, error: object, origin: object) -> None:
        assert self._lock is not None
        self._lock.release()
        if error is not None and self.taken_bytes > memory.LARGE_BYTES:
            await in_thread(memory.give_back)  # Before the caller hears of the refusal.

    def share(self, sharing: Sharing, handle: int) -> None:
        """Further opens get this *handle*, and the shim answers them until `end_sharing`."""
        self._sharing, self._handle = sharing, handle
        sharing.begin(self, handle)

    def end_sharing(self) -> None:
        if self._sharing is not None:
            self._sharing.end(self, self._handle)


class Sharing:
    """Opens for reading that the `shim` answers: of files whose pages the kernel holds while nothing changes.

    A file is shared from its first open on, also while nobody has it open, until something about it changes
    or is forgotten. Any thread may end that, so what is open is counted under a lock.
    """

    def __init__(self, files: dict[int, OpenFile], inodes: Inodes) -> None:
        self._files = files
        self._inodes = inodes
        self._lock = threading.Lock()

    def begin(self, file: OpenFile, handle: int) -> None:
        inode, reader = file.inode, file.reader
        assert reader is not None
        other = shim.shared_in_place_of(inode.number)
        if other and (its_inode := self._inodes.get(other)) is not None:
            its_inode.end_sharing()
        with self._lock:
            if not shim.share(inode.number, handle, file.opens):
                return
            inode.readers.remove(reader)
            inode.shared = file
        if inode.latest_reader is not reader:  # A change takes it away first, and then ends the sharing.
            inode.end_sharing()

    def end(self, file: OpenFile, handle: int) -> None:
        inode, reader = file.inode, file.reader
        assert reader is not None
        with self._lock:
            if inode.shared is not file:
                return
            inode.readers.append(reader)  # First, so that it is one of them all the time.
            file.opens = shim.end_sharing(inode.number)
            if not file.opens:
                inode.readers.remove(reader)
                self._files.pop(handle, None)
            inode.shared = None  # Last: whoever finds it so does not wait for the lock.

    def close(self, file: OpenFile) -> bool:
        """Counts a close of one that is shared no longer. Returns whether it was the last."""
        with self._lock:
            file.opens -= 1
            return not file.opens


class OpenFiles:
    """The open files, by their handles."""

    def __init__(self, tree: Tree, inodes: Inodes, kernel_cache: KernelCache) -> None:
        self._tree = tree
        self._inodes = inodes
        self._kernel_cache = kernel_cache
        self._recent = RecentReaders(_RECENT_BYTES)
        self._retried = RetriedOpens()
        self._files: dict[int, OpenFile] = {}
        self._sharing = Sharing(self._files, inodes)
        self._last_handle = 0
        # The number of the mounted file system as in mountinfo, ``major:minor``, once that is known.
        self.device = ""

    def __getitem__(self, handle: int) -> OpenFile:
        return self._files[handle]

    def get(self, handle: int) -> OpenFile | None:
        return self._files.get(handle)

    async def open_writer(self, found: Inode, flags: int, opener: int) -> pyfuse3.FileInfo:
        node = found.node
        found.end_sharing()
        takes_pages = node.shows_what_is_written and (flags & os.O_TRUNC or not node.is_append_only)
        if not is_writable(node):
            raise Refused(errno.EACCES, "this file cannot be written")
        if found.readers and takes_pages:
            # Truncating would take the pages from the readers.
            raise self._look_up_again(found)
        opening = partial(
            node.open_for_writing, truncate=bool(flags & os.O_TRUNC), append=bool(flags & os.O_APPEND)
        )
        found.writers += 1
        try:
            writer = await run_inline_or_in_thread(found.node, opening)
        except BaseException:
            found.writers -= 1
            raise
        return self._opened(OpenFile(found, None, writer, is_cached=False, opener=opener))

    async def open_reader(self, found: Inode) -> pyfuse3.FileInfo:
        found.end_sharing()
        if found.pinned_reader is not None and not self._retried.may_come(found.node):
            # By a name that is about to be forgotten; or by a descriptor, and then it comes again.
            raise self._look_up_again(found)
        reader = await self._reader(found)
        if isinstance(reader, BytesReader):
            version = reader.attributes().version
        else:
            version = (
                (await run_inline_or_in_thread(found.node, reader.attributes)).version
                if reader.version
                else None
            )
        # Nothing is awaited before it is one of the readers: their pages are those of one version.
        is_cached = bool(reader.version) and not found.writers and not self._retried.may_come(found.node)
        if is_cached and found.readers and reader.version != found.readers[0].version:
            if reader is not found.pinned_reader:
                reader.close()
            raise self._look_up_again(found)
        if not is_cached:
            if is_rendered(found.node):
                found.told_bytes = (await in_thread(reader.attributes)).size_bytes
            return self._opened(OpenFile(found, reader, None, is_cached=False))
        found.readers.append(reader)
        if found.pinned_reader is None and version != found.told_version:
            # A size that the kernel knows from before would cut this version short.
            await in_thread(self._kernel_cache.forget_attributes, found)
        keeps_pages = version == found.cached_version
        found.cached_version = version
        self._tree.journal.counters["cache_hits"] += keeps_pages
        file = OpenFile(found, reader, None, is_cached=True)
        opened = self._opened(file, keeps_pages=keeps_pages)
        # The kernel knows this version's size, and gets to know its pages.
        if reader is found.latest_reader and version == found.told_version:
            file.share(self._sharing, opened.fh)
        return opened

    def _look_up_again(self, found: Inode) -> pyfuse3.FUSEError:
        """The error on which the kernel looks the name up and opens what it finds, which has no readers."""
        self._retried.expect(found.node)
        for inode in (found, self._inodes.existing(found.node)):
            if inode is not None:
                inode.end_sharing()
            if inode is not None and inode.readers:
                self._kernel_cache.detach(inode)
        return pyfuse3.FUSEError(errno.ESTALE)

    async def _reader(self, found: Inode) -> Reader:
        if found.pinned_reader is not None:
            return found.pinned_reader
        if found.latest_reader is not None:
            return found.latest_reader
        node = found.node
        if not is_readable(node):
            raise Refused(errno.EACCES, "this cannot be read")
        opening = node.open_for_reading
        is_covered = self._kernel_cache.covers(found.node)
        changes_seen = found.changes_seen
        reader: Reader = await (
            in_thread(opening) if found.node.is_slow else run_inline_or_in_thread(found.node, opening)
        )
        # One that holds all its bytes serves whoever opens the file next; a change takes it away.
        if is_covered and isinstance(reader, BytesReader) and reader.version:
            self._recent.keep(found, reader, changes_seen)
        return reader

    def _opened(self, file: OpenFile, *, keeps_pages: bool = False) -> pyfuse3.FileInfo:
        self._last_handle += 1
        handle = self._last_handle
        self._files[handle] = file
        return pyfuse3.FileInfo(fh=handle, direct_io=not file.is_cached, keep_cache=keeps_pages)

    async def committing(self, function: Callable[..., None], *arguments: Any) -> None:
        """For what may change the store: the kernel has forgotten what changed before the caller goes on."""
        await in_thread(function, *arguments)
        await self._kernel_cache.names_are_forgotten()

    async def commit(self, file: OpenFile, writer: Writer, *, unless_open: bool = False) -> None:
        """Commits what was written; *unless_open* by the process that opened the file: it may write more."""

        # If one program has opened the file several times, which descriptor belongs to which handle cannot be
        # seen; but each handle needs one.
        needed = sum(
            other.inode is file.inode and other.opener == file.opener and other.has_uncommitted
            for other in (list(self._files.values()) if file.inode.writers > 1 else (file,))
        )

        def end() -> bool:
            if unless_open:
                found = openers.open_descriptors(file.opener, file.inode.number, self.device)
                if found >= needed:
                    return False
            file.is_judged = True
            writer.flush()
            return True

        if not await in_thread(end):
            return
        await self._kernel_cache.names_are_forgotten()
        if file.inode.given_time_ns is not None:
            with suppress(NotFound):
                await self.committing(file.inode.node.set_modified, file.inode.given_time_ns)

    def close(self, handle: int) -> None:
        """No descriptor is left."""
        file = self._files[handle]
        if not self._sharing.close(file):
            return
        del self._files[handle]
        inode = file.inode
        if file.writer is not None:
            inode.writers -= 1
            inode.given_time_ns = None
            file.writer.close()
        if file.is_cached and file.reader is not None:
            inode.readers.remove(file.reader)
        if file.reader is not None and inode.pinned_reader is not file.reader:
            file.reader.close()
        self._inodes.release(inode)
