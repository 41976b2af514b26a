"""Calls to a mount that may not answer: whoever waits is told for which process."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from store.printing import printable
from threadfs.mounting.life_line import server_of
from threadfs.mounting.mount_table import Mount

log = logging.getLogger("threadfs")

T = TypeVar("T")

# How long a call may take before it is looked whether the mount answers at all, and how long that may take.
LOOKS_S, ANSWERS_S = 1.0, 2.0
_LOOKS_AGAIN_S = 0.1
# States (proc(5)) of a process that a signal or a tracer has stopped.
_STOPPED = ("T", "t")


def answer_of(mount: Mount, call: Callable[[], T]) -> T:
    """What *call* returns or raises, which waits for *mount*. An interrupt ends the wait.

    If nothing answers on the mount, that is logged once as a warning, with the process that is waited for.
    """
    answers: list[T] = []
    errors: list[Exception] = []

    def ask() -> None:
        try:
            answers.append(call())
        except Exception as error:
            errors.append(error)

    is_told = _waited_while_stopped(mount)
    # In a thread, as no signal but SIGKILL ends a call to a mount that does not answer.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(LOOKS_S)
    while asking.is_alive():
        pid = None if is_told else server_of(mount)
        if pid is not None and (is_stopped(pid) or not _answers(mount)):
            log.warning("%s", what_is_waited_for(mount, pid))
            is_told = True
        asking.join(LOOKS_S)
    for error in errors:
        raise error
    return answers[0]


def _waited_while_stopped(mount: Mount) -> bool:
    """Whether the process of a mount is stopped and was named. Returns when it goes on.

    Nothing is asked until then: behind a call of the process itself, not even SIGKILL ends ours.
    """
    pid = server_of(mount)
    began_s = time.monotonic()
    is_told = False
    while pid and is_stopped(pid):
        if not is_told and time.monotonic() >= began_s + LOOKS_S:
            log.warning("%s", what_is_waited_for(mount, pid))
            is_told = True
        time.sleep(_LOOKS_AGAIN_S)
    return is_told


def what_is_waited_for(mount: Mount, pid: int) -> str:
    """What to say of a mount that does not answer; *pid* as `LifeLine` has it."""
    place = printable(mount.mountpoint)
    if is_stopped(pid):
        how = f"kill -CONT {pid} lets it go on"
        return f"{place} does not answer: waiting for process {pid}, which is stopped ({how})"
    process = f"process {pid}" if pid else "its process"
    return f"{place} does not answer: waiting for {process}, whose log says what it waits for"


def is_stopped(pid: int) -> bool:
    with suppress(OSError), open(f"/proc/{pid}/stat", errors="replace") as stat:
        return stat.read().rpartition(")")[2].split()[0] in _STOPPED
    return False


def _answers(mount: Mount) -> bool:
    """Whether a mount answers within `ANSWERS_S`, if only with an error."""

    def ask() -> None:
        with suppress(OSError):
            os.statvfs(mount.mountpoint)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ANSWERS_S)
    return not asking.is_alive()
