"""What the kernel may remember, and telling it to forget.

A name or an attribute that the kernel remembers costs no request. It may remember what belongs to a thread
or run as long as a `Watch` of the store follows that, because then every change, by whichever program,
arrives here and the kernel is told to forget. What no watch covers it must ask for again.

Who may be waiting: forgetting an inode takes locks that no request of ours holds, so a change made by this
mount is forgotten before it is acknowledged. Forgetting a name takes the lock of its directory, which the
kernel holds while it waits for our answer to a mkdir or rename; that is done by a thread of its own.
"""

from __future__ import annotations

import heapq
import logging
import math
import os
import threading
import time
from collections import Counter, OrderedDict, defaultdict
from contextlib import suppress

import pyfuse3
import trio

from store import Change, DocumentKey, NoWatch, Part, RunStatus, StorageFailed, StoreError, Watch, waiting
from threadfs import detached
from threadfs.inodes import Inode, Inodes
from threadfs.nodes.base import ALL_THREADS, Directory, Node, Tree
from threadfs.nodes.documents import DocumentFile, MetaFile, StatusFile, StepFile
from threadfs.nodes.log import LogFile
from threadfs.nodes.runs_by_status import RunsByStatusDirectory, StatusDirectory
from threadfs.nodes.threads import (
    RunDirectory,
    RunsDirectory,
    StepsDirectory,
    ThreadDirectory,
    ThreadsDirectory,
)

log = logging.getLogger("threadfs")

# For what a watch covers.
WATCHED_S = 300.0
# For names that no watch covers. Sizes and times of files are asked for each time: a stale size would cut
# a new version short.
UNWATCHED_S = 0.8
# A lookup that was answered just before a change can be remembered just after it: names are forgotten twice.
_AGAIN_S = 0.3
# How long a change waits for the lock of a directory in which a name has to be forgotten.
_PATIENCE_S = 0.1
# Of how many threads and runs made here it is known that the kernel knows them as they are.
_MAX_MADE = 4096


