"""Loose files: what is in the tree but in no store, such as editors' temporary files and drafts.

They behave as on any disk, and are gone with the mount, however it ends: small ones are in memory, large
ones in unnamed temporary files.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from tempfile import SpooledTemporaryFile
from typing import Protocol, runtime_checkable

from store.waiting import waits
from threadfs.nodes.base import Attributes, Directory, Node, NoSuchName, Refused, Tree

# Larger contents go to a temporary file.
_IN_MEMORY_BYTES = 1 << 20
_PIECE_BYTES = 1 << 20


class Quota:
    """How many loose files there may be, and how large all of them together."""

    def __init__(self, files: int, size_bytes: int) -> None:
        self._lock = threading.Lock()
        self._free_files = files
        self._free_bytes = size_bytes

    def charge(self, files: int, size_bytes: int) -> None:
        """Takes that much, or gives it back when negative. Refuses with ENOSPC."""
        with self._lock:
            if files > self._free_files or size_bytes > max(0, self._free_bytes):
                raise Refused(errno.ENOSPC, "no more room for files that are not part of a thread")
            self._free_files -= files
            self._free_bytes -= size_bytes


@runtime_checkable
class AcceptsDrafts(Protocol):
    """A directory that makes something of a loose directory that is moved into it."""

    def accept_draft(
        self, draft: LooseDirectory, name: str, source: LooseDirectory, new_name: str
    ) -> None: ...


class LooseNode(Node):
    """A node with a life of its own: it is itself, wherever it is moved to."""

    keeps_permissions = True

    # Other nodes are immutable.
    __setattr__ = object.__setattr__

    def __init__(self, tree: Tree, quota: Quota, parent: str, name: str, mode: int) -> None:
        super().__init__(tree)
        quota.charge(1, 0)
        self._quota = quota
        self._parent = parent
        self._name = name
        self._mode = mode
        self._modified_ns = time.time_ns()
        # Whether somebody asked for this very time, which then moves with the file.
        self.has_given_time = False
        # When it was made, or closed for the last time, on the monotonic clock.
        self.used_s = time.monotonic()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    @property
    def path(self) -> str:
        return f"{self._parent}/{self._name}"

    def attributes(self) -> Attributes:
        return Attributes(self.kind | self._mode, self.size(), self._modified_ns)

    def size(self) -> int:
        return 0

    @property
    def is_open(self) -> bool:
        return False

    def set_modified(self, modified_ns: int) -> None:
        self._modified_ns = modified_ns
        self.has_given_time = True

    def set_permissions(self, mode: int) -> None:
        self._mode = mode & 0o7777

    def moved(self, parent: str, name: str) -> None:
        self._parent, self._name = parent, name

    def removed(self) -> None:
        """It has no name any more."""
        self._quota.charge(-1, 0)


class LooseLink(LooseNode):
    kind = stat.S_IFLNK

    def __init__(self, tree: Tree, quota: Quota, parent: str, name: str, target: str) -> None:
        super().__init__(tree, quota, parent, name, 0o777)
        self._target = target

    def target(self) -> str:
        return self._target

    def size(self) -> int:
        return len(os.fsencode(self._target))


class LooseFile(LooseNode):
    """A file that holds what is written to it."""

    def __init__(self, tree: Tree, quota: Quota, parent: str, name: str, mode: int = 0o644) -> None:
        super().__init__(tree, quota, parent, name, mode)
        self._content = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - closed in _release
        self._size = 0
        self._lock = threading.Lock()
        self._is_named = True
        self._is_gone = False
        self._handles = 0
        self.writers = 0

    def size(self) -> int:
        return self._size

    @property
    def is_open(self) -> bool:
        return self._handles > 0

    def _waits(self) -> None:
        """What is no longer in memory, or is being written, is nothing to be waited for in the loop."""
        if self._size > _IN_MEMORY_BYTES or self._lock.locked():
            waits()

    def read(self, offset: int, size: int) -> bytes:
        self._waits()
        with self._lock, _disk_errors():
            self._content.seek(offset)
            return self._content.read(min(size, max(0, self._size - offset)))

    def write(self, offset: int | None, data: bytes) -> None:
        """Writes at *offset*, or at the end."""
        with self._lock, _disk_errors():
            start = self._size if offset is None else offset
            self._resize(max(self._size, start + len(data)))
            self._content.seek(start)
            self._content.write(data)
            self._changed()

    def truncate(self, size: int) -> None:
        self._waits()
        with self._lock, _disk_errors():
            if size > self._size:
                self._resize(size)
                self._content.seek(size - 1)
                self._content.write(b"\0")
            else:
                self._content.truncate(size)
                self._resize(size)
            self._changed()

    def _resize(self, size: int) -> None:
        self._quota.charge(0, size - self._size)
        self._size = size

    def _changed(self) -> None:
        self._modified_ns = time.time_ns()
        self.has_given_time = False

    def whole(self, limit_bytes: int) -> bytes:
        """All of it. Refuses with EFBIG what is larger than *limit_bytes*."""
        if self._size > limit_bytes:
            raise Refused(errno.EFBIG, f"{self._name}: larger than {limit_bytes} bytes")
        return self.read(0, self._size)

    def lines(self, limit_bytes: int) -> Iterator[bytes]:
        """Its lines without their newlines, of which none may be longer than *limit_bytes*."""
        rest, offset = b"", 0
        while piece := self.read(offset, _PIECE_BYTES):
            offset += len(piece)
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
            if len(rest) > limit_bytes:
                raise Refused(errno.EFBIG, f"{self._name}: a line is longer than {limit_bytes} bytes")
        if rest:
            yield rest

    def open_for_reading(self) -> LooseHandle:
        return LooseHandle(self, append=False, writes=False)

    def open_for_writing(self, *, truncate: bool, append: bool) -> LooseHandle:
        if truncate:
            self.truncate(0)
        return LooseHandle(self, append=append, writes=True)

    def opened(self, *, writes: bool) -> None:
        if self._is_gone:  # By a descriptor of its name, which open(2) with O_PATH gives.
            raise Refused(errno.ENOENT, f"{self._name!r} has gone")
        self._handles += 1
        self.writers += writes

    def closed(self, *, writes: bool) -> None:
        self._handles -= 1
        self.writers -= writes
        self.used_s = time.monotonic()
        self._release()

    def removed(self) -> None:
        super().removed()
        self._is_named = False
        self._release()

    def _release(self) -> None:
        if not self._is_named and not self.is_open:
            with self._lock:
                is_on_disk = self._size > _IN_MEMORY_BYTES
                self._resize(0)
                self._is_gone = True
            if is_on_disk:  # Freeing gigabytes takes a while, which the loop has not.
                with suppress(RuntimeError):  # No thread is to be had.
                    threading.Thread(target=self._content.close, name="free").start()
                    return
            self._content.close()


class LooseHandle:
    """An open loose file, for reading and writing."""

    version: object = None

    def __init__(self, file: LooseFile, *, append: bool, writes: bool) -> None:
        self._file = file
        self._append = append
        self._writes = writes
        file.opened(writes=writes)

    @property
    def is_patient(self) -> bool:
        return False

    @property
    def owes(self) -> bool:
        return False

    def read(self, offset: int, size: int) -> bytes:
        return self._file.read(offset, size)

    def write(self, offset: int, data: bytes) -> None:
        self._file.write(None if self._append else offset, data)

    def truncate(self, size: int) -> None:
        self._file.truncate(size)

    def flush(self) -> None:
        """Nothing is owed: what is loose is not durable."""

    def attributes(self) -> Attributes:
        return self._file.attributes()

    def close(self) -> None:
        self._file.closed(writes=self._writes)


class LooseDirectory(LooseNode, Directory):
    """A directory of loose files, links and directories, as on any disk."""

    kind = stat.S_IFDIR
    has_cheap_attributes = True

    def __init__(self, tree: Tree, quota: Quota, parent: str, name: str) -> None:
        super().__init__(tree, quota, parent, name, 0o755)
        self.children: dict[str, LooseNode] = {}

    def attributes(self) -> Attributes:
        return LooseNode.attributes(self)

    def lookup(self, name: str) -> LooseNode:
        try:
            return self.children[name]
        except KeyError:
            raise NoSuchName(name) from None

    def entries(self) -> Iterable[tuple[str, Node]]:
        return list(self.children.items())

    def _add(self, name: str, node: LooseNode) -> LooseNode:
        self.children[name] = node
        self._modified_ns = time.time_ns()
        return node

    def make_directory(self, name: str) -> LooseNode:
        self._refuse_taken(name)
        return self._add(name, LooseDirectory(self.tree, self._quota, self.path, name))

    def make_file(self, name: str) -> LooseNode:
        self._refuse_taken(name)
        return self._add(name, LooseFile(self.tree, self._quota, self.path, name))

    def make_link(self, name: str, target: str) -> LooseNode:
        self._refuse_taken(name)
        return self._add(name, LooseLink(self.tree, self._quota, self.path, name, target))

    def _refuse_taken(self, name: str) -> None:
        if name in self.children:
            raise Refused(errno.EEXIST, f"there is a {name!r} already")

    def remove(self, name: str) -> None:
        node = self.lookup(name)
        if isinstance(node, LooseDirectory):
            raise Refused(errno.EISDIR, f"{name!r} is a directory: use rmdir")
        self.take(name).removed()

    def remove_directory(self, name: str) -> None:
        node = self.lookup(name)
        if not isinstance(node, LooseDirectory):
            raise Refused(errno.ENOTDIR, f"{name!r} is no directory")
        if node.children:
            raise Refused(errno.ENOTEMPTY, f"{name!r} is not empty")
        self.take(name).removed()

    def take(self, name: str) -> LooseNode:
        """The child, which is here no longer."""
        node = self.children.pop(name)
        self._modified_ns = time.time_ns()
        return node

    def put(self, name: str, node: LooseNode) -> None:
        node.moved(self.path, name)
        self._add(name, node)

    def moved(self, parent: str, name: str) -> None:
        super().moved(parent, name)
        for child_name, child in self.children.items():
            child.moved(self.path, child_name)

    def removed(self) -> None:
        for child in self.children.values():
            child.removed()
        super().removed()

    def rename(self, name: str, target: Directory, new_name: str, *, replace: bool) -> None:
        node = self.lookup(name)
        if not isinstance(target, LooseDirectory):
            if isinstance(node, LooseDirectory):
                if not isinstance(target, AcceptsDrafts):
                    raise Refused(errno.EACCES, "a draft can be moved into threads/ only")
                target.accept_draft(node, name, self, new_name)
                return
            raise Refused(errno.EXDEV, "a file is copied out of drafts/, not moved")
        if node is target or (isinstance(node, LooseDirectory) and node.is_above(target)):
            raise Refused(errno.EINVAL, "a directory cannot be moved into itself")
        present = target.children.get(new_name)
        if present is node:
            return
        if present is not None:
            target._refuse_replacing(present, node, new_name, replace=replace)
            target.take(new_name).removed()
        self.children.pop(name)
        self._modified_ns = time.time_ns()
        target.put(new_name, node)

    def is_above(self, other: LooseDirectory) -> bool:
        return any(
            isinstance(child, LooseDirectory) and (child is other or child.is_above(other))
            for child in self.children.values()
        )

    @staticmethod
    def _refuse_replacing(present: LooseNode, node: LooseNode, name: str, *, replace: bool) -> None:
        if not replace:
            raise Refused(errno.EEXIST, f"there is a {name!r} already")
        if isinstance(present, LooseDirectory):
            if not isinstance(node, LooseDirectory):
                raise Refused(errno.EISDIR, f"{name!r} is a directory")
            if present.children:
                raise Refused(errno.ENOTEMPTY, f"{name!r} is not empty")
        elif isinstance(node, LooseDirectory):
            raise Refused(errno.ENOTDIR, f"{name!r} is no directory")


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"the temporary space: {error.strerror}"
        raise Refused(error.errno or errno.EIO, reason) from error
