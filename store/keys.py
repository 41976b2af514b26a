"""A dictionary of `DocumentKey`s, of which there may be 100,000s, in little memory.

Most are of a thread and of the list of its runs, or of a run and of the list of its steps. These two have one
place in a dictionary, and their numbers are the same object for all that have the same. A thread is known by
its id alone, whose text others hold, too.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from functools import lru_cache
from typing import Final, NamedTuple, TypeVar, overload

from store.names import DocumentKey

D = TypeVar("D")
P = TypeVar("P")


class _Two(NamedTuple):
    """The number of a thread or run, and that of the list in it; 0 where there is none."""

    of_itself: int
    of_list: int


_NONE: Final = _Two(0, 0)
# The same object for all that have the same numbers.
_two = lru_cache(maxsize=100)(_Two)


class Keys(MutableMapping[DocumentKey, int]):
    """Numbers other than 0, of threads and runs, and of the lists in these.

    Threads come first, then the lists of their runs, then runs, then the lists of their steps.
    """

    def __init__(self) -> None:
        self._threads: dict[str, _Two] = {}
        self._runs: dict[DocumentKey, _Two] = {}
        self._length = 0

    def number(self, key: DocumentKey) -> int:
        """0 if there is none: for who asks in each request, in one call."""
        thread_id, run_id, step_id = key
        if not run_id:
            two = self._threads.get(thread_id, _NONE)
            return two.of_itself if run_id is None else two.of_list
        if step_id is None:
            return self._runs.get(key, _NONE).of_itself
        return self._runs.get(DocumentKey(thread_id, run_id), _NONE).of_list

    def _put(self, key: DocumentKey, number: int) -> None:
        thread_id, run_id, step_id = key
        if not run_id:
            added = _put(self._threads, thread_id, number, is_list=run_id is not None)
        elif step_id is None:
            added = _put(self._runs, key, number, is_list=False)
        else:
            added = _put(self._runs, DocumentKey(thread_id, run_id), number, is_list=True)
        self._length += added

    def __getitem__(self, key: DocumentKey) -> int:
        if number := self.number(key):
            return number
        raise KeyError(key)

    @overload
    def get(self, key: DocumentKey, /) -> int | None: ...
    @overload
    def get(self, key: DocumentKey, default: D, /) -> int | D: ...
    def get(self, key: DocumentKey, default: D | None = None, /) -> int | D | None:
        return self.number(key) or default

    def __contains__(self, key: object) -> bool:
        return isinstance(key, DocumentKey) and self.number(key) != 0

    def __setitem__(self, key: DocumentKey, number: int) -> None:
        self._put(key, number)

    def __delitem__(self, key: DocumentKey) -> None:
        if not self.number(key):
            raise KeyError(key)
        self._put(key, 0)

    def __iter__(self) -> Iterator[DocumentKey]:
        yield from (DocumentKey(thread_id) for thread_id, two in self._threads.items() if two.of_itself)
        yield from (DocumentKey(thread_id, "") for thread_id, two in self._threads.items() if two.of_list)
        yield from (run for run, two in self._runs.items() if two.of_itself)
        yield from (run.list_in_it for run, two in self._runs.items() if two.of_list)

    def __len__(self) -> int:
        return self._length


def _put(numbers: dict[P, _Two], place: P, number: int, *, is_list: bool) -> int:
    """Puts a number in its place, or none with 0; by how much there are more numbers then."""
    of_itself, of_list = numbers.get(place, _NONE)
    before = of_list if is_list else of_itself
    two = _two(of_itself, number) if is_list else _two(number, of_list)
    if two != _NONE:
        numbers[place] = two
    else:
        numbers.pop(place, None)
    return (number != 0) - (before != 0)
