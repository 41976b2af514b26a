"""What a store tells of changes: one stream, whoever makes them.

A store announces each change that is made through it before the method returns, and the changes of others
when it hears of them. The subscribers are called one after the other. So when a method has returned, each of
them knows: what is remembered of the store is right again, and the kernel has forgotten what it knew.

To hear of others a store has to watch, and watches may be few. So a subscriber says what it wants to follow.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TypeAlias

from store.keys import Keys
from store.names import DocumentKey

log = logging.getLogger("threadfs")


class Part(Enum):
    """The part of a store that a `Change` is about."""

    THREADS = "a thread came or went"
    DOCUMENT = "a document came, went or is another"
    LOG = "the message log of a thread"
    RUNS = "a run of a thread came or went"
    STEPS = "a step of a run came or went"
    ANSWER = "the answer of a run grew, began or ended"
    WORKERS = "a worker came, went or has another state"
    TIMES = "only the thread's mtime changed"
    EVERYTHING = "changes were missed: anything may be other than it was"


@dataclass(frozen=True, slots=True)
class Change:
    """*part* of the store changed, or may have changed; the ids say which one.

    ``is_own``: it was made through the store that announces it. If a thread or run came, it is the one that
    was made through this store.
    ``has_come``, of a thread or run: a directory has come for it, where none was before. A change is the same
    one where that is not known.
    ``grew``, of a log: it is the same file as before, and its bytes are others, most often more.
    ``only_times``, of a document or log: its bytes are the same.
    """

    part: Part
    thread_id: str = ""
    run_id: str | None = None
    step_id: str | None = None
    is_own: bool = False
    has_come: bool = field(default=False, compare=False)
    grew: bool = False
    only_times: bool = False

    @property
    def key(self) -> DocumentKey:
        return DocumentKey(self.thread_id, self.run_id, self.step_id)


def change_of(part: Part, key: DocumentKey) -> Change:
    return Change(part, key.thread_id, key.run_id, key.step_id)


Subscriber: TypeAlias = Callable[[Change], None]


class Announcer:
    """Tells the subscribers of a store of each change, in their order.

    It may be called from several threads at once, and then calls the subscribers from these.

    A subscriber may use the store, and wait for other threads that do, with one exception. While it is told
    of a change by others, a store on a disk hears of no further ones. So it must not list runs by status,
    take over runs or close a watch, which wait for that, nor wait for a thread that does.
    """

    def __init__(self, first: Subscriber = lambda change: None) -> None:
        # What the store remembers of itself: the other subscribers ask it when they are called.
        self.first = first
        # Guards the others, of which each change makes a new tuple.
        self._lock = threading.Lock()
        self._others: tuple[Subscriber, ...] = ()
        # How many changes of contents were made through the store.
        self.commits = 0

    def subscribe(self, subscriber: Subscriber) -> None:
        with self._lock:
            self._others = (*self._others, subscriber)

    def subscribe_first(self, subscriber: Subscriber) -> None:
        """As `subscribe`, before all that have subscribed so far: they may ask what it answers."""
        with self._lock:
            self._others = (subscriber, *self._others)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        with self._lock:
            self._others = tuple(other for other in self._others if other != subscriber)

    def announce(self, *changes: Change) -> None:
        """Returns when all subscribers have been called with all *changes*; raises nothing."""
        for change in changes:
            self._tell((self.first, *self._others), change)

    def tell_others(self, change: Change) -> None:
        """As `announce`, for the first subscriber, which knows of it."""
        self._tell(self._others, change)

    def _tell(self, subscribers: tuple[Subscriber, ...], change: Change) -> None:
        for subscriber in subscribers:
            try:
                subscriber(change)
            except Exception:
                log.exception("%s could not be passed on: anything may have changed", change)
                if change.part is not Part.EVERYTHING:
                    self.announce(Change(Part.EVERYTHING))

    @contextmanager
    def announcing(self, *, is_commit: bool = True) -> Iterator[list[Change]]:
        """Announces what is put into the list in a block, also if it fails, since it may be done by then.

        A lock that the change takes is to be released within the block.
        """
        changes: list[Change] = []
        try:
            yield changes
        except BaseException:
            is_commit = False
            raise
        finally:
            self.commits += is_commit and bool(changes)
            self.announce(*(replace(change, is_own=True) for change in changes))


class Watch:
    """A subscription to the changes of a store: own ones, and those of others in what it follows.

    A key stands for a thread, with its document and log; a run, with its document and the text of its answer;
    the workers (`store.names.WORKERS`); or a list. An empty last id stands for a list: ``DocumentKey("")``
    for the list of threads, ``DocumentKey(T, "")`` for the runs of T, ``DocumentKey(T, R, "")`` for the
    steps of R. Changes in what others follow may be reported, too.

    This class hears of own changes alone. A store that can hear of others derives one from it.
    """

    # Why `follow` says no, though it need not, in words for the user; empty when all is well.
    lack = ""

    def __init__(self, announcer: Announcer, on_change: Subscriber | None) -> None:
        """Without *on_change*, it only says what is to be followed."""
        self._announcer = announcer
        self._on_change = on_change
        # Guards the three below. Nothing waits for a disk or server while it is held.
        self._lock = threading.Lock()
        # What is followed, for how many holders: less than zero while the changes of others are not reported.
        # Of how many they are; and how often such reports were missed.
        self._held = Keys()
        self._number_covered = 0
        self._losses = 0
        if on_change is not None:
            announcer.subscribe(on_change)

    @property
    def covered(self) -> AbstractSet[DocumentKey]:
        """That of which the changes of others are reported, as it is at any time."""
        return _Covered(self)

    def follow(self, key: DocumentKey, *, with_list: bool = False) -> bool:
        """Follows *key*, also again after `Part.EVERYTHING`, when it may be followed no longer.

        *with_list*: as well as the list in it, which is quicker than one after the other.

        Returns:
            Whether changes made by other programs will be reported; False when the system has no watch
            left, or cannot watch where the store is. Then it may be tried again.
        """
        keys = (key, key.list_in_it) if with_list else (key,)
        with self._lock:
            if all(map(self.covers, keys)):
                return True
            new = [one for one in keys if one not in self._held]
            for one in new:
                self._add(one)
        return self._cover(keys, new)

    def hold(self, key: DocumentKey) -> bool:
        """As `follow`, for one holder more: it is followed until `forget` was called for each of them."""
        with self._lock:
            self._add(key)
            if self.covers(key):
                return True
        return self._cover((key,), [key])

    def _cover(self, keys: tuple[DocumentKey, ...], new: list[DocumentKey]) -> bool:
        losses = self._losses
        try:
            is_covered = self._begin(keys[0]) if len(keys) == 1 else self._begin_with_list(keys[0])
        except BaseException:
            for key in new:
                self.forget(key)
            raise
        with self._lock:
            if is_covered and losses == self._losses:
                for key in keys:
                    if self._held.number(key) < 0:
                        self._held[key] *= -1
                        self._number_covered += 1
        return is_covered

    def forget(self, key: DocumentKey) -> None:
        """There is one holder less."""
        with self._lock:
            holders = self._held.number(key)
            if abs(holders) > 1:
                self._held[key] = holders - 1 if holders > 0 else holders + 1
                return
            if not self._remove(key):
                return
        self._end(key)

    def is_heard(self, key: DocumentKey) -> bool:
        """Whether changes of *key* by others are heard of, also if another watch follows it."""
        return self.covers(key)

    def holds(self, key: DocumentKey) -> bool:
        return key in self._held

    def covers(self, key: DocumentKey) -> bool:
        """Whether *key* is followed, and the changes of others are reported."""
        return self._held.number(key) > 0

    @property
    def number_covered(self) -> int:
        return self._number_covered

    @property
    def uncovered(self) -> int:
        """Of how much that is followed the changes of others are not reported."""
        with self._lock:
            return len(self._held) - self._number_covered

    def held(self) -> list[DocumentKey]:
        """All that is followed."""
        with self._lock:
            return list(self._held)

    def lose(self) -> None:
        """Reports may have been missed, and what is followed may be so no longer."""
        with self._lock:
            self._losses += 1
            self._number_covered = 0
            # In one step for those who look without the lock.
            lost = Keys()
            lost.update((key, -abs(holders)) for key, holders in self._held.items())
            self._held = lost

    def close(self) -> None:
        if self._on_change is not None:
            self._announcer.unsubscribe(self._on_change)

    # ── What a store can do ──────────────────────────────────────────────────────────────────────────

    def _begin(self, key: DocumentKey) -> bool:
        """Begins to hear of changes by others, unless that has begun; whether it could."""
        return False

    def _begin_with_list(self, key: DocumentKey) -> bool:
        """As `_begin`, also of the list in it."""
        return self._begin(key) and self._begin(key.list_in_it)

    def _end(self, key: DocumentKey) -> None:
        """*key* is followed no longer."""

    def _add(self, key: DocumentKey) -> None:
        """There is one holder more; called with the lock held."""
        holders = self._held.number(key)
        self._held[key] = holders + 1 if holders > 0 else holders - 1

    def _remove(self, key: DocumentKey) -> bool:
        """There is no holder left; called with the lock held. False if there was none."""
        holders = self._held.pop(key, 0)
        self._number_covered -= holders > 0
        return holders != 0


class _Covered(AbstractSet[DocumentKey]):
    """A view on what a watch covers."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def __contains__(self, key: object) -> bool:
        return isinstance(key, DocumentKey) and self._watch.covers(key)

    def __iter__(self) -> Iterator[DocumentKey]:
        return filter(self._watch.covers, self._watch.held())

    def __len__(self) -> int:
        return self._watch.number_covered
