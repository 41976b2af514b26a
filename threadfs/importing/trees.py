"""Conversations that are trees: what the user saw is one path, from a root to a leaf."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tree:
    """The parent of each node, if it has one, and its time in seconds, if it is known; by node ids."""

    parents: Mapping[str, str | None]
    times: Mapping[str, int | None]

    def path(self, leaf: str) -> list[str]:
        """From the root to *leaf*. A parent that is missing begins it, and a cycle ends it."""
        found: dict[str, None] = {}
        node: str | None = leaf
        while node is not None and node in self.parents and node not in found:
            found[node] = None
            node = self.parents[node]
        return list(reversed(found))

    def visible_leaf(self, named: str) -> str | None:
        """The leaf that is *named*, or else the newest node; ``None`` in a tree without nodes."""
        if named in self.parents:
            return named
        return max(self._ages(self.parents).items(), key=lambda item: (item[1], item[0]), default=(None,))[0]

    def other_paths(self, visible: str) -> list[list[str]]:
        """The paths to the leaves beside the *visible* one, the oldest leaf first."""
        inner = {parent for parent in self.parents.values() if parent is not None}
        leaves = [node for node in self.parents if node not in inner and node != visible]
        ages = self._ages(leaves)
        return [self.path(leaf) for leaf in sorted(leaves, key=lambda leaf: (ages[leaf], leaf))]

    def _ages(self, nodes: Iterable[str]) -> dict[str, tuple[int, int]]:
        """(time, depth) of nodes; one that has no time has that of its parent."""
        known: dict[str, tuple[int, int]] = {}
        for node in nodes:
            if node in known:
                continue
            way: dict[str, None] = {}
            at: str | None = node
            while at is not None and at in self.parents and at not in known and at not in way:
                way[at] = None
                at = self.parents[at]
            time_s, depth = known.get(at, (0, 0)) if at is not None else (0, 0)
            for step in reversed(way):
                time_s, depth = self.times.get(step) or time_s, depth + 1
                known[step] = time_s, depth
        return known
