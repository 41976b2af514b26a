"""Drives nodes as the kernel does for programs: a tree without a mount."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress

from store import InvalidDocument, InvalidName, StoreError
from threadfs.fuse.errnos import errno_of
from threadfs.nodes.base import Directory, Node, NoSuchName, Readable, Refused, Writable
from threadfs.nodes.root import Root

OK = "ok"


def outcome(operation: Callable[[], object]) -> str:
    """``ok``, or the name of the errno that a program would get."""
    try:
        operation()
    except Refused as error:
        return errno.errorcode[error.errno]
    except StoreError as error:
        return errno.errorcode[errno_of(error)]
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return OK


class Programs:
    """What programs do with a tree, in the calls that the kernel makes of it."""

    def __init__(self, root: Root) -> None:
        self.root = root

    def at(self, path: str) -> Node:
        node: Node = self.root
        for name in path.split("/"):
            assert isinstance(node, Directory)
            node = node.lookup(name)
        return node

    def directory(self, path: str) -> Directory:
        node = self.at(path)
        assert isinstance(node, Directory)
        return node

    def is_directory(self, path: str) -> bool:
        return isinstance(self.at(path), Directory)

    def names(self, path: str) -> list[str]:
        return [name for name, _ in self.directory(path).entries()]

    def read(self, path: str) -> bytes:
        node = self.at(path)
        assert isinstance(node, Readable)
        reader = node.open_for_reading()
        try:
            size = reader.attributes().size_bytes
            data = reader.read(0, size + 1)
        finally:
            reader.close()
        assert len(data) == size
        return data

    def mkdir(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        self.directory(parent).make_directory(name)

    def rmdir(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        self.directory(parent).remove_directory(name)

    def unlink(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        self.directory(parent).remove(name)

    def rename(self, path: str, new_path: str) -> None:
        parent, _, name = path.rpartition("/")
        new_parent, _, new_name = new_path.rpartition("/")
        try:
            self.directory(parent).rename(name, self.directory(new_parent), new_name, replace=True)
        except (InvalidDocument, InvalidName) as error:
            raise Refused(errno.EBADMSG, str(error)) from None

    def write(self, path: str, data: bytes, *, append: bool = False, pieces: int = 1) -> None:
        """As ``> path`` or ``>> path`` does: opens or creates it, writes, and closes whatever happens."""
        parent, _, name = path.rpartition("/")
        directory = self.directory(parent)
        try:
            node = directory.lookup(name)
        except (NoSuchName, StoreError):
            node = directory.make_file(name)
        if not isinstance(node, Writable):
            raise Refused(errno.EACCES, path)
        writer = node.open_for_writing(truncate=not append, append=append)
        step = -(-len(data) // pieces) or 1
        try:
            for start in range(0, len(data), step):
                writer.write(start, data[start : start + step])
            writer.flush()
        except (Refused, StoreError):
            with suppress(Refused, StoreError):  # It closes all the same.
                writer.flush()
            raise
        finally:
            writer.close()

    def copy(self, path: str, new_path: str) -> None:
        """As ``cp -r``."""
        if self.is_directory(path):
            self.mkdir(new_path)
            for name in self.names(path):
                self.copy(f"{path}/{name}", f"{new_path}/{name}")
        else:
            self.write(new_path, self.read(path))

    def remove_all(self, path: str) -> None:
        """As ``rm -r``: goes on after what cannot be removed, and fails in the end."""
        if not self.is_directory(path):
            self.unlink(path)
            return
        refused: Exception | None = None
        for name in self.names(path):
            try:
                self.remove_all(f"{path}/{name}")
            except (Refused, StoreError, OSError) as error:
                refused = refused or error
        if refused is not None:
            raise refused
        self.rmdir(path)
