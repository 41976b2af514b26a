"""What programs do with runs in every store that can hold a thread: claim one, set the output of a tool."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from store import held_thread, names
from store.api import DocumentKey
from store.held_thread import HeldThread
from store.models import Run
from store.working import Registration, any_run

R = TypeVar("R", bound=Registration)
T = TypeVar("T")


class Attempt(NamedTuple):
    """An attempt of a worker, by its step; ``None``: whichever it is."""

    worker: str
    step_id: str | None = None


class OwnWorkers(Generic[R]):
    """The registrations of a store that are open, and the attempts that they have begun and left as they are.

    A run is left when its end could not be written, or when it is not known whether it was claimed. Its
    worker lives, so that other programs do not take it over.
    """

    def __init__(self) -> None:
        self.registrations: list[R] = []
        # Guards what is left. A claim of which nothing is known may be followed by others at the same run.
        self._lock = threading.Lock()
        self._left: dict[tuple[DocumentKey, Attempt], None] = {}

    def left(self) -> list[tuple[DocumentKey, Attempt]]:
        """The attempts, with their runs, the first one first."""
        with self._lock:
            return list(self._left)

    def leave(self, key: DocumentKey, attempt: Attempt) -> None:
        with self._lock:
            self._left[key, attempt] = None

    def forget(self, key: DocumentKey, attempt: Attempt) -> None:
        """*attempt* has been seen to."""
        with self._lock:
            self._left.pop((key, attempt), None)

    def close(self) -> None:
        for registration in list(self.registrations):
            registration.close()


class Claims(Protocol):
    """A base for stores."""

    own_workers: OwnWorkers[Any]

    def hold(self, thread_id: str, work: Callable[[HeldThread], T]) -> T:
        """The result of *work* on the thread, which is locked meanwhile.

        Raises:
            InvalidName, ThreadNotFound.
        """
        ...

    def claim_run(self, thread_id: str, run_id: str, *, yields_to: Callable[[Run], bool] = any_run) -> Run:
        """See `store.working.Working.claim_run`."""
        names.checked(run_id)
        return self.hold(thread_id, lambda thread: held_thread.claim(thread, run_id, yields_to))

    def set_tool_output(self, thread_id: str, run_id: str, call_id: str, output: str) -> Run:
        """See `store.working.Working.set_tool_output`."""
        names.checked(run_id)
        return self.hold(
            thread_id, lambda thread: held_thread.set_tool_output(thread, run_id, call_id, output)
        )
