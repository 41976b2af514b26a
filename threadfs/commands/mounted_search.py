"""Searching by a mount of the store, which knows what has changed: nothing is compared, and little loaded."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from threadfs.mounting.asking import answer_of
from threadfs.mounting.life_line import server_of
from threadfs.mounting.mount_table import Mount, mounts, on_top, place_of

_MAX_NAME_BYTES = 255
_LEFT_OUT = re.compile(r"… (at least )?(\d+) older hits are left out.*")


class Found(NamedTuple):
    """The lines of ``hits.txt``, the newest first, and how many hits it leaves out, or at least how many."""

    lines: list[str]
    left_out: int
    is_bounded: bool


def asked(location: str, query: str) -> Found | None:
    """What a mount of ours of the store at *location*, or there, finds; ``None``: it has to be found without.

    Also where the mount refuses the query, or says more than hits: so whoever asks without it says why.
    """
    name = os.fsencode(query)
    if not name or len(name) > _MAX_NAME_BYTES or name.startswith(b".") or b"/" in name or b"\0" in name:
        return None
    mount = None if "://" in location else _mount_of(location)
    if mount is None:
        return None
    path = os.path.join(os.fsencode(mount.mountpoint), b"search", name, b"hits.txt")
    try:
        lines = answer_of(mount, lambda: _read(path)).decode(errors="replace").split("\n")[:-1]
    except OSError:
        return None
    left_out = _LEFT_OUT.fullmatch(lines[-1]) if lines else None
    if left_out:
        del lines[-1]
    if not all(line.startswith("threads/") for line in lines):
        return None
    return Found(lines, int(left_out[2]) if left_out else 0, bool(left_out and left_out[1]))


def _read(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _mount_of(location: str) -> Mount | None:
    """A mount of this user that is served."""
    there = on_top(place_of(location))
    source = os.path.abspath(os.path.expanduser(location))
    for mount in [there] if there and there.is_threadfs else mounts():
        if (
            mount.is_threadfs
            and mount.owner[0] == os.geteuid()
            and (mount is there or mount.source == source)
        ):
            on = on_top(mount.mountpoint)
            if on and on.device == mount.device and server_of(mount) is not None:
                return mount
    return None
