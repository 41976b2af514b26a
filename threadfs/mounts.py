"""What is mounted, as ``/proc/self/mountinfo`` tells, which asks no mount and so never hangs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

KIND = "fuse.threadfs"
_MOST_LINKS = 40


@dataclass(frozen=True, slots=True)
class Mount:
    """*device* is the number of the file system, ``major:minor``: no two that are mounted share it.

    *options* are those of the mount, *shared* those of the file system, wherever it is mounted.
    """

    mountpoint: str
    kind: str
    source: str
    device: str
    options: frozenset[str]
    shared: frozenset[str]

    @property
    def is_threadfs(self) -> bool:
        return self.kind == KIND

    @property
    def owner(self) -> tuple[int, int]:
        """The user and group that mounted it, where it is FUSE's; another's may claim to show anything."""
        said = dict(option.partition("=")[::2] for option in self.shared)
        return int(said.get("user_id", 0)), int(said.get("group_id", 0))


def mounts() -> Iterator[Mount]:
    """All mounts, of those on one place the one on top last."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.rstrip("\n").partition(" - ")
            fields = before.split(" ")
            kind, source, shared, *_ = [*after.split(" "), ""]
            yield Mount(
                mountpoint=_unescaped(fields[4]),
                kind=kind,
                source=_unescaped(source),
                device=fields[2],
                options=frozenset(fields[5].split(",")),
                shared=frozenset(shared.split(",")),
            )


def on_top(mountpoint: str) -> Mount | None:
    """What is mounted on *mountpoint*, which is a real path."""
    found = [mount for mount in mounts() if mount.mountpoint == mountpoint]
    return found[-1] if found else None


def place_of(path: str) -> str:
    """The real path of *path*, found without a question to a mount that stands there: it may not answer."""
    place = os.path.expanduser(path)
    for _ in range(_MOST_LINKS):
        above, name = os.path.split(place.rstrip("/"))
        if name in ("", ".", ".."):
            break
        place = os.path.join(os.path.realpath(above or "."), name)
        if on_top(place) or not os.path.islink(place):
            return place
        place = os.path.join(os.path.dirname(place), os.readlink(place))
    return os.path.realpath(place)


def _unescaped(field: str) -> str:
    """Undoes the octal escapes of blanks and backslashes."""
    raw = field.encode(errors="surrogateescape")
    out, index = bytearray(), 0
    while index < len(raw):
        if raw[index : index + 1] == b"\\" and raw[index + 1 : index + 4].isdigit():
            out.append(int(raw[index + 1 : index + 4], 8))
            index += 4
        else:
            out.append(raw[index])
            index += 1
    return os.fsdecode(bytes(out))
