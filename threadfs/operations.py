"""The adapter between the kernel and the nodes: find the node, call it, translate the error.

Nodes are synchronous: `asking` calls them in place or in a thread. `answers` makes what the kernel is told.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import stat
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyfuse3

from store import InvalidDocument, InvalidName, NotFound, StoreError
from store.printing import printable
from threadfs import memory, openers
from threadfs.answers import Answers
from threadfs.asking import asked, forget_origin, in_thread
from threadfs.errnos import errno_of
from threadfs.handles import Listing, OpenFile, entries_of
from threadfs.inodes import Inode, Inodes
from threadfs.kernel_cache import WATCHED_S, KernelCache
from threadfs.nodes.base import (
    BytesReader,
    Directory,
    Linked,
    Node,
    NoSuchName,
    Reader,
    Refused,
    Writer,
    is_readable,
    is_writable,
)
from threadfs.nodes.documents import DocumentFile
from threadfs.nodes.root import Root
from threadfs.ownership import Ownership
from threadfs.recent_readers import RecentReaders

log = logging.getLogger("threadfs")

_MAX_NAME_BYTES = 255
_RECENT_BYTES = 32 << 20
_SHORT_LIST = 100
_LISTINGS_ASKED = 16
# The operations that may change the store.
_CHANGES = (
    *("mkdir", "create", "unlink", "rmdir", "rename", "setattr"),
    *("write", "flush", "fsync", "_commit_at_last_close"),
)

P = ParamSpec("P")
T = TypeVar("T")


def handler(
    function: Callable[Concatenate[Operations, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Operations, P], Coroutine[Any, Any, T]]:
    """Counts the operation and turns every error into an errno; nothing else may leave a handler."""
    is_change = function.__name__ in _CHANGES

    async def handle(self: Operations, /, *arguments: P.args, **named: P.kwargs) -> T:
        self.tree.journal.counters["operations"] += 1
        if self.is_ending:
            raise pyfuse3.FUSEError(errno.ENOTCONN)
        self.in_hand += 1
        self.changes_in_hand += is_change
        try:
            return await function(self, *arguments, **named)
        except pyfuse3.FUSEError:
            raise
        except NoSuchName as error:
            code = error.errno
        except (Refused, StoreError) as error:
            code = error.errno if isinstance(error, Refused) else errno_of(error)
            if not (isinstance(error, NotFound) and function.__name__ in ("lookup", "getattr")):
                self.tree.journal.refused(self.subject(function.__name__, arguments), code, str(error))
            forget_origin(error)
        except Exception as error:
            code = errno.EIO
            path = self.subject(function.__name__, arguments)
            log.exception("%s of %s failed", function.__name__, printable(path))
            self.tree.journal.refused(path, code, "an error in threadfs: its log tells more")
            forget_origin(error)
        finally:
            self.in_hand -= 1
            self.changes_in_hand -= is_change
        # Not while the other one is handled, which this one would hold.
        raise pyfuse3.FUSEError(code)

    return handle


def _decoded(name: bytes) -> str:
    """A name as the kernel gives it. (Newer kernels no longer refuse long ones themselves.)"""
    if len(name) > _MAX_NAME_BYTES:
        raise pyfuse3.FUSEError(errno.ENAMETOOLONG)
    return os.fsdecode(name)


class Operations(pyfuse3.Operations):
    enable_writeback_cache = False

    def __init__(self, root: Root, ownership: Ownership | None = None) -> None:
        super().__init__()
        self.tree = root.tree
        self.inodes = Inodes(root)
        self.kernel_cache = KernelCache(self.tree, self.inodes, root.transcripts)
        self.inodes.when_dropped(self.kernel_cache.release)
        self.ownership = ownership or Ownership()
        self.answers = Answers(self.inodes, self.kernel_cache, self.ownership)
        self._recent = RecentReaders(_RECENT_BYTES)
        self._files: dict[int, OpenFile] = {}
        self._listings: dict[int, Listing] = {}
        # How often attributes were asked for that a listing leaves out, as they cost something, and how many
        # directories have been opened since those of a file were.
        self._asked_for = 0
        self._not_asked_since = _LISTINGS_ASKED
        self._next_handle = 1
        # The number of the mounted file system as in mountinfo, ``major:minor``, once that is known.
        self.device = ""
        # How many requests are being answered, how many of these may change the store, and whether those that
        # come are refused.
        self.in_hand = self.changes_in_hand = 0
        self.is_ending = False

    # ── Helpers ─────────────────────────────────────────────────────────────────────────────────────

    def subject(self, operation: str, arguments: Sequence[Any]) -> str:
        """The path that an operation is about, for messages."""
        first = arguments[0]
        if operation == "statfs":
            return "."
        if operation == "readdir":
            return "(a listing)"
        if operation in ("read", "write", "flush", "fsync", "_commit_at_last_close"):
            return self._files[first].inode.node.path
        if operation in ("rename", "link"):
            arguments = arguments[2 if operation == "rename" else 1 :]
        path = self.inodes[arguments[0]].node.path
        names = [os.fsdecode(argument) for argument in arguments[1:] if isinstance(argument, bytes)]
        return os.path.normpath(os.path.join(path, names[0])) if names else path

    def _handle(self) -> int:
        self._next_handle += 1
        return self._next_handle

    def _directory(self, number: int) -> Directory:
        node = self.inodes[number].node
        if not isinstance(node, Directory):
            raise pyfuse3.FUSEError(errno.ENOTDIR)
        return node

    # ── Names ───────────────────────────────────────────────────────────────────────────────────────

    @handler
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        directory = self._directory(parent_inode)
        text = _decoded(name)
        if text == ".":
            return await self.answers.remember(directory)
        parent = self.inodes[parent_inode]
        if not parent.is_followed and directory.scope is not None:
            # Known from a listing: nobody would hear that it is another one.
            await self.answers.hold(parent)
        node = await asked(directory, directory.lookup, text)
        return await self.answers.remember(node)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        self.inodes.forget(inode_list)

    @handler
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        node = await in_thread(self._directory(parent_inode).make_directory, _decoded(name))
        node.set_permissions(self.ownership.of_new(stat.S_IFDIR | stat.S_IMODE(mode)))
        return await self.answers.remember(node)

    @handler
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        node = self.inodes[inode].node
        if not isinstance(node, Linked):
            raise pyfuse3.FUSEError(errno.EINVAL)
        return os.fsencode(node.target())

    @handler
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        directory, text = self._directory(parent_inode), _decoded(name)
        is_exclusive = bool(flags & os.O_EXCL)
        if is_exclusive and await asked(directory, directory.holds, text):
            raise pyfuse3.FUSEError(errno.EEXIST)
        node = await asked(directory, partial(directory.make_file, text, is_exclusive=is_exclusive))
        node.set_permissions(self.ownership.of_new(stat.S_IFREG | stat.S_IMODE(mode)))
        self.inodes.renew(node)
        entry = await self.answers.remember(node)
        inode = self.inodes.of(node)
        try:
            if flags & os.O_ACCMODE == os.O_RDONLY:
                return await self._open_reader(inode), entry
            return await self._open_writer(inode, flags, ctx.pid), entry
        except BaseException:
            self.tree.scratch.appeared(directory.path, text)
            self.inodes.forget([(inode.number, 1)])
            raise

    @handler
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if not stat.S_ISREG(mode):
            raise Refused(errno.EPERM, "there are no devices, pipes and sockets here")
        directory, text = self._directory(parent_inode), _decoded(name)
        if await asked(directory, directory.holds, text):
            raise pyfuse3.FUSEError(errno.EEXIST)
        node = await asked(directory, directory.make_closed_file, text)
        node.set_permissions(self.ownership.of_new(stat.S_IFREG | stat.S_IMODE(mode)))
        self.inodes.renew(node)
        return await self.answers.remember(node)

    @handler
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return await self.answers.remember(
            self._directory(parent_inode).make_link(_decoded(name), os.fsdecode(target))
        )

    @handler
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        raise Refused(errno.EPERM, "there are no hard links here: use cp")

    @handler
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        directory = self._directory(parent_inode)
        await asked(directory, directory.remove, _decoded(name))

    @handler
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        directory, text = self._directory(parent_inode), _decoded(name)
        node: Node | None = None
        with suppress(NoSuchName, StoreError):
            node = await asked(directory, directory.lookup, text)
        await in_thread(directory.remove_directory, text)
        if node is not None:
            # The kernel lets nothing be made in what it knows to be removed, which may come again.
            self.inodes.remove(node)

    @handler
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        if flags & ~pyfuse3.RENAME_NOREPLACE:
            raise Refused(errno.EINVAL, "two names cannot be exchanged")
        source, target = self._directory(parent_inode_old), self._directory(parent_inode_new)
        rename = partial(source.rename, replace=not flags & pyfuse3.RENAME_NOREPLACE)
        before = memory.resident_bytes()
        try:
            await in_thread(rename, _decoded(name_old), target, _decoded(name_new))
        except (InvalidDocument, InvalidName) as error:
            # EINVAL would read as "a directory cannot be moved into itself".
            raise Refused(errno.EBADMSG, str(error)) from None
        finally:  # It may have been a large document, or a thread.
            if memory.resident_bytes() > before + memory.LARGE_BYTES:
                await in_thread(memory.give_back)
        # The kernel moves what it remembers: a backup name would go on showing the document itself.
        self.kernel_cache.forget_name(self.inodes[parent_inode_old], name_old)
        self.kernel_cache.forget_name(self.inodes[parent_inode_new], name_new)

    # ── Attributes ──────────────────────────────────────────────────────────────────────────────────

    @handler
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        found = self.inodes[inode]
        if found.was_listed_bare:
            found.was_listed_bare = False
            self._asked_for += 1
            if found.node.kind == stat.S_IFREG:  # Of directories, who walks through a tree asks always.
                self._not_asked_since = 0
        await self.answers.hold(found)
        return await self.answers.entry_of(found)

    @handler
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        found = self.inodes[inode]
        node = found.node
        owner = self.ownership
        if (fields.update_uid and attr.st_uid != owner.uid) or (
            fields.update_gid and attr.st_gid != owner.gid
        ):
            raise Refused(
                errno.EPERM, f"everything here belongs to {owner.uid}:{owner.gid}, as it was mounted"
            )
        if fields.update_size:
            opened = self._files.get(fh) if fh is not None else None
            if opened is not None and opened.writer is not None:
                async with opened:
                    await asked(node, opened.writer.truncate, attr.st_size)
            else:
                await asked(node, node.truncate, attr.st_size)
        else:
            if fields.update_mode:
                node.set_permissions(stat.S_IMODE(attr.st_mode))
            if fields.update_mtime:
                await self._set_modified(found, attr.st_mtime_ns)
        return await self.answers.entry_of(found)

    async def _set_modified(self, inode: Inode, modified_ns: int) -> None:
        if inode.writers:
            inode.given_time_ns = modified_ns
        try:
            if isinstance(inode.node, Directory):
                # Its lock is held until we answer, and forgetting a name in it would wait for that.
                await in_thread(inode.node.set_modified, modified_ns)
            else:
                await self._committing(inode.node.set_modified, modified_ns)
        except NotFound:
            if not inode.writers:  # A document that is not committed yet has no time.
                raise

    @handler
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        space = await in_thread(self.tree.store.space)
        answer = pyfuse3.StatvfsData()
        for name in (
            "f_bsize",
            "f_frsize",
            "f_blocks",
            "f_bfree",
            "f_bavail",
            "f_files",
            "f_ffree",
            "f_favail",
        ):
            setattr(answer, name, getattr(space, name))
        answer.f_namemax = _MAX_NAME_BYTES
        return answer

    # ── Directories ─────────────────────────────────────────────────────────────────────────────────

    @handler
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        handle = self._handle()
        self._listings[handle] = await self._listing(inode)
        return handle

    async def _listing(self, number: int) -> Listing:
        """What a directory holds now."""
        found, directory = self.inodes[number], self._directory(number)
        entries = found.listing
        if entries is None or not directory.lists_store:
            await self.answers.hold(found)
            changes_seen = found.changes_seen
            if directory.is_slow:
                entries = await in_thread(entries_of, directory)
            else:
                entries = await asked(directory, entries_of, directory)
            if directory.lists_store and self.kernel_cache.covers_names_in(directory):
                entries.names_timeout_s = WATCHED_S
                found.listing = entries
                if found.changes_seen != changes_seen:
                    found.listing = None
        # Who reads a tree wants of the next short list what it wanted of the last ones.
        is_asked_next = len(entries.names) <= _SHORT_LIST and self._not_asked_since < _LISTINGS_ASKED
        self._not_asked_since += 1
        return Listing(number, entries, self._asked_for, gives_attributes=is_asked_next)

    @handler
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        listing = self._listings[fh]
        if start_id == 0 and listing.is_begun:  # rewinddir(3)
            listing = self._listings[fh] = await self._listing(listing.number)
        listing.is_begun = True
        if self._asked_for != listing.asked_for:
            listing.gives_attributes = True
        if start_id < len(listing.dots):
            for position, (name, number) in enumerate(listing.dots[start_id:], start_id + 1):
                if not pyfuse3.readdir_reply(token, name, self.answers.dot(number), position):
                    return
        names, nodes, inodes = listing.names, listing.nodes, listing.inodes
        start = max(0, start_id - len(listing.dots))
        for index in range(start, await listing.prepared_to(start, self.answers.must_be_asked)):
            inode = inodes[index]
            if inode is None or not inode.is_current:
                inode = inodes[index] = self.inodes.of(nodes[index])
            entry = inode.entry
            if entry is None:
                entry = self.answers.listed(inode, listing)
            inode.is_told = True
            if not pyfuse3.readdir_reply(token, names[index], entry, len(listing.dots) + index + 1):
                self.inodes.release(inode)
                return
            inode.lookups += 1

    async def releasedir(self, fh: int) -> None:
        self._listings.pop(fh, None)

    # ── Files ───────────────────────────────────────────────────────────────────────────────────────

    @handler
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        found = self.inodes[inode]
        if flags & os.O_ACCMODE != os.O_RDONLY:
            return await self._open_writer(found, flags, ctx.pid)
        return await self._open_reader(found)

    async def _open_writer(self, found: Inode, flags: int, opener: int) -> pyfuse3.FileInfo:
        node = found.node
        takes_pages = node.shows_what_is_written and (flags & os.O_TRUNC or not node.is_append_only)
        if not is_writable(node):
            raise Refused(errno.EACCES, "this file cannot be written")
        if found.readers and takes_pages:
            # Truncating would take the pages from who reads. The kernel looks the name up again on ESTALE.
            self.kernel_cache.detach(found)
            raise pyfuse3.FUSEError(errno.ESTALE)
        opening = partial(
            node.open_for_writing, truncate=bool(flags & os.O_TRUNC), append=bool(flags & os.O_APPEND)
        )
        found.writers += 1
        try:
            writer = await asked(found.node, opening)
        except BaseException:
            found.writers -= 1
            raise
        return self._opened(OpenFile(found, None, writer, is_cached=False, opener=opener))

    async def _open_reader(self, found: Inode) -> pyfuse3.FileInfo:
        reader = await self._reader(found)
        if isinstance(reader, BytesReader):
            version = reader.attributes().version
        else:
            version = (await asked(found.node, reader.attributes)).version if reader.version else None
        # Nothing is awaited before it is one of the readers: their pages are those of one version.
        if found.readers and reader.version != found.readers[0].version:
            if reader is not found.kept:
                reader.close()
            self.kernel_cache.detach(found)
            raise pyfuse3.FUSEError(errno.ESTALE)
        is_cached = bool(reader.version) and not found.writers
        if not is_cached:
            return self._opened(OpenFile(found, reader, None, is_cached=False))
        found.readers.append(reader)
        if found.kept is None and version != found.told_version:
            # A size that the kernel knows from before would cut this version short.
            await in_thread(self.kernel_cache.forget_attributes, found)
        keeps_pages = version == found.cached_version
        found.cached_version = version
        self.tree.journal.counters["cache_hits"] += keeps_pages
        return self._opened(OpenFile(found, reader, None, is_cached=True), keeps_pages=keeps_pages)

    async def _reader(self, found: Inode) -> Reader:
        if found.kept is not None:
            return found.kept
        if found.current is not None:
            return found.current
        node = found.node
        if not is_readable(node):
            raise Refused(errno.EACCES, "this cannot be read")
        opening = node.open_for_reading
        is_covered = self.kernel_cache.covers(found.node)
        changes_seen = found.changes_seen
        reader: Reader = await (in_thread(opening) if found.node.is_slow else asked(found.node, opening))
        # One that holds all its bytes serves whoever opens the file next; a change takes it away.
        if is_covered and isinstance(reader, BytesReader) and reader.version:
            self._recent.keep(found, reader)
            if found.changes_seen != changes_seen:
                found.current = None
        return reader

    def _opened(self, file: OpenFile, *, keeps_pages: bool = False) -> pyfuse3.FileInfo:
        handle = self._handle()
        self._files[handle] = file
        return pyfuse3.FileInfo(fh=handle, direct_io=not file.is_cached, keep_cache=keeps_pages)

    @handler
    async def read(self, fh: int, off: int, size: int) -> bytes:
        file = self._files[fh]
        node, source = file.inode.node, file.reader or file.writer
        assert source is not None
        if isinstance(source, BytesReader):
            data = source.read(off, size)
        else:
            async with file:
                data = await (in_thread if node.is_slow else partial(asked, node))(source.read, off, size)
        self.tree.journal.counters["read_bytes"] += len(data)
        return data

    @handler
    async def poll(
        self, inode: int, fh: int, poll_handle: pyfuse3.PollHandle | None, ctx: pyfuse3.RequestContext
    ) -> int:
        """As in sysfs: always readable; POLLPRI says that the document is another one, so open it again."""
        file = self._files[fh]
        events = select.POLLIN | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM
        if isinstance(file.inode.node, DocumentFile) and file.reader is not None:
            if poll_handle is not None:
                self.kernel_cache.notify_on_change(file.inode, fh, poll_handle)
            if await self._version(file.inode.node) != file.reader.version:
                if file.inode.kept is None:
                    # Who opens it again now sees what it is now, also before the watch tells of it.
                    await in_thread(self.kernel_cache.noticed, file.inode.node)
                events |= select.POLLPRI | select.POLLERR
        return events

    async def _version(self, node: Node) -> object:
        try:
            return (await asked(node, node.attributes)).version
        except NotFound:
            return None

    @handler
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        file = self._files[fh]
        assert file.writer is not None
        async with file:
            file.is_judged = False
            file.taken_bytes += len(buf)
            if file.writer.is_patient:
                await asked(file.inode.node, file.writer.write, off, buf)
            else:
                await self._committing(file.writer.write, off, buf)
        file.inode.given_time_ns = None
        self.tree.journal.counters["written_bytes"] += len(buf)
        return len(buf)

    @handler
    async def flush(self, fh: int) -> None:
        """Arrives at each close of a descriptor, also that of a child that has inherited it."""
        file = self._files[fh]
        async with file:
            if file.writer is not None and file.owes:
                await self._commit(file, file.writer, unless_open=True)

    @handler
    async def fsync(self, fh: int, datasync: bool) -> None:
        file = self._files[fh]
        async with file:
            if file.writer is not None and file.owes:
                await self._commit(file, file.writer)

    async def _committing(self, function: Callable[..., None], *arguments: Any) -> None:
        """For what may change the store: the kernel has forgotten what changed before the caller goes on."""
        await in_thread(function, *arguments)
        await self.kernel_cache.names_are_forgotten()

    async def _commit(self, file: OpenFile, writer: Writer, *, unless_open: bool = False) -> None:
        """Commits what was written; *unless_open* by the process that opened the file: it may write more."""

        # Of several opened by one program nobody sees which descriptor is whose, but one each that it needs.
        needed = sum(
            other.inode is file.inode and other.opener == file.opener and other.owes
            for other in (self._files.values() if file.inode.writers > 1 else (file,))
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
        await self.kernel_cache.names_are_forgotten()
        if file.inode.given_time_ns is not None:
            with suppress(NotFound):
                await self._committing(file.inode.node.set_modified, file.inode.given_time_ns)

    @handler
    async def _commit_at_last_close(self, fh: int, writer: Writer) -> None:
        await self._commit(self._files[fh], writer)

    async def release(self, fh: int) -> None:
        """No descriptor is left. Nobody waits for this, so an error is in ``.threadfs/errors`` alone."""
        file = self._files[fh]
        if file.writer is not None and file.owes and not file.is_judged:
            with suppress(pyfuse3.FUSEError):
                await self._commit_at_last_close(fh, file.writer)
        del self._files[fh]
        inode = file.inode
        if file.writer is not None:
            inode.writers -= 1
            inode.given_time_ns = None
            file.writer.close()
        if file.is_cached and file.reader is not None:
            inode.readers.remove(file.reader)
        if file.reader is not None and inode.kept is not file.reader:
            file.reader.close()
        self.inodes.release(inode)
        if file.taken_bytes > memory.LARGE_BYTES:
            file.writer = None
            await in_thread(memory.give_back)
