"""Asking nodes from the loop, which must not wait: what is in memory at once, all else in a thread."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import trio

from store import WouldWait, without_waiting
from threadfs.nodes.base import Node

T = TypeVar("T")


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """For what may wait for a disk: it delays only who asked for it."""
    return await trio.to_thread.run_sync(function, *arguments)


async def asked(node: Node, function: Callable[..., T], *arguments: Any) -> T:
    """What *function*, which changes nothing before it has read, reads from the store.

    That is most often in memory, and costs less than the way to a thread and back. What would have to wait
    for a disk is asked again in a thread.
    """
    if not node.store.is_remote:
        with suppress(WouldWait), without_waiting():
            return function(*arguments)
    return await in_thread(function, *arguments)
