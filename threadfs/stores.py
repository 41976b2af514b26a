"""Which store a location names: a directory, or the URL of a database."""

from __future__ import annotations

import os
import stat
from typing import Any

from store import Store, StoreError, ThreadStore
from store.disk import evidence
from threadfs.mounting.mount_table import mounts, on_top, place_of

_SCHEMES = ("postgresql://", "postgres://")


class CannotOpen(StoreError):
    """The location names no store that can be opened; the text is one line for the user."""


class NoStore(CannotOpen):
    """It is a directory of other things."""


def is_url(location: str) -> bool:
    return location.startswith(_SCHEMES)


def absolute(location: str) -> str:
    """The location as it is from any directory: a path is made absolute, in a URL those of certificates.

    Raises:
        CannotOpen: as `open_store`, for a URL.
    """
    if is_url(location):
        url: str = _postgres().with_absolute_paths(location)
        return url
    return os.path.abspath(os.path.expanduser(location))


def shown(location: str) -> str:
    """The location as it may be seen by others: a URL without its password."""
    return without_password(location)[0] if is_url(location) else absolute(location)


def without_password(url: str) -> tuple[str, str | None]:
    """The URL without its password, and that, if it holds one."""
    shown, password = _postgres().without_password(url)
    return shown, password


def resolved(location: str) -> str:
    """What *location* stands for: a place where a store is mounted, for that store.

    Raises:
        CannotOpen: somebody else has mounted it, who may say that it shows anything.
    """
    if is_url(location):
        return location
    mount = on_top(place_of(location))
    if mount is None or not mount.is_threadfs:
        return location
    if mount.owner[0] not in (0, os.geteuid()):
        raise CannotOpen(f"{location} is mounted by another user: give the store, {mount.source} as they say")
    return mount.source


def open_store(location: str, *, create: bool = False, insist: bool = False) -> Store:
    """The store at *location*, or the one that is mounted there.

    Args:
        create: make a directory that is missing, in one that is there. What reads a store does not: a
            misspelt name is no empty store.
        insist: make those above it, too, and take one for a store that holds other things and no thread.

    Raises:
        CannotOpen: there is none, it is no store, or what is needed to open it is not installed.
        StoreError: it cannot be opened.
    """
    location = resolved(location)
    if is_url(location):
        store: Store = _postgres().PostgresStore(location, create=create)
        return store
    path = absolute(location)
    _check_is_none_of_ours(location, os.path.realpath(path))
    check_is_there(location, path, create=create, insist=insist)
    if not insist and os.path.isdir(path) and evidence.holds_no_thread(os.path.realpath(path)):
        raise NoStore(f"{location} is no store: it holds other things, and not one thread")
    return ThreadStore(path)


def open_if_there(location: str, *, insist: bool = False) -> Store | None:
    """The store at *location*; ``None`` where there is none yet, and `open_store` would make it."""
    location = resolved(location)
    if is_url(location):
        try:
            return open_store(location)
        except _postgres().NoTables:
            return None
    path = absolute(location)
    check_is_there(location, path, create=True, insist=insist)
    return open_store(location, insist=insist) if os.path.lexists(path) else None


def check_is_there(location: str, path: str, *, create: bool = False, insist: bool = False) -> None:
    """That a store's directory is there, or may be made; see `open_store`. Raises CannotOpen."""
    try:
        is_directory = stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError as error:
        above = os.path.dirname(path)
        if insist or (create and os.path.isdir(above)):
            return
        reason = f"there is no directory {above} (--create makes it)" if create else error.strerror
        raise CannotOpen(f"{location}: {reason}") from None
    except OSError as error:
        raise CannotOpen(f"{location}: {error.strerror}") from None
    if not is_directory:
        raise CannotOpen(f"{location}: Not a directory")


def _check_is_none_of_ours(location: str, path: str) -> None:
    """Refuses what looks like a store, and is the tree that shows one, or a thread in one."""
    around = [mount for mount in mounts() if f"{path}/".startswith(f"{mount.mountpoint.rstrip('/')}/")]
    innermost = sorted(around, key=lambda mount: len(mount.mountpoint))[-1:]
    if innermost and innermost[0].is_threadfs:
        raise CannotOpen(f"{location} is in a mount, and no store: it shows {innermost[0].source}")
    above, name = os.path.split(path)
    if os.path.isfile(os.path.join(path, "meta.json")) and evidence.is_surely_thread(above, name):
        raise CannotOpen(f"{location} is a thread, and no store: give the directory that it is in")


def _postgres() -> Any:
    try:
        # Its libraries are an extra, which few install.
        from store import postgres
    except ImportError as error:
        raise CannotOpen(str(error)) from None
    return postgres
