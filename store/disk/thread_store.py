"""`ThreadStore`: the store in a directory, as ``FORMAT.md`` describes it."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from store import names
from store.api import StatusOfRun
from store.changes import Change, Watch
from store.disk import filesystems, leftovers
from store.disk.layout import RUNS, STEPS, Parts
from store.disk.paths import opened, storage_errors
from store.disk.system_calls import SystemCalls
from store.disk.workers import Workers
from store.errors import StorageFailed
from store.statuses import RunStatus
from store.waiting import waits

if TYPE_CHECKING:  # They need the library for watching, or SQLite.
    from store.disk.inotify import Watches
    from store.disk.run_lists import RunLists
    from store.disk.watching import DiskWatch


class ThreadStore(Workers):
    """The threads in a directory that other programs may use at the same time.

    A missing directory is made. Every change is durable when its method returns. Methods may be called
    from many threads at once.

    Raises:
        StorageFailed: the directory cannot be made or is none.
    """

    def __init__(self, directory: str | os.PathLike[str], *, calls: SystemCalls | None = None) -> None:
        super().__init__(os.path.abspath(directory), calls or SystemCalls())
        self._watches: Watches | None = None
        self._watching = threading.Lock()
        with storage_errors(self.location):
            # Links may lead to the directory. A dangling link at its own place is not given a target.
            above, name = os.path.split(self.location)
            self._make_root(os.path.join(os.path.realpath(above), name))
        self.is_remote = not filesystems.is_local(self.root)
        self.open_threads.keeps = not self.is_remote
        self._listing.on_incomplete = self._await_documents

    def _make_root(self, path: str) -> None:
        parent = os.path.dirname(path)
        if os.path.isdir(path):
            # The program that made it may have been killed before its name was durable.
            if os.access(parent, os.R_OK):
                with opened(parent) as directory:
                    assert directory is not None
                    self._calls.sync(directory)
            return
        self._make_root(parent)
        with opened(parent) as directory:
            assert directory is not None
            with suppress(FileExistsError):
                self._calls.make_directory(directory, os.path.basename(path))
            self._calls.sync(directory)
        if not os.path.isdir(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)

    def close(self) -> None:
        """Ends background work, and closes what is open."""
        if self._followed is not None:
            self._followed.close()
            self._followed = None
        super().close()
        self.own_workers.close()
        self.open_threads.close()

    def thread_dir(self, thread_id: str) -> Path:
        """Where the thread's files are, or would be. Raises InvalidName."""
        return Path(self.location, names.checked(thread_id))

    def run_dir(self, thread_id: str, run_id: str) -> Path:
        return self.thread_dir(thread_id) / RUNS / names.checked(run_id)

    def steps_dir(self, thread_id: str, run_id: str) -> Path:
        return self.run_dir(thread_id, run_id) / STEPS

    def _unended_runs(self, latest_ns: int) -> Iterator[StatusOfRun]:
        """As the catalogue says, which compares all threads and reads few."""
        from store.catalogue.candidates import runs_not_changed_since  # As for `catalogue`.

        unended = [status for status in RunStatus if not status.is_terminal]
        for thread_id, run_ids in runs_not_changed_since(self, unended, latest_ns).items():
            for found in self.scan(thread_id, run_ids):
                if found[2] in unended:
                    yield found

    # ── Changes ──────────────────────────────────────────────────────────────────────────────────────

    def watch(self, on_change: Callable[[Change], None]) -> Watch:
        """Calls *on_change* with each change: own ones, and those of others in what the watch follows.

        Where other hosts may change the disk unseen, it hears of own changes alone.
        """
        return Watch(self.announcer, on_change) if self.is_remote else self.follower(on_change)

    def follower(self, on_change: Callable[[Change], None] | None = None) -> DiskWatch:
        """As `watch`, for a local disk. Without *on_change*, it only says what is to be followed."""
        from store.disk.inotify import Watches  # They need a library that only watches need.
        from store.disk.watching import DiskWatch

        with self._watching:
            if self._watches is None:
                self._watches = Watches(self.root, self.announcer, self._echoes)
            return DiskWatch(self._watches, self.announcer, on_change)

    def _await_documents(self, parts: Parts, without: Collection[str]) -> bool:
        """Has a followed list report the directories *without* a document when they get one."""
        if self._watches is not None:
            with suppress(StorageFailed, OSError, ValueError):  # No watch is left, or it is being closed.
                return self._watches.await_documents(parts, without)
        return False

    def follow_all_runs(self, watch: Watch) -> bool:
        """See `store.api.Store.follow_all_runs`. What the store follows is reported to all watches."""
        self.index_runs()
        return (followed := self._followed) is not None and followed.follows_all_runs()

    def reports_all_of(self, thread_id: str) -> bool:
        return (followed := self._followed) is not None and followed.reports_all_of(thread_id)

    def hear(self) -> None:
        """Returns when all have been told what others have changed so far, in what is followed."""
        with suppress(StorageFailed):  # Who asks for what cannot be read is told so.
            if (followed := self._followed) is not None:
                followed.hear()
            elif self._watches is not None:
                self._watches.catch_up()

    def index_runs(self) -> None:
        """Has `runs_by_status` answer by the catalogue, and begins to follow all threads, if it can."""
        if self._followed is None and not self.is_remote:
            from store.disk.followed import Followed  # As in `follower` and `catalogue`.

            with suppress(OSError):
                self._followed = Followed(self, self._run_lists, self._lists)

    def _run_lists(self) -> RunLists:
        from store.disk.run_lists import RunLists  # As for `catalogue`.

        return RunLists(self._disk_catalogue().known, self.scan)

    def list_changed_ns(self, status: RunStatus | None = None) -> int:
        """When a name last came into or left the list of threads or, with *status*, the list of those runs.

        In nanoseconds since 1970, not before the store was opened. Without `index_runs`, what other programs
        do to the runs of many threads is not noticed.
        """
        waits()
        with suppress(StorageFailed):  # A listing raises it.
            if (followed := self._followed) is None:
                self._lists.look(status, self)
            elif status is not None:
                asked_s = time.monotonic()
                version = followed.run_lists().version(status, asked_s)
                if version is None or self._lists.version.get(status) != version:
                    deque(self._listed({status}, asked_s), maxlen=0)
                    self._lists.version[status] = version
            else:
                followed.hear()
                if not followed.reports_threads:
                    self._lists.compare(None, self.list_thread_ids())
        return self._lists.of(status)

    # ── The disk ─────────────────────────────────────────────────────────────────────────────────────

    def list_leftovers(self, older_than_s: float) -> Iterator[leftovers.Leftover]:
        """The unfinished work of killed programs, untouched for *older_than_s* seconds."""
        return leftovers.find(self.root, older_than_s)

    def clear_leftover(self, leftover: leftovers.Leftover) -> None:
        """Finishes a deletion; moves a temporary file or directory aside, where nothing reads it."""
        leftovers.clear(self._calls, self.root, leftover)

    def space(self) -> os.statvfs_result:
        with storage_errors(self.location):
            return os.statvfs(self.location)
