"""What a node is, and what nodes can do.

A *node* is what a path leads to. A directory looks names up and lists them; a file is opened for reading
(a `Reader`: one version of its bytes) or for writing (a `Writer`: what is written, and when it counts); a
link has a target. Nodes are compared by what they name, so that the same path always is an equal node, and
they hold no state: what must be remembered is in the store, or in an open reader or writer.

Nodes raise `StoreError`, or `Refused` for what no store has a word for.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, TypeGuard, runtime_checkable

from store import Change, DocumentKey, NotFound, Part, RunStatus, Store, Times
from threadfs.journal import Journal

if TYPE_CHECKING:
    from threadfs.nodes.scratch import Scratch


# The scope of the list of threads.
ALL_THREADS = DocumentKey("")


class Refused(Exception):
    """The tree says no: with the errno that the caller gets, and the reason in words."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.errno = code


class NoSuchName(Refused):
    """A failed lookup: too common to be worth a line in ``.threadfs/errors``."""

    def __init__(self, name: str) -> None:
        super().__init__(errno.ENOENT, f"nothing is named {name!r} here")


class Attributes(NamedTuple):
    """As in stat(2): type and permissions, bytes, nanoseconds since 1970, how many names it has.

    Two equal ``version``s that are not ``None`` are the same contents. ``changed_ns`` is when anything of it
    last changed, which nobody can set; ``None`` where ``modified_ns`` is that.
    """

    mode: int
    size_bytes: int
    modified_ns: int
    version: object = None
    changed_ns: int | None = None
    links: int = 1


class Reader(Protocol):
    """An open file. `version` tells contents apart: equal versions are equal bytes.

    A reader without a version is alive: what it reads may grow, and must not be kept by the kernel.
    """

    version: object

    def read(self, offset: int, size: int) -> bytes: ...
    def attributes(self) -> Attributes: ...
    def close(self) -> None: ...


class Writer(Protocol):
    """What one open file has been given. Refusals change nothing, and the writer lives on."""

    @property
    def is_patient(self) -> bool:
        """Whether ``write`` only keeps what it is given, and never waits for a disk."""

    @property
    def owes(self) -> bool:
        """Whether ``flush`` has anything to do."""

    def write(self, offset: int, data: bytes) -> None: ...
    def truncate(self, size: int) -> None: ...
    def flush(self) -> None: ...
    def read(self, offset: int, size: int) -> bytes: ...
    def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class Tree:
    """What all nodes of a mount share."""

    store: Store
    journal: Journal
    scratch: Scratch
    # When threads and runs that were looked at were made, in nanoseconds since 1970, with the version of the
    # document that says so.
    made: dict[DocumentKey, tuple[object, int]] = field(default_factory=dict)
    # Told of each change that this mount has made in the store, before it is acknowledged.
    on_change: Callable[[Change], None] | None = None

    def changed(self, part: Part, key: DocumentKey) -> None:
        """A change has reached the store."""
        self.journal.committed()
        self.touched(part, key)

    def touched(self, part: Part, key: DocumentKey) -> None:
        """A change that no caller waits for, such as that of a time."""
        if self.on_change is not None:
            self.on_change(Change(part, key.thread_id, key.run_id, key.step_id))


@dataclass(frozen=True, slots=True)
class Node:
    tree: Tree = field(compare=False, repr=False)

    # What it is, as in stat(2).
    kind: ClassVar[int] = stat.S_IFREG
    # Listing, rendering or scanning: worth a thread of its own, where other nodes answer at once.
    is_slow: ClassVar[bool] = False
    # Whether a listing may ask for the attributes of each child.
    has_cheap_attributes: ClassVar[bool] = True
    # Whether it has the permissions that somebody gave it.
    keeps_permissions: ClassVar[bool] = False
    # Whether it is in a thread, and so another one when that is.
    is_within_thread: ClassVar[bool] = False
    # Whether its time is that of a list which others change, and which no watch of its own may cover.
    is_list: ClassVar[bool] = False
    # Whether what is written to it comes after what is there, which stays as who reads it knows it.
    is_append_only: ClassVar[bool] = False
    # Whether what is written to it can be read from it.
    shows_what_is_written: ClassVar[bool] = True

    @property
    def store(self) -> Store:
        return self.tree.store

    @property
    def scope(self) -> DocumentKey | None:
        """What of the store this shows, as a `Watch` follows it; ``None`` if it is nothing of that alone."""
        return None

    @property
    def listed_in(self) -> DocumentKey | None:
        """With what its name comes and goes, as a `Watch` follows it."""
        return self.scope

    @property
    def is_permanent(self) -> bool:
        """Its name is there as long as the mount."""
        return False

    @property
    def is_passing(self) -> bool:
        """Its name may go without any change in the store."""
        return False

    @property
    def path(self) -> str:
        """From the mount point, for messages."""
        raise NotImplementedError

    def attributes(self) -> Attributes:
        raise NotImplementedError

    def set_modified(self, modified_ns: int) -> None:
        """Sets the time of the last change where it is stored; elsewhere it changes nothing."""

    def set_permissions(self, mode: int) -> None:
        """As chmod(2), where permissions are kept; elsewhere it changes nothing."""

    def truncate(self, size: int) -> None:
        """As truncate(2), by path: to nothing is the start of a rewrite, which changes nothing itself."""
        node: Node = self
        if not is_writable(node):
            raise Refused(errno.EACCES, "this cannot be written")
        if size not in (0, self.attributes().size_bytes):
            raise Refused(errno.EINVAL, "this cannot be cut or stretched: write the whole of it")


