"""A disk of which a test can cut the power: what the store did to it, and what may be left of that.

The model is stricter than any one file system. A file has the bytes that its last ``fsync`` made durable,
and those that it holds now; of the difference a cut leaves all, nothing, the first half, or zeros. A
directory has its durable entries, and the changes of names since its last ``fsync``; each change (a rename
is one) may have reached the disk or not, whatever became of the others. ``fsync`` of a file does nothing for
its name.
"""

from __future__ import annotations

import copy
import itertools
import math
import os
import random
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

from store.disk.system_calls import SystemCalls

# What a cut leaves: names with bytes (a file) or a tree (a directory).
Tree: TypeAlias = "dict[str, bytes | Tree]"
Node: TypeAlias = "File | Directory"
# Names that appear or (None) disappear at once.
Change: TypeAlias = "dict[str, Node | None]"

# Up to so many outcomes all are tried, else a choice of them.
_ALL = 64
_RANDOM = 16

# What makes the names of temporary files unlike.
_UNIQUE = re.compile("-[0-9a-f]{16}")


@dataclass(eq=False)
class File:
    durable: bytes = b""
    now: bytes = b""

    def remains(self) -> list[bytes]:
        """What a cut may leave of it; the first is all, the last nothing new."""
        if self.durable == self.now:
            return [self.now]
        if not self.now.startswith(self.durable):
            return [self.now, self.durable]
        kept, new = self.durable, self.now[len(self.durable) :]
        return [self.now, kept + new[: len(new) // 2], kept + bytes(len(new)), kept]


@dataclass(eq=False)
class Directory:
    durable: dict[str, Node] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)

    def with_changes(self, changes: list[Change]) -> dict[str, Node]:
        entries = dict(self.durable)
        for change in changes:
            for name, node in change.items():
                if node is None:
                    entries.pop(name, None)
                else:
                    entries[name] = node
        return entries

    @property
    def now(self) -> dict[str, Node]:
        return self.with_changes(self.pending)


class Sync(NamedTuple):
    """A place below the base, and how often it was synced before. Those side by side come in any order."""

    place: str
    number: int


class FragileDisk(SystemCalls):
    """Does the calls below *base*, which is durable, but no real ``fsync``; keeps the model beside.

    *after_call* is called after each, ``before_call`` before it, which then fails with the error that this
    raises. The sync *skipped* does nothing.
    """

    def __init__(
        self,
        base: Path,
        after_call: Callable[[FragileDisk], None] = lambda disk: None,
        skipped: Sync | None = None,
    ) -> None:
        self.root = Directory()
        self._base = base.resolve()
        self.after_call = after_call
        self.before_call: Callable[[FragileDisk], None] = lambda disk: None
        # The next write writes only half.
        self.writes_half = False
        self.calls = 0
        # The call under way, or the latest.
        self.last = ""
        self.syncs: list[Sync] = []
        self.skipped = skipped
        # Several names are synced side by side.
        self._syncing = threading.Lock()
        # By the inode number of the real file; such a number is used again after a removal.
        self._nodes: dict[int, Node] = {os.stat(base).st_ino: self.root}

    def copy(self, base: Path) -> FragileDisk:
        """Another disk at the same moment, its present state in the directory *base*, which is made."""
        base.mkdir()
        other = FragileDisk(base)
        other.root = copy.deepcopy(self.root)
        build(other.now(), base)
        other._nodes = dict(_by_inode(other.root, base))
        return other

    def _begin(self, call: str) -> None:
        self.calls += 1
        self.last = call
        self.before_call(self)

    def _directory(self, descriptor: int) -> Directory:
        node = self._nodes[os.fstat(descriptor).st_ino]
        assert isinstance(node, Directory)
        return node

    def _file(self, descriptor: int) -> File:
        node = self._nodes[os.fstat(descriptor).st_ino]
        assert isinstance(node, File)
        return node

    def create(self, directory: int, name: str, replaced: os.stat_result | None = None) -> int:
        self._begin(f"create {name}")
        descriptor = super().create(directory, name, replaced)
        self._appeared(directory, name, os.fstat(descriptor).st_ino, File())
        return descriptor

    def open_for_appending(self, directory: int, name: str) -> int:
        self._begin(f"open for appending {name}")
        descriptor = super().open_for_appending(directory, name)
        if name not in self._directory(directory).now:
            self._appeared(directory, name, os.fstat(descriptor).st_ino, File())
        return descriptor

    def make_directory(self, directory: int, name: str) -> None:
        self._begin(f"make directory {name}")
        super().make_directory(directory, name)
        self._appeared(directory, name, os.stat(name, dir_fd=directory).st_ino, Directory())

    def _appeared(self, directory: int, name: str, inode: int, node: Node) -> None:
        self._nodes[inode] = node
        self._directory(directory).pending.append({name: node})
        self.after_call(self)

    def write(self, file: int, data: bytes) -> int:
        self._begin("write")
        size = super().write(file, data[: len(data) // 2] if self.writes_half else data)
        self.writes_half = False
        end = os.lseek(file, 0, os.SEEK_CUR)  # Appending moves it too.
        node = self._file(file)
        node.now = node.now[: end - size] + data[:size] + node.now[end:]
        self.after_call(self)
        return size

    def truncate(self, file: int, size: int) -> None:
        self._begin("truncate")
        super().truncate(file, size)
        node = self._file(file)
        node.now = node.now[:size]
        self.after_call(self)

    def sync(self, file_or_directory: int) -> None:
        with self._syncing:
            self._sync(file_or_directory)

    def _sync(self, file_or_directory: int) -> None:
        self._begin("sync")
        node = self._nodes.get(os.fstat(file_or_directory).st_ino)
        if node is None:
            return  # Above the base, where all is durable.
        path = os.readlink(f"/proc/self/fd/{file_or_directory}")
        place = _UNIQUE.sub("", os.path.relpath(path, self._base))
        sync = Sync(place, sum(place == before.place for before in self.syncs))
        self.syncs.append(sync)
        if sync != self.skipped:
            if isinstance(node, File):
                node.durable = node.now
            else:
                node.durable, node.pending = node.now, []
        self.after_call(self)

    def rename(self, directory: int, name: str, new_directory: int, new_name: str) -> None:
        self._begin(f"rename {new_name}")
        super().rename(directory, name, new_directory, new_name)
        source, target = self._directory(directory), self._directory(new_directory)
        node = source.now[name]
        if source is target:
            source.pending.append({name: None, new_name: node})
        else:
            source.pending.append({name: None})
            target.pending.append({new_name: node})
        self.after_call(self)

    def remove(self, directory: int, name: str) -> None:
        self._begin(f"remove {name}")
        super().remove(directory, name)
        self._directory(directory).pending.append({name: None})
        self.after_call(self)

    def remove_directory(self, directory: int, name: str) -> None:
        self._begin(f"remove directory {name}")
        super().remove_directory(directory, name)
        self._directory(directory).pending.append({name: None})
        self.after_call(self)

    # ── What a cut leaves ───────────────────────────────────────────────────────────────────────────

    def now(self) -> Tree:
        """What is there while the power is on."""
        return _tree(self.root, {})

    def outcomes(self, seed: int = 0) -> Iterator[Tree]:
        """What a power cut at this moment may leave; the first is all, so as if the process was killed."""
        uncertain = list(_uncertain(self.root, set()))
        sizes = [len(node.remains()) if isinstance(node, File) else 2 for node, _ in uncertain]
        if math.prod(sizes) <= _ALL:
            choices = list(itertools.product(*map(range, sizes)))
        else:
            choices = list(_choice_of_choices(sizes, random.Random(seed)))
        for choice in choices:
            yield _tree(self.root, dict(zip(uncertain, choice, strict=True)))


# A file (its remains), or a directory with the number of one pending change (0: happened, 1: did not).
_Uncertainty: TypeAlias = tuple["Node", int]


def _uncertain(node: Node, seen: set[int]) -> Iterator[_Uncertainty]:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, File):
        if node.durable != node.now:
            yield node, 0
        return
    children = list(node.durable.values())
    for number, change in enumerate(node.pending):
        yield node, number
        children += [child for child in change.values() if child]
    for child in children:
        yield from _uncertain(child, seen)


def _choice_of_choices(sizes: list[int], chance: random.Random) -> Iterator[tuple[int, ...]]:
    everything, nothing = [0] * len(sizes), [size - 1 for size in sizes]
    yield tuple(everything)
    yield tuple(nothing)
    for number, size in enumerate(sizes):
        yield (*nothing[:number], 0, *nothing[number + 1 :])
        for what in range(1, size):
            yield (*everything[:number], what, *everything[number + 1 :])
    for _ in range(_RANDOM):
        yield tuple(chance.randrange(size) for size in sizes)


def _tree(directory: Directory, choice: dict[_Uncertainty, int]) -> Tree:
    changes = [c for number, c in enumerate(directory.pending) if not choice.get((directory, number), 0)]
    return {
        name: node.remains()[choice.get((node, 0), 0)] if isinstance(node, File) else _tree(node, choice)
        for name, node in directory.with_changes(changes).items()
    }


def _by_inode(node: Node, path: Path) -> Iterator[tuple[int, Node]]:
    yield os.stat(path).st_ino, node
    if isinstance(node, Directory):
        for name, child in node.now.items():
            yield from _by_inode(child, path / name)


def build(tree: Tree, directory: Path) -> None:
    for name, content in tree.items():
        if isinstance(content, bytes):
            directory.joinpath(name).write_bytes(content)
        else:
            directory.joinpath(name).mkdir()
            build(content, directory / name)


def found(directory: Path) -> Tree:
    return {
        entry.name: found(entry) if entry.is_dir() else entry.read_bytes() for entry in directory.iterdir()
    }


# A tree to compare by, in which the random part of temporary names does not count.
Shape: TypeAlias = "tuple[tuple[str, bytes | Shape], ...]"


def shape(tree: Tree) -> Shape:
    entries: list[tuple[str, bytes | Shape]] = [
        (
            name.rpartition("-")[0] if name.startswith(".") else name,
            content if isinstance(content, bytes) else shape(content),
        )
        for name, content in tree.items()
    ]
    return tuple(sorted(entries, key=repr))
