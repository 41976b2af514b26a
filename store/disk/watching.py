"""Changes that any program makes in a store's directory, by inotify.

A watch is on a directory and sees the names in it, so that a document replaced by a rename and a log
appended to are both seen in the directory that holds them. Watches are few (the system allows each user a
number of them), hence only what is followed is watched.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import threading
from collections import Counter
from collections.abc import Callable, Collection

from inotify_simple import Event, INotify, flags

from store import names
from store.api import Change, DocumentKey, Part
from store.disk import paths
from store.disk.layout import LOG, META, RUNS, STATUS, STEPS, Parts
from store.disk.paths import opened
from store.errors import StorageFailed

log = logging.getLogger("threadfs")

_CAME_OR_WENT = flags.CREATE | flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE
_CAME = flags.CREATE | flags.MOVED_TO
_GONE = flags.MOVE_SELF | flags.DELETE_SELF | flags.UNMOUNT
# In a list with more directories that are no threads or runs, none of them is expected to become one.
_MAX_AWAITED = 100
# How long changes are collected before they are told.
_PAUSE_MS = 20
_WRITTEN = flags.MODIFY | flags.CLOSE_WRITE  # The second is all that tells of what was written through mmap.
_MASK = _CAME_OR_WENT | _WRITTEN | flags.ATTRIB | flags.MOVE_SELF | flags.DELETE_SELF | flags.ONLYDIR


class Watches:
    """The watches of a store, from one inotify instance, that all who follow something share.

    What is followed by one key is what one directory holds: one watch each.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        # What is on another disk, such as the directory that its own is mounted on, is not the store.
        self._device = os.stat(root).st_dev
        self._inotify = INotify(nonblocking=True)
        self._closing = os.eventfd(0)
        self._reading = threading.Lock()
        self._followers: list[DiskWatch] = []
        self.is_closed = False
        # How often a name has been seen to come.
        self._arrivals = 0
        # Guards the four below: `follow` is called from other threads than events are. Nobody who holds it
        # waits for the disk.
        self._lock = threading.Lock()
        # How many follow.
        self._followed: Counter[DocumentKey] = Counter()
        # The directories whose document has yet to appear.
        self._awaited: set[Parts] = set()
        self._parts: dict[int, Parts] = {}
        self._descriptors: dict[Parts, int] = {}
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def follower(self, on_change: Callable[[Change], None], *, is_first: bool = False) -> DiskWatch:
        """With *is_first*, it is told of each change before the others are, who may ask it then."""
        follower = DiskWatch(self, on_change)
        self._followers = [follower, *self._followers] if is_first else [*self._followers, follower]
        return follower

    def leave(self, follower: DiskWatch) -> bool:
        """Whether this was the last one, and all is closed."""
        self._followers = [other for other in self._followers if other is not follower]
        if not self._followers:
            self._close()
        return self.is_closed

    def count(self, key: DocumentKey) -> None:
        """One more follows it, who has it watched next."""
        with self._lock:
            self._followed[key] += 1

    def watch(self, key: DocumentKey) -> bool:
        """Whether changes in what is followed will be seen."""
        return self._add(_directory_of(key), key)

    def forget(self, key: DocumentKey) -> None:
        parts = _directory_of(key)
        with self._lock:
            self._followed[key] -= 1
            if self._followed[key]:
                return
            del self._followed[key]
            for directory in (parts, parts[:-1]):  # The second is where the first was waited for.
                if not self._is_needed(directory):
                    self._remove(directory)

    def _is_needed(self, parts: Parts) -> bool:
        """Whether a directory is followed, or a list or its document is waited for in it."""
        if parts in self._awaited:
            return True
        below = (*parts, RUNS if len(parts) == 1 else STEPS)
        is_waited_for = len(parts) in (1, 3) and below not in self._descriptors
        return _key_of(parts) in self._followed or (is_waited_for and _key_of(below) in self._followed)

    def _close(self) -> None:
        self.is_closed = True
        os.eventfd_write(self._closing, 1)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def tell(self, change: Change, but: DiskWatch | None = None) -> None:
        if change.part is Part.EVERYTHING:
            # Directories may have been replaced unheard, or have lost their watch. Who lists them waits anew.
            self._awaited.clear()
            for follower in self._followers:
                follower.lose()
        for follower in self._followers:
            if follower is not but:
                follower.on_change(change)

    def catch_up(self) -> None:
        """Returns when what has changed before the call is told."""
        with self._reading:
            changes = dict.fromkeys(
                change for event in self._inotify.read(timeout=0) for change in self._changes(event)
            )
            for change in changes:
                self.tell(change)

    def __len__(self) -> int:
        """How many of the system's watches are in use."""
        return len(self._parts)

    def _add(self, parts: Parts, key: DocumentKey | None = None) -> bool:
        """Whether changes in the directory will be seen; the coming of one that is not there, in its parent.

        With a *key*, only while that is followed.
        """
        while True:
            arrivals = self._arrivals
            with opened(self._root, *parts) as directory:
                if directory is not None:
                    is_watched = self._watched(directory, parts, key)
                    # What came meanwhile may be what has the name now, and have been watched before this was.
                    if self._arrivals == arrivals:
                        return is_watched
                    continue
            with opened(self._root, *parts[:-1]) as parent:
                is_watched = parent is None or self._watched(parent, parts[:-1], key)
            with opened(self._root, *parts) as directory:
                if directory is None:
                    return is_watched

    def _watched(self, directory: int, parts: Parts, key: DocumentKey | None) -> bool:
        with self._lock:
            if key is not None and key not in self._followed:
                return True
            if os.fstat(directory).st_dev != self._device:
                return False
            try:
                # By descriptor: a path could lead through a link. The dot is what the flag needs.
                descriptor = self._inotify.add_watch(f"/proc/self/fd/{directory}/.", _MASK)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.ENOMEM):
                    return False
                raise
            before = self._descriptors.get(parts)
            is_another = before is not None and before != descriptor and self._parts.get(before) == parts
            if is_another and parts:  # That the store has gone, its own watch has yet to say.
                self._remove(parts)
            self._descriptors[parts] = descriptor
            self._parts[descriptor] = parts
            return True

    def _remove(self, parts: Parts) -> None:
        descriptor = self._descriptors.pop(parts, None)
        # It belongs to the directory, which may have another name by now.
        if descriptor is not None and self._parts.get(descriptor) == parts:
            del self._parts[descriptor]
            # It has gone with its directory already.
            with contextlib.suppress(OSError):
                self._inotify.rm_watch(descriptor)

    def _run(self) -> None:
        changed, closing = select.poll(), select.poll()
        changed.register(self._inotify.fileno(), select.POLLIN)
        changed.register(self._closing, select.POLLIN)
        closing.register(self._closing, select.POLLIN)
        try:
            # The pause lets the kernel, and us, make one of what belongs together.
            while changed.poll() and not closing.poll(_PAUSE_MS):
                try:
                    self.catch_up()
                except Exception:
                    log.exception("the watch has failed: anything may have changed")
                    self.tell(Change(Part.EVERYTHING))
        finally:
            self._inotify.close()
            os.close(self._closing)

    def _changes(self, event: Event) -> list[Change]:
        try:
            return self._meant_by(event)
        except (StorageFailed, OSError) as error:
            # The store has gone, for now; what came cannot be looked at; or there is no watch left for it.
            log.info("anything may have changed: %s", error)
            return [Change(Part.EVERYTHING)]

    def _meant_by(self, event: Event) -> list[Change]:
        if event.mask & flags.Q_OVERFLOW:
            return [Change(Part.EVERYTHING)]
        with self._lock:
            if event.mask & flags.IGNORED:
                parts = self._parts.pop(event.wd, None)
                if parts is not None and self._descriptors.get(parts) == event.wd:
                    del self._descriptors[parts]
                    self._awaited.discard(parts)
                return []
            parts = self._parts.get(event.wd)
        if parts is None:
            return []
        if event.name.startswith("."):
            # Somebody's temporary file; the time of a list, and so of the thread, is that of such names too.
            return [Change(Part.TIMES, parts[0])] if len(parts) in (2, 4) else []
        if not parts and event.mask & _GONE:
            return [Change(Part.EVERYTHING)]  # The store itself: moved, deleted or unmounted.
        if event.mask & _GONE:
            # Another one may have its name already, and nobody hears of that who follows this one alone.
            self._follow_again(parts)
            return _meaning(parts[:-1], parts[-1], came_or_went=True)
        # A document that is moved into place is a new version, unless it was awaited.
        exists = flags.CREATE | flags.DELETE | flags.MOVED_FROM
        if len(parts) == 4 or parts in self._awaited or _key_of(parts) not in self._followed:
            exists |= flags.MOVED_TO
        if event.mask & _CAME:
            self._came(parts, event)
        elif event.mask & _CAME_OR_WENT and event.name == _document_in(parts):
            self._await_document(parts)  # It may come again, and the directory stays.
        meaning = _meaning(parts, event.name, bool(event.mask & exists))
        # The time of a list is that of whatever comes into it.
        return meaning or ([Change(Part.TIMES, parts[0])] if len(parts) in (2, 4) else [])

    def _came(self, parts: Parts, event: Event) -> None:
        """Watches a directory that is followed, or one whose document has yet to appear."""
        self._arrivals += 1
        if not event.mask & flags.ISDIR:
            if event.name == _document_in(parts):
                with self._lock:
                    self._awaited.discard(parts)
                    if not self._is_needed(parts):
                        self._remove(parts)
            return
        child = (*parts, event.name)
        if len(parts) in (1, 3):
            if event.name in (RUNS, STEPS):
                self._follow_again(child)
        else:
            self._follow_member(child)

    def await_documents(self, parts: Parts, without: Collection[str]) -> bool:
        """The directories *without* a document in a list become threads or runs when they get one.

        Returns:
            Whether some of them are watched for that from now on.
        """
        awaited = {(*parts, name) for name in without} - self._awaited
        if _key_of(parts) not in self._followed or not awaited or len(without) > _MAX_AWAITED:
            return False
        for directory in awaited:
            self._await_document(directory)
        return True

    def _await_document(self, parts: Parts) -> None:
        with self._lock:
            self._awaited.add(parts)
        is_awaited = False
        try:
            # Where no watch is left for it, nobody hears of it.
            if self._add(parts):
                with opened(self._root, *parts) as directory:
                    document = _document_in(parts)
                    is_awaited = directory is not None and not paths.exists(directory, document)
        finally:
            if not is_awaited:
                with self._lock:
                    self._awaited.discard(parts)
                    if not self._is_needed(parts):
                        self._remove(parts)

    def _follow_again(self, parts: Parts) -> None:
        """Watches what is followed of a directory that has come and may hold all that belongs there."""
        if (key := _key_of(parts)) in self._followed:
            self._add_again(parts, key)
        if len(parts) in (1, 3):
            self._follow_again((*parts, RUNS if len(parts) == 1 else STEPS))
        elif len(parts) == 2:
            with opened(self._root, *parts) as runs:
                found = paths.subdirectories(runs) if runs is not None else []
            for run_id, _ in found:
                self._follow_member((*parts, run_id))

    def _follow_member(self, parts: Parts) -> None:
        """As `_follow_again`, of a directory in a list, which may not be a thread or run yet."""
        if names.is_id(parts[-1]):
            self._follow_again(parts)
            if not self._has_document(parts):
                self._await_document(parts)

    def _add_again(self, parts: Parts, key: DocumentKey) -> None:
        """As `_add`, for what somebody believes to be watched. Raises StorageFailed when it cannot be."""
        if not self._add(parts, key):
            raise StorageFailed(errno.ENOSPC, "/".join(parts), "no watch is left")

    def _has_document(self, parts: Parts) -> bool:
        with opened(self._root, *parts) as directory:
            return directory is not None and paths.exists(directory, _document_in(parts))


