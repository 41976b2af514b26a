"""Files that a repair removes or replaces are kept below `ASIDE` in the store, at the same path.

No program reads or removes them; a person may. They are durable before the store changes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from store.disk import files, leftovers, paths
from store.disk.layout import LOG, Parts
from store.disk.leftovers import ASIDE
from store.disk.paths import opened, storage_errors
from store.disk.system_calls import SystemCalls
from store.errors import StorageFailed

# The lines of a log that were overwritten, beside the files that were moved.
_LINES = f"{LOG}.lines"
_PIECE_BYTES = 1 << 20


class Aside:
    def __init__(self, root: str, calls: SystemCalls) -> None:
        self._root = root
        self._calls = calls

    def move(self, parts: Parts) -> str | None:
        """Moves a file or directory. Returns where it is now, below the root; `None` when it was gone."""
        return leftovers.set_aside(self._calls, self._root, parts)

    def copy(self, parts: Parts, data: bytes) -> None:
        """Keeps the bytes of a document that is about to be replaced."""
        *above, name = parts
        with self._directory(tuple(above)) as directory, storage_errors("/".join(parts)):
            new_name, number = name, 1
            while paths.exists(directory, new_name):
                number += 1
                new_name = f"{name}~{number}"
            files.write_new(self._calls, directory, new_name, (data,))
            self._calls.sync(directory)

    def keep_line(self, thread_id: str, log: int, start: int, size: int) -> None:
        """Keeps a line of an open log that is about to be overwritten, in a file that grows."""
        with self._directory((thread_id,)) as directory, storage_errors(_LINES):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            kept = os.open(_LINES, flags, 0o600, dir_fd=directory)
            try:
                end = start + size
                while start < end and (piece := os.pread(log, min(end - start, _PIECE_BYTES), start)):
                    files.write_all(self._calls, kept, piece)
                    start += len(piece)
                files.write_all(self._calls, kept, b"\n")
                self._calls.sync(kept)
            finally:
                os.close(kept)
            self._calls.sync(directory)

    @contextmanager
    def _directory(self, parts: Parts) -> Iterator[int]:
        """The directory below `ASIDE` for files of the directory *parts*, made durably."""
        with ExitStack() as stack:
            at: list[str] = []
            for part in (ASIDE, *parts):
                parent = stack.enter_context(opened(self._root, *at))
                if parent is None:
                    raise StorageFailed(errno.ENOTDIR, "/".join(at))
                with storage_errors(ASIDE), suppress(FileExistsError):
                    self._calls.make_directory(parent, part)
                    self._calls.sync(parent)
                at.append(part)
            directory = stack.enter_context(opened(self._root, *at))
            if directory is None:
                raise StorageFailed(errno.ENOTDIR, "/".join(at))
            yield directory
