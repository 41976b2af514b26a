"""The top of the tree, its README, and ``.threadfs/``, with the version, counters and errors of the mount."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

from store import Store
from store.printing import printable
from threadfs import __version__
from threadfs.journal import Journal
from threadfs.nodes.base import Attributes, BytesReader, FixedDirectory, Node, PathNode, Reader, Tree, regular
from threadfs.nodes.drafts import DraftsDirectory
from threadfs.nodes.lives import Life
from threadfs.nodes.runs_by_status import RunsByStatusDirectory
from threadfs.nodes.scratch import Scratch
from threadfs.nodes.threads import ThreadsDirectory
from threadfs.nodes.transcripts import Renderer, TranscriptsDirectory

_README = files("threadfs").joinpath("tree.md").read_bytes()


def root_of(store: Store) -> Root:
    """The root of a new tree that shows *store*."""
    tree = Tree(store, Journal(lambda: store.announcer.commits), Scratch())
    return Root(tree, DraftsDirectory(tree), Renderer())


@dataclass(frozen=True, slots=True)
class Root(FixedDirectory):
    drafts: DraftsDirectory
    renderer: Renderer

    @property
    def path(self) -> str:
        return "."

    @property
    def transcripts(self) -> TranscriptsDirectory:
        return TranscriptsDirectory(self.tree, self.renderer)

    def children(self) -> dict[str, Node]:
        return {
            "README.md": TextFile(self.tree, "README.md", lambda: _README),
            "threads": ThreadsDirectory(self.tree),
            "drafts": self.drafts,
            "transcripts": self.transcripts,
            "runs": RunsByStatusDirectory(self.tree),
            ".threadfs": ServiceDirectory(self.tree),
        }


@dataclass(frozen=True, slots=True)
class ServiceDirectory(FixedDirectory):
    """``.threadfs/``: version, counters, the last refusals."""

    @property
    def path(self) -> str:
        return ".threadfs"

    def children(self) -> dict[str, Node]:
        journal = self.tree.journal
        return {
            "version": TextFile(self.tree, ".threadfs/version", self._version),
            "stats": TextFile(self.tree, ".threadfs/stats", journal.stats, time.time_ns),
            "errors": TextFile(self.tree, ".threadfs/errors", journal.errors, lambda: journal.changed_ns),
        }

    def _version(self) -> bytes:
        return f"threadfs {__version__}\nstore {printable(self.store.location)}\n".encode(errors="replace")


@dataclass(frozen=True, slots=True, eq=False)
class TextFile(PathNode):
    """A read-only text, made at each read."""

    life = Life.MOUNT

    name: str
    text: Callable[[], bytes]
    # When it last changed, in nanoseconds since 1970; ``None`` if it never changes.
    changed_ns: Callable[[], int] | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TextFile) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def path(self) -> str:
        return self.name

    def attributes(self) -> Attributes:
        return self._attributes_of(self.text())

    def _attributes_of(self, text: bytes) -> Attributes:
        changed_ns = self.changed_ns() if self.changed_ns else self.tree.journal.started_ns
        return regular(0o444, len(text), changed_ns)

    def open_for_reading(self) -> Reader:
        text = self.text()
        return BytesReader(text, self._attributes_of(text))
