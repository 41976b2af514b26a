"""The answers to the requests of the waker: its calls change nothing, whatever they ask for."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import pyfuse3

from store import NotFound, StoreError
from threadfs.fuse.answers import Answers
from threadfs.fuse.asking import in_thread
from threadfs.fuse.inodes import Inode, Inodes
from threadfs.fuse.waking.calls import Call, Make, Modify, Move, Remove, Touch
from threadfs.nodes.base import Directory, Node, NoSuchName, Refused

log = logging.getLogger("threadfs")

# Requests with a context say by it who asks. Those of an open file name the handle.
WITH_CONTEXT: Final = frozenset(
    (
        *("lookup", "getattr", "setattr", "open", "create", "mkdir", "mknod", "symlink", "link", "unlink"),
        *("rmdir", "rename", "readlink", "opendir", "statfs", "poll"),
    )
)
WITH_HANDLE: Final = frozenset(("read", "write", "flush", "fsync"))
# No other open file has such a handle.
HANDLE: Final = 1 << 62
# The request is answered as anybody's.
ORDINARY: Final = object()
_NOBODY: Final = -1
_ORDINARY: Final = ("lookup", "getattr", "statfs")


class Announced:
    """The call that the waker is making. It is set by the waker, and read by the loop while that waits."""

    def __init__(
        self, inodes: Inodes, answers: Answers, is_right: Callable[[Inode, bytes, float], None]
    ) -> None:
        """*is_right* is called with each name that the kernel knows from now on, as it was at that time."""
        self._is_right = is_right
        self._inodes = inodes
        self._answers = answers
        # The id of the thread of the waker.
        self.thread_id: int = _NOBODY
        self.call: Call | None = None
        # A name in the root that nobody else asks for; whether it was asked for since that was set to false.
        self.probe = f".threadfs-wake-{os.urandom(8).hex()}"
        self.is_recognised = False

    async def answer(self, operation: str, arguments: Sequence[Any]) -> Any:
        """The answer to a request of the waker, or `ORDINARY`. Raises FUSEError."""
        try:
            found = await (
                self._lookup(arguments[0], os.fsdecode(arguments[1]))
                if operation == "lookup"
                else self._made(operation, arguments)
            )
        except pyfuse3.FUSEError:
            raise
        except (StoreError, NoSuchName, Refused):  # It has gone meanwhile.
            raise pyfuse3.FUSEError(errno.ENOENT) from None
        except Exception:  # Nothing else may leave a handler: it would end the mount.
            log.exception("%s for a wake-up failed", operation)
            raise pyfuse3.FUSEError(errno.EIO) from None
        if found is ORDINARY and operation not in _ORDINARY:
            raise pyfuse3.FUSEError(errno.EPERM)
        return found

    def answer_by_handle(self, operation: str, arguments: Sequence[Any]) -> Any:
        return len(arguments[2]) if operation == "write" else None

    def _path(self, parent: int, name: str) -> str:
        above = self._inodes[parent].node.path
        return name if above == "." else f"{above}/{name}"

    # ── Looking up ──────────────────────────────────────────────────────────────────────────────────────

    async def _lookup(self, parent: int, name: str) -> Any:
        if parent == pyfuse3.ROOT_INODE and name == self.probe:
            self.is_recognised = True
            raise NoSuchName(name)
        path = self._path(parent, name)
        match self.call:
            case Make(path=made, node=node) | Move(path=made, node=node) if path == made:
                looked_s = time.monotonic()
                entry = await self._there_if_known(node)
                self._is_right(self._inodes[parent], os.fsencode(name), looked_s)
                return entry
            case Move(old_path=gone, old_node=node) if path == gone:
                return self._answers.counted(self._inodes.of(node))
            case Remove(path=gone, node=node) if path == gone:
                return self._answers.counted(self._inodes.of(node))
            case Remove(above=above) | Move(above=above) if (found := above.get(path)) is not None:
                return self._answers.counted(self._inodes.of(found))
            case Touch(path=changed, earlier=earlier) if earlier is not None and path == changed:
                return await self._earlier(earlier)
        return ORDINARY

    async def _earlier(self, inode: Inode) -> pyfuse3.EntryAttributes:
        """The entry of a file that had the name before, counted. Raises NoSuchName, NotFound."""
        if inode.lookups <= 0:  # The kernel has forgotten it, so nobody watches it: its number is no more.
            raise NoSuchName(inode.node.path)
        inode.lookups += 1
        try:
            return await self._answers.entry_of(inode)
        except BaseException:
            self._inodes.forget([(inode.number, 1)])
            raise

    async def _there_if_known(self, node: Node) -> pyfuse3.EntryAttributes:
        """The kernel holds the lock of the directory: nobody else looks the name up before it is made."""
        inode = self._inodes.existing(node)
        if inode is None or inode.lookups <= 0:
            raise NoSuchName(node.path)
        if node.kind == stat.S_IFREG:  # Its size matters to who reads it.
            return await self._answers.remember(node)
        return self._answers.counted(inode)

    # ── Making ──────────────────────────────────────────────────────────────────────────────────────────

    async def _made(self, operation: str, arguments: Sequence[Any]) -> Any:
        match operation, self.call:
            case "open", Modify(path=path) if self._is_at(arguments[0], path):
                return pyfuse3.FileInfo(fh=HANDLE, direct_io=True, keep_cache=True)
            case "setattr", Touch(path=path, earlier=earlier) if _sets_times_only(arguments[2]):
                inode = self._inodes[arguments[0]]
                if inode is earlier or (earlier is None and self._is_at(arguments[0], path)):
                    return await self._answers.entry_of(inode)
            case "mkdir" | "mknod" | "symlink", Make(path=path, node=node) if self._names(arguments, path):
                return await self._there(node, self._inodes[arguments[0]], arguments[1])
            case "rmdir" | "unlink", Remove(path=path) as removed if self._names(arguments, path):
                return await self._removed(removed)
            case "rename", Move(old_path=old_path, old_node=old_node, path=path) if self._names(
                arguments, old_path
            ) and self._names(arguments[2:], path):
                self._inodes.renew(old_node)  # The kernel gives its number to the new name.
                return None
        return ORDINARY

    async def _there(self, node: Node, parent: Inode, name: bytes) -> pyfuse3.EntryAttributes:
        """If it is there still. Raises NotFound, NoSuchName."""
        assert isinstance(parent.node, Directory)
        looked_s = time.monotonic()
        await in_thread(parent.node.lookup, os.fsdecode(name))
        entry = await self._answers.remember(node)
        self._is_right(parent, name, looked_s)
        return entry

    async def _removed(self, call: Remove) -> object:
        """If it has come again, programs may use it by now. (The kernel holds the lock of the directory.)"""
        inode = self._inodes.existing(call.node)
        lookups = inode.lookups if inode else 0
        try:
            await in_thread(call.name.directory.lookup, call.name.name)
        except (NotFound, NoSuchName):
            if inode is not None and inode.lookups > lookups:
                return ORDINARY  # It came meanwhile, and was found: a revalidation takes no lock.
            # The kernel lets nothing be made in what it knows to be removed: it comes again as another one.
            if call.node.kind == stat.S_IFDIR:
                self._inodes.remove(call.node)
            else:
                self._inodes.renew(call.node)
            return None
        return ORDINARY

    def _is_at(self, number: int, path: str) -> bool:
        inode: Inode = self._inodes[number]
        return inode.node.path == path

    def _names(self, arguments: Sequence[Any], path: str) -> bool:
        return self._path(arguments[0], os.fsdecode(arguments[1])) == path


def _sets_times_only(fields: pyfuse3.SetattrFields) -> bool:
    return not (fields.update_size or fields.update_mode or fields.update_uid or fields.update_gid)
