"""The files whose last open was answered ESTALE: the kernel looks the name up and opens once more."""

from __future__ import annotations

import time
from collections import OrderedDict

from threadfs.nodes.base import Node

# By when the second open has come, also on a machine that is busy.
_COMES_WITHIN_S = 5.0


class RetriedOpens:
    """A second ESTALE would reach the program, so whatever could cause one is left out for a moment."""

    def __init__(self) -> None:
        # When each was refused last, on the monotonic clock in seconds; oldest first.
        self._refused: OrderedDict[Node, float] = OrderedDict()

    def expect(self, node: Node) -> None:
        """An open of *node* is being answered ESTALE."""
        now_s = time.monotonic()
        self._refused[node] = now_s
        self._refused.move_to_end(node)
        while next(iter(self._refused.values())) < now_s - _COMES_WITHIN_S:
            self._refused.popitem(last=False)

    def may_come(self, node: Node) -> bool:
        """Whether an open of *node* may be the second one."""
        refused_s = self._refused.get(node)
        return refused_s is not None and time.monotonic() < refused_s + _COMES_WITHIN_S
