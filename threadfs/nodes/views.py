"""What ``by-title/``, ``by-date/`` and ``search/`` share: directories of links to threads, by their titles.

Nothing in them is stored, and the kernel keeps nothing of them: their names, times and contents are asked for
each time, of the store's catalogue. That may wait, so it is done in a thread; a lookup gives a directory
without its time, which a program then asks for if it wants it.
"""

from __future__ import annotations

import errno
import stat
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from store import Times
from store.catalogue.api import Named
from store.errors import Ambiguous
from threadfs.nodes.base import (
    Attributes,
    Directory,
    Node,
    NoSuchName,
    PathNode,
    Refused,
    Tree,
    link_attributes,
)

_S: Final = 1_000_000_000
# The latest time that programs can take: in nanoseconds it has 63 bits.
_LAST_S: Final = 2**63 // _S - 1


@dataclass(frozen=True, slots=True)
class ViewDirectory(PathNode, Directory):
    """A directory whose names the catalogue knows."""

    is_slow: ClassVar[bool] = True
    has_cheap_attributes: ClassVar[bool] = False

    @property
    def started_s(self) -> int:
        """When the mount began, in seconds since 1970: the time of what has no entries."""
        return self.tree.journal.started_ns // _S

    def times(self) -> Times:
        time_ns = self.time_ns()
        return Times(time_ns, time_ns)

    def attributes_of(self, children: Sequence[Node]) -> dict[Node, Attributes]:
        links = {child: child.thread_id for child in children if isinstance(child, ThreadLink)}
        times = self.store.times_of_threads({*links.values()})
        found: dict[Node, Attributes] = {
            link: link_attributes(link.target(), times[thread_id])
            for link, thread_id in links.items()
            if thread_id in times
        }
        return found | Directory.attributes_of(self, [child for child in children if child not in links])

    def rename(self, name: str, target: Directory, new_name: str, *, replace: bool) -> None:
        raise Refused(
            errno.EACCES, "this only shows what is there: metadata.title in meta.json names a thread"
        )

    def time_ns(self) -> int:
        """When what it shows last changed, in nanoseconds since 1970, as `time_of` makes it."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class ThreadLink(PathNode):
    """A link to a thread, with the time of that."""

    kind: ClassVar[int] = stat.S_IFLNK
    has_cheap_attributes: ClassVar[bool] = False

    directory: ViewDirectory
    name: str
    thread_id: str

    @property
    def path(self) -> str:
        return f"{self.directory.path}/{self.name}"

    def target(self) -> str:
        return f"{'../' * self.path.count('/')}threads/{self.thread_id}"

    def attributes(self) -> Attributes:
        return link_attributes(self.target(), self.store.thread_times(self.thread_id))


def time_of(newest_s: int, names: Iterable[tuple[str, str]]) -> int:
    """A time for a directory (or a text, of lines): the second of its newest entry.

    The nanoseconds are made of the names and of what they lead to. Where they are others the time is
    another one, and a kernel or a program that keeps listings by their time reads them again.
    """
    seen = 0
    for name, target in names:
        seen = zlib.crc32(f"{name}/{target}/".encode(errors="replace"), seen)
    return min(max(newest_s, 0), _LAST_S) * _S + seen % _S


def time_of_threads(named: Iterable[Named], otherwise_s: int) -> int:
    """As `time_of`, for links to threads; *otherwise_s* is the time where there are none."""
    threads = list(named)
    newest_s = max((thread.changed_ns // _S for thread in threads), default=otherwise_s)
    return time_of(newest_s, (thread[:2] for thread in threads))


def checked(name: str) -> str:
    """A name that may be one in a catalogue: those have no bytes that are no text.

    Raises:
        NoSuchName: it is none.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise NoSuchName(name) from None
    return name


def called(tree: Tree, name: str, day_s: int | None = None) -> str:
    """The thread that a name leads to, among all or those of a day.

    Raises ThreadNotFound, or Refused with the names of those who are called so.
    """
    try:
        return tree.finding.asking(lambda catalogue: catalogue.thread_called(name, day_s))
    except Ambiguous as error:
        raise Refused(errno.ENOENT, str(error)) from None
