"""Looking at many things on a disk, which answers many questions at once as soon as one.

What is not in the kernel's memory is read block by block, and nearly all of the time is waiting. So several
threads look ahead, but only while much is read from the disk: all else is work, in which they would only
stand in each other's way.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

from store.errors import StoreError

if TYPE_CHECKING:
    from concurrent.futures import Executor

# So many things at once, by so many threads.
_TOGETHER: Final = 512
_THREADS: Final = 16
# Much is one block of 4 KiB for each, in the unit of getrusage(2).
_MUCH: Final = 8

T = TypeVar("T")


def looking_ahead(things: Iterable[T], look: Callable[[T], object]) -> Iterator[T]:
    """The *things*; *look* may have been called with each, by any thread, for the disk to be read."""

    def look_at(thing: T) -> None:
        with suppress(StoreError):  # Who looks again is told.
            look(thing)

    remaining = iter(things)
    pool: Executor | None = None
    is_cold = False
    read = _blocks_read()
    try:
        while together := [*islice(remaining, _TOGETHER)]:
            if is_cold:
                pool = pool or _pool()
                list(pool.map(look_at, together))
            yield from together
            before, read = read, _blocks_read()
            is_cold = read - before >= _MUCH * len(together)
    finally:
        if pool is not None:
            pool.shutdown()


def _pool() -> Executor:
    from concurrent.futures import ThreadPoolExecutor  # Which takes longer than most looks.

    return ThreadPoolExecutor(_THREADS)


def _blocks_read() -> int:
    """By this process, of 512 bytes each."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_inblock
