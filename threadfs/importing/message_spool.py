"""The messages of a thread to import, until all of the thread has been read."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator
from typing import IO

# Larger logs go into a file without a name.
_IN_MEMORY_BYTES = 16 << 20


def _spool() -> IO[bytes]:
    return tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)


class MessageSpool:
    """Lines of a log in the order of the export, or reversed if that has the newest message first.

    OpenAI lists messages newest first, also those of the same second.
    """

    def __init__(self) -> None:
        self._file = _spool()
        # Where each line ends, in bytes.
        self._ends = array("q")
        self._last_s: int | None = None
        self._has_fallen = self._has_risen = False

    def add(self, line: bytes, created_at_s: object) -> None:
        """Adds a *line* with its newline. Its time, if it has one, shows the order of the export."""
        self._file.write(line)
        self._ends.append((self._ends[-1] if self._ends else 0) + len(line))
        if not isinstance(created_at_s, int):
            self._has_risen = True
        elif self._last_s is not None:
            self._has_fallen |= created_at_s < self._last_s
            self._has_risen |= created_at_s > self._last_s
        self._last_s = created_at_s if isinstance(created_at_s, int) else self._last_s

    @property
    def is_newest_first(self) -> bool:
        return self._has_fallen and not self._has_risen

    def lines(self, *, as_added: bool) -> Iterator[bytes]:
        """The lines, oldest first; with *as_added*, in the order in which they were added."""
        if as_added or not self.is_newest_first:
            self._file.seek(0)
            yield from self._file
            return
        for index in range(len(self._ends) - 1, -1, -1):
            start = self._ends[index - 1] if index else 0
            self._file.seek(start)
            yield self._file.read(self._ends[index] - start)

    def close(self) -> None:
        self._file.close()
