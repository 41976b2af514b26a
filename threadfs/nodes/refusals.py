"""Errors of the tree itself, for which the store has no error."""

from __future__ import annotations

import errno


class Refused(Exception):
    """The tree refuses an operation: with the errno for the caller, and the reason in words."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.errno = code


class NoSuchName(Refused):
    """A failed lookup: too common to be worth a line in ``.threadfs/errors``."""

    def __init__(self, name: str) -> None:
        super().__init__(errno.ENOENT, f"nothing is named {name!r} here")