@dataclass(frozen=True, slots=True)
class Directory(Node):
    kind: ClassVar[int] = stat.S_IFDIR

    def attributes(self) -> Attributes:
        modified_ns, changed_ns = self.times()
        return Attributes(stat.S_IFDIR | 0o755, 0, modified_ns, changed_ns=changed_ns)

    def times(self) -> Times:
        return Times(self.tree.journal.started_ns, self.tree.journal.started_ns)

    @property
    def lists_store(self) -> bool:
        """Whether its entries are now what the store holds, and nothing else."""
        return False

    def lookup(self, name: str) -> Node:
        """The child of this name. Raises NoSuchName, or a NotFound of the store."""
        raise NotImplementedError

    def entries(self) -> Iterable[tuple[str, Node]]:
        raise NotImplementedError

    def make_directory(self, name: str) -> Node:
        """A new directory, durable on return."""
        raise Refused(errno.EACCES, f"no directory can be made here: {name!r}")

    def make_file(self, name: str, *, is_exclusive: bool = False) -> Node:
        """What a new file of this name is, to be opened for writing; *is_exclusive* as with O_EXCL."""
        raise Refused(errno.EACCES, f"no file can be made here: {name!r}")

    def make_closed_file(self, name: str) -> Node:
        """As mknod(2): a new file that nobody opens yet."""
        return self.make_file(name)

    def make_link(self, name: str, target: str) -> Node:
        raise Refused(errno.EACCES, f"no link can be made here: {name!r}")

    def remove(self, name: str) -> None:
        """As unlink(2)."""
        raise Refused(errno.EACCES, f"this is part of the tree and cannot be removed: {name!r}")

    def remove_directory(self, name: str) -> None:
        """As rmdir(2)."""
        raise Refused(errno.EACCES, f"this is part of the tree and cannot be removed: {name!r}")

    def rename(self, name: str, target: Directory, new_name: str, *, replace: bool) -> None:
        """Moves the child *name* to *target*; with *replace*, over what has the new name."""
        raise Refused(errno.EACCES, "the path is the identity: this cannot be renamed")

    def holds(self, name: str) -> bool:
        try:
            self.lookup(name)
        except (NoSuchName, NotFound):
            return False
        return True


@dataclass(frozen=True, slots=True)
class ListDirectory(Directory):
    """A list of the threads, or of the runs in a status: its time is that of the last that came or went."""

    is_slow: ClassVar[bool] = True
    is_list: ClassVar[bool] = True
    # Names at the top are looked up one after the other, and none waits for a disk.
    has_cheap_attributes: ClassVar[bool] = False

    @property
    def listed_status(self) -> RunStatus | None:
        return None

    def times(self) -> Times:
        changed_ns = self.store.list_changed_ns(self.listed_status)
        return Times(changed_ns, changed_ns)


@dataclass(frozen=True, slots=True)
class FixedDirectory(Directory):
    """A directory whose children are always the same: a table in one place."""

    def children(self) -> dict[str, Node]:
        raise NotImplementedError

    def lookup(self, name: str) -> Node:
        try:
            return self.children()[name]
        except KeyError:
            raise NoSuchName(name) from None

    def entries(self) -> Iterable[tuple[str, Node]]:
        return self.children().items()


@runtime_checkable
class Readable(Protocol):
    def open_for_reading(self) -> Reader: ...


@runtime_checkable
class Writable(Protocol):
    def open_for_writing(self, *, truncate: bool, append: bool) -> Writer: ...


@runtime_checkable
class Linked(Protocol):
    def target(self) -> str: ...


def is_readable(node: Node) -> TypeGuard[Readable]:
    """As isinstance, which of a protocol takes as long as a third of a request."""
    return hasattr(node, "open_for_reading")


def is_writable(node: Node) -> TypeGuard[Writable]:
    return hasattr(node, "open_for_writing")


class BytesReader:
    """A reader of bytes that are all there."""

    def __init__(self, data: bytes, attributes: Attributes, version: object = None) -> None:
        self._data = data
        self._attributes = attributes
        self.version = version

    @property
    def size_bytes(self) -> int:
        return len(self._data)

    def read(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]

    def attributes(self) -> Attributes:
        return self._attributes

    def close(self) -> None:
        pass


def regular(
    mode: int, size_bytes: int, modified_ns: int, version: object = None, changed_ns: int | None = None
) -> Attributes:
    return Attributes(stat.S_IFREG | mode, size_bytes, modified_ns, version, changed_ns)


def alternatives(words: Sequence[str]) -> str:
    return ", ".join(words)
