"""What the tree asks of the store's catalogue, kept for a moment.

A program asks for the same thing in many calls: for the time of a directory, for its names, for each of them
again. So an answer is kept until the store tells of a change, and only for a moment, since not all that
others change is told at once.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, NamedTuple, TypeVar

from store import Change, Store, StoreError
from store.catalogue.api import Catalogue, Statistics
from store.changes import Part
from store.waiting import waits

# How long an answer is kept, and how many: each has up to a thousand names. A catalogue may itself say what
# was so a moment ago, and all in all it is to be less than a second.
_KEPT_S: Final = 0.2
_MAX_KEPT: Final = 16
# How long its numbers are waited for.
_COUNTED_S: Final = 0.05
# No catalogue says anything of these.
_ELSEWHERE: Final = (Part.ANSWER, Part.WORKERS)

T = TypeVar("T")


class _Kept(NamedTuple):
    answer: object
    changes: int
    until_s: float


class Finding:
    """Answers of one catalogue, for all requests of a mount."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # Guards what follows; nothing is asked while it is held.
        self._ready = threading.Condition()
        self._is_hearing = False
        self._changes = 0
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._asked: set[Hashable] = set()
        self._is_counting = False
        self._counted: Statistics | None = None

    def answer(self, key: Hashable, ask: Callable[[Catalogue], T]) -> T:
        """What *ask* gets from the catalogue: the same for all who ask for *key* at once.

        Raises:
            WouldWait: where waiting is refused, unless the answer is kept.
        """
        with self._ready:
            kept = self._at_hand(key)
        if kept is None:
            waits()
            kept = self._asked_for(key, ask)
        return kept.answer  # type: ignore[return-value]  # Under a key there is one kind of answer.

    def asking(self, ask: Callable[[Catalogue], T]) -> T:
        """What *ask* gets from the catalogue, which is not kept."""
        waits()
        return ask(self._catalogue())

    def counted(self) -> Statistics | None:
        """The numbers of the catalogue: as they were when it last told them, if it does not at once.

        The disk or server of the store may not answer, and nobody who asks for numbers waits for that.
        """
        waits()
        with self._ready:
            if not self._is_counting:
                self._is_counting = True
                threading.Thread(target=self._count, name="count", daemon=True).start()
            self._ready.wait_for(lambda: not self._is_counting, _COUNTED_S)
            return self._counted

    def _count(self) -> None:
        counted = self._counted
        try:
            counted = self._catalogue().statistics()
        except StoreError:
            pass  # The server of the store is away.
        finally:
            with self._ready:
                self._counted, self._is_counting = counted, False
                self._ready.notify_all()

    def _asked_for(self, key: Hashable, ask: Callable[[Catalogue], object]) -> _Kept:
        catalogue = self._catalogue()
        with self._ready:
            while key in self._asked:
                self._ready.wait()
            if (kept := self._at_hand(key)) is not None:
                return kept
            self._asked.add(key)
            changes = self._changes
        try:
            answer = ask(catalogue)
            kept = _Kept(answer, changes, time.monotonic() + _KEPT_S)
        finally:
            with self._ready:
                self._asked.remove(key)
                self._ready.notify_all()
        with self._ready:
            self._kept[key] = kept
            self._kept.move_to_end(key)
            if len(self._kept) > _MAX_KEPT:
                self._kept.popitem(last=False)
        return kept

    def _at_hand(self, key: Hashable) -> _Kept | None:
        kept = self._kept.get(key)
        if kept is None or (kept.changes == self._changes and time.monotonic() < kept.until_s):
            return kept
        del self._kept[key]
        return None

    def _catalogue(self) -> Catalogue:
        catalogue = self._store.catalogue()
        with self._ready:
            if not self._is_hearing:
                # After the catalogue: what is asked for when this has heard of a change is the answer to it.
                self._store.announcer.subscribe(self._changed)
                self._is_hearing = True
        return catalogue

    def _changed(self, change: Change) -> None:
        if change.part not in _ELSEWHERE:
            with self._ready:
                self._changes += 1
