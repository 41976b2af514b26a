"""Which calls a subject needs: whether a name came or went, and from which status to which a run moved.

What nobody can watch needs none: a program that watches a directory, or anything in it, has the kernel hold
that directory.
"""

from __future__ import annotations

import errno
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, NamedTuple, TypeAlias, TypeVar

from store import DocumentKey, NotFound, RunStatus, Store, StoreError
from store.api import StatusOfRun
from threadfs.fuse.inodes import Inodes
from threadfs.fuse.waking.calls import Call, Make, Modify, Move, Remove, Touch
from threadfs.fuse.waking.subjects import File, Link, Log, Name, Names, Subject, Time, Times
from threadfs.nodes.base import Directory, Node, NoSuchName, Tree
from threadfs.nodes.growing import ThreadTexts
from threadfs.nodes.runs_by_status import RunLink, RunsByStatusDirectory, StatusDirectory
from threadfs.nodes.threads import (
    RunDirectory,
    RunsDirectory,
    StepsDirectory,
    ThreadDirectory,
    ThreadsDirectory,
)

# Of how many names it is remembered what was told last.
_MAX_KNOWN: Final = 20_000


class Written(NamedTuple):
    """A version of a document or log that a program has written here; ``None``: it is not known."""

    version: object


# Whether a name is there, as a program has made or removed it here; the status to which one has moved a run.
Told: TypeAlias = bool | RunStatus | Written
K = TypeVar("K")
V = TypeVar("V")


class _Last(OrderedDict[K, V]):
    """What was set last of each; the oldest are forgotten."""

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > _MAX_KNOWN:
            self.popitem(last=False)


