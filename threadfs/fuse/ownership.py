"""Whose the files are shown to be and which permissions they have: ``-o uid=,gid=,umask=,fmask=,dmask=``.

With ``--allow-other`` the kernel lets everybody do what is shown. The store's own files are not concerned.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

_MAX_ID = 2**32 - 2
_IDS = ("uid", "gid")
_MASKS = ("umask", "fmask", "dmask")


@dataclass(frozen=True, slots=True)
class Ownership:
    """By default the mounting user's. A mask removes permissions; without one they stay as they are."""

    uid: int = field(default_factory=os.getuid)
    gid: int = field(default_factory=os.getgid)
    file_mask: int | None = None
    directory_mask: int | None = None

    def shown(self, mode: int) -> int:
        """The type and permissions of what has none of its own. What is derived stays read-only."""
        if self.directory_mask is not None and stat.S_ISDIR(mode):
            return stat.S_IFDIR | (0o777 & ~self.directory_mask)
        if self.file_mask is not None and stat.S_ISREG(mode):
            return stat.S_IFREG | ((0o666 if mode & 0o222 else 0o444) & ~self.file_mask)
        return mode

    def of_new(self, mode: int) -> int:
        """The permissions of what has its own, as somebody makes it with this type and these permissions."""
        if stat.S_ISDIR(mode) and self.directory_mask is not None:
            return 0o777 & ~self.directory_mask
        if stat.S_ISREG(mode) and self.file_mask is not None:
            return (0o666 | (mode & 0o111)) & ~self.file_mask
        return stat.S_IMODE(mode)


def is_option(name: str) -> bool:
    return name in _IDS or name in _MASKS


def value(name: str, text: str) -> int:
    """What the option *name* says.

    Raises:
        ValueError: nothing; in words.
    """
    if name in _MASKS:
        if not re.fullmatch("0?[0-7]{1,3}", text):
            raise ValueError(f"{name}={text!r} is no mask of permissions in octal, such as 022")
        return int(text, 8)
    if not re.fullmatch("[0-9]+", text):
        return _id_of(name, text)
    if int(text) > _MAX_ID:
        raise ValueError(f"{name}={text} is too large")
    return int(text)


def _id_of(name: str, text: str) -> int:
    import grp
    import pwd

    find: Callable[[str], int]
    if name == "uid":
        what, find = "user", lambda text: pwd.getpwnam(text).pw_uid
    else:
        what, find = "group", lambda text: grp.getgrnam(text).gr_gid
    try:
        return find(text)
    except (KeyError, ValueError):
        raise ValueError(f"{name}={text!r} is neither a number nor the name of a {what}") from None


def ownership_of(options: Mapping[str, str]) -> Ownership:
    """What *options*, which have been checked, say; ``fmask`` and ``dmask`` win over ``umask``."""
    given = {name: value(name, text) for name, text in options.items() if is_option(name)}
    mask = given.get("umask")
    return Ownership(
        given.get("uid", os.getuid()),
        given.get("gid", os.getgid()),
        given.get("fmask", mask),
        given.get("dmask", mask),
    )
