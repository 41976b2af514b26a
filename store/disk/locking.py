"""The lock of a thread: an exclusive ``flock`` on its directory.

It works between processes and between threads of one process (each opens the directory anew), leaves no
file, and dies with its holder. Readers take none.
"""

from __future__ import annotations

import fcntl
import os

from store.disk import directories
from store.disk.directories import storage_errors
from store.errors import ThreadNotFound
from store.waiting import waits


class locked_thread:
    """A thread's directory, open and locked in a block; ``inode`` is its number.

    Raises:
        ThreadNotFound: there is no such directory.
    """

    __slots__ = ("_directory", "_path", "_root", "_thread_id", "inode")

    def __init__(self, root: str, thread_id: str) -> None:
        self._root = root
        self._thread_id = thread_id
        self._path = f"{root}/{thread_id}"
        self._directory = -1
        self.inode = 0

    def __enter__(self) -> int:
        waits()
        while True:
            directory = directories.open_directory(self._root, self._thread_id)
            if directory is None:
                raise ThreadNotFound(self._thread_id)
            try:
                with storage_errors(f"lock of {self._thread_id}"):
                    fcntl.flock(directory, fcntl.LOCK_EX)
                # The directory may have been deleted, and another made, while we waited.
                if self._is_still_there(directory):
                    self._directory = directory
                    return directory
            except BaseException:
                os.close(directory)
                raise
            os.close(directory)

    def _is_still_there(self, directory: int) -> bool:
        try:
            named = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return False
        self.inode = named.st_ino
        return os.path.samestat(named, os.fstat(directory))

    def __exit__(self, *error: object) -> None:
        os.close(self._directory)
