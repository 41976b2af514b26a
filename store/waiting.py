"""Asking a store what it can answer without waiting.

Most of what is asked of a store on a disk is in the kernel's memory, and is answered in microseconds; the
rest waits for a disk, which may be slow or stopped. Who must not wait, such as the loop of a server, asks in
a block of `without_waiting` first. What cannot be answered there raises `WouldWait`, has changed nothing, and
is asked again where waiting delays nobody else: in a thread.

    try:
        with without_waiting():
            return store.document_info(key)
    except WouldWait:
        return await in_a_thread(store.document_info, key)
"""

from __future__ import annotations

import threading


class WouldWait(Exception):
    """The answer is not in memory. (No `StoreError`: nothing is wrong, and nobody may take it for that.)"""


class _OfThread(threading.local):
    is_refused = False


_waiting = _OfThread()


class without_waiting:
    """In this block, in this thread, what would wait raises `WouldWait`."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = _waiting.is_refused
        _waiting.is_refused = True

    def __exit__(self, *error: object) -> None:
        _waiting.is_refused = self._before


def is_refused() -> bool:
    return _waiting.is_refused


def waits() -> None:
    """Said by what is about to wait, or may be. Raises WouldWait where that is refused."""
    if _waiting.is_refused:
        raise WouldWait
