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
from collections.abc import Collection
from dataclasses import replace

from inotify_simple import Event, INotify, flags

from store import names
from store.api import DocumentKey
from store.changes import Announcer, Change, Part, Watch
from store.disk import paths
from store.disk.echoes import Echoes
from store.disk.layout import WORKERS, Parts
from store.disk.meanings import (
    CAME,
    CAME_OR_WENT,
    GONE,
    MASK,
    WRITTEN,
    changes_of,
    directory_of,
    document_in,
    file_of,
    key_of,
    list_in,
)
from store.disk.paths import opened
from store.disk.watched import Directories
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

    def __init__(self, root: str, announcer: Announcer, echoes: Echoes) -> None:
        self._root = root
        self._announcer = announcer
        self._echoes = echoes
        self._reading = threading.Lock()
        # How many events reported a new name, and how many directories have been watched.
        self._arrivals = self._additions = 0
        # Whether some are told that their watches may be lost, and what they cover is not certain.
        self._is_losing = False
        # Guards all below: `follow` is called from other threads than the one that handles events. Nothing
        # waits for the disk while it is held.
        self._lock = threading.Lock()
        self._watches: tuple[Watch, ...] = ()
        self._inotify: INotify | None = None
        # Another disk, such as one that is mounted on a directory in the store, is not part of the store.
        self._device = 0
        self._closing = -1
        self._thread = threading.Thread()
        # The directories whose document has yet to appear.
        self._awaited: set[Parts] = set()
        self._directories = Directories()
        # After how many notes of own changes each was watched; without those that were before the first one.
        self._since: dict[int, int] = {}

    def start(self) -> OSError | None:
        """Begins to watch, unless that has begun. Returns why it cannot."""
        with self._lock:
            if self._inotify is not None:
                return None
            if not self._watches:  # Whoever asks has left meanwhile, and would not close it.
                return OSError(errno.EBADF, os.strerror(errno.EBADF))
            try:
                with contextlib.ExitStack() as taken:
                    device = os.stat(self._root).st_dev
                    inotify = INotify(nonblocking=True)
                    taken.callback(inotify.close)
                    closing = os.eventfd(0)
                    taken.callback(os.close, closing)
                    thread = threading.Thread(
                        target=self._run, args=(inotify, closing), name="watch", daemon=True
                    )
                    thread.start()
                    taken.pop_all()  # The thread closes them.
            except OSError as error:
                return error
            except RuntimeError as error:  # There are too many threads.
                return OSError(errno.EAGAIN, str(error))
            self._inotify, self._closing, self._thread, self._device = inotify, closing, thread, device
            self._echoes.is_watched = True
            return None

    def join(self, watch: Watch) -> None:
        with self._lock:
            self._watches = (*self._watches, watch)

    def leave(self, watch: Watch) -> None:
        """There is one follower less. With the last one, everything is closed."""
        with self._lock:
            self._watches = tuple(other for other in self._watches if other is not watch)
            if self._watches or self._inotify is None:
                return
            thread = self._thread
            self._inotify = None
            self._echoes.is_watched = False
            self._awaited.clear()
            self._since.clear()
            self._directories = Directories()
            os.eventfd_write(self._closing, 1)
        if threading.current_thread() is not thread:
            thread.join()

    def watch(self, key: DocumentKey) -> bool:
        """Watches what *key* stands for. Whether its changes will be seen."""
        return self._add(directory_of(key), key)

    def watch_with_list(self, key: DocumentKey) -> bool:
        """As `watch`, a thread or run and the list in it, in fewer steps."""
        below = key.list_in_it
        arrivals = self._arrivals
        with opened(self._root, *directory_of(key)) as directory:
            if directory is not None:
                is_watched = self._watched(directory, key, key)
                with opened(directory, directory_of(below)[-1]) as inside:
                    if inside is not None:
                        is_watched &= self._watched(inside, below, below)
                # A list that is missing is seen to come by the watch on the other one.
                if self._arrivals == arrivals and (inside is not None or self._is_followed(key)):
                    return is_watched
        return self.watch(key) and self.watch(below)

    def is_covered(self, key: DocumentKey) -> bool:
        """Whether changes of what *key* stands for are seen, as another follower wants it."""
        for watch in self._watches:  # It is asked in each request: `any` takes twice as long.
            if watch.covers(key):
                return not self._is_losing
        return False

    def forget(self, key: DocumentKey) -> None:
        """One watch does not follow *key* any more."""
        parts = directory_of(key)
        with self._lock:
            if not self._is_followed(key):
                for directory in (parts, parts[:-1]):  # The parent was watched if the first was missing.
                    if not self._is_needed(directory):
                        self._remove(key_of(directory))

    def _is_followed(self, key: DocumentKey) -> bool:
        return any(watch.holds(key) for watch in self._watches)

    def _is_needed(self, parts: Parts) -> bool:
        """Whether a directory is followed, or its document or a followed list is yet to appear in it."""
        if parts in self._awaited or self._is_followed(key_of(parts)):
            return True
        below = list_in(parts)
        if below is None or self._directories.descriptor(list_key := key_of(below)) is not None:
            return False
        return self._is_followed(list_key)

    def catch_up(self) -> None:
        """Returns when all subscribers have been called with what changed before this call."""
        with self._reading:
            if (inotify := self._inotify) is None:
                return
            changes = dict.fromkeys(
                change for event in inotify.read(timeout=0) for change in self._changes(event)
            )
            for change in changes:
                self._announce(change)

    def _announce(self, change: Change) -> None:
        if change.part is Part.EVERYTHING:
            # Directories may have been replaced unseen, or have lost their watch. The next listing awaits
            # their documents anew.
            self._awaited.clear()
            self._is_losing = True
            for watch in self._watches:
                watch.lose()
            self._is_losing = False
        self._announcer.announce(change)

    def __len__(self) -> int:
        """How many of the system's watches are in use."""
        return len(self._directories)

    def _add(self, parts: Parts, key: DocumentKey | None = None) -> bool:
        """Watches a directory or, while it is missing, its parent. Whether its changes will be seen.

        With a *key*, does nothing unless that is followed.
        """
        while True:
            arrivals = self._arrivals
            with opened(self._root, *parts) as directory:
                if directory is not None:
                    is_watched = self._watched(directory, key or key_of(parts), key)
                    # A directory that came meanwhile may have the name by now, and may have been watched
                    # before this one was.
                    if self._arrivals == arrivals:
                        return is_watched
                    continue
            with opened(self._root, *parts[:-1]) as parent:
                is_watched = parent is None or self._watched(parent, key_of(parts[:-1]), key)
            with opened(self._root, *parts) as directory:
                if directory is None:
                    return is_watched

    def _watched(self, directory: int, place: DocumentKey, key: DocumentKey | None) -> bool:
        """As `_add`, the open *directory* that holds what *place* stands for."""
        with self._lock:
            if key is not None and not self._is_followed(key):
                return True
            if self._inotify is None or os.fstat(directory).st_dev != self._device:
                return False
            try:
                # By descriptor: a path could lead through a link. ONLYDIR needs the dot.
                descriptor = self._inotify.add_watch(f"/proc/self/fd/{directory}/.", MASK)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.ENOMEM):
                    return False
                raise
            before = self._directories.descriptor(place)
            is_another = before is not None and before != descriptor
            if (
                is_another and place.thread_id and self._directories.key(before) == place
            ):  # The root keeps its old watch, whose event says that the store went.
                self._remove(place)
            if before != descriptor:
                self._additions += 1
                if self._echoes.count:
                    self._since[descriptor] = self._echoes.count
                self._directories.put_descriptor(place, descriptor)
            if self._directories.key(descriptor) != place:
                self._directories.put_key(descriptor, place)
            return True

    def _remove(self, place: DocumentKey) -> None:
        descriptor = self._directories.remove(place)
        # The watch belongs to the directory, which may have another name by now.
        if descriptor is None or self._inotify is None:
            return
        if self._directories.key(descriptor) == place:
            self._directories.remove_descriptor(descriptor)
            self._since.pop(descriptor, None)
            # It may have gone with its directory already.
            with contextlib.suppress(OSError):
                self._inotify.rm_watch(descriptor)

    def _run(self, inotify: INotify, closed: int) -> None:
        changed, closing = select.poll(), select.poll()
        changed.register(inotify.fileno(), select.POLLIN)
        changed.register(closed, select.POLLIN)
        closing.register(closed, select.POLLIN)
        try:
            # During the pause the kernel merges equal events, and then `catch_up` merges equal changes.
            while changed.poll() and not closing.poll(_PAUSE_MS):
                try:
                    self.catch_up()
                except Exception:
                    log.exception("the watch has failed: anything may have changed")
                    self._announce(Change(Part.EVERYTHING))
        finally:
            with self._reading:
                inotify.close()
            os.close(closed)

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
                key = self._directories.key(event.wd)
                self._directories.remove_descriptor(event.wd)
                self._since.pop(event.wd, None)
                if key is not None and self._directories.descriptor(key) == event.wd:
                    self._directories.remove(key)
                    self._awaited.discard(directory_of(key))
                return []
            key, since = self._directories.key(event.wd), self._since.get(event.wd, 0)
        if key is None:
            return []
        parts = directory_of(key)
        has_document = parts not in self._awaited and self._is_followed(key)
        additions = self._additions
        if not event.name.startswith(".") or event.name == WORKERS:
            self._follow_event(parts, event)
        changes = changes_of(parts, event.name, event.mask, has_document=has_document)
        # What is watched from now on may have changed unseen since this store has made it.
        is_seen = self._additions == additions
        file = file_of(parts, event.name)
        if not changes or file is None or not self._echoes.holds_what_was_written(file, since):
            return changes
        kind = event.mask & ~flags.ISDIR
        if is_seen and (kind == flags.MOVED_TO or (kind & WRITTEN and self._echoes.is_settled(file))):
            return []
        # It is the thread, run or log that this store has told of, though it may have changed since.
        return [
            replace(change, is_own=change.part in (Part.THREADS, Part.RUNS), grew=change.part is Part.LOG)
            for change in changes
        ]

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
                        self._remove(key_of(parts))
            return
        child = (*parts, event.name)
        below = list_in(parts)
        if event.name == WORKERS:
            self._follow_again(child)
        elif below is None and document_in(child):
            self._follow_member(child)
        elif child == below:
            self._follow_again(child)

    def await_documents(self, parts: Parts, without: Collection[str]) -> bool:
        """Watches the directories *without* a document in a list: with one, they become threads or runs.

        Returns:
            Whether some of them are newly watched.
        """
        awaited = {(*parts, name) for name in without} - self._awaited
        if not self._is_followed(key_of(parts)) or not awaited or len(without) > _MAX_AWAITED:
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
                        self._remove(key_of(parts))

    def _follow_again(self, parts: Parts) -> None:
        """Watches a new directory if it is followed, and so all that it may hold already."""
        if self._is_followed(key := key_of(parts)):
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
