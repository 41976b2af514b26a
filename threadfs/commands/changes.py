"""For commands that wait: the next change of a store, or the end of whoever reads what they print."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import FrameType

    from store import Change, DocumentKey, Store
    from threadfs.mounting.life_line import LifeLine

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# How often to look if no changes are reported.
_LOOK_S = 1.0


class MountEnded(Exception):
    """The process that serves a mount has ended."""


class Changes:
    """Changes of a store, as a context. First `follow`, then look, then `wait`: no change is missed."""

    def __init__(
        self,
        store: Store,
        concerns: Callable[[Change], bool],
        *,
        until_unread: bool = False,
        mount: LifeLine | None = None,
    ) -> None:
        """
        Args:
            concerns: whether to look when something has changed; it is called by other threads, and often.
            until_unread: `wait` raises BrokenPipeError when nobody can read stdout any more.
            mount: `wait` raises MountEnded when the process at its other end has ended.
        """
        self._store = store
        self._came = os.eventfd(0, os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._came, select.POLLIN)
        self._stdout = -1
        if until_unread and sys.stdout is not None:
            self._stdout = sys.stdout.fileno()
            self._poll.register(self._stdout, 0)  # An error is reported in any case.
        if mount is not None:
            self._poll.register(mount, select.POLLIN)
        self._are_reported = True

        def changed(change: Change) -> None:
            if concerns(change):
                os.eventfd_write(self._came, 1)

        self._watch = store.watch(changed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._watch.close()
        os.close(self._came)

    def follow(self, *keys: DocumentKey) -> None:
        """Follows them from now on; to be called again before each look, as a watch may be lost."""
        for key in keys:
            self._are_reported &= self._watch.follow(key)

    def follow_all_runs(self) -> None:
        """As `follow`, for each run of each thread."""
        self._are_reported &= self._store.follow_all_runs(self._watch)

    @property
    def are_reported(self) -> bool:
        """Whether all that was followed since the last `wait` will be reported, whoever changes it."""
        return self._are_reported

    def wait(self, at_most_s: float | None = None) -> None:
        """Returns at the next change since the last call, or when it is time to look again.

        Raises:
            BrokenPipeError: nobody can read stdout.
            MountEnded: the process of the mount has ended, and there is no change before that.
        """
        looks_s = None if self._are_reported else _LOOK_S
        self._are_reported = True
        times_s = [s for s in (looks_s, at_most_s) if s is not None]
        ready = {descriptor for descriptor, _ in self._poll.poll(min(times_s) * 1000 if times_s else None)}
        if self._stdout in ready:
            raise BrokenPipeError
        if self._came in ready:
            os.eventfd_read(self._came)
        elif ready:
            raise MountEnded


def of_thread(thread_id: str) -> Callable[[Change], bool]:
    """Changes in one thread, and of workers."""
    from store import Part

    others = (Part.WORKERS, Part.EVERYTHING)
    return lambda change: change.thread_id == thread_id or change.part in others


@contextmanager
def interrupted_by_any_end() -> Iterator[None]:
    """Within it, SIGTERM and SIGHUP (a terminal that is closed) raise KeyboardInterrupt, as SIGINT does."""
    with _handled_by(signal.default_int_handler):
        yield


@contextmanager
def uninterrupted() -> Iterator[list[int]]:
    """Within it, SIGINT, SIGTERM and SIGHUP do nothing, but that they are in the list that it gives."""
    came: list[int] = []
    with _handled_by(lambda number, _: came.append(number)):
        yield came


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Signals that are ignored, as under nohup, still are."""
    before = {number: signal.getsignal(number) for number in _ENDS}
    for number in _ENDS:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number in _ENDS:
            signal.signal(number, before[number])
