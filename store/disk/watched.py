"""Which directory has which inotify watch, of 100,000s of them, in little memory.

A directory is known by the key of what it holds. Most are threads and runs with the lists in them. A thread
and its list are known by its id alone, whose text others hold, too; the keys of runs are the objects that
others hold as well. The descriptors of the two are one number: it takes less room than two, as do two places
in a dictionary.
"""

from __future__ import annotations

from typing import Final, TypeVar

from store.names import DocumentKey

P = TypeVar("P")

# The bits of a descriptor, which is 1 or more.
_DESCRIPTOR: Final = (1 << 31) - 1
# Descriptors are given one after the other: what so many stand for is in one list, by these bits of each.
_BITS: Final = 8
_TOGETHER: Final = 1 << _BITS


class _Together:
    """What descriptors that follow each other stand for."""

    __slots__ = ("are_lists", "places", "used")

    def __init__(self) -> None:
        self.used = 0
        # The key, or the id of a thread alone; and whether such a one stands for the list of its runs.
        self.places: list[DocumentKey | str | None] = [None] * _TOGETHER
        self.are_lists = bytearray(_TOGETHER)


class _OfDescriptors:
    """The key of each descriptor, in less than half the room that a dictionary takes."""

    def __init__(self) -> None:
        self._all: dict[int, _Together] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def get(self, descriptor: int) -> DocumentKey | None:
        if (together := self._all.get(descriptor >> _BITS)) is None:
            return None
        at = descriptor % _TOGETHER
        place = together.places[at]
        if not isinstance(place, str):
            return place
        return DocumentKey(place, "" if together.are_lists[at] else None)

    def put(self, descriptor: int, key: DocumentKey) -> None:
        self.remove(descriptor)
        together = self._all.setdefault(descriptor >> _BITS, _Together())
        at = descriptor % _TOGETHER
        together.places[at] = key if key.run_id else key.thread_id
        together.are_lists[at] = key.run_id is not None
        together.used += 1
        self._length += 1

    def remove(self, descriptor: int) -> None:
        """Nothing if there is none."""
        together = self._all.get(descriptor >> _BITS)
        if together is None or together.places[descriptor % _TOGETHER] is None:
            return
        together.places[descriptor % _TOGETHER] = None
        together.used -= 1
        self._length -= 1
        if not together.used:
            del self._all[descriptor >> _BITS]


class Directories:
    """Which directory has which descriptor, and the other way round; one may be known without the other."""

    def __init__(self) -> None:
        # Two in one number: the descriptor of a thread or run, and that of the list in it; 0 for none.
        self._of_threads: dict[str, int] = {}
        self._of_runs: dict[DocumentKey, int] = {}
        self._keys = _OfDescriptors()

    def __len__(self) -> int:
        """How many descriptors there are."""
        return len(self._keys)

    def key(self, descriptor: int | None) -> DocumentKey | None:
        """That of the directory with a descriptor."""
        return None if descriptor is None else self._keys.get(descriptor)

    def put_key(self, descriptor: int, key: DocumentKey) -> None:
        self._keys.put(descriptor, key)

    def remove_descriptor(self, descriptor: int) -> None:
        self._keys.remove(descriptor)

    def descriptor(self, key: DocumentKey) -> int | None:
        if key.run_id:
            two = self._of_runs.get(_without_list(key), 0)
        else:
            two = self._of_threads.get(key.thread_id, 0)
        return (two >> _shift(key)) & _DESCRIPTOR or None

    def put_descriptor(self, key: DocumentKey, descriptor: int) -> None:
        if key.run_id:
            _put(self._of_runs, _without_list(key), descriptor, _shift(key))
        else:
            _put(self._of_threads, key.thread_id, descriptor, _shift(key))

    def remove(self, key: DocumentKey) -> int | None:
        """Forgets the descriptor of a directory, and returns it."""
        if (descriptor := self.descriptor(key)) is not None:
            self.put_descriptor(key, 0)
        return descriptor


def _without_list(key: DocumentKey) -> DocumentKey:
    """The key of a run, of that of the run itself or of the list in it."""
    return key if key.step_id is None else DocumentKey(key.thread_id, key.run_id)


def _shift(key: DocumentKey) -> int:
    """Where in the number of two the one of *key* begins."""
    is_list = (key.step_id if key.run_id else key.run_id) is not None
    return _DESCRIPTOR.bit_length() if is_list else 0


def _put(descriptors: dict[P, int], place: P, descriptor: int, shift: int) -> None:
    two = descriptors.get(place, 0) & ~(_DESCRIPTOR << shift) | descriptor << shift
    if two:
        descriptors[place] = two
    else:
        descriptors.pop(place, None)
