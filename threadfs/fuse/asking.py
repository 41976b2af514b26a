"""Calling nodes from the loop, which must not wait: in place if memory has the answer, else in a thread."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import outcome
import trio

from store import StoreError, WouldWait, without_waiting
from threadfs.nodes.base import Node, Refused

T = TypeVar("T")


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Runs *function*, which may wait for a disk, in a thread; no other request is delayed.

    The way there and back takes two thirds of what it takes by `trio.to_thread`, which names the thread,
    copies contexts, and counts. (A limit is not needed: there are so many places for requests, and no more.)
    """
    token, task = trio.lowlevel.current_trio_token(), trio.lowlevel.current_task()

    def deliver(result: outcome.Outcome[T]) -> None:
        if isinstance(result, outcome.Error) and isinstance(result.error, (Refused, StoreError)):
            forget_origin(result.error)
        token.run_sync_soon(trio.lowlevel.reschedule, task, result)

    trio.lowlevel.start_thread_soon(partial(function, *arguments), deliver)
    result: T = await trio.lowlevel.wait_task_rescheduled(_is_finished_first)
    return result


def _is_finished_first(cancel: object) -> trio.lowlevel.Abort:
    """A task that is cancelled, as the mount ends, still waits for what its thread does to the store."""
    return trio.lowlevel.Abort.FAILED


def forget_origin(error: BaseException) -> None:
    """Removes the origin of an error; its message stays.

    Its traceback holds the frames of all that was under way, with the data in them, and a thread's frame
    holds the error that it delivers: a ring that only a collection undoes, too late for large data.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None


async def run_inline_or_in_thread(node: Node, function: Callable[..., T], *arguments: Any) -> T:
    """The result of *function*, which changes nothing before it has read.

    Most often memory has the answer, and a call in place costs less than the way to a thread and back. A
    call that would wait for a disk is made again in a thread.
    """
    if not node.tree.store.is_remote:
        with suppress(WouldWait), without_waiting():
            return function(*arguments)
    return await in_thread(function, *arguments)