class DiskWatch:
    """Calls *on_change*, from the thread of the watches, with each change in what anybody follows."""

    def __init__(self, watches: Watches, on_change: Callable[[Change], None]) -> None:
        self._watches = watches
        self.on_change = on_change
        # What is followed, and since how many losses there is a watch for it; -1: there is none.
        self._followed: dict[DocumentKey, int] = {}
        self._losses = 0
        # Guards the first. Nobody who holds it waits for the disk.
        self._lock = threading.Lock()

    def follow(self, key: DocumentKey) -> bool:
        losses = self._losses
        with self._lock:
            since = self._followed.get(key)
            if since == losses:
                return True
            if since is None:
                self._followed[key] = -1
                self._watches.count(key)
        try:
            # One that is watched still is not given up for that: the system tells of each that is.
            is_watched = self._watches.watch(key)
        except BaseException:
            if since is None:
                self.forget(key)
            raise
        with self._lock:
            if key in self._followed:
                self._followed[key] = losses if is_watched else -1
        return is_watched

    def lose(self) -> None:
        """There may be no watch any more for what is followed: whoever follows it again gets another."""
        self._losses += 1

    def forget(self, key: DocumentKey) -> None:
        with self._lock:
            if self._followed.pop(key, None) is not None:
                self._watches.forget(key)

    def catch_up(self) -> None:
        """Returns when what has changed before the call is told."""
        self._watches.catch_up()

    def tell_others(self, change: Change) -> None:
        """Has all others who watch believe in *change*."""
        self._watches.tell(change, but=self)

    def __len__(self) -> int:
        """How many of the system's watches are in use."""
        return len(self._watches)

    def close(self) -> None:
        if not self._watches.leave(self):
            for key in list(self._followed):
                self.forget(key)


