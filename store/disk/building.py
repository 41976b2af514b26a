"""The process that builds a catalogue: ``python -m store.disk.building STORE words|lists``.

`builder.Builder` starts it. It takes over the titles, times and runs of all threads, and says ``step`` on
its standard output now and then, and ``lists`` at last; then it takes over the words, and ends. It has the
lowest priority, but while somebody waits for the lists: a byte on its standard input says so. When that is at
its end, the one who has started it is gone or wants no more, and it ends at once, which no catalogue minds.

The priority of a thread is its own, and can only be lowered. So there is another one, which goes on with the
lists when somebody waits. (What is imported first, a tenth of a second, has the normal one: that could not be
handed over.)
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Final

from store.catalogue import place
from store.catalogue.tables import Busy, Tables
from store.disk.cataloguing import Cataloguing
from store.errors import StorageFailed

WORDS: Final = "words"
STEP: Final = "step"
LISTS: Final = "lists"
# Another process builds it.
IS_BUILT: Final = 3

# The scheduler of the disk goes by it, too.
_LOWEST: Final = 19
# For how long nothing is tried after another process was writing.
_PAUSE_S: Final = 0.05
# If more threads than these cannot be read, it is the disk.
_MAX_UNREADABLE: Final = 100


def main() -> int:
    root, kind = sys.argv[1:]
    is_awaited = threading.Event()
    threading.Thread(target=_heed_starter, args=(is_awaited,), daemon=True).start()
    with ThreadPoolExecutor(1) as hurrying:
        hurrying.submit(int).result()  # So that its thread is there, and has the normal priority.
        os.nice(_LOWEST)
        return _build(root, is_awaited, hurrying, with_words=kind == WORDS)


def _heed_starter(is_awaited: threading.Event) -> None:
    while os.read(0, 1):
        is_awaited.set()
    os._exit(0)


def _build(root: str, is_awaited: threading.Event, hurrying: ThreadPoolExecutor, *, with_words: bool) -> int:
    # Others import this who only want to start the process.
    from store.disk.stored_files import StoredFiles

    identity = place.identity_of(root, with_words=with_words)
    opened = place.open_catalogue(place.base(os.environ), identity, with_words=with_words)
    with opened, closing(StoredFiles(root)) as store:
        if not place.begins_building(opened.directory):
            return IS_BUILT
        taking = Cataloguing(store, Tables(opened.connection, has_words=with_words), _skipping())
        lists = _telling(_persistently(lambda: _lists(taking)))
        if any(is_awaited.is_set() for _ in lists):
            hurrying.submit(_finish, lists).result()
        print(LISTS, flush=True)
        if with_words:
            _finish(_persistently(lambda: taking.index_these(taking.behind())))
    return 0


def _lists(taking: Cataloguing) -> Iterator[int]:
    yield 0  # If somebody waits already, all that follows is done with the normal priority.
    yield from taking.compare_these(taking.differing())


def _persistently(begin: Callable[[], Iterator[int]]) -> Iterator[int]:
    """The steps of a work that is begun anew after another process was writing."""
    while True:
        try:
            yield from begin()
            return
        except Busy:
            time.sleep(_PAUSE_S)


def _telling(steps: Iterator[int]) -> Iterator[int]:
    for step in steps:
        print(STEP, flush=True)
        yield step


def _finish(steps: Iterator[int]) -> None:
    for _ in steps:
        pass


def _skipping() -> Callable[[str, StorageFailed], None]:
    """Leaves threads that cannot be read to whoever asks, and is told of them. Raises if they are many."""
    unreadable: set[str] = set()

    def skip(thread_id: str, error: StorageFailed) -> None:
        unreadable.add(thread_id)
        if len(unreadable) > _MAX_UNREADABLE:
            raise error

    return skip


if __name__ == "__main__":
    sys.exit(main())