class KernelCache:
    """Knows what the kernel holds, follows that in the store, and passes changes on."""

    def __init__(self, tree: Tree, inodes: Inodes, transcripts: Directory) -> None:
        self._tree = tree
        self._transcripts = transcripts
        self._inodes = inodes
        self._lock = threading.Lock()
        # How many held inodes depend on each followed thread or run.
        self._holders: Counter[DocumentKey] = Counter()
        self._followed: set[DocumentKey] = set()
        # The threads and runs made here, and the version of their document since their last change here.
        self._made: OrderedDict[DocumentKey, object] = OrderedDict()
        self._polls: defaultdict[int, dict[int, pyfuse3.PollHandle]] = defaultdict(dict)
        # A heap of when to forget which name in which directory; without a name, what the inode is.
        self._names: list[tuple[float, int, bytes]] = []
        self._names_came = threading.Condition()
        self._is_forgetting = False
        self._is_closed = False
        self._caller: detached.Caller | None = None
        self._watch: Watch = NoWatch()

    def start(self) -> None:
        """Begins to follow the store. Without a watch, everything is asked for again."""
        detached.start("forget names", self._forget_names)
        self._caller = detached.Caller("forget pages")
        try:
            self._watch = self._tree.store.watch(self._changed_elsewhere)
        except StorageFailed as error:
            log.info("no watch: %s; the kernel asks again for everything", error)
        # For good: names at the top are looked up one after the other, and none shall wait for a disk.
        self._holders[ALL_THREADS] = 1
        if self._watch.follow(ALL_THREADS):
            self._followed.add(ALL_THREADS)
        self._tree.on_change = self._changed_here
        self._tree.journal.gauges = self.stats

    def close(self) -> None:
        self._tree.on_change = None
        self._watch.close()
        with self._names_came:
            self._is_closed = True
            self._names_came.notify()
        caller, self._caller = self._caller, None
        if caller is not None:
            caller.close()

    # ── What is followed ────────────────────────────────────────────────────────────────────────────

    def hold(self, inode: Inode) -> None:
        """The kernel holds this inode now: changes of what it shows are followed from now on.

        Raises:
            WouldWait: as a store does, having changed nothing.
        """
        scope = inode.node.scope
        if inode.is_followed or scope is None:
            return
        if not waiting.is_refused():
            # What is asked for below is in memory then, so that nobody waits for the disk with the lock.
            self._watch.follow(scope)
        with self._lock:
            if scope not in self._holders and self._watch.follow(scope):
                self._followed.add(scope)
            self._holders[scope] += not inode.is_followed
            inode.is_followed = True

    def release(self, inode: Inode) -> None:
        """The kernel has forgotten this inode."""
        self._polls.pop(inode.number, None)
        scope = inode.node.scope
        if not inode.is_followed or scope is None:
            return
        inode.is_followed = False
        with self._lock:
            self._holders[scope] -= 1
            if not self._holders[scope]:
                del self._holders[scope]
                self._watch.forget(scope)
                self._followed.discard(scope)

    def covers(self, node: Node) -> bool:
        """Whether each change of what *node* shows is going to be reported."""
        if isinstance(node, (ThreadDirectory, RunsDirectory)):
            # Their time is that of everything in the thread.
            return self._tree.store.reports_all_of(node.thread_id)
        return node.scope in self._followed and not node.is_passing

    def covers_names_in(self, directory: Directory) -> bool:
        """Whether each name that comes or goes is going to be reported."""
        return directory.scope in self._followed

    def entry_timeout_s(self, node: Node) -> float:
        if node.is_permanent:
            return WATCHED_S
        if node.scope is None or node.is_passing:
            return 0
        return WATCHED_S if node.listed_in in self._followed else UNWATCHED_S

    def uncovered_timeout_s(self, node: Node) -> float:
        """Of what was read while *node* was not covered."""
        if not isinstance(node, Directory):
            return 0
        if node.is_list:
            return UNWATCHED_S
        if node.is_permanent:
            return WATCHED_S
        return 0 if node.scope is None or node.is_passing else UNWATCHED_S

    def stats(self) -> dict[str, int]:
        """What the kernel holds, and of the threads and runs in that, which a watch follows and which not."""
        unfollowed = len(self._holders) - len(self._followed)
        return {"inodes": len(self._inodes), "followed": len(self._followed), "not_followed": unfollowed}

    # ── Changes ─────────────────────────────────────────────────────────────────────────────────────

    def _changed_elsewhere(self, change: Change) -> None:
        try:
            if change.part is Part.EVERYTHING:
                self._forget_everything()
            else:
                self.changed(change)
        except Exception:
            log.exception("a change could not be passed on: %s", change)

    def _changed_here(self, change: Change) -> None:
        key = DocumentKey(change.thread_id, change.run_id)
        came = change.part is (Part.THREADS if key.run_id is None else Part.RUNS)
        if came or (change.part is Part.DOCUMENT and key in self._made):
            version = self._version(key)
            with self._lock:
                self._made[key] = version
                if len(self._made) > _MAX_MADE:
                    self._made.popitem(last=False)
        self.changed(change)

    def _is_as_known(self, directory: ThreadDirectory | RunDirectory) -> bool:
        """Whether the kernel knows nothing of a thread or run, or knows it since it was made here.

        Forgetting the name would take the directory from under those who work in it: getcwd(3) fails
        then, and a shell that starts there complains.
        """
        if self._inodes.existing(directory) is None:
            return True
        version = self._made.get(directory.scope)
        return version is not None and version == self._version(directory.scope)

    def _version(self, key: DocumentKey) -> object:
        with suppress(StoreError):
            return self._tree.store.document_info(key).version
        return None

    def _forget_lists(self, change: Change) -> None:
        """Lists that the change may concern, of which no watch tells by itself."""
        if change.part is Part.THREADS:
            self._forget_inode(self._transcripts, attributes_only=True)
        if change.part in (Part.THREADS, Part.RUNS) or (change.part is Part.DOCUMENT and not change.step_id):
            self._forget_inode(RunsByStatusDirectory(self._tree), attributes_only=True)
            for status in RunStatus:
                self._forget_inode(StatusDirectory(self._tree, status), attributes_only=True)

    def changed(self, change: Change) -> None:
        """Has the kernel forget what *change* is about; called by the thread that made or heard of it."""
        tree, thread_id = self._tree, change.thread_id
        self._forget_lists(change)
        thread, runs = ThreadDirectory(tree, thread_id), RunsDirectory(tree, thread_id)
        # Asked first: who lists from now on does not find what is not there.
        has_gone = self._asks_for(change) and self._version(_key(change)) is None
        if change.part is Part.THREADS:
            self._forget_inode(ThreadsDirectory(tree), attributes_only=True)
            if has_gone or not self._is_as_known(thread):
                self._forget_name(ThreadsDirectory(tree), thread_id)
                self._is_another(thread)
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
                if has_gone or not self._is_as_known(run):
                    self._forget_name(runs, change.run_id)
                    if self._inodes.existing(run) is not None:
                        self._is_another(run)
            elif change.part is Part.STEPS and change.step_id is None:  # As below, of all runs.
                self._forget_list(self._inodes.within(thread_id, change.run_id))
            elif change.step_id is not None and change.part is Part.STEPS:
                # One that has come is not known, and one that is there keeps its name, and so its number.
                if has_gone:
                    self._forget_name(steps, f"{change.step_id}.json")
            elif change.step_id is not None:
                self._forget_file(StepFile(tree, _key(change)))
            elif change.part is Part.DOCUMENT:
                self._forget_file(StatusFile(tree, _key(change)))
            return
        for directory in stale:
            self._forget_inode(directory, attributes_only=True)
        if change.part is Part.RUNS:  # The list as a whole, which may be another one with the same names.
            self._forget_list(self._inodes.within(thread_id))
        elif change.part is Part.LOG:
            self._forget_file(LogFile(tree, thread_id))
        elif change.part is Part.DOCUMENT:
            self._forget_file(MetaFile(tree, _key(change)))
            # Without messages it has the time of that.
            self._forget_inode(LogFile(tree, thread_id), attributes_only=True)

    def _asks_for(self, change: Change) -> bool:
        """Whether it is asked if a name has gone: a server is not, for each thread and run that comes."""
        is_listed = change.part in (Part.THREADS, Part.RUNS) and not self._tree.store.is_remote
        return is_listed or change.part is Part.STEPS

    def noticed(self, document: DocumentFile) -> None:
        """Somebody has seen that *document* is another one than the kernel knows."""
        key = document.key
        self.changed(Change(Part.DOCUMENT, key.thread_id, key.run_id, key.step_id))

    def _forget_everything(self) -> None:
        # What could not be followed before, as there were no watches or no connection, can be now.
        self._followed.clear()
        for scope in list(self._holders):
            with suppress(StorageFailed):
                self._watch.follow(scope)  # So that nobody waits for the disk with the lock.
                with self._lock:
                    if scope not in self._holders:
                        self._watch.forget(scope)
                    elif self._watch.follow(scope):
                        self._followed.add(scope)
        self._forget_all(self._inodes.held())
        for inode in self._inodes.held():
            if isinstance(inode.node, ThreadDirectory):
                self._forget_name(ThreadsDirectory(self._tree), inode.node.thread_id)

    def _is_another(self, directory: ThreadDirectory | RunDirectory) -> None:
        """A thread or run may be another one than before, with all that is in it."""
        run_id = directory.run_id if isinstance(directory, RunDirectory) else None
        # What was to be removed was that of the one before.
        self._tree.scratch.unstage_below(directory.path)
        self._forget_all(self._inodes.within(directory.thread_id, run_id))

    def detach(self, inode: Inode) -> None:
        """Leaves the number to those who read the version they opened; the name leads to another one."""
        if inode.kept is None:
            self._inodes.detach(inode)
            self._forget_name_of(inode.node)

    def _forget_list(self, inodes: list[Inode]) -> None:
        """A list of runs or steps may be another one, in all that is in it; some names may have gone."""
        self._forget_all(inodes)
        for inode in inodes:
            if isinstance(inode.node, (RunDirectory, StepFile)) and self._version(inode.node.key) is None:
                self._forget_name_of(inode.node)

    def _forget_all(self, inodes: list[Inode]) -> None:
        for inode in inodes:
            self._forget_version(inode)

    def _forget_file(self, node: DocumentFile | LogFile) -> None:
        for earlier in self._inodes.detached(node):
            if node.is_append_only:
                self._invalidate(earlier, attributes_only=False)  # It is read on as it grows.
            self._wake(earlier)
        inode = self._inodes.existing(node)
        if inode is not None:
            self._forget_version(inode)

    def _forget_version(self, inode: Inode) -> None:
        inode.lose_reader()
        if inode.readers:
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

    def _invalidate(self, inode: Inode, *, attributes_only: bool) -> None:
        inode.changes_seen += 1
        inode.entry = inode.listing = None
        if not inode.is_told and not inode.readers:
            return  # The kernel holds nothing of it.
        inode.is_told = False

        def invalidate() -> None:
            try:
                pyfuse3.invalidate_inode(pyfuse3.InodeT(inode.number), attributes_only)
            except OSError:
                # It has forgotten it by itself, or does not know it yet: what tells of it may be under way.
                with self._names_came:
                    heapq.heappush(self._names, (time.monotonic() + _AGAIN_S, inode.number, b""))
                    self._names_came.notify()

        caller = self._caller
        if inode.readers and not attributes_only and caller is not None:
            caller.call(invalidate)  # It may wait for a page that is being read.
        else:
            invalidate()

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
            case _:
                return  # All versions are the same.
        self._forget_name(parent, node.path.rpartition("/")[2])

    def _forget_name(self, parent: Directory, name: str) -> None:
        inode = self._inodes.existing(parent)
        if inode is not None:
            self.forget_name(inode, os.fsencode(name))

    def forget_name(self, parent: Inode, name: bytes) -> None:
        """Has the kernel forget a name soon: a handler of a mkdir, rename or the like may ask for it."""
        now_s = time.monotonic()
        with self._names_came:
            for due_s in (now_s, now_s + _AGAIN_S):
                heapq.heappush(self._names, (due_s, parent.number, name))
            self._names_came.notify()

    async def names_are_forgotten(self) -> None:
        """For those who hold no directory's lock: returns when the names are forgotten.

        Not later than soon: who holds the lock of a directory may be waiting for a task or thread of ours.
        """
        since_s, pause_s = time.monotonic(), 50e-6
        while time.monotonic() < since_s + _PATIENCE_S:
            with self._names_came:
                if not self._is_forgetting and (not self._names or self._names[0][0] > since_s):
                    return
            # The thread that forgets them has no descriptors by which it could wake this one.
            await trio.sleep(pause_s)
            pause_s *= 2

    def _forget_names(self) -> None:
        with self._names_came:
            while not self._is_closed:
                due_s = self._names[0][0] if self._names else math.inf
                wait_s = due_s - time.monotonic()
                if wait_s > 0:
                    self._names_came.wait(wait_s if self._names else None)
                    continue
                _, parent, name = heapq.heappop(self._names)
                self._is_forgetting = True
                self._names_came.release()
                # The kernel may have forgotten it, or the directory, by itself.
                with suppress(OSError):
                    if name:
                        pyfuse3.invalidate_entry(pyfuse3.InodeT(parent), pyfuse3.FileNameT(name))
                    else:
                        pyfuse3.invalidate_inode(pyfuse3.InodeT(parent), True)
                self._names_came.acquire()
                self._is_forgetting = False

    # ── poll(2) ─────────────────────────────────────────────────────────────────────────────────────

    def notify_on_change(self, inode: Inode, handle_number: int, handle: pyfuse3.PollHandle) -> None:
        """Wakes who polls this open file when what it shows has changed."""
        self._polls[inode.number][handle_number] = handle

    def _wake(self, inode: Inode) -> None:
        for handle in self._polls.pop(inode.number, {}).values():
            handle.notify()


def _key(change: Change) -> DocumentKey:
    return DocumentKey(change.thread_id, change.run_id, change.step_id)
