"""The top of the tree, and its README."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

from store import Store
from threadfs.journal import Journal
from threadfs.nodes.answers import NewestAnswer
from threadfs.nodes.base import FixedDirectory, Node, Tree
from threadfs.nodes.by_date import ByDateDirectory, Date
from threadfs.nodes.by_title import ByTitleDirectory
from threadfs.nodes.drafts import DraftsDirectory
from threadfs.nodes.finding import Finding
from threadfs.nodes.growing import Editions, ThreadTexts
from threadfs.nodes.runs_by_status import RunsByStatusDirectory
from threadfs.nodes.scratch import Scratch
from threadfs.nodes.searching import Pinned, SearchDirectory
from threadfs.nodes.service import ServiceDirectory, TextFile
from threadfs.nodes.threads import ThreadsDirectory
from threadfs.nodes.transcripts import Transcript

_README = files("threadfs").joinpath("tree.md").read_bytes()


def root_of(store: Store) -> Root:
    """The root of a new tree that shows *store*."""
    journal = Journal(lambda: store.announcer.commits)
    tree = Tree(store, journal, Scratch(), Finding(store))
    return Root(
        tree,
        DraftsDirectory(tree),
        ThreadTexts(tree, "transcripts", Editions(Transcript)),
        ThreadTexts(tree, "answers", Editions(NewestAnswer)),
        SearchDirectory(tree, Pinned(journal.started_ns)),
    )


@dataclass(frozen=True, slots=True)
class Root(FixedDirectory):
    drafts: DraftsDirectory
    transcripts: ThreadTexts
    answers: ThreadTexts
    search: SearchDirectory

    @property
    def path(self) -> str:
        return "."

    def children(self) -> dict[str, Node]:
        return {
            "README.md": TextFile(self.tree, "README.md", lambda: _README),
            "threads": ThreadsDirectory(self.tree),
            "drafts": self.drafts,
            "transcripts": self.transcripts,
            "answers": self.answers,
            "runs": RunsByStatusDirectory(self.tree),
            "by-title": ByTitleDirectory(self.tree),
            "by-date": ByDateDirectory(self.tree, Date()),
            "search": self.search,
            ".threadfs": ServiceDirectory(self.tree),
        }
