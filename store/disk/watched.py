"""Which directory has which inotify watch, of 100,000s of them, in little memory.

Most are threads and lists of runs. These are known by the id of the thread alone, whose text others hold,
too, so that one costs no more than its place in a dictionary. All others are known as they are.
"""

from __future__ import annotations

from typing import Final

from store.disk.layout import RUNS, Parts

_THREAD: Final = 1
_LIST_OF_RUNS: Final = 2
# Descriptors are given one after the other: the texts of so many are in one list, by these bits of each.
_BITS: Final = 8
_TOGETHER: Final = 1 << _BITS


class _OfDescriptors:
    """A text of each descriptor, in less than half the room that a dictionary takes."""

    def __init__(self) -> None:
        self._lists: dict[int, list[str | None]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def get(self, descriptor: int) -> str | None:
        texts = self._lists.get(descriptor >> _BITS)
        return None if texts is None else texts[descriptor % _TOGETHER]

    def put(self, descriptor: int, text: str) -> None:
        if (texts := self._lists.get(descriptor >> _BITS)) is None:
            texts = self._lists[descriptor >> _BITS] = [None] * _TOGETHER
        self._length += texts[descriptor % _TOGETHER] is None
        texts[descriptor % _TOGETHER] = text

    def remove(self, descriptor: int) -> None:
        """Nothing if there is none."""
        if self.get(descriptor) is None:
            return
        texts = self._lists[descriptor >> _BITS]
        texts[descriptor % _TOGETHER] = None
        self._length -= 1
        if all(text is None for text in texts):
            del self._lists[descriptor >> _BITS]


class Directories:
    """Which directory has which descriptor, and the other way round; one may be known without the other."""

    def __init__(self) -> None:
        self._threads: dict[str, int] = {}
        self._lists: dict[str, int] = {}
        self._others: dict[Parts, int] = {}
        self._of_threads = _OfDescriptors()
        self._of_lists = _OfDescriptors()
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
            self._of_threads.put(descriptor, parts[0])
        elif len(parts) == _LIST_OF_RUNS:
            self._of_lists.put(descriptor, parts[0])
        else:
            self._of_others[descriptor] = parts

    def remove_descriptor(self, descriptor: int) -> None:
        self._of_threads.remove(descriptor)
        self._of_lists.remove(descriptor)
        self._of_others.pop(descriptor, None)

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
