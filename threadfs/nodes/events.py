"""``.threadfs/events``: what happens in the store, a line of JSON for each event."""

from __future__ import annotations

from dataclasses import dataclass

from threadfs.events.kept import KeptLines
from threadfs.nodes.base import Attributes, PathNode, Reader, regular


@dataclass(frozen=True, slots=True)
class EventsFile(PathNode):
    """The events from a place on. Whoever has it open sees it grow at its end, and nothing of it change."""

    beginning: int

    @property
    def path(self) -> str:
        return ".threadfs/events"

    def attributes(self) -> Attributes:
        lines = self.tree.events
        return regular(0o444, lines.end - self.beginning, lines.changed_ns)

    def open_for_reading(self) -> Reader:
        return _EventsReader(self, self.tree.events)


class _EventsReader:
    version: object = None

    def __init__(self, node: EventsFile, lines: KeptLines) -> None:
        self._node = node
        self._lines = lines

    def read(self, offset: int, size: int) -> bytes:
        return self._lines.read(self._node.beginning + offset, size)

    def attributes(self) -> Attributes:
        return self._node.attributes()

    def close(self) -> None:
        pass
