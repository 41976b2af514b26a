"""What a node is, and what nodes can do.

A *node* is what a path leads to. A directory looks names up and lists them. A file is opened for reading
(a `Reader`: one version of its bytes) or for writing (a `Writer`: it decides when a write counts). A link
has a target. Nodes compare equal when they name the same thing, so the same path always gives an equal
node. They have no state: state is in the store, or in an open reader or writer.

Nodes raise `StoreError`, or `Refused` where the store has no error of its own.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, TypeGuard, runtime_checkable

from store import DocumentKey, NotFound, RunStatus, Store, StoreError, Times
from threadfs.events.kept import KeptLines
from threadfs.journal import Journal
from threadfs.nodes.finding import Finding
from threadfs.nodes.lives import Life
from threadfs.nodes.refusals import NoSuchName as NoSuchName
from threadfs.nodes.refusals import Refused as Refused
from threadfs.nodes.scratch import Scratch

# The scope of the list of threads.
ALL_THREADS = DocumentKey("")


class Attributes(NamedTuple):
    """As in stat(2): type and permissions, bytes, nanoseconds since 1970, number of names.

    Equal ``version``s, unless ``None``, mean equal contents. ``changed_ns`` is the ctime, which no caller can
    set; ``None`` where it is the same as ``modified_ns``.
    """

    mode: int
    size_bytes: int
    modified_ns: int
    version: object = None
    changed_ns: int | None = None
    links: int = 1


class Reader(Protocol):
    """An open file. Equal `version`s mean equal bytes.

    A reader without a version reads a file that may grow: the kernel must not cache its bytes.
    """

    version: object

    def read(self, offset: int, size: int) -> bytes: ...
    def attributes(self) -> Attributes: ...
    def close(self) -> None: ...


class Writer(Protocol):
    """A file that is open for writing. A refused call changes nothing, and the writer can go on."""

    @property
    def only_buffers(self) -> bool:
        """Whether ``write`` only buffers its bytes, and never waits for a disk."""

    @property
    def has_uncommitted(self) -> bool:
        """Whether something was written that ``flush`` has yet to commit."""

    def write(self, offset: int, data: bytes) -> None: ...
    def truncate(self, size: int) -> None: ...
    def flush(self) -> None: ...
    def read(self, offset: int, size: int) -> bytes: ...
    def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class Tree:
    """Shared by all nodes of a mount."""

    store: Store
    journal: Journal
    scratch: Scratch[Any]
    finding: Finding
    # What happened in the store, as lines.
    events: KeptLines = field(default_factory=KeptLines)
    # A cache: when a thread or run was created, in nanoseconds since 1970, and the version of the document
    # with that time.
    creation_times: dict[DocumentKey, tuple[object, int]] = field(default_factory=dict)


class Node:
    """What a path leads to. Classes override the facts below."""

    __slots__ = ()

    tree: Tree

    # The file type, as in stat(2).
    kind: ClassVar[int] = stat.S_IFREG
    # Lists, renders or scans, so it is called in a thread; other nodes answer at once.
    is_slow: ClassVar[bool] = False
    # Whether a listing may read the attributes of each child.
    has_cheap_attributes: ClassVar[bool] = True
    # Whether the store remembers its attributes for as long as it reports their changes: nobody else need.
    store_remembers_attributes: ClassVar[bool] = False
    # Whether it shows what a search finds.
    searches: ClassVar[bool] = False
    # Whether chmod changes its permissions.
    keeps_permissions: ClassVar[bool] = False
    # Whether it is inside a thread: when the thread is replaced, this is another file too.
    is_within_thread: ClassVar[bool] = False
    # Whether a write only adds bytes at the end, so that open readers stay right.
    is_append_only: ClassVar[bool] = False
    # Whether bytes written to it can be read back.
    shows_what_is_written: ClassVar[bool] = True

    @property
    def store(self) -> Store:
        return self.tree.store

    @property
    def scope(self) -> DocumentKey | None:
        """The scope that a `Watch` has to follow for this node; ``None`` if there is no single one."""
        return None

    @property
    def listed_in(self) -> DocumentKey | None:
        """The scope that a `Watch` has to follow for its name."""
        return self.scope

    @property
    def life(self) -> Life:
        """How long its name and attributes may be remembered."""
        return Life.UNREPORTED

    @property
    def path(self) -> str:
        """From the mount point, for messages."""
        raise NotImplementedError

    def attributes(self) -> Attributes:
        raise NotImplementedError

    def set_modified(self, modified_ns: int) -> None:
        """Sets the mtime if the store has one for it, and does nothing otherwise."""

    def set_permissions(self, mode: int) -> None:
        """As chmod(2) if the node `keeps_permissions`; does nothing otherwise."""

    def truncate(self, size: int) -> None:
        """As truncate(2), by path. Truncating to 0 begins a rewrite, and by itself changes nothing."""
        node: Node = self
        if not is_writable(node):
            raise Refused(errno.EACCES, "this cannot be written")
        if size not in (0, self.attributes().size_bytes):
            raise Refused(errno.EINVAL, "this cannot be cut or stretched: write the whole of it")


@dataclass(frozen=True, slots=True)
class PathNode(Node):
    """A node that is what its path says: equal paths give equal nodes, which have no state."""

    tree: Tree = field(compare=False, repr=False)


class Directory(Node):
    __slots__ = ()

    kind: ClassVar[int] = stat.S_IFDIR

    def attributes(self) -> Attributes:
        return directory_attributes(self.times())

    def times(self) -> Times:
        return Times(self.tree.journal.started_ns, self.tree.journal.started_ns)

    # Whether it has the same names for as long as the mount lives.
    names_are_fixed: ClassVar[bool] = False

    @property
    def lists_store(self) -> bool:
        """Whether its entries are now exactly those in the store."""
        return False

    def names_when_whole(self) -> Iterable[str]:
        """The names that belong in it, in their order, hidden ones too; none where they vary."""
        return ()

    @property
    def names_scope(self) -> DocumentKey | None:
        """The scope that a `Watch` has to follow to hear of each name that comes or goes.

        ``None`` if there is no single one.
        """
        return self.scope if self.lists_store else None

    def lookup(self, name: str) -> Node:
        """The child of this name. Raises NoSuchName, or a NotFound of the store."""
        raise NotImplementedError

    def child(self, name: str) -> Node:
        """As `lookup`, for a caller that asks for cheap attributes next: these may raise the NotFound."""
        return self.lookup(name)

    def entries(self) -> Iterable[tuple[str, Node]]:
        raise NotImplementedError

    def attributes_of(self, children: Sequence[Node]) -> dict[Node, Attributes]:
        """Those of some of its children, without those that have gone or are not readable."""
        found = {}
        for child in children:
            with suppress(StoreError):
                found[child] = child.attributes()
        return found

    def make_directory(self, name: str) -> Node:
        """A new directory, durable on return."""
        raise Refused(errno.EACCES, f"no directory can be made here: {name!r}")

    def make_file(self, name: str, *, is_exclusive: bool = False) -> Node:
        """A new file of this name, to be opened for writing; *is_exclusive* as with O_EXCL."""
        raise Refused(errno.EACCES, f"no file can be made here: {name!r}")

    def make_closed_file(self, name: str) -> Node:
        """As mknod(2): a new file that is not opened yet."""
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
        """Moves the child *name* to *target*; with *replace*, over a child that has the new name."""
        raise Refused(errno.EACCES, "the path is the identity: this cannot be renamed")

    def holds(self, name: str) -> bool:
        try:
            self.lookup(name)
        except (NoSuchName, NotFound):
            return False
        return True


@dataclass(frozen=True, slots=True)
class ListDirectory(PathNode, Directory):
    """A list of threads, or of runs by status. Its time is when an entry last came or went."""

    is_slow: ClassVar[bool] = True
    # Its time may wait for a disk, and a lookup must not: the kernel holds the lock of the directory above.
    has_cheap_attributes: ClassVar[bool] = False

    @property
    def listed_status(self) -> RunStatus | None:
        return None

    def times(self) -> Times:
        changed_ns = self.store.list_changed_ns(self.listed_status)
        return Times(changed_ns, changed_ns)


@dataclass(frozen=True, slots=True)
class FixedDirectory(PathNode, Directory):
    """A directory that always has the same children: one table."""

    life = Life.MOUNT
    names_are_fixed: ClassVar[bool] = True

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


def link_attributes(target: str, times: Times) -> Attributes:
    """Those of a symbolic link to *target*."""
    return Attributes(
        stat.S_IFLNK | 0o777, len(target.encode()), times.modified_ns, changed_ns=times.changed_ns
    )


def directory_attributes(times: Times) -> Attributes:
    return Attributes(stat.S_IFDIR | 0o755, 0, times.modified_ns, None, times.changed_ns)


def is_readable(node: Node) -> TypeGuard[Readable]:
    """As isinstance, which takes a third of the time of a request for a protocol."""
    return hasattr(node, "open_for_reading")


def is_writable(node: Node) -> TypeGuard[Writable]:
    return hasattr(node, "open_for_writing")


class BytesReader:
    """A reader of bytes in memory."""

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
