"""Opens the store at a location: a directory, or the URL of a database."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, Protocol

from store.disk import mistaken
from store.disk.stored_files import StoredFiles
from store.errors import StoreError
from threadfs.mounting.mount_table import Mount, mounts, on_top, place_of

if TYPE_CHECKING:
    from store import Store
    from store.catalogue.api import Catalogue

_SCHEMES = ("postgresql://", "postgres://")


class CannotOpen(StoreError):
    """There is no store at the location, or it cannot be opened; the text is one line for the user."""


class NoStore(CannotOpen):
    """The directory holds other files."""


class Catalogued(Protocol):
    """A store, for who asks its catalogue."""

    def catalogue(self, *, keeps_words: bool = True) -> Catalogue: ...
    def close(self) -> None: ...


def is_url(location: str) -> bool:
    return location.startswith(_SCHEMES)


def absolute(location: str) -> str:
    """The location, valid from any working directory: with an absolute path, or absolute paths in a URL.

    Raises:
        CannotOpen: as `open_store`, for a URL.
    """
    if is_url(location):
        url: str = _postgres().with_absolute_paths(location)
        return url
    return os.path.abspath(os.path.expanduser(location))


def shown(location: str) -> str:
    """The location as other users may see it: a URL without its password."""
    return without_password(location)[0] if is_url(location) else absolute(location)


def without_password(url: str) -> tuple[str, str | None]:
    """The URL without its password, and the password, if it has one."""
    shown, password = _postgres().without_password(url)
    return shown, password


def resolved(location: str) -> str:
    """*location*, or the location of the store if *location* is a mount point.

    Raises:
        CannotOpen: another user has mounted it, whose mount may claim any location.
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
        create: make a missing directory, if its parent exists. Commands that read do not: a misspelt name
            would be an empty store.
        insist: make the parents too, and accept a directory with other files and no thread.

    Raises:
        CannotOpen: there is none, it is not a store, or a library to open it is not installed.
        StoreError: it cannot be opened.
    """
    location = resolved(location)
    if is_url(location):
        store: Store = _postgres().PostgresStore(location, create=create)
        return store
    path = _directory(location, create=create, insist=insist)
    from store import ThreadStore  # It needs the models, which take a while to import.

    return ThreadStore(path)


def open_catalogued(location: str) -> Catalogued:
    """As `open_store`, for who only asks the catalogue: of a directory it loads little."""
    location = resolved(location)
    return open_store(location) if is_url(location) else StoredFiles(_directory(location))


def _directory(location: str, *, create: bool = False, insist: bool = False) -> str:
    """The path of a store's directory. Raises CannotOpen; see `open_store`."""
    path = absolute(location)
    _check_is_none_of_ours(location, os.path.realpath(path))
    check_is_there(location, path, create=create, insist=insist)
    if not insist and os.path.isdir(path) and mistaken.holds_no_thread(os.path.realpath(path)):
        raise NoStore(f"{location} is no store: it holds other things, and not one thread")
    return path


def is_empty(location: str) -> bool:
    """Whether *location* is a directory without anything in it: a new store, or the place of a mount or disk
    that is not mounted. What is mounted, and what is in a database, is none.

    Raises:
        StoreError: it cannot be read.
    """
    if resolved(location) != location or is_url(location):
        return False
    path = absolute(location)
    return os.path.isdir(path) and mistaken.is_empty(os.path.realpath(path))


def open_if_there(location: str, *, insist: bool = False) -> Store | None:
    """The store at *location*; ``None`` where there is none yet, and `open_store` would make it."""
    location = resolved(location)
    if is_url(location):
        try:
            return open_store(location)
        except _postgres().NoTables:
            return None
    path = absolute(location)
    _check_is_none_of_ours(location, os.path.realpath(path))
    check_is_there(location, path, create=True, insist=insist)
    return open_store(location, insist=insist) if os.path.lexists(path) else None


def check_is_there(location: str, path: str, *, create: bool = False, insist: bool = False) -> None:
    """Checks that a store's directory exists, or may be made; see `open_store`. Raises CannotOpen."""
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


def why_no_place_for_files(directory: str, location: str) -> str | None:
    """Why a command should not write files into *directory*, in words; ``None`` when nothing is against it.

    Args:
        location: the store that the command works on.
    """
    path = os.path.realpath(directory)
    if mount := _mount_around(path):
        return f"{directory} is in the mount {mount.mountpoint}: give a directory outside of it"
    store = "" if is_url(location) else os.path.realpath(absolute(resolved(location)))
    if store and _is_in(store, path):
        return f"{directory} is in the store: give a directory outside of {location}"
    return None


def _mount_around(path: str) -> Mount | None:
    """The mount of ours that a real path is in."""
    around = [mount for mount in mounts() if _is_in(mount.mountpoint, path)]
    innermost = sorted(around, key=lambda mount: len(mount.mountpoint))[-1:]
    return innermost[0] if innermost and innermost[0].is_threadfs else None


def _is_in(directory: str, path: str) -> bool:
    return f"{path}/".startswith(f"{directory.rstrip('/')}/")


def _check_is_none_of_ours(location: str, path: str) -> None:
    """Refuses a directory inside a mount, and a single thread: both look like a store."""
    if mount := _mount_around(path):
        raise CannotOpen(f"{location} is in a mount, and no store: it shows {mount.source}")
    above, name = os.path.split(path)
    if os.path.isfile(os.path.join(path, "meta.json")):
        from store.disk import evidence  # As `ThreadStore`.

        if evidence.is_surely_thread(above, name):
            raise CannotOpen(f"{location} is a thread, and no store: give the directory that it is in")


def _postgres() -> Any:
    try:
        # Its libraries are an optional extra.
        from store import postgres
    except ImportError as error:
        raise CannotOpen(str(error)) from None
    return postgres
