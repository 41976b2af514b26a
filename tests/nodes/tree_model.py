"""What a tree holds by its contract, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from store import RunStatus, RunStepStatus
from store.catalogue.matching import matches
from store.catalogue.names import name_of, told_apart
from store.catalogue.queries import Query
from store.catalogue.values import Kind


@dataclass
class ModelRun:
    status: RunStatus = RunStatus.queued
    steps: dict[str, RunStepStatus] = field(default_factory=dict)


@dataclass
class ModelThread:
    metadata: object = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    runs: dict[str, ModelRun] = field(default_factory=dict)
    is_meta_removed: bool = False

    @property
    def title(self) -> str:
        title = self.metadata.get("title", "") if isinstance(self.metadata, dict) else ""
        return title if title.strip() else ""

    @property
    def is_busy(self) -> bool:
        return any(run.status.is_in_progress for run in self.runs.values())

    def hits(self, query: Query) -> int:
        """How many of its messages and its title a query finds that asks for nothing else."""
        in_messages = sum(matches(query, Kind.USER, 0, text) for text in self.texts)
        return in_messages + (bool(self.title) and matches(query, Kind.TITLE, 0, self.title))


def names_of(threads: Mapping[str, ModelThread]) -> list[str]:
    """What threads are called, told apart from each other."""
    called = [
        (name_of(thread, found.title, found.texts[0] if found.texts else ""), thread)
        for thread, found in threads.items()
    ]
    return [name for name, _ in told_apart(called)]
