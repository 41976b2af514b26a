"""Collects changes for a moment, waits until the kernel has forgotten what it knew, and makes the calls.

Two threads: one plans and asks the store. The other one makes the calls, in a table of descriptors of its own
without the connection (`detached`): if the process is killed in the middle of a call, nothing keeps the
connection open, the call fails, and the locks that it holds in the kernel are released.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

import trio

from store import Change, RunStatus, StoreError
from store.api import StatusOfRun
from threadfs.fuse import detached
from threadfs.fuse.answers import Answers
from threadfs.fuse.inodes import Inodes
from threadfs.fuse.kernel_cache import KernelCache
from threadfs.fuse.waking.announced import Announced
from threadfs.fuse.waking.calls import Call
from threadfs.fuse.waking.place import open_root
from threadfs.fuse.waking.planning import Planning, Told
from threadfs.fuse.waking.subjects import File, Link, Log, Name, Subject, Times, subjects_of
from threadfs.nodes.base import Directory, Tree
from threadfs.nodes.growing import ThreadTexts

log = logging.getLogger("threadfs")

# How long changes are collected; what changes twice in that time is told once.
_COLLECTS_S: Final = 0.02
_NOT_ENDED: Final = tuple(status for status in RunStatus if not status.is_terminal)
# After so many calls, or so long, the loop and who unmounts get their turn, for as long: at most 2,000 calls
# a second, and at most half of a processor.
_BURST: Final = 10
_WORKS_S: Final = 0.005
_PAUSE_S: Final = 0.005
# As in `fuse.forgetting`.
_ENDS_S: Final = 1.0
_LOOKS_S: Final = 0.005


class Waker:
    def __init__(
        self,
        tree: Tree,
        inodes: Inodes,
        answers: Answers,
        kernel_cache: KernelCache,
        texts: Sequence[ThreadTexts],
    ) -> None:
        self._tree = tree
        self._kernel_cache = kernel_cache
        self._inodes = inodes
        self._texts = texts
        self.announced = Announced(inodes, answers, kernel_cache.name_is_right)
        self._planning = Planning(tree, inodes, self._make, self._forget_name, self._is_being_told)
        self._mountpoint = ""
        # Guards those below. What may have changed, what of that has been told by the kernel, and which names
        # were not there before.
        self._wakeup = threading.Condition()
        self._pending: dict[tuple[Subject, Told | None], None] = {}
        self._told_now: set[Subject] = set()
        self._came: set[Name] = set()
        self._ends = threading.Event()
        self._requested: dict[str, bool] = {}
        # The runs that have not ended, once they are known; and the threads that changed until then, of which
        # it is not known whether that is a status of before.
        self._learnt: list[StatusOfRun] | None = None
        self._changed_meanwhile: set[str] | None = set()
        self._caller: detached.Caller | None = None
        self._planner: threading.Thread | None = None
        # The root of the mount while calls are made, a descriptor of the thread that makes them.
        self._root: int | None = None
        # How many calls were made since the last pause, and when that was.
        self._made, self._paused_s = 0, 0.0
        self.is_on = False
        self._tree.journal.options["wake"] = 0

    def start(self, mountpoint: str) -> None:
        """To be called once the mount stands, before anything is answered: nobody can watch yet."""
        self._mountpoint = mountpoint
        self.is_on = True
        self._tree.store.announcer.subscribe(self._changed)
        self._caller = detached.Caller("wake", keeps_connection=False)
        self._planner = threading.Thread(target=self._work, name="plan wake-ups", daemon=True)
        self._planner.start()

    def close(self) -> None:
        """Makes no further call. To be called once nothing is answered, before the store is closed."""
        self._stop()
        if self._planner is not None:
            self._planner.join(_ENDS_S)

    def _stop(self) -> None:
        with self._wakeup:
            self._ends.set()
            self._wakeup.notify_all()
        self._tree.store.announcer.unsubscribe(self._changed)
        if self._caller is not None:
            self._caller.close()

    async def end(self) -> None:
        """Makes no further call; returns when the one that is being made has been answered, or soon."""
        self._stop()
        deadline_s = time.monotonic() + _ENDS_S
        while self._caller and self._caller.thread.is_alive() and time.monotonic() < deadline_s:
            await trio.sleep(_LOOKS_S)

    # ── Changes ─────────────────────────────────────────────────────────────────────────────────────────

    def begins(self, paths: Mapping[str, bool]) -> None:
        """A program asks for a change at these paths; whether there is something afterwards.

        If it is made, who watches there hears of it from the kernel.
        """
        self._requested.update(paths)

    def has_ended(self, paths: Mapping[str, bool]) -> None:
        for path in paths:
            self._requested.pop(path, None)

    def _is_being_told(self, subject: Subject) -> bool:
        """Whether what was just read may be an own change of which who watches hears anyway.

        It is looked at again when that is known. To be called after reading: a change is announced while the
        request for it is in hand.
        """
        is_being_told = self._is_requested(subject)
        with self._wakeup:
            is_being_told |= subject in self._told_now
            if is_being_told:
                self._pending[subject, None] = None
        return is_being_told

    def _is_requested(self, subject: Subject) -> bool:
        """Whether a program asks for a change of it just now."""
        requested = self._requested
        if isinstance(subject, Link) and requested:
            return any(self._link_path(subject, status) in requested for status in RunStatus)
        return subject.path in requested

    @staticmethod
    def _link_path(link: Link, status: RunStatus) -> str:
        return f"runs/{status}/{link.run_id}@{link.thread_id}"

    def _told(self, subject: Subject) -> Told | None:
        """What who watches hears anyway of an own change, which is being made by a request."""
        if isinstance(subject, Link):
            for status in RunStatus:
                if self._requested.get(self._link_path(subject, status)):
                    return status
            return None
        is_there = self._requested.get(subject.path)
        if is_there is not None and isinstance(subject, (File, Log, Times)):
            return self._planning.written(subject)
        return is_there

    def _changed(self, change: Change) -> None:
        """Called after the kernel was told to forget what it knows."""
        found = {
            (subject, self._told(subject) if change.is_own else None): None
            for subject in subjects_of(self._tree, self._texts, change)
        }
        with self._wakeup:
            if change.has_come:
                self._came.update(subject for subject, _ in found if isinstance(subject, Name))
            self._pending |= found
            self._told_now.update(subject for subject, told in found if told is not None)
            if self._changed_meanwhile is not None:
                self._changed_meanwhile.add(change.thread_id)
            self._wakeup.notify_all()

    # ── The thread ──────────────────────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        if not self._recognised():
            self.is_on = False
            self._tree.store.announcer.unsubscribe(self._changed)
            if not self._ends.is_set():
                log.info(
                    "nowake: the mount does not see its own calls: who watches hears of no other's changes"
                )
            return
        self._tree.journal.options["wake"] = 1
        # By the first change the runs are known to the store, most often; but this may take long.
        learning = threading.Thread(target=self._learn, name="learn statuses", daemon=True)
        while self._collected():
            if not learning.ident:
                learning.start()
            try:
                self._take_over()
                self._wake_all()
            except Exception:
                if self._ends.is_set():  # Perhaps with the store.
                    return
                log.exception("what has changed could not be told to those who watch")

    def _learn(self) -> None:
        with suppress(StoreError):
            self._learnt = list(self._tree.store.runs_by_status(_NOT_ENDED))

    def _take_over(self) -> None:
        """Notes from which status runs move, once that is known."""
        with self._wakeup:
            learnt, changed = self._learnt, self._changed_meanwhile
            if learnt is None or changed is None:
                return
            self._changed_meanwhile = self._learnt = None
        self._planning.learn(run for run in learnt if run[0] not in changed)

    def _collected(self) -> bool:
        """Returns when something has changed, and a moment has passed; False when the mount ends."""
        with self._wakeup:
            while not self._pending and not self._ends.is_set():
                self._wakeup.wait()
            ends_s = time.monotonic() + _COLLECTS_S
            while not self._ends.is_set() and (rest_s := ends_s - time.monotonic()) > 0:
                self._wakeup.wait(rest_s)
            return not self._ends.is_set()

    def _wake_all(self) -> None:
        self._kernel_cache.wait_for_names()
        with self._wakeup:
            subjects, self._pending = self._pending, {}
            came, self._came = self._came, set()
            self._told_now.clear()
        for name in came:
            self._planning.note_absent(name)
        self._made, self._paused_s = 0, time.monotonic()
        for subject, told in subjects:
            if told is not None:
                self._planning.note(subject, told)
        try:
            changed = dict.fromkeys(subject for subject, told in subjects if told is None)
            for subject in changed:
                if isinstance(subject, Times) and subject.of in changed:
                    continue
                if self._ends.is_set():
                    return
                with suppress(StoreError):  # The others are told all the same.
                    self._planning.wake(subject)
                self._give_way()
        finally:
            self._leave()

    def _forget_name(self, directory: Directory, name: str) -> None:
        if (inode := self._inodes.existing(directory)) is not None:
            self._kernel_cache.forget_name(inode, os.fsencode(name))
            self._kernel_cache.wait_for_names()

    # ── Calls ───────────────────────────────────────────────────────────────────────────────────────────

    def _recognised(self) -> bool:
        """Whether what is mounted at the mount point is this mount, and its requests are known to be ours."""
        is_ours = self._called(None) == 0
        self._leave()
        return is_ours

    def _make(self, call: Call) -> int:
        """Makes a call: 0, or the errno."""
        self._give_way()
        self._made += 1
        return self._called(call)

    def _give_way(self) -> None:
        if self._made < _BURST and time.monotonic() < self._paused_s + _WORKS_S:
            return
        self._leave()
        self._ends.wait(_PAUSE_S)
        self._made, self._paused_s = 0, time.monotonic()

    def _called(self, call: Call | None) -> int:
        """Makes a call in the mount, if what is mounted there is ours."""
        result = [errno.ENOTCONN]

        def enter() -> None:
            try:
                root = self._entered()
                if root is not None and call is not None:
                    self.announced.call = call
                    call.make(root)
                    self._tree.journal.counters["wakeups"] += 1
                result[0] = 0 if root is not None else errno.ENOTCONN
            except OSError as error:
                result[0] = error.errno or errno.EIO
            finally:
                self.announced.call = None

        if self._caller is not None and not self._ends.is_set():
            self._caller.call(enter)
        return result[0]

    def _entered(self) -> int | None:
        """The root of the mount, which stays open for some calls; ``None`` if something else is there now.

        Raises OSError.
        """
        if self._root is None:
            self._root = open_root(self._mountpoint)
            self.announced.thread_id = threading.get_native_id()
            self.announced.is_recognised = False
            with suppress(FileNotFoundError):
                os.stat(self.announced.probe, dir_fd=self._root)
        return self._root if self.announced.is_recognised else None

    def _leave(self) -> None:
        """Closes the root, which would keep the mount."""

        def leave() -> None:
            if self._root is not None:
                os.close(self._root)
                self._root = None

        if self._caller is not None and not self._ends.is_set():  # A thread that ends closes it.
            self._caller.call(leave)
