"""What programs do with runs in every store that can hold a thread: claim one, set the output of a tool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from store import held_thread, names
from store.held_thread import HeldThread
from store.models import Run
from store.working import any_run

T = TypeVar("T")


class Claims(Protocol):
    """A base for stores."""

    def hold(self, thread_id: str, work: Callable[[HeldThread], T]) -> T:
        """The result of *work* on the thread, which is locked meanwhile.

        Raises:
            InvalidName, ThreadNotFound.
        """
        ...

    def claim_run(self, thread_id: str, run_id: str, *, yields_to: Callable[[Run], bool] = any_run) -> Run:
        """See `store.working.Working.claim_run`."""
        names.checked(run_id)
        return self.hold(thread_id, lambda thread: held_thread.claim(thread, run_id, None, yields_to))

    def set_tool_output(self, thread_id: str, run_id: str, call_id: str, output: str) -> Run:
        """See `store.working.Working.set_tool_output`."""
        names.checked(run_id)
        return self.hold(
            thread_id, lambda thread: held_thread.set_tool_output(thread, run_id, call_id, output)
        )