class Planning:
    """One thread at a time. *make* makes a call, and returns 0 or the errno.

    *is_being_told* is asked of what was just read: whether that may be a change made here.
    """

    def __init__(
        self,
        tree: Tree,
        inodes: Inodes,
        make: Callable[[Call], int],
        forget_name: Callable[[Directory, str], None],
        is_being_told: Callable[[Subject], bool],
    ) -> None:
        self._tree = tree
        self._inodes = inodes
        self._make = make
        self._forget_name = forget_name
        self._is_being_told = is_being_told
        # Whether a name is there, by its path, as it was told last.
        self._is_there: _Last[str, bool] = _Last()
        # Of documents and logs, as contents were told last, and as times were.
        self._versions: _Last[str, object] = _Last()
        self._versions_of_times: _Last[str, object] = _Last()
        # The status of runs as it was told last, by thread and run.
        self._statuses: _Last[str, dict[str, RunStatus]] = _Last()

    @property
    def _store(self) -> Store:
        return self._tree.store

    def learn(self, runs: Iterable[StatusOfRun]) -> None:
        """Notes which status runs had before, to know where they move from."""
        for thread_id, run_id, status in runs:
            if run_id not in self._statuses.get(thread_id, ()):
                self._note_status(Link(thread_id, run_id), status)

    def written(self, subject: File | Log | Times) -> Written:
        """What a program has written here just now; also called by other threads."""
        with suppress(StoreError):
            if not self._store.is_remote:  # Which hears nothing of own changes from others.
                return Written(self._version(subject))
        return Written(None)

    def _version(self, subject: File | Log | Times) -> object:
        """``None`` for what is no document and no log. Raises StoreError."""
        if isinstance(subject, Times):
            return self._version(subject.of)
        if isinstance(subject, Log):
            return self._store.log_info(subject.directory.thread_id).version
        return subject.key and self._store.document_info(subject.key).version

    def note(self, subject: Subject, told: Told) -> None:
        """Who watches has heard of it from the kernel."""
        match subject, told:
            case ((File() | Log()), Written(version)):
                self._versions[subject.path] = version
                if isinstance(subject, Log):
                    for text in subject.texts:
                        self._file(text)
            case Times(), Written(version):
                self._versions_of_times[subject.path] = version
            case Name(), bool(is_there):
                self._is_there[subject.path] = is_there
            case Link(), RunStatus():
                if (before := self._note_status(subject, told)) is not None:
                    self._status(before)

    def note_absent(self, name: Name) -> None:
        """It was not there before it came, if nothing was told of it. It may never become a thread or run."""
        if name.path not in self._is_there:
            self._is_there[name.path] = False

    def wake(self, subject: Subject) -> None:
        """Makes the calls."""
        match subject:
            case File(key=None):
                self._file(subject)
            case File():
                if self._is_another(subject):
                    self._file(subject)
            case Log(texts=texts):
                # Programs open a log for writing to lock its thread, and write nothing: that is no change.
                if self._is_another(subject):
                    for file in (subject.file, *texts):
                        self._file(file)
            case Times(of):
                self._times(subject, of.file if isinstance(of, Log) else of)
            case Name():
                self._name(subject)
            case Time(directory) if self._is_held(directory):
                self._make(Touch(subject.path))
            case Link():
                self._link(subject)
            case Names(directory):
                self._names(directory)

    def _is_held(self, node: Node) -> bool:
        inode = self._inodes.existing(node)
        return inode is not None and inode.lookups > 0

    # ── Files ───────────────────────────────────────────────────────────────────────────────────────────

    def _file(self, file: File, *, only_times: bool = False) -> None:
        if not self._is_held(file.directory):
            return
        before = self._inodes.existing(_child(file.directory, file.name))
        # Who may not write what is shown as 0444 may still set the times of what is its own.
        if only_times or self._make(Modify(file.path)) == errno.EACCES:
            self._make(Touch(file.path))
        # Looked up for that, it may have become another one. Who watches the one before would sleep for good.
        after = self._inodes.existing(_child(file.directory, file.name))
        if before is not None and before is not after and before.lookups > 0:
            self._forget_name(file.directory, file.name)
            self._make(Touch(file.path, before))

    def _is_another(self, subject: File | Log) -> bool:
        """Whether it is another version than the one that was told last."""
        try:
            version = self._version(subject)
        except StoreError:
            return False  # It has gone.
        if self._is_being_told(subject):
            return False
        is_another = self._versions.get(subject.path) != version
        self._versions[subject.path] = version
        return is_another

    def _times(self, times: Times, file: File) -> None:
        try:
            version = self._version(times)
        except StoreError:
            return  # It has gone.
        # What came with other contents has been told with these.
        is_told = version in (self._versions.get(times.path), self._versions_of_times.get(times.path))
        if self._is_being_told(times) or is_told:
            return
        # The contents are compared when they are told: they may have changed since, and are told then.
        self._versions_of_times[times.path] = version
        self._file(file, only_times=True)

    # ── Names ───────────────────────────────────────────────────────────────────────────────────────────

    def _name(self, name: Name) -> None:
        try:
            node = name.directory.lookup(name.name)
        except (NoSuchName, NotFound):
            if not self._is_being_told(name):
                self._has_gone(name)
            return
        except StoreError:
            return
        if self._is_being_told(name):
            return
        was_there = self._is_there.get(name.path)
        self._is_there[name.path] = True
        if not self._is_held(name.directory):
            return
        if was_there:
            self._may_be_another(name, node)
            return
        match self._make(Make(name.path, node)):
            case errno.EEXIST:
                self._make(Touch(name.path))  # Somebody has found it before it was told.
            case errno.ENOENT:
                self._is_there.pop(name.path, None)  # It has gone before it was told.

    def _may_be_another(self, name: Name, node: Node) -> None:
        """It may have gone and come again, and who looked between has not found it, or the one before."""
        self._make(Touch(name.path))
        contents: list[File | Log] = []
        match node:
            case ThreadDirectory(thread_id=thread_id):
                contents = [File(node, "meta.json", DocumentKey(thread_id)), Log(node, ())]
            case RunDirectory(thread_id=thread_id, run_id=run_id):
                contents = [File(node, "status", DocumentKey(thread_id, run_id))]
                steps = StepsDirectory(self._tree, thread_id, run_id)
                if self._is_held(steps):
                    self._names(steps)
        for each in contents:
            if each.path in self._versions:  # Most often it is only announced twice.
                self.wake(each)

    def _has_gone(self, name: Name) -> None:
        was_there = self._is_there.get(name.path)
        self._is_there[name.path] = False
        node = _child(name.directory, name.name)
        # It may have come since, and somebody has found it before that was told.
        if not self._is_held(name.directory) or (was_there is False and not self._is_held(node)):
            return
        children = self._children(node)
        above = {one.path: one for one in (*children, node) if isinstance(one, Directory)}
        for child in children:
            self._make(Remove(child.path, child, name, above))
        self._make(Remove(name.path, node, name))

    def _children(self, node: Node) -> list[Node]:
        """All that the kernel holds in a thread or run, the deepest first."""
        if isinstance(node, ThreadDirectory):
            inodes = self._inodes.within(node.thread_id)
        elif isinstance(node, RunDirectory):
            inodes = self._inodes.within(node.thread_id, node.run_id)
        else:
            return []
        found = [inode.node for inode in inodes if inode.lookups > 0 and inode.node != node]
        return sorted(found, key=lambda child: child.path.count("/"), reverse=True)

    def _names(self, directory: RunsDirectory | StepsDirectory) -> None:
        found: Iterable[str] = ()
        thread_id = directory.thread_id
        if isinstance(directory, StepsDirectory):
            try:
                found = self._store.list_step_ids(thread_id, directory.run_id)
            except StoreError:
                return
            held = [
                inode.node.path.rpartition("/")[2]
                for inode in self._inodes.within(thread_id, directory.run_id)
            ]
            names = dict.fromkeys([f"{step_id}.json" for step_id in found])
            for step in [*names, *(name for name in held if name.endswith(".json") and name not in names)]:
                self._name(Name(directory, step))
            return
        try:
            found = self._store.list_run_ids(thread_id)
        except NotFound:
            found = ()
        except StoreError:
            return
        # Somebody may have found a run before it was told, and have it gone before.
        held = [
            inode.node.run_id
            for inode in self._inodes.within(thread_id)
            if isinstance(inode.node, RunDirectory)
        ]
        for run_id in dict.fromkeys([*found, *self._statuses.get(thread_id, ()), *held]):
            self._name(Name(directory, run_id))
            self._link(Link(thread_id, run_id))

    # ── Links ───────────────────────────────────────────────────────────────────────────────────────────

    def _link(self, link: Link) -> None:
        try:
            after = self._store.get_run(link.thread_id, link.run_id).status
        except NotFound:
            after = None
        except StoreError:
            return
        if self._is_being_told(link):
            return
        before = self._note_status(link, after)
        for status in self._statuses_held(link):
            if before is None and status is not after:
                before = status
            elif status not in (before, after):  # Somebody has found it there before it was told.
                self._moved(self._run_link(link, status), None)
        if before is after:
            if after is not None and (same := self._run_link(link, after)):
                self._make(Touch(same.path))
            return
        if after is not None:
            self._status(after)
        self._moved(
            None if before is None else self._run_link(link, before),
            None if after is None else self._run_link(link, after),
        )
        if before is not None:
            self._status(before)

    def _moved(self, old: RunLink | None, new: RunLink | None) -> None:
        directory = old and StatusDirectory(self._tree, old.status)
        above = {} if directory is None else {directory.path: directory}
        if old and new:
            if self._make(Move(old.path, old, new.path, new, above)) == errno.EEXIST:
                self._make(Remove(old.path, old, _name_of(old), above))
                self._make(Touch(new.path))
        elif old:
            self._make(Remove(old.path, old, _name_of(old), above))
        elif new and self._make(Make(new.path, new)) == errno.EEXIST:
            self._make(Touch(new.path))

    def _status(self, status: RunStatus) -> None:
        """The directory of a status may be there only while a run has that."""
        if not StatusDirectory(self._tree, status).is_always_there:
            self._name(Name(RunsByStatusDirectory(self._tree), status))

    def _note_status(self, link: Link, status: RunStatus | None) -> RunStatus | None:
        """``None``: there is no such run any more. Returns what was noted before."""
        runs = self._statuses.pop(link.thread_id, {})
        before = runs.pop(link.run_id, None)
        if status is not None:
            runs[link.run_id] = status
        if runs:
            self._statuses[link.thread_id] = runs
        return before

    def _run_link(self, link: Link, status: RunStatus) -> RunLink | None:
        """``None`` where nobody can watch."""
        if self._is_held(StatusDirectory(self._tree, status)):
            return RunLink(self._tree, link.thread_id, link.run_id, status)
        return None

    def _statuses_held(self, link: Link) -> list[RunStatus]:
        """The statuses in whose directories the kernel has seen the run."""
        return [
            status
            for status in RunStatus
            if self._is_held(RunLink(self._tree, link.thread_id, link.run_id, status))
        ]


def _name_of(link: RunLink) -> Name:
    return Name(StatusDirectory(link.tree, link.status), f"{link.run_id}@{link.thread_id}")


def _child(directory: Directory, name: str) -> Node:
    """The node of a name, also of one that has gone."""
    match directory:
        case ThreadsDirectory(tree=tree):
            return ThreadDirectory(tree, name)
        case RunsDirectory():
            return directory.child(name)
        case RunsByStatusDirectory(tree=tree):
            return StatusDirectory(tree, RunStatus(name))
        case ThreadTexts():
            return directory.text(name)
        case ThreadDirectory() | RunDirectory() | StepsDirectory():
            return directory.named_child(name)
    raise NoSuchName(name)
