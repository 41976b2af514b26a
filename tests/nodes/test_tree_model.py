"""The nodes do what a plain model of their contract does."""

from __future__ import annotations

import tempfile

from hypothesis import settings

from store import ThreadStore
from tests.nodes.driving import Programs
from tests.nodes.tree_machine import TreeMachine
from threadfs.nodes.root import root_of


class NodesMachine(TreeMachine):
    def begin(self) -> Programs:
        self.place = tempfile.TemporaryDirectory()
        return Programs(root_of(ThreadStore(self.place.name)))

    def teardown(self) -> None:
        self.place.cleanup()


TestTree = NodesMachine.TestCase
TestTree.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
