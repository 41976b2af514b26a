"""Programs as child processes: several at once, and some that are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence


def at_once(tasks: Sequence[Callable[[], None]]) -> None:
    """Does each task in a process of its own, all at the same time. None may fail."""
    children = [_forked(task) for task in tasks]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(children)


def killed_after(task: Callable[[], None]) -> None:
    """Does a task in a process that kills itself after it, with what it has open."""

    def task_and_end() -> None:
        task()
        os.kill(os.getpid(), signal.SIGKILL)

    _, status = os.waitpid(_forked(task_and_end), 0)
    assert os.WIFSIGNALED(status), "the task failed"


def _forked(task: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        task()
        status = 0
    finally:
        os._exit(status)
