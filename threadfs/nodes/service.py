"""``.threadfs/``: version, counters, metrics, the last refusals and events, the workers of the store."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from store.printing import printable
from store.waiting import waits
from threadfs import __version__
from threadfs.nodes.base import Attributes, BytesReader, FixedDirectory, Node, PathNode, Reader, regular
from threadfs.nodes.events import EventsFile
from threadfs.nodes.lives import Life
from threadfs.nodes.metrics import measured, metrics


@dataclass(frozen=True, slots=True)
class ServiceDirectory(FixedDirectory):
    """``.threadfs/``."""

    @property
    def path(self) -> str:
        return ".threadfs"

    def children(self) -> dict[str, Node]:
        journal = self.tree.journal
        return {
            "version": TextFile(self.tree, ".threadfs/version", self._version),
            "stats": AskedText(self.tree, ".threadfs/stats", self._stats, time.time_ns),
            "errors": TextFile(self.tree, ".threadfs/errors", journal.errors, lambda: journal.changed_ns),
            "events": EventsFile(self.tree, self.tree.events.beginning),
            "metrics": AskedText(self.tree, ".threadfs/metrics", self._metrics, time.time_ns),
            "workers": AskedText(self.tree, ".threadfs/workers", self._workers, time.time_ns),
        }

    def _version(self) -> bytes:
        return f"threadfs {__version__}\nstore {printable(self.store.location)}\n".encode(errors="replace")

    def _stats(self) -> bytes:
        counters = self.tree.journal.counters
        known = {"events": self.tree.events.count, "wakeups": counters["wakeups"]}
        if (found := self.tree.finding.counted()) is not None:
            known |= {
                "catalogue_threads": found.threads,
                "catalogue_words_behind": found.words_behind,
                "catalogue_bytes": found.size_bytes,
            }
        return self.tree.journal.stats(known)

    def _metrics(self) -> bytes:
        found = self.tree.finding.answer("metrics", lambda catalogue: measured(catalogue, time.time_ns()))
        counters = self.tree.journal.counters
        return metrics(self.store.location, found, counters["operations"], counters["refusals"])

    def _workers(self) -> bytes:
        """For each living worker its id, endpoint, jobs in use, and state, with tabs between them."""
        waits()
        lines = []
        for worker in self.store.workers():
            state = worker.state
            jobs = f"{worker.jobs_in_use} of {state.jobs}"
            told = "; ".join((state.state, *state.notes))
            lines.append("\t".join(map(printable, (worker.id, state.endpoint, jobs, told))) + "\n")
        return "".join(lines).encode()


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


@dataclass(frozen=True, slots=True, eq=False)
class AskedText(TextFile):
    """A text for which the store is asked."""

    is_slow: ClassVar[bool] = True
    has_cheap_attributes: ClassVar[bool] = False
