"""Which store a location names: a directory, or the URL of a database."""

from __future__ import annotations

import os
import stat
from typing import Any

from store import Store, StoreError, ThreadStore

_SCHEMES = ("postgresql://", "postgres://")


class CannotOpen(StoreError):
    """The location names no store that can be opened; the text is one line for the user."""


def is_url(location: str) -> bool:
    return location.startswith(_SCHEMES)


def absolute(location: str) -> str:
    """The location as it is from any directory: a path is made absolute, a URL is one already."""
    return location if is_url(location) else os.path.abspath(os.path.expanduser(location))


def shown(location: str) -> str:
    """The location as it may be seen by others: a URL without its password."""
    return without_password(location)[0] if is_url(location) else absolute(location)


def without_password(url: str) -> tuple[str, str | None]:
    """The URL without its password, and that, if it holds one."""
    shown, password = _postgres().without_password(url)
    return shown, password


def open_store(location: str, *, create: bool = False) -> Store:
    """The store at *location*.

    Args:
        create: make a directory that is missing. What reads a store does not: a misspelt name is no
            empty store.

    Raises:
        CannotOpen: there is none, or what is needed to open it is not installed.
        StoreError: it cannot be opened.
    """
    if is_url(location):
        store: Store = _postgres().PostgresStore(location)
        return store
    path = absolute(location)
    if not create:
        try:
            is_directory = stat.S_ISDIR(os.stat(path).st_mode)
        except OSError as error:
            raise CannotOpen(f"{location}: {error.strerror}") from None
        if not is_directory:
            raise CannotOpen(f"{location}: Not a directory")
    return ThreadStore(path)


def _postgres() -> Any:
    try:
        # Its libraries are an extra, which few install.
        from store import postgres
    except ImportError as error:
        raise CannotOpen(str(error)) from None
    return postgres
