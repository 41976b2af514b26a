"""Looking at many things on a disk, which answers many questions at once as soon as one.

What is not in the kernel's memory is read block by block, and nearly all of the time is waiting. So several
threads look ahead, but only while much is read from the disk: all else is work, in which they would only
stand in each other's way.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import Final, TypeVar

from store.errors import StoreError

# So many things at once, by so many threads.
_TOGETHER: Final = 256
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
    is_cold = False
    with ThreadPoolExecutor(_THREADS) as pool:
        while together := [*islice(remaining, _TOGETHER)]:
            before = _blocks_read()
            if is_cold:
                list(pool.map(look_at, together))
            yield from together
            is_cold = _blocks_read() - before >= _MUCH * len(together)


def _blocks_read() -> int:
    """By this process, of 512 bytes each."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_inblock
