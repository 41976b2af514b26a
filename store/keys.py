"""A dictionary of `DocumentKey`s, of which there may be 100,000s, in little memory.

Most are of threads and of their lists of runs. These are known by the id of the thread alone, whose text
others hold, too, so that one costs no more than its place in a dictionary.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TypeVar, overload

from store.names import DocumentKey

D = TypeVar("D")


class Keys(MutableMapping[DocumentKey, int]):
    """Threads come first, then the lists of their runs, then all others, each in their order."""

    def __init__(self) -> None:
        self._threads: dict[str, int] = {}
        self._lists: dict[str, int] = {}
        self._others: dict[DocumentKey, int] = {}

    def __getitem__(self, key: DocumentKey) -> int:
        if key.run_id is None:
            return self._threads[key.thread_id]
        return self._others[key] if key.run_id else self._lists[key.thread_id]

    @overload
    def get(self, key: DocumentKey, /) -> int | None: ...
    @overload
    def get(self, key: DocumentKey, default: D, /) -> int | D: ...
    def get(self, key: DocumentKey, default: D | None = None, /) -> int | D | None:
        # It is asked in each request, and raises nothing for that.
        if key.run_id is None:
            return self._threads.get(key.thread_id, default)
        return self._others.get(key, default) if key.run_id else self._lists.get(key.thread_id, default)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, DocumentKey) and self.get(key) is not None

    def __setitem__(self, key: DocumentKey, value: int) -> None:
        if key.run_id is None:
            self._threads[key.thread_id] = value
        elif key.run_id:
            self._others[key] = value
        else:
            self._lists[key.thread_id] = value

    def __delitem__(self, key: DocumentKey) -> None:
        if key.run_id is None:
            del self._threads[key.thread_id]
        elif key.run_id:
            del self._others[key]
        else:
            del self._lists[key.thread_id]

    def __iter__(self) -> Iterator[DocumentKey]:
        yield from map(DocumentKey, self._threads)
        yield from (DocumentKey(thread_id, "") for thread_id in self._lists)
        yield from self._others

    def __len__(self) -> int:
        return len(self._threads) + len(self._lists) + len(self._others)
