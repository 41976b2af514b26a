"""The errors that a store raises.

    StoreError
    ├── NotFound
    │   ├── ThreadNotFound
    │   │   └── Ambiguous       several threads are called so
    │   ├── RunNotFound
    │   └── RunStepNotFound
    ├── RunInTerminalState      the run has ended
    ├── RunStepInTerminalState  the step has ended
    ├── StatusChanged           the run is not in the status that the caller expected
    ├── RunInProgress           a worker holds the run (or a run of the thread)
    ├── RunWaits                another run of the thread is in progress, or goes first
    ├── RunLost                 the worker no longer has the run
    ├── ToolCallNotFound        the run waits for no such call
    ├── OutputIsSet             the call of a tool has its output
    ├── ModifiedSince           the thread has changed since the caller looked
    ├── NotEmpty                the thread or run holds something
    │   └── Foreign             it is not surely of this format, or holds something else
    ├── AlreadyExists           the id is taken
    ├── InvalidName             not an id (see ``names.py``)
    ├── InvalidDocument         not a document of this format
    ├── InvalidQuery            nothing that can be searched for
    ├── Damaged                 something stored is not of this format
    └── StorageFailed           the disk or the server failed, with an ``errno``
        └── Unreachable         the server did not answer

No method of a store lets any other exception out. ``str(error)`` is one line in words for a person.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from errno import ETIMEDOUT


class StoreError(Exception):
    """The base of everything a store raises."""


class NotFound(StoreError):
    """There is no such thread, run or step."""


class ThreadNotFound(NotFound):
    def __init__(self, thread_id: str) -> None:
        super().__init__(f"no thread {thread_id!r}")


class Ambiguous(ThreadNotFound):
    """Several threads are called so: `names` are those that lead to one each."""

    def __init__(self, name: str, names: Sequence[str]) -> None:
        super().__init__(name)
        self.args = (f"{len(names)} threads are called {name!r}: {', '.join(names[:10])}",)
        self.names = names


class RunNotFound(NotFound):
    def __init__(self, run_id: str) -> None:
        super().__init__(f"no run {run_id!r}")


class RunStepNotFound(NotFound):
    def __init__(self, step_id: str) -> None:
        super().__init__(f"no step {step_id!r}")


class RunInTerminalState(StoreError):
    def __init__(self, run_id: str, status: str) -> None:
        super().__init__(f"run {run_id!r} has already ended: it is {status}")


class RunStepInTerminalState(StoreError):
    def __init__(self, step_id: str, status: str) -> None:
        super().__init__(f"step {step_id!r} has already ended: it is {status}")


class StatusChanged(StoreError):
    def __init__(self, run_id: str, expected: str, status: str) -> None:
        super().__init__(f"run {run_id!r} is {status}, no longer {expected}")


class RunInProgress(StoreError):
    def __init__(self, run_id: str, status: str) -> None:
        super().__init__(f"run {run_id!r} is {status}: cancel it first, or let it end")


class RunWaits(StoreError):
    """Run *run_id* waits for *other_id*, another run of its thread, which has *status*.

    ``worker`` is the worker of the other; ``None``: it is another program's, or still queued.
    """

    def __init__(self, run_id: str, other_id: str, status: str, worker: str | None = None) -> None:
        super().__init__(f"run {run_id!r} waits for {other_id!r}, which is {status}")
        self.run_id = run_id
        self.other_id = other_id
        self.status = status
        self.worker = worker


class RunLost(StoreError):
    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(f"run {run_id!r} is no longer this worker's: {reason}")


class ToolCallNotFound(StoreError):
    def __init__(self, call_id: str) -> None:
        super().__init__(f"the run waits for no call {call_id!r}")


class OutputIsSet(StoreError):
    def __init__(self, call_id: str) -> None:
        super().__init__(f"the call {call_id!r} has its output already")


class ModifiedSince(StoreError):
    def __init__(self, thread_id: str) -> None:
        super().__init__(f"thread {thread_id!r} has just been changed")


class NotEmpty(StoreError):
    """Only an empty thread or run was to be deleted, and this one holds something."""


class Foreign(NotEmpty):
    """Something to be deleted or changed is not surely of this format, or holds something else, at *path*."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} is {reason}")
        self.path = path


class AlreadyExists(StoreError):
    def __init__(self, kind: str, object_id: str) -> None:
        super().__init__(f"there is a {kind} {object_id!r} already")


class InvalidName(StoreError):
    """A name that is no valid id."""


class InvalidDocument(StoreError):
    """A document, patch or line that is refused; the text says which field and why."""


class InvalidQuery(StoreError):
    """A query that is refused; the text says why."""


class Damaged(StoreError):
    """Something stored cannot be read. *path* names it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} is damaged: {reason}")
        self.path = path


class StorageFailed(StoreError):
    """The disk (or server) failed with ``errno``, or for *reason*, which says more."""

    def __init__(self, errno: int, what: str, reason: str | None = None) -> None:
        super().__init__(f"{what}: {reason or os.strerror(errno)}")
        self.errno = errno


class Unreachable(StorageFailed):
    """The server of the store did not answer in time. Until it is back, other calls fail, too."""

    def __init__(self, what: str) -> None:
        super().__init__(ETIMEDOUT, what)
        self.args = (what,)