def _meaning(parts: Parts, name: str, came_or_went: bool) -> list[Change]:
    """What it means that *name* in the directory *parts* changed."""
    match parts:
        case () if names.is_id(name):
            return [Change(Part.THREADS, name)]
        case (thread,) if name == META:
            exists = [Change(Part.THREADS, thread)] if came_or_went else []
            return [*exists, Change(Part.DOCUMENT, thread)]
        case (thread,) if name == LOG:
            return [Change(Part.LOG, thread)]
        case (thread,) if name == RUNS:
            return [Change(Part.RUNS, thread)]
        case (thread, _) if names.is_id(name):
            return [Change(Part.RUNS, thread, name)]
        case (thread, _, run) if name == STATUS:
            exists = [Change(Part.RUNS, thread, run)] if came_or_went else []
            return [*exists, Change(Part.DOCUMENT, thread, run)]
        case (thread, _, run) if name == STEPS:
            return [Change(Part.STEPS, thread, run)]
        case (thread, _, run, _) if name.endswith(".json") and names.is_id(name[:-5]):
            exists = [Change(Part.STEPS, thread, run, name[:-5])] if came_or_went else []
            return [*exists, Change(Part.DOCUMENT, thread, run, name[:-5])]
    return []


def _document_in(parts: Parts) -> str:
    """The name of the one that makes a directory a thread or run."""
    return {1: META, 3: STATUS}.get(len(parts), "")


def _directory_of(key: DocumentKey) -> Parts:
    """The one that holds what *key* stands for: a document, or the list that a last empty id stands for."""
    ids = [part for part in (key.thread_id, key.run_id, key.step_id) if part is not None]
    parts: Parts = ()
    for object_id, below in zip(ids, ((), (RUNS,), (STEPS,)), strict=False):
        parts = (*parts, *below, *([object_id] if object_id else ()))
    return parts


def _key_of(parts: Parts) -> DocumentKey:
    """The reverse."""
    match parts:
        case (thread,):
            return DocumentKey(thread)
        case (thread, _):
            return DocumentKey(thread, "")
        case (thread, _, run):
            return DocumentKey(thread, run)
        case (thread, _, run, _):
            return DocumentKey(thread, run, "")
    return DocumentKey("")
