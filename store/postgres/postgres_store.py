"""`PostgresStore`: the store in a database, for any number of programs on any number of hosts."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Self

from store.api import Change, Watch
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
from store.postgres.watching import PostgresWatch

# A server does not say how much room it has: what `df` shows is what is used, of this.
_BLOCK_BYTES, _BLOCKS = 4096, 1 << 38


class PostgresStore(Threads, Imports, Messages, Runs, Steps):
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
        self.location = without_password(url)[0]
        self._database = Database(url, limits or Limits())
        self._leftovers = Leftovers(self._database)
        self.is_new = schema.prepare(self._database.connections, self.location, create=create)
        if not self.is_new:
            self._leftovers.clear()

    def watch(self, on_change: Callable[[Change], None], *, own_changes: bool = True) -> Watch:
        """Calls *on_change* for each change, by whichever program, in what the watch is told to follow.

        Who hears of the changes made through this object in another way leaves out *own_changes*.
        """
        return PostgresWatch(
            self._database.connections, on_change, "" if own_changes else self._database.sender
        )

    def space(self) -> os.statvfs_result:
        ((used_bytes,),) = self._database.read("SELECT pg_database_size(current_database())")
        free = max(0, _BLOCKS - used_bytes // _BLOCK_BYTES)
        name_bytes = 255
        return os.statvfs_result((_BLOCK_BYTES, _BLOCK_BYTES, _BLOCKS, free, free, 0, 0, 0, 0, name_bytes))

    def clear_leftovers(self) -> None:
        """Clears what deletions and killed programs have left behind for long enough."""
        self._leftovers.clear()

    def reports_all_of(self, thread_id: str) -> bool:
        """Of threads that nobody follows nothing is heard."""
        return False

    def close(self) -> None:
        """Closes the connections; the next call would open new ones."""
        self._leftovers.close()
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
