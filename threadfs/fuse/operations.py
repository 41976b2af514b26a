"""The adapter between the kernel and the nodes: find the node, call it, translate the error.

Nodes are synchronous: `asking` calls them in place or in a thread. `answers` makes the entries.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import pyfuse3

from store import InvalidDocument, InvalidName, NotFound, StoreError, WouldWait, memory, without_waiting
from threadfs.events.teller import Teller
from threadfs.fuse import shim
from threadfs.fuse.answers import Answers
from threadfs.fuse.asking import in_thread, run_inline_or_in_thread
from threadfs.fuse.handling import handler
from threadfs.fuse.inodes import Inode, Inodes
from threadfs.fuse.kernel_cache import KernelCache
from threadfs.fuse.listings import Listings
from threadfs.fuse.open_files import OpenFiles
from threadfs.fuse.ownership import Ownership
from threadfs.fuse.strangers import Strangers
from threadfs.fuse.waking.announced import HANDLE
from threadfs.fuse.waking.waker import Waker
from threadfs.nodes.base import BytesReader, Directory, Linked, Node, NoSuchName, Refused, Writer
from threadfs.nodes.documents import DocumentFile
from threadfs.nodes.root import Root

_MAX_NAME_BYTES = 255


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
        self.kernel_cache = KernelCache(self.tree, self.inodes, (root.transcripts, root.answers))
        self.inodes.when_dropped(self.kernel_cache.release)
        self.ownership = ownership or Ownership()
        self.answers = Answers(self.inodes, self.kernel_cache, self.ownership)
        self.strangers = Strangers(self.ownership)
        self.listings = Listings(self.inodes, self.answers, self.kernel_cache, self.strangers)
        self.files = OpenFiles(self.tree, self.inodes, self.kernel_cache)
        self.waker = Waker(
            self.tree, self.inodes, self.answers, self.kernel_cache, (root.transcripts, root.answers)
        )
        self.teller = Teller(self.tree.store, self.tree.events)
        # How many requests are being answered, how many of these may change the store, and whether those that
        # come are refused.
        self.in_hand = self.changes_in_hand = 0
        self.is_ending = False

    def init(self) -> None:
        """The kernel has said what it can do."""
        self.kernel_cache.keeps_listings = shim.is_in_effect()

    # ── Helpers ─────────────────────────────────────────────────────────────────────────────────────

    def subject(self, operation: str, arguments: Sequence[Any]) -> str:
        """The path that an operation is about, for messages."""
        first = arguments[0]
        if operation == "statfs":
            return "."
        if operation == "readdir":
            return self.inodes[self.strangers.of_handle(first)[0]].node.path
        if operation in ("read", "write", "flush", "fsync", "_commit_at_last_close"):
            return self.files[first].inode.node.path
        if operation in ("rename", "link"):
            arguments = arguments[2 if operation == "rename" else 1 :]
        path = self.inodes[arguments[0]].node.path
        names = [os.fsdecode(argument) for argument in arguments[1:] if isinstance(argument, bytes)]
        return os.path.normpath(os.path.join(path, names[0])) if names else path

    def paths_of(self, operation: str, arguments: Sequence[Any]) -> dict[str, bool]:
        """The paths at which an operation may change something; whether there is something afterwards."""
        path = self.subject(operation, arguments)
        if operation == "rename":
            return {self.subject("unlink", arguments): False, path: True}
        return {path: operation not in ("unlink", "rmdir")}

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
        parent = self.inodes[parent_inode]
        directory, text = parent.node, _decoded(name)
        if not isinstance(directory, Directory):
            raise pyfuse3.FUSEError(errno.ENOTDIR)
        if text == ".":
            return await self.answers.remember(directory)
        if not parent.is_followed:  # Known from a listing alone.
            await self.answers.hold(parent)
        if not self.tree.store.is_remote:
            with suppress(WouldWait), without_waiting():
                return self.answers.remember_at_once(directory.child(text))
        async with self.strangers.turn(ctx.uid, directory):
            return await self.answers.remember(await in_thread(directory.lookup, text))

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
        if is_exclusive and await run_inline_or_in_thread(directory, directory.holds, text):
            raise pyfuse3.FUSEError(errno.EEXIST)
        node = await run_inline_or_in_thread(
            directory, partial(directory.make_file, text, is_exclusive=is_exclusive)
        )
        node.set_permissions(self.ownership.of_new(stat.S_IFREG | stat.S_IMODE(mode)))
        self.inodes.renew(node)
        entry = await self.answers.remember(node)
        inode = self.inodes.of(node)
        try:
            if flags & os.O_ACCMODE == os.O_RDONLY:
                return await self.files.open_reader(inode), entry
            return await self.files.open_writer(inode, flags, ctx.pid), entry
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
        if await run_inline_or_in_thread(directory, directory.holds, text):
            raise pyfuse3.FUSEError(errno.EEXIST)
        node = await run_inline_or_in_thread(directory, directory.make_closed_file, text)
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
        await run_inline_or_in_thread(directory, directory.remove, _decoded(name))

    @handler
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        directory, text = self._directory(parent_inode), _decoded(name)
        node: Node | None = None
        with suppress(NoSuchName, StoreError):
            node = await run_inline_or_in_thread(directory, directory.lookup, text)
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
        self.listings.attributes_wanted(found)
        await self.answers.hold(found)
        async with self.strangers.turn(ctx.uid, found.node):
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
            opened = self.files.get(fh) if fh is not None else None
            if opened is not None and opened.writer is not None:
                async with opened:
                    await run_inline_or_in_thread(node, opened.writer.truncate, attr.st_size)
            else:
                await run_inline_or_in_thread(node, node.truncate, attr.st_size)
        else:
            if fields.update_mode:
                node.set_permissions(stat.S_IMODE(attr.st_mode))
            if fields.update_mtime:
                await self._set_modified(found, attr.st_mtime_ns)
        async with self.strangers.turn(ctx.uid, node):
            return await self.answers.entry_of(found)

    async def _set_modified(self, inode: Inode, modified_ns: int) -> None:
        if inode.writers:
            inode.given_time_ns = modified_ns
        try:
            if isinstance(inode.node, Directory):
                # The kernel holds its lock until we answer; forgetting a name in it would wait for that.
                await in_thread(inode.node.set_modified, modified_ns)
            else:
                await self.files.committing(inode.node.set_modified, modified_ns)
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
        """Asked only where the `shim` is not in effect, which makes the same handle."""
        self._directory(inode)
        return self.strangers.handle(inode, ctx.uid)

    @handler
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        number, by_stranger = self.strangers.of_handle(fh)
        directory = self._directory(number)
        await self.listings.reply(self.inodes[number], directory, start_id, token, by_stranger=by_stranger)

    async def releasedir(self, fh: int) -> None:
        """Nothing is open."""

    # ── Files ───────────────────────────────────────────────────────────────────────────────────────

    @handler
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        found = self.inodes[inode]
        if flags & os.O_ACCMODE != os.O_RDONLY:
            return await self.files.open_writer(found, flags, ctx.pid)
        async with self.strangers.turn(ctx.uid, found.node):
            return await self.files.open_reader(found)

    @handler
    async def read(self, fh: int, off: int, size: int) -> bytes:
        file = self.files[fh]
        node, source = file.inode.node, file.reader or file.writer
        assert source is not None
        if isinstance(source, BytesReader):
            data = source.read(off, size)
        else:
            async with file:
                data = await (in_thread if node.is_slow else partial(run_inline_or_in_thread, node))(
                    source.read, off, size
                )
        self.tree.journal.counters["read_bytes"] += len(data)
        return data

    @handler
    async def poll(
        self, inode: int, fh: int, poll_handle: pyfuse3.PollHandle | None, ctx: pyfuse3.RequestContext
    ) -> int:
        """As in sysfs: always readable; POLLPRI says that the document is another one, so open it again."""
        file = self.files[fh]
        events = select.POLLIN | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM
        if isinstance(file.inode.node, DocumentFile) and file.reader is not None:
            if poll_handle is not None:
                file.inode.end_sharing()  # Who opens it from now on gets a handle of its own.
                is_shared = file.opens > 1
                self.kernel_cache.notify_on_change(file.inode, fh, poll_handle, is_shared=is_shared)
            if await self._version(file.inode.node) != file.reader.version:
                if file.inode.pinned_reader is None:
                    # Who opens it again now sees what it is now, also before the watch tells of it.
                    await in_thread(self.kernel_cache.noticed, file.inode.node)
                events |= select.POLLPRI | select.POLLERR
        return events

    async def _version(self, node: Node) -> object:
        try:
            return (await run_inline_or_in_thread(node, node.attributes)).version
        except NotFound:
            return None

    @handler
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        file = self.files[fh]
        assert file.writer is not None
        async with file:
            file.is_judged = False
            file.taken_bytes += len(buf)
            if file.writer.only_buffers:
                await run_inline_or_in_thread(file.inode.node, file.writer.write, off, buf)
            else:
                await self.files.committing(file.writer.write, off, buf)
        file.inode.given_time_ns = None
        self.tree.journal.counters["written_bytes"] += len(buf)
        return len(buf)

    @handler
    async def flush(self, fh: int) -> None:
        """Arrives at each close of a descriptor, also that of a child that has inherited it."""
        file = self.files[fh]
        async with file:
            if file.writer is not None and file.has_uncommitted:
                await self.files.commit(file, file.writer, unless_open=True)

    @handler
    async def fsync(self, fh: int, datasync: bool) -> None:
        file = self.files[fh]
        async with file:
            if file.writer is not None and file.has_uncommitted:
                await self.files.commit(file, file.writer)

    @handler
    async def _commit_at_last_close(self, fh: int, writer: Writer) -> None:
        await self.files.commit(self.files[fh], writer)

    async def release(self, fh: int) -> None:
        """No descriptor is left. Nobody waits for this, so an error is in ``.threadfs/errors`` alone."""
        if fh == HANDLE:
            return
        file = self.files[fh]
        if file.writer is not None and file.has_uncommitted and not file.is_judged:
            with suppress(pyfuse3.FUSEError):
                await self._commit_at_last_close(fh, file.writer)
        self.files.close(fh)
        if file.taken_bytes > memory.LARGE_BYTES:
            file.writer = None
            await in_thread(memory.give_back)
