"""Tells the events of a mount, in a thread of its own, which sleeps while nothing happens."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from contextlib import suppress
from queue import SimpleQueue
from typing import Final

from store import Change, DocumentKey, Part, Store, StoreError, Watch
from store.changes import change_of
from threadfs.events.kept import KeptLines
from threadfs.events.states import State
from threadfs.events.telling import Heard, Telling

log = logging.getLogger("threadfs")

# How many threads and runs that came last are followed.
_MAX_NEW: Final = 500


class Teller:
    def __init__(self, store: Store, lines: KeptLines) -> None:
        self._store = store
        self._lines = lines
        self._telling = Telling(store, self._follow)
        self._heard: SimpleQueue[Heard | None] = SimpleQueue()
        # On a disk somebody has to follow what has just come, before the store follows it by itself.
        self._watch: Watch | None = None
        self._new: OrderedDict[DocumentKey, None] = OrderedDict()
        self._is_closed = False
        self._thread = threading.Thread(target=self._tell, name="tell events", daemon=True)

    def start(self) -> None:
        self._thread.start()
        if self._store.is_remote:
            self._store.announcer.subscribe(self._changed)
        else:
            self._watch = self._store.watch(self._changed)

    def close(self) -> None:
        """Tells nothing more. To be called before the store is closed."""
        self._is_closed = True
        self._heard.put(None)
        if self._thread.is_alive():
            self._thread.join()  # It follows nothing by a watch that is closed.
        if self._watch is not None:
            self._watch.close()
        self._store.announcer.unsubscribe(self._changed)

    def _changed(self, change: Change, told: State | None = None) -> None:
        if (heard := self._telling.heard(change, told)) is not None:
            self._heard.put(heard)

    def _follow(self, key: DocumentKey, told: State) -> None:
        """Follows what has just come, and no longer what came long before."""
        if self._watch is None:
            return
        self._new[key] = None
        self._new.move_to_end(key)
        with suppress(StoreError, OSError):  # It may have gone.
            for each in _with_list(key):
                self._watch.follow(each)
        if len(self._new) > _MAX_NEW:
            for each in _with_list(self._new.popitem(last=False)[0]):
                self._watch.forget(each)
        self._changed(change_of(Part.DOCUMENT, key), told)  # Since it was heard of.

    def _tell(self) -> None:
        while (heard := self._heard.get()) is not None and not self._is_closed:
            try:
                self._tell_of(heard)
            except Exception:
                log.exception("the events of %s could not be told", heard.change)

    def _tell_of(self, heard: Heard) -> None:
        for event in self._telling.events(heard):
            if self._is_closed:
                return
            self._lines.add(event.line())


def _with_list(key: DocumentKey) -> tuple[DocumentKey, DocumentKey]:
    """A thread or run, and the list in it."""
    if key.run_id is None:
        return key, DocumentKey(key.thread_id, "")
    return key, DocumentKey(key.thread_id, key.run_id, "")
