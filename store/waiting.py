"""Asking a store what it can answer without waiting.

Most answers of a store on a disk are in the kernel's memory, and take microseconds. The rest waits for a
disk, which may be slow or stopped. Code that must not wait, such as the event loop of a server, first calls
the store in a block of `without_waiting`. A call that would have to wait raises `WouldWait` there, and has
changed nothing. It is made again in a thread, where waiting delays no other request.

    try:
        with without_waiting():
            return store.document_info(key)
    except WouldWait:
        return await in_a_thread(store.document_info, key)
"""

from __future__ import annotations

import threading


class WouldWait(Exception):
    """The answer is not in memory. It is no `StoreError`, because nothing is wrong."""


class _OfThread(threading.local):
    is_refused = False


_waiting = _OfThread()


class without_waiting:
    """A block in which calls of this thread that would wait raise `WouldWait`."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = _waiting.is_refused
        _waiting.is_refused = True

    def __exit__(self, *error: object) -> None:
        _waiting.is_refused = self._before


def is_refused() -> bool:
    return _waiting.is_refused


def waits() -> None:
    """Called before code that waits, or may wait. Raises WouldWait where waiting is refused."""
    if _waiting.is_refused:
        raise WouldWait
