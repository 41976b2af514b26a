"""The floor: the least that a file system on pyfuse3 can do.

    python -m bench.floor MOUNTPOINT [--threads N] [--runs M] [--messages K] [--long-log BYTES]

It shows the tree that threadfs shows of a store that `generate.py` makes, out of memory: no store, no checks,
nothing ever changes by itself, so the kernel may remember all of it. What is written stays in memory. No
handler waits for anything. Faster than this a request of pyfuse3 is not.
"""

from __future__ import annotations

import argparse
import errno
import gc
import os
import stat
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import pyfuse3
import trio

from bench.generate import Shape, messages, meta, run_id, status, thread_id

TIMEOUT_S = 300.0

Children = dict[bytes, "Node"]


class Node:
    __slots__ = ("attributes", "children", "content", "listing", "make_children")

    def __init__(
        self, number: int, mode: int, size: int, make_children: Callable[[], Children] | None
    ) -> None:
        self.attributes = pyfuse3.EntryAttributes()
        self.attributes.st_ino = pyfuse3.InodeT(number)
        self.attributes.st_mode = pyfuse3.ModeT(mode)
        self.attributes.st_nlink = 1
        self.attributes.st_size = size
        self.attributes.st_blksize = 4096
        self.attributes.st_uid, self.attributes.st_gid = os.getuid(), os.getgid()
        self.attributes.st_mtime_ns = self.attributes.st_ctime_ns = 1_700_000_000_000_000_000
        self.attributes.entry_timeout = self.attributes.attr_timeout = TIMEOUT_S
        self.content: bytes | bytearray = b""
        # The children of a directory are made when somebody looks, and stay.
        self.make_children = make_children
        self.children: Children | None = None
        self.listing: list[tuple[bytes, pyfuse3.EntryAttributes, int]] = []

    def entries(self) -> Children:
        if self.children is None:
            if self.make_children is None:
                raise pyfuse3.FUSEError(errno.ENOTDIR)
            self.children = self.make_children()
            self.listing = [
                (name, child.attributes, number)
                for number, (name, child) in enumerate(self.children.items(), start=1)
            ]
        return self.children

    def write(self, offset: int, data: bytes) -> int:
        if not isinstance(self.content, bytearray):
            self.content = bytearray(self.content)
        self.content[offset : offset + len(data)] = data
        self.attributes.st_size = len(self.content)
        return len(data)

    def truncate(self, size: int) -> None:
        self.content = self.content[:size]
        self.attributes.st_size = size


class Floor(pyfuse3.Operations):
    enable_writeback_cache = False

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.nodes: list[Node] = []
        self._directory(lambda: {b"threads": self._directory(self._threads)})
        self.nodes[0].entries()[b"threads"].entries()

    # ── The tree ────────────────────────────────────────────────────────────────────────────────────

    def _node(self, mode: int, size: int, children: Callable[[], Children] | None = None) -> Node:
        node = Node(pyfuse3.ROOT_INODE + len(self.nodes), mode, size, children)
        self.nodes.append(node)
        return node

    def _directory(self, children: Callable[[], Children]) -> Node:
        return self._node(stat.S_IFDIR | 0o755, 0, children)

    def _file(self, content: bytes = b"") -> Node:
        node = self._node(stat.S_IFREG | 0o644, len(content))
        node.content = content
        return node

    def _threads(self) -> Children:
        return {
            thread_id(number).encode(): self._directory(partial(self._thread, number))
            for number in range(self.shape.threads)
        }

    def _thread(self, thread: int) -> Children:
        return {
            b"meta.json": self._file(meta(thread)),
            b"messages.jsonl": self._file(messages(self.shape, thread)),
            b"say": self._file(),
            b"ask": self._file(),
            b"start": self._file(),
            b"runs": self._directory(partial(self._runs, thread)),
        }

    def _runs(self, thread: int) -> Children:
        return {
            run_id(number).encode(): self._directory(partial(self._run, thread, number))
            for number in range(self.shape.runs)
        }

    def _run(self, thread: int, run: int) -> Children:
        return {
            b"status": self._file(status(self.shape, thread, run)),
            b"cancel": self._file(),
            b"steps": self._directory(dict),
        }

    # ── Names and attributes ────────────────────────────────────────────────────────────────────────

    def _of(self, number: int) -> Node:
        return self.nodes[number - pyfuse3.ROOT_INODE]

    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        node = self._of(parent_inode).entries().get(name)
        if node is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return node.attributes

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._of(inode).attributes

    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        if fields.update_size:
            self._of(inode).truncate(attr.st_size)
        return self._of(inode).attributes

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        pass

    # ── Directories ─────────────────────────────────────────────────────────────────────────────────

    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        self._of(inode).entries()
        return inode

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        listing = self._of(fh).listing
        for index in range(start_id, len(listing)):
            if not pyfuse3.readdir_reply(token, *listing[index]):
                return

    async def releasedir(self, fh: int) -> None:
        pass

    # ── Files ───────────────────────────────────────────────────────────────────────────────────────

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        if flags & os.O_TRUNC:
            self._of(inode).truncate(0)
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), keep_cache=True)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        content = self._of(fh).content
        if isinstance(content, bytearray):
            return bytes(content[off : off + size])
        # Nothing is copied: pyfuse3 takes whatever is a buffer.
        return cast("bytes", memoryview(content)[off : off + size])

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return self._of(fh).write(off, buf)

    async def flush(self, fh: int) -> None:
        pass

    async def fsync(self, fh: int, datasync: bool) -> None:
        pass

    async def release(self, fh: int) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.floor", description=__doc__.partition("\n")[0])
    parser.add_argument("mountpoint")
    for name, default in (("threads", 1000), ("runs", 1), ("messages", 2), ("queued", 0), ("long-log", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    mountpoint = options.mountpoint
    del options.mountpoint
    floor = Floor(Shape(**vars(options)))
    pyfuse3.init(floor, mountpoint, {"fsname=floor", "subtype=floor", "default_permissions"})
    gc.freeze()
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main()
