"""``runs/``: every run of every thread, as links, by status. All of it is derived from the store."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from store import DocumentKey, RunStatus, Times, names
from threadfs.nodes.base import (
    Attributes,
    Directory,
    ListDirectory,
    Node,
    NoSuchName,
    PathNode,
    Refused,
    link_attributes,
)
from threadfs.nodes.lives import Life

# These directories always exist; one for another status exists while a run has that status.
_ALWAYS = (
    RunStatus.queued,
    RunStatus.in_progress,
    RunStatus.completed,
    RunStatus.cancelled,
    RunStatus.failed,
    RunStatus.expired,
)


@dataclass(frozen=True, slots=True)
class RunsByStatusDirectory(ListDirectory):
    """``runs/``: a directory for each status in `_ALWAYS`, and for each other one in use."""

    life = Life.MOUNT

    @property
    def path(self) -> str:
        return "runs"

    def lookup(self, name: str) -> Node:
        if name not in list(RunStatus):
            raise NoSuchName(name)
        status = RunStatus(name)
        if not self._is_shown(status):
            raise NoSuchName(name)
        return StatusDirectory(self.tree, status)

    def times(self) -> Times:
        """The last time at which a status may have come into use, or gone out of use."""
        others = [status for status in RunStatus if status not in _ALWAYS]
        return max(StatusDirectory(self.tree, status).times() for status in others)

    def _is_shown(self, status: RunStatus) -> bool:
        return status in _ALWAYS or any(True for _ in self.store.runs_by_status({status}))

    def entries(self) -> Iterable[tuple[str, Node]]:
        for status in RunStatus:
            if self._is_shown(status):
                yield status.value, StatusDirectory(self.tree, status)


@dataclass(frozen=True, slots=True)
class StatusDirectory(ListDirectory):
    """``runs/<status>/``: a link ``<run>@<thread>`` for each run in this status."""

    status: RunStatus

    @property
    def listed_status(self) -> RunStatus:
        return self.status

    @property
    def is_always_there(self) -> bool:
        return self.status in _ALWAYS

    @property
    def life(self) -> Life:
        return Life.MOUNT if self.is_always_there else Life.UNREPORTED

    @property
    def path(self) -> str:
        return f"runs/{self.status}"

    def lookup(self, name: str) -> Node:
        run_id, separator, thread_id = name.partition("@")
        if not separator or not names.is_id(run_id) or not names.is_id(thread_id):
            raise NoSuchName(name)
        if self.store.get_run(thread_id, run_id).status is not self.status:
            raise NoSuchName(name)
        return RunLink(self.tree, thread_id, run_id, self.status)

    def rename(self, name: str, target: Directory, new_name: str, *, replace: bool) -> None:
        """Gives a run the status of another directory; if two programs do it at once, one wins."""
        link = self.lookup(name)
        assert isinstance(link, RunLink)
        if not isinstance(target, StatusDirectory):
            raise Refused(errno.EACCES, "a run's link can be moved into the directory of another status only")
        if new_name != name:
            raise Refused(errno.EACCES, "a link keeps its name, which is that of the run and the thread")
        if target.status is not self.status:
            self.store.update_run_status(link.thread_id, link.run_id, target.status, expected=self.status)

    def entries(self) -> Iterable[tuple[str, Node]]:
        for thread_id, run_id, status in self.store.runs_by_status({self.status}):
            self.tree.journal.saw_status(thread_id, run_id, status)
            yield f"{run_id}@{thread_id}", RunLink(self.tree, thread_id, run_id, status)


@dataclass(frozen=True, slots=True)
class RunLink(PathNode):
    """A link to the run.

    Links in two statuses are two nodes, as rename(2) does nothing if both names lead to the same inode.
    """

    kind: ClassVar[int] = stat.S_IFLNK
    has_cheap_attributes: ClassVar[bool] = False

    thread_id: str
    run_id: str
    status: RunStatus

    @property
    def path(self) -> str:
        return f"runs/{self.status}/{self.run_id}@{self.thread_id}"

    def target(self) -> str:
        return f"../../threads/{self.thread_id}/runs/{self.run_id}"

    def attributes(self) -> Attributes:
        info = self.store.document_info(DocumentKey(self.thread_id, self.run_id))
        return link_attributes(self.target(), Times(info.modified_ns, info.changed_ns))
