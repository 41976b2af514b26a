"""Print what happens in a store, a line of JSON for each event, until an interrupt (Ctrl-C) or until nobody
reads it any more: threads, messages, runs and steps that come, change or go, whichever program or host has
done it. When the store is gone, or STORE is a mount of yours that has ended, it says so and ends with the
exit status 1.

A line has `time`, `event` (`thread.created`, `message.created`, `run.queued`, `run.completed`, `step.created`
and the like), `thread_id`, and `run_id`, `message_id`, `step_id` and `status` where they apply.
`changes.missed` says that more may have happened.

With --since it begins with what happened before: of a mount by the events that it keeps (its last 10,000), of
a store by the times in its documents, which do not tell of what was deleted. TIME is an age like 90s, 15m or
12h, or as ISO 8601 has it, local or with a zone.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from threadfs.commands import CommandFailed, progress
from threadfs.commands.places import add_store, tell_if_empty

if TYPE_CHECKING:
    from collections.abc import Iterable

    from store import Change, DocumentKey, Store
    from threadfs.commands.changes import Changes
    from threadfs.events.event import Event
    from threadfs.events.states import State
    from threadfs.events.telling import Heard
    from threadfs.mounting.life_line import LifeLine
    from threadfs.mounting.mount_table import Mount

EXAMPLES = """\
examples:
  threadfs events ~/assistants
  threadfs events ~/mnt --since 1h --thread idea
  threadfs events ~/mnt | jq --unbuffered -r 'select(.event == "run.completed") | .thread_id'"""

_NS = 1_000_000_000


def arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument(
        "--since",
        dest="since_ns",
        metavar="TIME",
        type=time_ns,
        help="begin with what happened since: an age (12h), or a time like 2026-11-29T18:30",
    )
    parser.add_argument("--thread", metavar="THREAD", help="only the events of this thread")


def time_ns(text: str) -> int:
    """A time in nanoseconds since 1970. Raises ArgumentTypeError."""
    from datetime import datetime

    from threadfs.commands.ages import age_s

    with suppress(argparse.ArgumentTypeError):
        return time.time_ns() - age_s(text) * _NS
    with suppress(ValueError, OverflowError):
        return int(datetime.fromisoformat(text).timestamp() * _NS)
    raise argparse.ArgumentTypeError(f"{text!r} is no time: write an age like 12h, or 2026-11-29T18:30")


def run(options: argparse.Namespace) -> int:
    from threadfs.commands.changes import MountEnded

    try:
        return _tell(options)
    except MountEnded:
        raise CommandFailed(f"the mount on {options.store} has ended") from None


def _tell(options: argparse.Namespace) -> int:
    """Tells until an exception ends it: among them MountEnded."""
    from store import DocumentKey, Part
    from store.changes import change_of
    from threadfs import stores
    from threadfs.commands.changes import Changes
    from threadfs.events.telling import Telling

    mount = _mount_on(options.store)
    line = _line_to(mount) if mount else None
    store = stores.open_store(options.store)
    tell_if_empty(options.store)
    if options.thread is not None:
        store.document_info(DocumentKey(options.thread))
    printer = _Printer()
    came: deque[Heard] = deque()
    began_ns = time.time_ns()

    def concerns(change: Change, told: State | None = None) -> bool:
        if options.thread not in (None, change.thread_id) and change.part is not Part.EVERYTHING:
            return False
        heard = telling.heard(change, told)
        if heard is not None:
            came.append(heard)
        return heard is not None

    def follow(key: DocumentKey, told: State) -> None:
        _follow(changes, key)
        concerns(change_of(Part.DOCUMENT, key), told)  # It may have changed between.

    telling = Telling(store, follow)
    with Changes(store, concerns, until_unread=True, mount=line) as changes:
        _follow_all(store, changes, options.thread)
        if not changes.are_reported:
            progress.complain("not all changes by other programs are reported here: some will not be told")
        if options.since_ns is not None:
            earlier = _of_mount(mount, options) if mount else _of_store(store, options)
            printer.write(earlier, began_ns)
        while True:
            while came:
                heard = came.popleft()
                printer.write(telling.events(heard))
                if heard.change.part is Part.EVERYTHING:
                    _follow_all(store, changes, options.thread)
            printer.flush()
            changes.wait()


def _mount_on(location: str) -> Mount | None:
    from threadfs import stores
    from threadfs.mounting.mount_table import on_top, place_of

    mount = None if stores.is_url(location) else on_top(place_of(location))
    return mount if mount and mount.is_threadfs else None


def _line_to(mount: Mount) -> LifeLine | None:
    """A line that breaks when the mount ends; ``None`` for one of another user, who lets nobody wait.

    Raises:
        MountEnded: it has ended already.
    """
    from threadfs.commands.changes import MountEnded
    from threadfs.commands.list_ import DEAD, state_of
    from threadfs.mounting.life_line import LifeLine

    if os.geteuid() not in (0, mount.owner[0]):
        return None
    line = LifeLine(mount)
    if line.pid is None and state_of(mount) == DEAD:
        raise MountEnded
    return line if line.pid else None


def _follow_all(store: Store, changes: Changes, thread_id: str | None) -> None:
    """Has everything reported from now on, as far as it is not yet."""
    from store import DocumentKey, NotFound

    if thread_id is None:
        changes.follow(DocumentKey(""))
        changes.follow_all_runs()
    for each_id in store.list_thread_ids() if thread_id is None else [thread_id]:
        if not store.reports_all_of(each_id):
            _follow(changes, DocumentKey(each_id))
        if thread_id is not None:
            with suppress(NotFound):
                for run_id in store.list_run_ids(thread_id):
                    _follow(changes, DocumentKey(thread_id, run_id))


def _follow(changes: Changes, key: DocumentKey) -> None:
    """Follows a thread or run, and the list in it."""
    from store import DocumentKey

    below = (
        DocumentKey(key.thread_id, "") if key.run_id is None else DocumentKey(key.thread_id, key.run_id, "")
    )
    changes.follow(key, below)


def _of_store(store: Store, options: argparse.Namespace) -> Iterable[Event]:
    from threadfs.events.history import events_since

    thread_ids = store.list_thread_ids() if options.thread is None else [options.thread]
    return events_since(store, options.since_ns, thread_ids)


def _of_mount(mount: Mount, options: argparse.Namespace) -> Iterable[Event]:
    from threadfs.events.event import event_of
    from threadfs.mounting.asking import answer_of

    def kept() -> list[bytes]:
        with open(f"{mount.mountpoint}/.threadfs/events", "rb") as lines:
            return lines.readlines()

    found = []
    for line in answer_of(mount, kept):
        with suppress(ValueError):  # It has been dropped while it was read, as newer ones came.
            found.append(event_of(line))
    return [
        event
        for event in found
        if event.time_ns >= options.since_ns and options.thread in (None, event.thread_id)
    ]


class _Printer:
    """Prints events. What happened about when it began may be heard of twice, and is printed once."""

    def __init__(self) -> None:
        self._earlier: set[tuple[object, ...]] = set()
        # When what happened earlier had been read.
        self._read_ns = 0

    def write(self, events: Iterable[Event], began_ns: int | None = None) -> None:
        """With *began_ns*, those of before that time, and of its second perhaps."""
        for event in events:
            what = event[1:]
            if began_ns is not None and event.time_ns >= began_ns // _NS * _NS:
                self._earlier.add(what)
            elif began_ns is None and what in self._earlier:
                self._earlier.discard(what)
                if event.status is None or event.time_ns <= self._read_ns:
                    continue
                event = event._replace(name=f"{event.name.partition('.')[0]}.updated")
            if sys.stdout is not None:
                sys.stdout.buffer.write(event.line())
        if began_ns is not None:
            self._read_ns = time.time_ns()

    @staticmethod
    def flush() -> None:
        if sys.stdout is not None:
            sys.stdout.buffer.flush()
