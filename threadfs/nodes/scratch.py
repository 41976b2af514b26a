"""Temporary files and unfinished removals in canonical directories, which never reach the store.

*Scratch files* are swap and temporary files of programs, in a thread, run or ``steps`` directory. Their
names show it. A file of any other name is refused, as it would look saved and be lost.

*Staged removals* hide a file of a thread until it is written again or its directory is removed. Otherwise it
comes back after a minute. Both are stored by the path of their directory.
"""

from __future__ import annotations

import errno
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from threadfs.nodes.quota import Quota
from threadfs.nodes.refusals import Refused

STAGED_S = 60.0
# A scratch file or link that has not been open for this long was left behind.
UNUSED_S = 3600.0
# An editor's backup of a document (``status~``) may go sooner: the saved document is in the store.
UNUSED_BACKUP_S = 2.0
MAX_FILES = 10_000
MAX_BYTES = 256 * 1024 * 1024


# The beginnings and ends of names that programs give to temporary files, and the file that vim probes with.
_BEGINNINGS = (".", "#", "tmp", "sed")
_ENDS = ("~", ".tmp", ".swp", ".bak", ".orig", ".part", ".new")
_PROBE = "4913"
# A name that mkstemp(3) makes from perl's template of eight X: glibc replaces the last six, others all.
_PERL = re.compile(r"XX[A-Za-z0-9]{6}|(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])[A-Za-z0-9]{8}")


def refuse_unless_scratch(name: str, documents: Iterable[str], *, is_exclusive: bool = False) -> None:
    """Refuses a name that no program gives to a temporary file, in a directory with these *documents*.

    A random name counts as one of a temporary file only if it is created with O_EXCL (*is_exclusive*).
    """
    refuse_trash(name)
    if (
        name.startswith(_BEGINNINGS)
        or name.endswith(_ENDS)
        or name == _PROBE
        or any(document in name for document in documents)
        or (is_exclusive and _PERL.fullmatch(name))
    ):
        return
    raise Refused(
        errno.EACCES,
        f"{name!r} would be lost here: it is no part of a thread, and no program's temporary file"
        " (those are named tmp…, as in: jq … > tmp.x && mv tmp.x meta.json)",
    )


class ScratchNode(Protocol):
    """A loose node, as far as this module needs it: it imports no nodes, as all nodes hold a `Scratch`."""

    # When it was created, or last closed, on the monotonic clock.
    used_s: float

    @property
    def is_open(self) -> bool: ...
    def moved(self, parent: str, name: str) -> None: ...
    def removed(self) -> None: ...


NodeT = TypeVar("NodeT", bound=ScratchNode)


class Scratch(Generic[NodeT]):
    def __init__(self) -> None:
        self.quota = Quota(MAX_FILES, MAX_BYTES)
        self._lock = threading.Lock()
        self._files: defaultdict[str, dict[str, NodeT]] = defaultdict(dict)
        # When to look next for unused files in all directories, on the monotonic clock.
        self._look_again_s = 0.0
        # When each staged name comes back, on the monotonic clock.
        self._staged: defaultdict[str, dict[str, float]] = defaultdict(dict)
        # (directory, name) of documents that are open for their first write.
        self._appearing: set[tuple[str, str]] = set()

    # ── Scratch files ───────────────────────────────────────────────────────────────────────────────

    def files(self, directory: str) -> dict[str, NodeT]:
        with self._lock:
            self._drop_unused(directory, list(self._files.get(directory, {})))
            return dict(self._files[directory]) if directory in self._files else {}

    def file(self, directory: str, name: str) -> NodeT | None:
        if directory not in self._files:
            return None
        with self._lock:
            self._drop_unused(directory, [name])
            return self._files.get(directory, {}).get(name)

    def put(self, directory: str, name: str, node: NodeT) -> None:
        with self._lock:
            if self._look_again_s <= time.monotonic():  # Not for each of thousands of files.
                self._look_again_s = time.monotonic() + UNUSED_BACKUP_S
                for other in list(self._files):
                    self._drop_unused(other, list(self._files[other]))
            before = self._files[directory].get(name)
            self._files[directory][name] = node
        if before is not None and before is not node:
            before.removed()
        node.moved(directory, name)

    def take(self, directory: str, name: str) -> NodeT | None:
        with self._lock:
            if directory not in self._files:
                return None
            node = self._files[directory].pop(name, None)
            if not self._files[directory]:
                del self._files[directory]
            return node

    def _drop_unused(self, directory: str, names: Iterable[str]) -> None:
        now_s = time.monotonic()
        files = self._files.get(directory, {})
        for name in names:
            node = files.get(name)
            unused_s = UNUSED_BACKUP_S if name.endswith("~") else UNUSED_S
            if node is not None and not node.is_open and node.used_s < now_s - unused_s:
                del files[name]
                node.removed()
        if directory in self._files and not files:
            del self._files[directory]

    # ── Staged removals ─────────────────────────────────────────────────────────────────────────────

    def stage(self, directory: str, name: str) -> None:
        with self._lock:
            self._staged[directory][name] = time.monotonic() + STAGED_S

    def unstage(self, directory: str, name: str) -> None:
        with self._lock:
            if directory in self._staged:
                self._staged[directory].pop(name, None)

    def is_staged(self, directory: str, name: str) -> bool:
        with self._lock:
            if directory not in self._staged:
                return False
            back_s = self._staged[directory].get(name)
            if back_s is not None and back_s <= time.monotonic():
                del self._staged[directory][name]
                back_s = None
            return back_s is not None

    def is_unused(self, directory: str) -> bool:
        """Whether *directory* has no scratch files, staged removals or appearing documents."""
        if not (self._files or self._staged or self._appearing):
            return True
        if directory in self._files or self._staged.get(directory):
            return False
        return not self._appearing or all(parent != directory for parent, _ in list(self._appearing))

    def unstage_below(self, directory: str) -> None:
        """Shows all names in *directory* and below again, as after a failed removal."""
        with self._lock:
            for path in [path for path in self._staged if _is_below(path, directory)]:
                del self._staged[path]

    def forget_below(self, directory: str) -> None:
        """*directory* was removed or replaced."""
        self.unstage_below(directory)
        with self._lock:
            gone = [self._files.pop(path) for path in list(self._files) if _is_below(path, directory)]
        for files in gone:
            for node in files.values():
                node.removed()

    # ── New documents ───────────────────────────────────────────────────────────────────────────────

    def appears(self, directory: str, name: str) -> None:
        """Shows a document that is open for its first write as an empty file, until it is closed."""
        with self._lock:
            self._appearing.add((directory, name))

    def is_appearing(self, directory: str, name: str) -> bool:
        return (directory, name) in self._appearing

    def appeared(self, directory: str, name: str) -> None:
        with self._lock:
            self._appearing.discard((directory, name))


def refuse_trash(name: str) -> None:
    """Refuses a trash directory: it would move data into the scratch space instead of deleting it."""
    if name.startswith((".Trash", ".trash")):
        raise Refused(errno.EACCES, "there is no trash here: delete permanently")


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + "/")
