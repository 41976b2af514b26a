"""Which directory has which inotify watch, of 100,000s of them, in little memory.

Most are threads and lists of runs. These are known by the id of the thread alone, whose text others hold,
too, so that one costs no more than its place in a dictionary. All others are known as they are.
"""

from __future__ import annotations

from typing import Final

from store.disk.layout import RUNS, Parts

_THREAD: Final = 1
_LIST_OF_RUNS: Final = 2


class Directories:
    """Which directory has which descriptor, and the other way round; one may be known without the other."""

    def __init__(self) -> None:
        self._threads: dict[str, int] = {}
        self._lists: dict[str, int] = {}
        self._others: dict[Parts, int] = {}
        self._of_threads: dict[int, str] = {}
        self._of_lists: dict[int, str] = {}
        self._of_others: dict[int, Parts] = {}

    def __len__(self) -> int:
        """How many descriptors there are."""
        return len(self._of_threads) + len(self._of_lists) + len(self._of_others)

    def parts(self, descriptor: int | None) -> Parts | None:
        """The directory with a descriptor."""
        if descriptor is None:
            return None
        if (thread_id := self._of_threads.get(descriptor)) is not None:
            return (thread_id,)
        if (thread_id := self._of_lists.get(descriptor)) is not None:
            return thread_id, RUNS
        return self._of_others.get(descriptor)

    def put_parts(self, descriptor: int, parts: Parts) -> None:
        self.remove_descriptor(descriptor)
        if len(parts) == _THREAD:
            self._of_threads[descriptor] = parts[0]
        elif len(parts) == _LIST_OF_RUNS:
            self._of_lists[descriptor] = parts[0]
        else:
            self._of_others[descriptor] = parts

    def remove_descriptor(self, descriptor: int) -> None:
        for known in (self._of_threads, self._of_lists, self._of_others):
            known.pop(descriptor, None)

    def descriptor(self, parts: Parts) -> int | None:
        if len(parts) == _THREAD:
            return self._threads.get(parts[0])
        return self._lists.get(parts[0]) if len(parts) == _LIST_OF_RUNS else self._others.get(parts)

    def put_descriptor(self, parts: Parts, descriptor: int) -> None:
        if len(parts) == _THREAD:
            self._threads[parts[0]] = descriptor
        elif len(parts) == _LIST_OF_RUNS:
            self._lists[parts[0]] = descriptor
        else:
            self._others[parts] = descriptor

    def remove(self, parts: Parts) -> int | None:
        """Forgets the descriptor of a directory, and returns it."""
        if len(parts) == _THREAD:
            return self._threads.pop(parts[0], None)
        return (
            self._lists.pop(parts[0], None) if len(parts) == _LIST_OF_RUNS else self._others.pop(parts, None)
        )
