"""``by-title/``: a link to each thread, by what it is called."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from threadfs.nodes.base import Node
from threadfs.nodes.lives import Life
from threadfs.nodes.views import ThreadLink, ViewDirectory, called, checked, time_of_threads


@dataclass(frozen=True, slots=True)
class ByTitleDirectory(ViewDirectory):
    life = Life.NAME

    @property
    def path(self) -> str:
        return "by-title"

    def time_ns(self) -> int:
        return self.tree.finding.answer(
            self.path, lambda catalogue: time_of_threads(catalogue.titles(), self.started_s)
        )

    def lookup(self, name: str) -> Node:
        return ThreadLink(self.tree, self, name, called(self.tree, checked(name)))

    def entries(self) -> Iterable[tuple[str, Node]]:
        for name, thread_id, _ in self.tree.finding.asking(lambda catalogue: catalogue.titles()):
            yield name, ThreadLink(self.tree, self, name, thread_id)
