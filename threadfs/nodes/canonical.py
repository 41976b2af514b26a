"""The directories that are data: a thread, a run, its steps.

They show what the store has and scratch files, and hide files that are staged for removal (`scratch`).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from store import NotFound, StoreError
from store.documents import MAX_DOCUMENT_BYTES
from threadfs.nodes.base import Directory, Node, NoSuchName, PathNode, Readable, Refused, Writable
from threadfs.nodes.lives import Life
from threadfs.nodes.loose import LooseLink
from threadfs.nodes.loose_directories import LooseDirectory
from threadfs.nodes.loose_files import LooseFile
from threadfs.nodes.scratch import Scratch, refuse_unless_scratch

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class CanonicalDirectory(PathNode, Directory):
    """A directory of stored files, in which programs may make temporary files as well."""

    life = Life.REPORTED
    # The names of the documents in it, or a part that all these names have.
    documents: ClassVar[tuple[str, ...]] = ()

    def named_child(self, name: str) -> Node:
        """What the name leads to if the store has it. Raises NoSuchName if it never can have it."""
        raise NotImplementedError

    def stored_child(self, name: str) -> Node:
        """The child in the store. Raises NoSuchName, or a NotFound of the store."""
        self.check_stored(node := self.named_child(name))
        return node

    def check_stored(self, child: Node) -> None:
        """Raises a NotFound of the store if it does not have *child*."""
        raise NotImplementedError

    def stored_entries(self) -> Iterable[tuple[str, Node]]:
        """All children in the store. Raises a NotFound of the store if the directory itself is missing."""
        raise NotImplementedError

    def new_document(self, name: str) -> Node | None:
        """The document that a new file of this name becomes; ``None`` if that is no document's name."""
        return None

    @property
    def _scratch(self) -> Scratch[LooseFile | LooseLink]:
        return self.tree.scratch

    def is_hidden(self, name: str) -> bool:
        return self.tree.scratch.is_staged(self.path, name)

    @property
    def lists_store(self) -> bool:
        return self._scratch.is_unused(self.path)

    def lookup(self, name: str) -> Node:
        return self._scratch.file(self.path, name) or self._unless_hidden(name, self.stored_child(name))

    def child(self, name: str) -> Node:
        if scratch := self._scratch.file(self.path, name):
            return scratch
        node = self.named_child(name)
        if not node.has_cheap_attributes:  # Then a lookup goes without.
            self.check_stored(node)
        return self._unless_hidden(name, node)

    def _unless_hidden(self, name: str, node: Node) -> Node:
        if self.is_hidden(name):
            raise NoSuchName(name)
        return node

    def entries(self) -> Iterable[tuple[str, Node]]:
        return self.stored_entries() if self.lists_store else self._entries_with_scratch()

    def _entries_with_scratch(self) -> Iterator[tuple[str, Node]]:
        for name, node in self.stored_entries():
            if not self.is_hidden(name):
                yield name, node
        yield from self._scratch.files(self.path).items()

    def make_directory(self, name: str) -> Node:
        with suppress(NoSuchName):
            stored = self.stored_child(name)
            if isinstance(stored, Directory) and self.is_hidden(name):
                self._scratch.unstage(self.path, name)
                return stored
            raise Refused(errno.EEXIST, f"there is a {name!r} already")
        return Directory.make_directory(self, name)

    def make_file(self, name: str, *, is_exclusive: bool = False) -> Node:
        stored: Node | None = None
        with suppress(NoSuchName, NotFound):
            stored = self.stored_child(name)
        if stored is not None:
            self._scratch.unstage(self.path, name)
            return stored
        next(iter(self.stored_entries()), None)  # Raises NotFound when the directory has gone.
        if stored := self.new_document(name):
            self._scratch.appears(self.path, name)
            return stored
        refuse_unless_scratch(name, self.documents, is_exclusive=is_exclusive)
        return self._add_scratch(name, LooseFile(self.tree, self._scratch.quota, self.path, name))

    def make_closed_file(self, name: str) -> Node:
        if not self.holds(name) and self.new_document(name):
            raise Refused(errno.EACCES, f"{name!r} is made by writing it: open it for that")
        return self.make_file(name, is_exclusive=True)

    def make_link(self, name: str, target: str) -> Node:
        if self.holds(name):
            raise Refused(errno.EEXIST, f"there is a {name!r} already")
        with suppress(NoSuchName):
            self.stored_child(name)
            raise Refused(errno.EACCES, f"{name!r} is part of the data and cannot be a link")
        refuse_unless_scratch(name, self.documents)
        return self._add_scratch(name, LooseLink(self.tree, self._scratch.quota, self.path, name, target))

    def _add_scratch(self, name: str, node: LooseFile | LooseLink) -> Node:
        self._scratch.put(self.path, name, node)
        return node

    def remove(self, name: str) -> None:
        if scratch := self._scratch.take(self.path, name):
            scratch.removed()
            return
        if isinstance(self.lookup(name), Directory):
            raise Refused(errno.EISDIR, f"{name!r} is a directory: use rmdir")
        self._scratch.stage(self.path, name)

    def remove_directory(self, name: str) -> None:
        node = self.lookup(name)
        if not isinstance(node, Directory):
            raise Refused(errno.ENOTDIR, f"{name!r} is no directory")
        if next(iter(node.entries()), None) is not None:
            raise Refused(errno.ENOTEMPTY, f"{name!r} is not empty: rm -r removes it with what it holds")
        self._scratch.stage(self.path, name)

    def rename(self, name: str, target: Directory, new_name: str, *, replace: bool) -> None:
        node = self.lookup(name)
        if isinstance(node, Directory):
            raise Refused(errno.EACCES, "the path is the identity: this cannot be renamed")
        if isinstance(target, LooseDirectory):
            raise Refused(errno.EXDEV, "a file is copied into drafts/, not moved")
        if not isinstance(target, CanonicalDirectory):
            raise Refused(errno.EACCES, "files can be moved within threads and runs only")
        if not replace and target.holds(new_name):
            raise Refused(errno.EEXIST, f"there is a {new_name!r} already")
        if not isinstance(node, (LooseFile, LooseLink)):
            self._back_up(name, node, target, new_name)
        elif (name, self.path) != (new_name, target.path):
            target._accept(node, new_name)
            if self._scratch.file(self.path, name) is node:
                self._scratch.take(self.path, name)
                if target._scratch.file(target.path, new_name) is not node:
                    node.removed()

    def _accept(self, node: LooseFile | LooseLink, name: str) -> None:
        """Renames a scratch file to *name*: it replaces a document of that name, or stays a scratch file."""
        stored: Node | None = None
        with suppress(NoSuchName, NotFound):
            stored = self.stored_child(name)
        if stored is None and (stored := self.new_document(name)) is not None:
            self._scratch.appears(self.path, name)
        if stored is None:
            next(iter(self.stored_entries()), None)
            refuse_unless_scratch(name, self.documents)
            self._scratch.put(self.path, name, node)
            return
        if not isinstance(node, LooseFile) or not isinstance(stored, Writable):
            raise Refused(errno.EACCES, f"{name!r} is part of the data: only a file's text can replace it")
        try:
            _write_whole(node, stored)
        finally:
            # The name is visible again, even after a refusal.
            self._scratch.unstage(self.path, name)
        with suppress(StoreError):
            if node.has_given_time:
                stored.set_modified(node.attributes().modified_ns)
            # The open scratch file shows the document's time too: GIO, and every program that saves with it,
            # takes another time for a change by another program.
            node.set_modified(stored.attributes().modified_ns)

    def _back_up(self, name: str, node: Node, target: Directory, new_name: str) -> None:
        """Renames a stored file to a backup name, as editors do. The store keeps the file."""
        if target != self:
            raise Refused(errno.EXDEV, "a file of a thread is copied, not moved")
        if not isinstance(node, Readable):
            raise Refused(errno.EACCES, "this cannot be renamed")
        with suppress(NoSuchName, NotFound):
            self.stored_child(new_name)
            raise Refused(errno.EACCES, f"{new_name!r} is part of the data, and so is {name!r}")
        refuse_unless_scratch(new_name, self.documents)
        copy = LooseFile(self.tree, self._scratch.quota, self.path, new_name)
        try:
            reader = node.open_for_reading()
            try:
                offset = 0
                while piece := reader.read(offset, _PIECE_BYTES):
                    copy.write(offset, piece)
                    offset += len(piece)
                copy.set_modified(reader.attributes().modified_ns)
            finally:
                reader.close()
        except BaseException:
            copy.removed()
            raise
        self._add_scratch(new_name, copy)
        self._scratch.stage(self.path, name)


def _write_whole(file: LooseFile, stored: Node) -> None:
    """Writes the content of a loose file as a program does, and commits it.

    One write takes a whole document, or a log that is not very long: if it is refused, nothing of it counts.
    """
    assert isinstance(stored, Writable)
    writer = stored.open_for_writing(truncate=True, append=False)
    try:
        offset = 0
        while piece := file.read(offset, MAX_DOCUMENT_BYTES):
            writer.write(offset, piece)
            offset += len(piece)
        if not offset and not _is_empty(stored):
            raise Refused(errno.EBADMSG, "an empty file cannot replace this")
        writer.flush()
    finally:
        writer.close()


def _is_empty(stored: Node) -> bool:
    """True for control files, and for a log without messages."""
    try:
        return stored.attributes().size_bytes == 0
    except NotFound:
        return False
