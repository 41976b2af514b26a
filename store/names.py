"""Valid ids, and new ones, and the names that they make.

An id is 1 to 127 bytes of UTF-8 (so that ``<run>@<thread>`` is a file name), without ``/``, ``@`` and
control characters, does not start with ``.``, and is not ``lost+found``. Whatever obeys this is one harmless
path component.
"""

from __future__ import annotations

import re
import time
import uuid
from functools import lru_cache
from typing import NamedTuple, TypeGuard

from store.errors import InvalidName

MAX_ID_BYTES = 127
# A store may be the top of a disk, where ext4 has this directory, which only root can read.
OF_THE_DISK = "lost+found"

# C0 and C1 control characters, the separators of paths and links, and halves of surrogate pairs.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f/@\ud800-\udfff]")


def why_not_an_id(name: object) -> str | None:
    """The reason why *name* is no id, in words; ``None`` when it is one."""
    return _why_not(name) if isinstance(name, str) else "an id is a text"


@lru_cache(maxsize=1000)  # Every call of the store checks the same few names again.
def _why_not(name: str) -> str | None:
    if not name:
        return "an id is not empty"
    if name.startswith("."):
        return "an id does not start with '.'"
    if name == OF_THE_DISK:
        return "disks have a directory of that name of their own"
    if _FORBIDDEN.search(name):
        return "an id holds no '/', no '@', no control characters, and is UTF-8"
    if len(name.encode()) > MAX_ID_BYTES:
        return f"an id has at most {MAX_ID_BYTES} bytes"
    return None


def is_id(name: object) -> bool:
    return why_not_an_id(name) is None


def checked(name: str) -> str:
    """*name*, if it is an id.

    Raises:
        InvalidName: it is not; the text says why.
    """
    if reason := why_not_an_id(name):
        raise InvalidName(f"{name!r} is not a possible name: {reason}")
    return name


def new_thread_id() -> str:
    return f"thread_{uuid.uuid4().hex}"


def new_message_id() -> str:
    return f"msg_{uuid.uuid4().hex}"


def new_run_id() -> str:
    return f"run_{uuid.uuid4().hex}"


def new_step_id() -> str:
    """Ids of steps sort by when they were made, as the steps of a run do within one second."""
    return f"step-{time.time_ns():016x}{uuid.uuid4().hex[:16]}"


def message_of_step(step_id: str) -> str:
    """The id of the message that an attempt with this step makes: others know it before it is there."""
    return f"msg_{step_id.removeprefix('step-')}"


def new_worker_id() -> str:
    return f"worker_{uuid.uuid4().hex}"


_WORKER_ID = re.compile("worker_[0-9a-f]{32}")


def is_worker_id(name: object) -> TypeGuard[str]:
    """Whether *name* is the id of a worker of threadfs: one harmless path component."""
    return isinstance(name, str) and _WORKER_ID.fullmatch(name) is not None


class DocumentKey(NamedTuple):
    """Names a Thread (no *run_id*), a Run (no *step_id*) or a RunStep."""

    thread_id: str
    run_id: str | None = None
    step_id: str | None = None

    @property
    def list_in_it(self) -> DocumentKey:
        """Of a thread or run, what a watch follows to hear of its runs or steps that come and go."""
        return DocumentKey(self.thread_id, *(("",) if self.run_id is None else (self.run_id, "")))


# What a watch follows to hear of workers, and the name that changes of them have; no thread has this id.
WORKERS = DocumentKey(".threadfs-workers")
