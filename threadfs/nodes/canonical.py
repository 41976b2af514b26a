"""The directories that are data: of a thread, of a run, of its steps.

Besides what the store holds they show scratch files, and hide what is staged for removal (`scratch`).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from store import NotFound, StoreError
from store.documents import MAX_DOCUMENT_BYTES
from threadfs.nodes.base import Directory, Node, NoSuchName, Readable, Refused, Writable
from threadfs.nodes.loose import LooseLink
from threadfs.nodes.loose_directories import LooseDirectory
from threadfs.nodes.loose_files import LooseFile
from threadfs.nodes.scratch import refuse_unless_scratch

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class CanonicalDirectory(Directory):
    """A directory whose own names mean something, beside which programs may make temporary ones."""

    # What the names of documents in it are, or what is in all of them.
    documents: ClassVar[tuple[str, ...]] = ()

    def part(self, name: str) -> Node:
        """What is stored under this name. Raises NoSuchName, or a NotFound of the store."""
        raise NotImplementedError

    def parts(self) -> Iterable[tuple[str, Node]]:
        """All that is stored. Raises a NotFound of the store when the directory itself is not."""
        raise NotImplementedError

    def new_part(self, name: str) -> Node | None:
        """What this name would be, if a file of this name is part of the data."""
        return None

    def is_hidden(self, name: str) -> bool:
        return self.tree.scratch.is_staged(self.path, name)

    @property
    def lists_store(self) -> bool:
        return self.tree.scratch.is_unused(self.path)

    def lookup(self, name: str) -> Node:
        if scratch := self.tree.scratch.file(self.path, name):
            return scratch
        part = self.part(name)
        if self.is_hidden(name):
            raise NoSuchName(name)
        return part

    def entries(self) -> Iterable[tuple[str, Node]]:
        for name, node in self.parts():
            if not self.is_hidden(name):
                yield name, node
        yield from self.tree.scratch.files(self.path).items()

    def make_directory(self, name: str) -> Node:
        with suppress(NoSuchName):
            part = self.part(name)
            if isinstance(part, Directory) and self.is_hidden(name):
                self.tree.scratch.unstage(self.path, name)
                return part
            raise Refused(errno.EEXIST, f"there is a {name!r} already")
        return Directory.make_directory(self, name)

    def make_file(self, name: str, *, is_exclusive: bool = False) -> Node:
        part: Node | None = None
        with suppress(NoSuchName, NotFound):
            part = self.part(name)
        if part is not None:
            self.tree.scratch.unstage(self.path, name)
            return part
        next(iter(self.parts()), None)  # Refuses when the directory has gone.
        if part := self.new_part(name):
            self.tree.scratch.appears(self.path, name)
            return part
        refuse_unless_scratch(name, self.documents, is_exclusive=is_exclusive)
        return self._add_scratch(name, LooseFile(self.tree, self.tree.scratch.quota, self.path, name))

    def make_closed_file(self, name: str) -> Node:
        if not self.holds(name) and self.new_part(name):
            raise Refused(errno.EACCES, f"{name!r} is made by writing it: open it for that")
        return self.make_file(name, is_exclusive=True)

    def make_link(self, name: str, target: str) -> Node:
        if self.holds(name):
            raise Refused(errno.EEXIST, f"there is a {name!r} already")
        with suppress(NoSuchName):
            self.part(name)
            raise Refused(errno.EACCES, f"{name!r} is part of the data and cannot be a link")
        refuse_unless_scratch(name, self.documents)
        return self._add_scratch(name, LooseLink(self.tree, self.tree.scratch.quota, self.path, name, target))

    def _add_scratch(self, name: str, node: LooseFile | LooseLink) -> Node:
        self.tree.scratch.put(self.path, name, node)
        return node

    def remove(self, name: str) -> None:
        if scratch := self.tree.scratch.take(self.path, name):
            scratch.removed()
            return
        if isinstance(self.lookup(name), Directory):
            raise Refused(errno.EISDIR, f"{name!r} is a directory: use rmdir")
        self.tree.scratch.stage(self.path, name)

    def remove_directory(self, name: str) -> None:
        node = self.lookup(name)
        if not isinstance(node, Directory):
            raise Refused(errno.ENOTDIR, f"{name!r} is no directory")
        if next(iter(node.entries()), None) is not None:
            raise Refused(errno.ENOTEMPTY, f"{name!r} is not empty: rm -r removes it with what it holds")
        self.tree.scratch.stage(self.path, name)

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
            if self.tree.scratch.file(self.path, name) is node:
                self.tree.scratch.take(self.path, name)
                if target.tree.scratch.file(target.path, new_name) is not node:
                    node.removed()

    def _accept(self, node: LooseFile | LooseLink, name: str) -> None:
        """A scratch file gets another name: it replaces what that is, or is one still."""
        part: Node | None = None
        with suppress(NoSuchName, NotFound):
            part = self.part(name)
        if part is None and (part := self.new_part(name)) is not None:
            self.tree.scratch.appears(self.path, name)
        if part is None:
            next(iter(self.parts()), None)
            refuse_unless_scratch(name, self.documents)
            self.tree.scratch.put(self.path, name, node)
            return
        if not isinstance(node, LooseFile) or not isinstance(part, Writable):
            raise Refused(errno.EACCES, f"{name!r} is part of the data: only a file's text can replace it")
        try:
            _write_whole(node, part)
        finally:
            # Refused or not, the name is there again.
            self.tree.scratch.unstage(self.path, name)
        with suppress(StoreError):
            if node.has_given_time:
                part.set_modified(node.attributes().modified_ns)
            # Who has it open still sees the time that the document has: GIO, and all that save with it,
            # take another time for a change made by somebody else.
            node.set_modified(part.attributes().modified_ns)

    def _back_up(self, name: str, node: Node, target: Directory, new_name: str) -> None:
        """A file of the data gets a backup name, as editors do: the store keeps it where it was."""
        if target != self:
            raise Refused(errno.EXDEV, "a file of a thread is copied, not moved")
        if not isinstance(node, Readable):
            raise Refused(errno.EACCES, "this cannot be renamed")
        with suppress(NoSuchName, NotFound):
            self.part(new_name)
            raise Refused(errno.EACCES, f"{new_name!r} is part of the data, and so is {name!r}")
        refuse_unless_scratch(new_name, self.documents)
        copy = LooseFile(self.tree, self.tree.scratch.quota, self.path, new_name)
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
        self.tree.scratch.stage(self.path, name)


def _write_whole(file: LooseFile, part: Node) -> None:
    """Writes the content of a loose file as a program would, and commits it."""
    assert isinstance(part, Writable)
    writer = part.open_for_writing(truncate=True, append=False)
    try:
        offset = 0
        while piece := file.read(offset, min(_PIECE_BYTES, MAX_DOCUMENT_BYTES)):
            writer.write(offset, piece)
            offset += len(piece)
        if not offset and not _is_empty(part):
            raise Refused(errno.EBADMSG, "an empty file cannot replace this")
        writer.flush()
    finally:
        writer.close()


def _is_empty(part: Node) -> bool:
    """Control files, and a log without messages."""
    try:
        return part.attributes().size_bytes == 0
    except NotFound:
        return False
