"""Lists of the directories that hold a document, with one look at each."""

from __future__ import annotations

import os
import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from store import names
from store.disk import paths
from store.disk.layout import Parts
from store.disk.looking_ahead import looking_ahead
from store.disk.paths import opened, storage_errors
from store.waiting import waits

# A shorter list is read each time ...
_REMEMBERED_LENGTH = 64
# ... and no more lists than these are remembered.
_REMEMBERED_LISTS = 256
# A directory that changed less than this before it was read may change again without getting another time.
# The time is its ctime, because its mtime can be set back.
_SETTLED_NS = 3_000_000_000


@dataclass(slots=True)
class _Seen:
    """The contents of a directory when it was read.

    ``present`` and ``others`` are the inode numbers, by name, of directories with and without their document.
    """

    changed_ns: int
    present: dict[str, int]
    others: dict[str, int]


class _Remembered:
    """What was seen in a long list, in little memory."""

    def __init__(self, seen: _Seen) -> None:
        self._changed_ns = seen.changed_ns
        self.names = [*seen.present]
        self._inodes = array("Q", seen.present.values())
        self._others = seen.others
        # Those whose directory, or document, has gone since. Other threads add to it.
        self.gone: set[str] = set()

    def is_still(self, changed_ns: int) -> bool:
        """Whether the names are those that a directory with this ctime has."""
        return self._changed_ns == changed_ns and not self._others and not self.gone

    def seen(self, gone: Collection[str]) -> _Seen:
        """What to look at again, when these have *gone*."""
        present = dict(zip(self.names, self._inodes, strict=True))
        without = {name: present.pop(name) for name in gone if name in present}
        return _Seen(self._changed_ns, present, {**self._others, **without})


class Listing:
    """The threads of a store, the runs of a thread: the directories below one that hold a document."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._remembered: OrderedDict[Parts, _Remembered] = OrderedDict()
        self._reading = threading.Lock()
        # Called with a list and the directories in it without a document; whether one may have come since.
        self.on_incomplete: Callable[[Parts, Collection[str]], bool] = lambda parts, without: False

    def ids(self, parts: Parts, document: str) -> list[str]:
        """The ids of the directories below *parts* that hold *document*, in the order of the disk."""
        if parts:
            return self._ids(parts, document)
        # The longest list is read by one thread at a time: the others find it, and have the same texts.
        with self._reading:
            return self._ids(parts, document)

    def _ids(self, parts: Parts, document: str) -> list[str]:
        with opened(self._root, *parts) as directory:
            if directory is None:
                return []
            remembered = self._remembered.get(parts)
            with storage_errors("/".join(parts) or self._root):
                changed_ns = os.fstat(directory).st_ctime_ns
                if remembered is not None and remembered.is_still(changed_ns):
                    return [*remembered.names]
                waits()
                gone = set(remembered.gone) if remembered is not None else set()
                seen = remembered.seen(gone) if remembered is not None else _Seen(0, {}, {})
                if seen.changed_ns != changed_ns:
                    seen = _read(directory, document, seen.present)
                else:
                    _look_again(directory, document, seen)
                if seen.others and self.on_incomplete(parts, seen.others):
                    _look_again(directory, document, seen)
        if len(seen.present) >= _REMEMBERED_LENGTH:
            is_settled = abs(time.time_ns() - changed_ns) > _SETTLED_NS
            seen.changed_ns = changed_ns if is_settled else 0
            following = _Remembered(seen)
            self._remember(parts, following)
            if remembered is not None:  # What has gone meanwhile; `forget` cares for what goes from now on.
                following.gone |= remembered.gone - gone
        return list(seen.present)

    def _remember(self, parts: Parts, remembered: _Remembered) -> None:
        # Another thread may do the same; each of these steps is atomic.
        self._remembered[parts] = remembered
        if len(self._remembered) > _REMEMBERED_LISTS:
            self._remembered.popitem(last=False)

    def forget(self, parts: Parts) -> None:
        """A directory, or its document, has gone."""
        remembered = None
        while remembered is not (remembered := self._remembered.get(parts[:-1])):
            if remembered is not None:
                remembered.gone.add(parts[-1])


def _read(directory: int, document: str, known: dict[str, int]) -> _Seen:
    # The same texts as before, which others have, too.
    names_before = {name: name for name in known}
    with os.scandir(directory) as entries:
        found = {
            names_before.get(e.name, e.name): e.inode() for e in entries if e.is_dir(follow_symlinks=False)
        }
    present = {name: inode for name, inode in found.items() if known.get(name) == inode}
    if len(present) == len(found):
        return _Seen(0, present, {})
    new = [name for name, inode in found.items() if known.get(name) != inode and names.is_id(name)]
    looked_at: Iterable[str] = new
    if len(new) >= _REMEMBERED_LENGTH:
        looked_at = looking_ahead(new, lambda name: _holds(directory, name, document))
    holding = {name for name in looked_at if _holds(directory, name, document)}
    present = {name: inode for name, inode in found.items() if known.get(name) == inode or name in holding}
    return _Seen(0, present, {name: found[name] for name in new if name not in holding})


def _look_again(directory: int, document: str, seen: _Seen) -> None:
    for name, inode in list(seen.others.items()):
        if _holds(directory, name, document):
            seen.present[name] = inode
            seen.others.pop(name, None)


def _holds(directory: int, name: str, document: str) -> bool:
    try:
        os.stat(f"{name}/{document}", dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        # A document that cannot be looked at counts: opening it says why, and a backup must not leave it out.
        return error.errno not in paths.MISSING
    return True
