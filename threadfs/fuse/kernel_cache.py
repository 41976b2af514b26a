"""What the kernel may remember, and telling it to forget.

A name or an attribute that the kernel remembers costs no request. It may remember what belongs to a thread
or run as long as a `Watch` of the store follows that, because then every change, by whichever program,
arrives here and the kernel is told to forget. What no watch covers it must ask for again.

A change made by this mount is forgotten before it is acknowledged; `forgetting` says which threads may be
waiting then.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict, deque
from collections.abc import Sequence
from contextlib import suppress

import pyfuse3

from store import Change, DocumentKey, Part, RunStatus, StoreError
from store.changes import change_of
from store.waiting import is_refused
from threadfs.fuse import shim
from threadfs.fuse.following import Following
from threadfs.fuse.forgetting import Forgetting
from threadfs.fuse.inodes import Inode, Inodes
from threadfs.fuse.lent import Lent
from threadfs.nodes.base import Directory, ListDirectory, Node, Tree
from threadfs.nodes.documents import DocumentFile, MetaFile, StatusFile, StepFile
from threadfs.nodes.lives import Life
from threadfs.nodes.log import LogFile
from threadfs.nodes.runs_by_status import RunLink, RunsByStatusDirectory, StatusDirectory
from threadfs.nodes.threads import (
    RunDirectory,
    RunsDirectory,
    StepsDirectory,
    ThreadDirectory,
    ThreadsDirectory,
)
from threadfs.nodes.tools import TOOLS, ToolsDirectory, awaited_calls
from threadfs.nodes.views import ThreadLink

log = logging.getLogger("threadfs")

# For what a watch covers.
WATCHED_S = 300.0
# For names that no watch covers. Sizes and times of files are asked for each time: a stale size would cut
# a new version short.
UNWATCHED_S = 0.8
# How many calls of poll(2) on one handle are remembered.
_MAX_POLLS = 10_000


class KernelCache:
    """Knows what the kernel holds, follows that in the store, and passes changes on."""

    def __init__(self, tree: Tree, inodes: Inodes, texts: Sequence[Directory]) -> None:
        self._tree = tree
        self._texts = texts
        self._inodes = inodes
        self.following = Following(tree.store, self.changed)
        self._lent = Lent()
        # By inode and handle.
        self._polls: defaultdict[int, dict[int, deque[pyfuse3.PollHandle]]] = defaultdict(dict)
        # Whether the kernel keeps listings (`shim`).
        self.keeps_listings = False
        self._forgetting = Forgetting()
        self.names_are_forgotten = self._forgetting.names_are_forgotten
        self.wait_for_names = self._forgetting.wait_for_names
        self.name_is_right = self._forgetting.is_right
        self.forget_name = self._forgetting.forget_name

    def start(self) -> None:
        """Begins to follow the store. Without a watch, everything is asked for again."""
        self._forgetting.start()
        self.following.start()
        self._tree.journal.gauges = self.stats

    def close(self) -> None:
        self.following.close()
        self._forgetting.close()

    async def end(self) -> None:
        """Tells the kernel nothing more. To be called while it is still answered, and nothing changes."""
        await self._forgetting.end()

    # ── What is followed ────────────────────────────────────────────────────────────────────────────

    def release(self, inode: Inode) -> None:
        """The kernel has forgotten this inode."""
        self._polls.pop(inode.number, None)
        self.following.release(inode)

    def covers(self, node: Node) -> bool:
        """Whether each change of what *node* shows is going to be reported."""
        if isinstance(node, (ThreadDirectory, RunsDirectory)):
            # Their time is that of everything in the thread.
            return self._tree.store.reports_all_of(node.thread_id)
        return self.following.covers(node.scope) and node.life is not Life.UNREPORTED

    def covers_names_in(self, directory: Directory) -> bool:
        """Whether each name that comes or goes is going to be reported."""
        scope = directory.names_scope
        return directory.names_are_fixed or self.following.covers(scope)

    def entry_timeout_s(self, node: Node) -> float:
        life = node.life
        if life in (Life.MOUNT, Life.NAME):
            return WATCHED_S
        if life is Life.UNREPORTED:
            return 0
        return WATCHED_S if self.following.covers(node.listed_in) else UNWATCHED_S

    def uncovered_timeout_s(self, node: Node) -> float:
        """Of what was read while *node* was not covered."""
        if not isinstance(node, Directory):
            return 0
        if isinstance(node, ListDirectory):
            return UNWATCHED_S  # Others change the list.
        if node.life is Life.MOUNT:
            return WATCHED_S
        return UNWATCHED_S if node.life is Life.REPORTED else 0

    def lend(self, inode: Inode, listed_s: float, looked_s: float) -> float:
        """For how long the name and attributes of a link may be remembered that a listing told, in seconds.

        Args:
            listed_s: when it was looked for the names of the directory, by the monotonic clock.
            looked_s: when it was looked at the attributes.
        """
        if not isinstance(inode.node, (ThreadLink, RunLink)):
            return 0
        thread_id = inode.node.thread_id
        # Where the next change is not reported, neither is one of before.
        since_s = looked_s if self._tree.store.reports_all_of(thread_id) else listed_s
        return self._lent.lend(inode, thread_id, listed_s, since_s)

    def stats(self) -> dict[str, int]:
        """What the kernel holds, whether it keeps listings, and what of all that a watch follows."""
        return {
            "inodes": len(self._inodes),
            "shim": int(self.keeps_listings),
            "ends_by_shim": shim.ends_answered(),
            "opens_by_shim": shim.opens_answered(),
            **self.following.stats(),
        }

    # ── Changes ─────────────────────────────────────────────────────────────────────────────────────

    def _version(self, key: DocumentKey) -> object:
        with suppress(StoreError):
            return self._tree.store.document_info(key).version
        return None

    def _forget_lists(self, change: Change) -> None:
        """Lists that the change may concern, of which no watch tells by itself."""
        if change.part is Part.THREADS:
            for directory in self._texts:
                self._forget_inode(directory, attributes_only=True)
        if change.part in (Part.THREADS, Part.RUNS) or (change.part is Part.DOCUMENT and not change.step_id):
            self._forget_inode(RunsByStatusDirectory(self._tree), attributes_only=True)
            for status in RunStatus:
                self._forget_inode(StatusDirectory(self._tree, status), attributes_only=True)

    def changed(self, change: Change) -> None:
        """Has the kernel forget what *change* is about; called by the thread that made or heard of it."""
        tree, thread_id = self._tree, change.thread_id
        if change.part is Part.EVERYTHING:
            self._forget_everything()
            return
        if change.part in (Part.ANSWER, Part.WORKERS):
            return  # What shows these is asked for each time.
        for link in self._lent.take_back(thread_id):
            self._invalidate(link, attributes_only=True)
            self._forget_name_of(link.node)
        self._forget_lists(change)
        # Looked up first: a listing that begins now does not find a name that has gone.
        has_gone = self._asks_for(change) and self._version(change.key) is None
        thread, runs = ThreadDirectory(tree, thread_id), RunsDirectory(tree, thread_id)
        if change.part is Part.THREADS:
            self._forget_inode(ThreadsDirectory(tree), attributes_only=True)
            self._forget_name_or_contents(change, ThreadsDirectory(tree), thread, has_gone=has_gone)
            self._forget_inode(thread, attributes_only=True)
            return
        stale: list[Directory] = [thread, runs]
        if change.run_id is not None:
            run, steps = (
                RunDirectory(tree, thread_id, change.run_id),
                StepsDirectory(tree, thread_id, change.run_id),
            )
            stale += [run, steps]
            for directory in stale:
                self._forget_inode(directory, attributes_only=True)
            if change.part is Part.RUNS:
                self._forget_name_or_contents(change, runs, run, has_gone=has_gone)
            elif change.part is Part.STEPS and change.step_id is None:  # As below, of all runs.
                self._forget_list(self._inodes.within(thread_id, change.run_id))
            elif change.step_id is not None and change.part is Part.STEPS:
                # One that has come is not known, and one that is there keeps its name, and so its number.
                if has_gone:
                    self._forget_name(steps, f"{change.step_id}.json")
            elif change.step_id is not None:
                self._forget_file(StepFile(tree, change.key))
            elif change.part is Part.DOCUMENT:
                self._forget_file(StatusFile(tree, change.key))
                if self._may_wait_no_longer(ToolsDirectory(tree, thread_id, change.run_id)):
                    self._forget_name(run, TOOLS)
            return
        for directory in stale:
            self._forget_inode(directory, attributes_only=True)
        if change.part is Part.RUNS:  # The list as a whole, which may be another one with the same names.
            self._forget_list(self._inodes.within(thread_id))
        elif change.part is Part.LOG:
            self._forget_file(LogFile(tree, thread_id), is_same=change.grew)
        elif change.part is Part.DOCUMENT:
            self._forget_file(MetaFile(tree, change.key))
            # A log without messages has the time of the document.
            self._forget_inode(LogFile(tree, thread_id), attributes_only=True)

    def _may_wait_no_longer(self, tools: ToolsDirectory) -> bool:
        """Whether the kernel holds it, and its run may not wait for tools (any more)."""
        if self._inodes.existing(tools) is None:
            return False
        with suppress(StoreError):
            return is_refused() or not awaited_calls(self._tree.store, tools.run)
        return True

    def _asks_for(self, change: Change) -> bool:
        """Whether to look up if a name has gone: not on a server, for each thread and run that comes."""
        if change.is_own:
            return False
        if change.part is Part.STEPS and change.run_id is not None:
            steps = StepsDirectory(self._tree, change.thread_id, change.run_id)
            return self._inodes.existing(steps) is not None
        if change.part not in (Part.THREADS, Part.RUNS):
            return False
        return not self._tree.store.is_remote or self._inodes.existing(self._directory(change)) is not None

    def _directory(self, change: Change) -> Directory:
        """The directory of a thread or run that has come or gone, or of a list of runs that has changed."""
        if change.run_id is not None:
            return RunDirectory(self._tree, change.thread_id, change.run_id)
        if change.part is Part.RUNS:
            return RunsDirectory(self._tree, change.thread_id)
        return ThreadDirectory(self._tree, change.thread_id)

    def noticed(self, document: DocumentFile) -> None:
        """Somebody has seen that *document* is another one than the kernel knows."""
        self.changed(change_of(Part.DOCUMENT, document.key))

    def _forget_everything(self) -> None:
        self._lent.take_all_back()
        self.following.begin_again()
        self._forget_all(self._inodes.held())
        for inode in self._inodes.held():
            if isinstance(inode.node, ThreadDirectory):
                self._forget_name(ThreadsDirectory(self._tree), inode.node.thread_id)

    def _forget_name_or_contents(
        self, change: Change, parent: Directory, directory: ThreadDirectory | RunDirectory, *, has_gone: bool
    ) -> None:
        """A thread or run has gone, or may be another one than before, with all that is in it.

        The name of one that is there is left alone, as is that of one that was deleted here: the kernel knows
        of it. Forgetting a name takes the directory from under the programs that work in it: getcwd(3) fails
        then, and a shell that starts there complains.
        """
        run_id = directory.run_id if isinstance(directory, RunDirectory) else None
        inodes = self._inodes.within(directory.thread_id, run_id)
        if change.is_own:
            self._forget_all(inodes)
            return
        # What was to be removed was that of the one before.
        self._tree.scratch.unstage_below(directory.path)
        if has_gone:
            self._forget_name(parent, directory.path.rpartition("/")[2])
            self._forget_all(inodes)
        else:
            self._forget_list(inodes)

    def detach(self, inode: Inode) -> None:
        """Leaves the number to the readers of the version that they opened; the name gets another one."""
        if inode.pinned_reader is None:
            self._inodes.detach(inode)
            self._forget_name_of(inode.node)

    def _forget_list(self, inodes: list[Inode]) -> None:
        """A list of runs or steps may be another one, in all that is in it; some names may have gone."""
        self._forget_all(inodes)
        for inode in inodes:
            node = inode.node
            if isinstance(node, (RunDirectory, StepFile)) and self._version(node.key) is None:
                self._forget_name_of(node)
            elif isinstance(node, ToolsDirectory) and self._may_wait_no_longer(node):
                self._forget_name(RunDirectory(self._tree, node.thread_id, node.run_id), TOOLS)

    def _forget_all(self, inodes: list[Inode]) -> None:
        for inode in inodes:
            self._forget_version(inode)

    def _forget_file(self, node: DocumentFile | LogFile, *, is_same: bool = False) -> None:
        """With *is_same*, its name leads to the same file as before."""
        for earlier in self._inodes.detached(node):
            if node.is_append_only:
                self._invalidate(earlier, attributes_only=False)  # It is read on as it grows.
            self._wake(earlier)
        inode = self._inodes.existing(node)
        if inode is not None:
            self._forget_version(inode, is_same=is_same)

    def _forget_version(self, inode: Inode, *, is_same: bool = False) -> None:
        inode.lose_reader()
        if inode.readers and not is_same:
            # They keep this number with the version they opened; the name gets another one.
            self._forget_name_of(inode.node)
        self._invalidate(inode, attributes_only=False)
        self._wake(inode)

    def _forget_inode(self, node: Node, *, attributes_only: bool) -> None:
        inode = self._inodes.existing(node)
        if inode is not None:
            self._invalidate(inode, attributes_only=attributes_only)

    def forget_attributes(self, inode: Inode) -> None:
        self._invalidate(inode, attributes_only=True)

    def forget_listing(self, inode: Inode) -> None:
        """The kernel forgets the listing of a directory. It may wait: not to be called by the loop."""
        self._forgetting.forget_inode(inode, attributes_only=False)

    def _invalidate(self, inode: Inode, *, attributes_only: bool) -> None:
        loses_listing = inode.lose_entry() and self.keeps_listings
        if loses_listing:
            shim.forget_end(inode.number)
        if not inode.kernel_has_attributes and not inode.readers and not loses_listing:
            return  # The kernel holds nothing of it.
        inode.kernel_has_attributes = False
        is_file = not isinstance(inode.node, Directory)
        # The pages of a directory are its listing.
        self._forgetting.forget_inode(
            inode, attributes_only=attributes_only if is_file else not loses_listing
        )

    # ── Names ───────────────────────────────────────────────────────────────────────────────────────

    def _forget_name_of(self, node: Node) -> None:
        parent: Directory
        match node:
            case RunDirectory(thread_id=thread_id):
                parent = RunsDirectory(self._tree, thread_id)
            case StepFile(key=DocumentKey(thread_id, str(run_id))):
                parent = StepsDirectory(self._tree, thread_id, run_id)
            case StatusFile(key=DocumentKey(thread_id, str(run_id))):
                parent = RunDirectory(self._tree, thread_id, run_id)
            case MetaFile(key=DocumentKey(thread_id)) | LogFile(thread_id=thread_id):
                parent = ThreadDirectory(self._tree, thread_id)
            case ThreadLink(directory=directory):
                parent = directory
            case RunLink(status=status):
                parent = StatusDirectory(self._tree, status)
            case _:
                return  # All versions are the same.
        self._forget_name(parent, node.path.rpartition("/")[2])

    def _forget_name(self, parent: Directory, name: str) -> None:
        inode = self._inodes.existing(parent)
        if inode is not None:
            self.forget_name(inode, os.fsencode(name))

    # ── poll(2) ─────────────────────────────────────────────────────────────────────────────────────

    def notify_on_change(
        self, inode: Inode, handle_number: int, handle: pyfuse3.PollHandle, *, is_shared: bool
    ) -> None:
        """Wakes the program that polls this open file when the file has changed.

        Where programs share the handle, one that polls again cannot be told from another one.
        """
        handles = self._polls[inode.number].setdefault(handle_number, deque(maxlen=_MAX_POLLS))
        if not is_shared:
            handles.clear()
        handles.append(handle)

    def _wake(self, inode: Inode) -> None:
        for handles in self._polls.pop(inode.number, {}).values():
            for handle in handles:
                handle.notify()
