"""`PostgresStore`: the store in a database, for any number of programs on any number of hosts."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from store.changes import Change, Watch
from store.postgres import schema
from store.postgres.connections import Limits
from store.postgres.database import Database
from store.postgres.imports import Imports
from store.postgres.leftovers import Leftovers
from store.postgres.log import Messages
from store.postgres.runs import Runs
from store.postgres.steps import Steps
from store.postgres.threads import Threads
from store.postgres.urls import without_password
from store.postgres.watching import ALL_RUNS, PostgresWatch
from store.postgres.workers import Workers
from store.statuses import RunStatus

if TYPE_CHECKING:
    from store.catalogue.api import Catalogue
    from store.postgres.catalogue import PostgresCatalogue

# A server does not say how much room it has, so `df` shows the used part of this size.
_BLOCK_BYTES, _BLOCKS = 4096, 1 << 38


class PostgresStore(Threads, Imports, Messages, Runs, Steps, Workers):
    """The threads in the database at *url*: ``postgresql://…``, or keywords as libpq knows them.

    Every change is durable when its method returns, on the server's disk, and on its replicas where the
    server is set up to wait for them. Methods may be called from many threads at once. No method waits
    without a bound (see `Limits`), and none while the server is known to be away (see `outage.py`).

    Args:
        create: make the tables where there are none, and bring those of an older version up to date.

    Attributes:
        location: *url* without passwords.
        is_new: whether the database held no store before.

    Raises:
        WrongUrl, UnusableDatabase: the text says what to do.
        StorageFailed: the database cannot be reached, or refuses.
    """

    is_remote: bool = True

    def __init__(self, url: str, *, create: bool = False, limits: Limits | None = None) -> None:
        super().__init__()
        self.location = without_password(url)[0]
        self._database = Database(url, limits or Limits())
        self.announcer = self._database.announcer
        self._leftovers = Leftovers(self._database)
        self._catalogue: PostgresCatalogue | None = None
        self._cataloguing = threading.Lock()
        self.is_new = schema.prepare(self._database.connections, self.location, create=create)
        if not self.is_new:
            self._leftovers.clear()

    def watch(self, on_change: Callable[[Change], None]) -> Watch:
        """Calls *on_change* with each change: own ones, and those of others in what the watch follows."""
        return PostgresWatch(self._database, on_change)

    def list_changed_ns(self, status: RunStatus | None = None) -> int:
        """When a name last came into or left the list of threads or, with *status*, the list of those runs.

        In nanoseconds since 1970, as far as it was noticed since the store was opened; changes by others are
        noticed by a watch. All lists of runs have the same time.
        """
        return self._database.lists.threads_ns if status is None else self._database.lists.runs_ns

    def catalogue(self, *, keeps_words: bool = True) -> Catalogue:
        """What is in the store, by titles, days and words. It is closed with the store.

        The first call says whether it *keeps_words* of messages, in the database: without, each search reads
        all messages.
        """
        from store.postgres.catalogue import PostgresCatalogue  # It needs SQLite, which few programs do.

        with self._cataloguing:
            if self._catalogue is None:
                self._catalogue = PostgresCatalogue(self._database, self, uses_words=keeps_words)
            return self._catalogue

    def space(self) -> os.statvfs_result:
        ((used_bytes,),) = self._database.read("SELECT pg_database_size(current_database())")
        free = max(0, _BLOCKS - used_bytes // _BLOCK_BYTES)
        name_bytes = 255
        return os.statvfs_result((_BLOCK_BYTES, _BLOCK_BYTES, _BLOCKS, free, free, 0, 0, 0, 0, name_bytes))

    def clear_leftovers(self) -> None:
        """Clears the leftovers of deletions and killed programs that are old enough."""
        self._leftovers.clear()

    def follow_all_runs(self, watch: Watch) -> bool:
        return watch.follow(ALL_RUNS)

    def reports_all_of(self, thread_id: str) -> bool:
        """False: a thread that is not followed reports nothing."""
        return False

    def close(self) -> None:
        """Closes the connections; the next call would open new ones."""
        with self._cataloguing:
            if self._catalogue is not None:
                self._catalogue.close()
                self._catalogue = None
        self.own_workers.close()
        self._leftovers.close()
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
