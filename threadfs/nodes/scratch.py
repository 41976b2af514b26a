"""What programs do beside the data in a canonical directory, which the store never hears of.

*Scratch files* have names that mean nothing in a thread, run or ``steps`` directory, and that programs give
to their swap and temporary files. A file of any other name is refused, as it would be lost.

*Staged removals* hide a file that is part of a thread, until it is written again or its directory is removed;
when neither happens it is back after a minute. Both are kept by the directory's path.
"""

from __future__ import annotations

import errno
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterable

from threadfs.nodes.base import Refused
from threadfs.nodes.loose import LooseNode, Quota

STAGED_S = 60.0
# A scratch file (or link) that nobody has open or touched for this long was left behind.
UNUSED_S = 3600.0
# An editor's backup of a document (``status~``): some keep it, but what was saved is in the store.
UNUSED_BACKUP_S = 2.0
MAX_FILES = 10_000
MAX_BYTES = 256 * 1024 * 1024


# What programs begin and end the names of their temporary files with, and vim's probe.
_BEGINNINGS = (".", "#", "tmp", "sed")
_ENDS = ("~", ".tmp", ".swp", ".bak", ".orig", ".part", ".new")
_PROBE = "4913"
# What mkstemp(3) makes of perl's template of eight X: glibc replaces the last six of them, others all.
_PERL = re.compile(r"XX[A-Za-z0-9]{6}|(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])[A-Za-z0-9]{8}")


def refuse_unless_scratch(name: str, documents: Iterable[str], *, is_exclusive: bool = False) -> None:
    """Refuses a name that no program gives to a temporary file, in a directory that holds *documents*.

    Some names are those of temporary files only where nobody else's file is taken (*is_exclusive*).
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


class Scratch:
    def __init__(self) -> None:
        self.quota = Quota(MAX_FILES, MAX_BYTES)
        self._lock = threading.Lock()
        self._files: defaultdict[str, dict[str, LooseNode]] = defaultdict(dict)
        # When all are looked through again for those that are unused, on the monotonic clock.
        self._look_again_s = 0.0
        # When each staged name is back, and until when a name that is being made is shown.
        self._staged: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self._appearing: set[tuple[str, str]] = set()

    # ── Scratch files ───────────────────────────────────────────────────────────────────────────────

    def files(self, directory: str) -> dict[str, LooseNode]:
        with self._lock:
            self._drop_unused(directory, list(self._files.get(directory, {})))
            return dict(self._files[directory]) if directory in self._files else {}

    def file(self, directory: str, name: str) -> LooseNode | None:
        with self._lock:
            self._drop_unused(directory, [name])
            return self._files.get(directory, {}).get(name)

    def put(self, directory: str, name: str, node: LooseNode) -> None:
        with self._lock:
            if self._look_again_s <= time.monotonic():  # Not at each of thousands.
                self._look_again_s = time.monotonic() + UNUSED_BACKUP_S
                for other in list(self._files):
                    self._drop_unused(other, list(self._files[other]))
            before = self._files[directory].get(name)
            self._files[directory][name] = node
        if before is not None and before is not node:
            before.removed()
        node.moved(directory, name)

    def take(self, directory: str, name: str) -> LooseNode | None:
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
            kept_s = UNUSED_BACKUP_S if name.endswith("~") else UNUSED_S
            if node is not None and not node.is_open and node.used_s < now_s - kept_s:
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
        """Whether nothing is added to what the store holds there, and nothing hidden."""
        return directory not in self._files and not self._staged.get(directory)

    def unstage_below(self, directory: str) -> None:
        """All is back in *directory* and below: it could not be removed."""
        with self._lock:
            for path in [path for path in self._staged if _is_below(path, directory)]:
                del self._staged[path]

    def forget_below(self, directory: str) -> None:
        """*directory* has gone, or is another one now."""
        self.unstage_below(directory)
        with self._lock:
            gone = [self._files.pop(path) for path in list(self._files) if _is_below(path, directory)]
        for files in gone:
            for node in files.values():
                node.removed()

    # ── Documents that are being made ───────────────────────────────────────────────────────────────

    def appears(self, directory: str, name: str) -> None:
        """A document that is open for its first writing shows as empty, until it is closed."""
        with self._lock:
            self._appearing.add((directory, name))

    def is_appearing(self, directory: str, name: str) -> bool:
        return (directory, name) in self._appearing

    def appeared(self, directory: str, name: str) -> None:
        with self._lock:
            self._appearing.discard((directory, name))


def refuse_trash(name: str) -> None:
    """A trash in here would move data into the scratch space, instead of deleting it."""
    if name.startswith((".Trash", ".trash")):
        raise Refused(errno.EACCES, "there is no trash here: delete permanently")


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + "/")
