"""The lock of a thread: an exclusive ``flock`` on its directory.

It works between processes and between threads of one process (each opens the directory anew), leaves no
file, and dies with its holder. Readers take none.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from store.disk import directories
from store.errors import ThreadNotFound


@contextmanager
def locked_thread(root: str, thread_id: str) -> Iterator[int]:
    """The thread's directory, open and locked.

    Raises:
        ThreadNotFound: there is no such directory.
    """
    while True:
        with directories.opened(root, thread_id) as directory:
            if directory is None:
                raise ThreadNotFound(thread_id)
            with directories.storage_errors(f"lock of {thread_id}"):
                fcntl.flock(directory, fcntl.LOCK_EX)
            # The directory may have been deleted, and another made, while we waited.
            if _is_still_there(root, thread_id, directory):
                yield directory
                return


def _is_still_there(root: str, thread_id: str, directory: int) -> bool:
    try:
        named = os.stat(os.path.join(root, thread_id), follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(named, os.fstat(directory))
