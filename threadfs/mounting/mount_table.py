"""The mounts in ``/proc/self/mountinfo``. Reading it calls no mount, so it never hangs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

KIND = "fuse.threadfs"
_MOST_LINKS = 40


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system.

    *device* is the number of the file system, ``major:minor``, which is unique among mounted ones. *options*
    are the options of this mount, *shared* those of the file system in all places where it is mounted.
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
        """The user and group that mounted it, if it is a FUSE mount. Its *source* is only their claim."""
        values = dict(option.partition("=")[::2] for option in self.shared)
        return int(values.get("user_id", 0)), int(values.get("group_id", 0))


def mounts() -> Iterator[Mount]:
    """All mounts; of several on one place, the one on top comes last."""
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
    """The visible mount on *mountpoint*, a real path; ``None`` if nothing is mounted there."""
    found = [mount for mount in mounts() if mount.mountpoint == mountpoint]
    return found[-1] if found else None


def place_of(path: str) -> str:
    """The real path of *path*, found without a call to a mount on it, which may hang."""
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
