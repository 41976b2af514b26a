"""Changes that any program makes in a store's directory, by inotify.

A watch is on a directory and sees the names in it. A document is replaced by a rename, and a log is appended
to: the watch on the directory that holds them sees both. The system allows each user a number of watches,
hence only what is followed is watched. What an event means is in `meanings`.

Source: https://man7.org/linux/man-pages/man7/inotify.7.html
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
from store.disk.layout import WORKERS, Parts
from store.disk.meanings import (
    CAME,
    CAME_OR_WENT,
    GONE,
    MASK,
    changes_of,
    directory_of,
    document_in,
    key_of,
    list_in,
)
from store.disk.paths import opened
from store.errors import StorageFailed

log = logging.getLogger("threadfs")

# In a list with more directories that are no threads or runs, none of them is expected to become one.
_MAX_AWAITED = 100
# How long changes are collected before the followers are called.
_PAUSE_MS = 20


class Watches:
    """The watches of a store, from one inotify instance, which all followers share.

    A key stands for what one directory holds, so each key that is followed costs one watch.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        # Another disk, such as one that is mounted on a directory in the store, is not part of the store.
        self._device = os.stat(root).st_dev
        self._inotify = INotify(nonblocking=True)
        self._closing = os.eventfd(0)
        self._reading = threading.Lock()
        self._followers: list[DiskWatch] = []
        self.is_closed = False
        # How many events reported a new name.
        self._arrivals = 0
        # Guards the four below: `follow` is called from other threads than the one that handles events.
        # Nothing waits for the disk while it holds this lock.
        self._lock = threading.Lock()
        # By how many followers.
        self._followed: Counter[DocumentKey] = Counter()
        # The directories whose document has yet to appear.
        self._awaited: set[Parts] = set()
        self._parts: dict[int, Parts] = {}
        self._descriptors: dict[Parts, int] = {}
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def follower(self, on_change: Callable[[Change], None], *, is_first: bool = False) -> DiskWatch:
        """A new follower. With *is_first* it is called before the others, which may then ask it."""
        follower = DiskWatch(self, on_change)
        self._followers = [follower, *self._followers] if is_first else [*self._followers, follower]
        return follower

    def leave(self, follower: DiskWatch) -> bool:
        """Removes a follower. Whether it was the last one, and everything is closed."""
        self._followers = [other for other in self._followers if other is not follower]
        if not self._followers:
            self._close()
        return self.is_closed

    def count(self, key: DocumentKey) -> None:
        """Counts one more follower of *key*, which calls `watch` next."""
        with self._lock:
            self._followed[key] += 1

    def watch(self, key: DocumentKey) -> bool:
        """Watches what *key* stands for. Whether its changes will be seen."""
        return self._add(directory_of(key), key)

    def forget(self, key: DocumentKey) -> None:
        parts = directory_of(key)
        with self._lock:
            self._followed[key] -= 1
            if self._followed[key]:
                return
            del self._followed[key]
            for directory in (parts, parts[:-1]):  # The parent was watched if the first was missing.
                if not self._is_needed(directory):
                    self._remove(directory)

    def _is_needed(self, parts: Parts) -> bool:
        """Whether a directory is followed, or its document or a followed list is yet to appear in it."""
        if parts in self._awaited or key_of(parts) in self._followed:
            return True
        below = list_in(parts)
        return below is not None and below not in self._descriptors and key_of(below) in self._followed

    def _close(self) -> None:
        self.is_closed = True
        os.eventfd_write(self._closing, 1)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def tell(self, change: Change, but: DiskWatch | None = None) -> None:
        if change.part is Part.EVERYTHING:
            # Directories may have been replaced unseen, or have lost their watch. The next listing awaits
            # their documents anew.
            self._awaited.clear()
            for follower in self._followers:
                follower.lose()
        for follower in self._followers:
            if follower is not but:
                follower.on_change(change)

    def catch_up(self) -> None:
        """Returns when all followers have been called with what changed before this call."""
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
        """Watches a directory or, while it is missing, its parent. Whether its changes will be seen.

        With a *key*, does nothing unless that is followed.
        """
        while True:
            arrivals = self._arrivals
            with opened(self._root, *parts) as directory:
                if directory is not None:
                    is_watched = self._watched(directory, parts, key)
                    # A directory that came meanwhile may have the name by now, and may have been watched
                    # before this one was.
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
                # By descriptor: a path could lead through a link. ONLYDIR needs the dot.
                descriptor = self._inotify.add_watch(f"/proc/self/fd/{directory}/.", MASK)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.ENOMEM):
                    return False
                raise
            before = self._descriptors.get(parts)
            is_another = before is not None and before != descriptor and self._parts.get(before) == parts
            if is_another and parts:  # The root keeps its old watch, whose event says that the store went.
                self._remove(parts)
            self._descriptors[parts] = descriptor
            self._parts[descriptor] = parts
            return True

    def _remove(self, parts: Parts) -> None:
        descriptor = self._descriptors.pop(parts, None)
        # The watch belongs to the directory, which may have another name by now.
        if descriptor is not None and self._parts.get(descriptor) == parts:
            del self._parts[descriptor]
            # It may have gone with its directory already.
            with contextlib.suppress(OSError):
                self._inotify.rm_watch(descriptor)

    def _run(self) -> None:
        changed, closing = select.poll(), select.poll()
        changed.register(self._inotify.fileno(), select.POLLIN)
        changed.register(self._closing, select.POLLIN)
        closing.register(self._closing, select.POLLIN)
        try:
            # During the pause the kernel merges equal events, and then `catch_up` merges equal changes.
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
            return self._handled(event)
        except (StorageFailed, OSError) as error:
            # The store is away, a new directory cannot be looked at, or no watch is left for it.
            log.info("anything may have changed: %s", error)
            return [Change(Part.EVERYTHING)]

    def _handled(self, event: Event) -> list[Change]:
        """What an event means, after the watches follow it."""
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
        has_document = parts not in self._awaited and key_of(parts) in self._followed
        if not event.name.startswith(".") or event.name == WORKERS:
            self._follow_event(parts, event)
        return changes_of(parts, event.name, event.mask, has_document=has_document)

    def _follow_event(self, parts: Parts, event: Event) -> None:
        if event.mask & GONE:
            if parts:
                # Another directory may have its name already. A follower of this watch alone would miss it.
                self._follow_again(parts)
        elif event.mask & CAME:
            self._came(parts, event)
        elif event.mask & CAME_OR_WENT and event.name == document_in(parts):
            self._await_document(parts)  # The directory stays, and its document may come again.

    def _came(self, parts: Parts, event: Event) -> None:
        """Watches a new directory if it is followed, or if its document is yet to appear."""
        self._arrivals += 1
        if not event.mask & flags.ISDIR:
            if event.name == document_in(parts):
                with self._lock:
                    self._awaited.discard(parts)
                    if not self._is_needed(parts):
                        self._remove(parts)
            return
        child = (*parts, event.name)
        below = list_in(parts)
        if event.name == WORKERS:
            self._follow_again(child)
        elif below is None:
            self._follow_member(child)
        elif child == below:
            self._follow_again(child)

    def await_documents(self, parts: Parts, without: Collection[str]) -> bool:
        """Watches the directories *without* a document in a list: with one, they become threads or runs.

        Returns:
            Whether some of them are newly watched.
        """
        awaited = {(*parts, name) for name in without} - self._awaited
        if key_of(parts) not in self._followed or not awaited or len(without) > _MAX_AWAITED:
            return False
        for directory in awaited:
            self._await_document(directory)
        return True

    def _await_document(self, parts: Parts) -> None:
        with self._lock:
            self._awaited.add(parts)
        is_awaited = False
        try:
            # If no watch is left, its document will appear unseen.
            if self._add(parts):
                with opened(self._root, *parts) as directory:
                    document = document_in(parts)
                    is_awaited = directory is not None and not paths.exists(directory, document)
        finally:
            if not is_awaited:
                with self._lock:
                    self._awaited.discard(parts)
                    if not self._is_needed(parts):
                        self._remove(parts)

    def _follow_again(self, parts: Parts) -> None:
        """Watches a new directory if it is followed, and so all that it may hold already."""
        if (key := key_of(parts)) in self._followed:
            self._add_again(parts, key)
        if (below := list_in(parts)) is not None:
            self._follow_again(below)
        elif len(parts) == 2:
            with opened(self._root, *parts) as runs:
                found = paths.subdirectories(runs) if runs is not None else []
            for run_id, _ in found:
                self._follow_member((*parts, run_id))

    def _follow_member(self, parts: Parts) -> None:
        """As `_follow_again`, for a directory in a list, which may not be a thread or run yet."""
        if names.is_id(parts[-1]):
            self._follow_again(parts)
            if not self._has_document(parts):
                self._await_document(parts)

    def _add_again(self, parts: Parts, key: DocumentKey) -> None:
        """As `_add`, for what followers believe to be watched. Raises StorageFailed if no watch is left."""
        if not self._add(parts, key):
            raise StorageFailed(errno.ENOSPC, "/".join(parts), "no watch is left")

    def _has_document(self, parts: Parts) -> bool:
        with opened(self._root, *parts) as directory:
            return directory is not None and paths.exists(directory, document_in(parts))


class DiskWatch:
    """Calls *on_change*, from the thread of the watches, with each change in what any follower follows."""

    def __init__(self, watches: Watches, on_change: Callable[[Change], None]) -> None:
        self._watches = watches
        self.on_change = on_change
        # What is followed, and how many losses there had been when it was watched; -1: it is not.
        self._followed: dict[DocumentKey, int] = {}
        self._losses = 0
        # Guards the first. Nothing waits for the disk while it holds this lock.
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
            # An existing watch is not removed first: adding one again returns the same.
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
        """Watches may be lost: `follow` then watches again what is followed already."""
        self._losses += 1

    def forget(self, key: DocumentKey) -> None:
        with self._lock:
            if self._followed.pop(key, None) is not None:
                self._watches.forget(key)

    def catch_up(self) -> None:
        """Returns when all followers have been called with what changed before this call."""
        self._watches.catch_up()

    def tell_others(self, change: Change) -> None:
        """Calls all other followers with *change*."""
        self._watches.tell(change, but=self)

    def __len__(self) -> int:
        """How many of the system's watches are in use."""
        return len(self._watches)

    def close(self) -> None:
        if not self._watches.leave(self):
            for key in list(self._followed):
                self.forget(key)
