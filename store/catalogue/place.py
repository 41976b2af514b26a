"""The file of a catalogue: where it is, and opening it so that nobody else can have written what is in it.

    $XDG_CACHE_HOME/threadfs/<identity>/catalogue.sqlite        with -wal and -shm, which SQLite has beside it
                                       /opening                 locked while a catalogue is opened or made
                                       /building                locked by the process that builds it
                                       /whole                   what the file looked like when it was closed

The identity is a hash of what makes a store this one: its path, inode and time of birth; a catalogue without
words has another one, so that no words can come into it. Each part from
``threadfs`` on has to be ours, and writable by nobody else, or there is no such file. A catalogue that is
not whole, not ours or of another version is deleted, and made anew. One that is as it was left in this boot
is whole, and not read to see that. Each that is open holds a shared lock on its directory, so that
`remove_unseen` deletes none that is used.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import sqlite3
import stat
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import quote

from store.catalogue import schema
from store.disk.filesystems import is_local

_OURS: Final = "threadfs"
_FILE: Final = "catalogue.sqlite"
_LOCK: Final = "opening"
_BUILDING: Final = "building"
_WHOLE: Final = "whole"
_BESIDE: Final = ("-wal", "-shm", "-journal")
_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
_IDENTITY: Final = re.compile("[0-9a-f]{32}")
_ATTEMPTS: Final = 5
# What changed since may have got the same time; some file systems have times of whole seconds, or of two.
_SETTLES_NS: Final = 2_000_000_000
_BOOT: Final = "/proc/sys/kernel/random/boot_id"
_UNSEEN_S: Final = 30 * 86400

_libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD: Final = -100
_STATX_BTIME: Final = 0x800
_STATX_BYTES: Final = 256
_BIRTH_AT: Final = 80


class NoPlace(Exception):
    """No file can be there; the text says why. The catalogue is in memory then."""


@dataclass(slots=True)
class Opened:
    """A connection to a catalogue. *why_new* says why an old one was deleted; ``None``: it was not."""

    connection: sqlite3.Connection
    directory: int
    why_new: str | None
    inode: int

    def is_there(self) -> bool:
        """Whether its file still has its name: whoever opens the catalogue opens this one."""
        with suppress(OSError):
            return os.stat(_FILE, dir_fd=self.directory, follow_symlinks=False).st_ino == self.inode
        return False

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(is_whole=kind is None)

    def close(self, *, is_whole: bool = True) -> None:
        """Without a sync, for which the end of a program would wait: the next one finds all in the log.

        The last connection that closes moves the log of SQLite into the file, unless it may only read.
        *is_whole*: it has never failed.
        """
        with suppress(sqlite3.Error), closing(self._connected_for_reading()) as reading:
            reading.execute("SELECT 1 FROM identity").fetchone()
            self.connection.close()
        self.connection.close()
        if not is_whole:
            with suppress(OSError):
                os.unlink(_WHOLE, dir_fd=self.directory)
        elif self.is_there():
            _note_whole(self.directory)
        os.close(self.directory)

    def _connected_for_reading(self) -> sqlite3.Connection:
        path = os.path.join(os.readlink(f"/proc/self/fd/{self.directory}"), _FILE)
        return sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, check_same_thread=False)


class _Kind(NamedTuple):
    """Of which store a catalogue is, and its tables."""

    identity: dict[str, str | int]
    expected: schema.Definitions
    with_words: bool


def base(environ: Mapping[str, str]) -> str:
    """Where caches are. Raises NoPlace."""
    if os.path.isabs(given := environ.get("XDG_CACHE_HOME", "")):
        return given
    if os.path.isabs(home := environ.get("HOME", "")):
        return os.path.join(home, ".cache")
    # Of a service of systemd; of several directories it has, the first.
    if os.path.isabs(given := environ.get("CACHE_DIRECTORY", "").partition(":")[0]):
        return given
    raise NoPlace("there is neither HOME nor XDG_CACHE_HOME")


def identity_of(store: str, *, with_words: bool = True) -> dict[str, str | int]:
    """What makes the store at a path, and its catalogue with or without words, this one. Raises OSError.

    The number of its device is no part of it: btrfs and others have another one after each boot.
    """
    path = os.path.realpath(store)
    kind: dict[str, str | int] = {} if with_words else {"words": "none"}
    return {"path": path, "inode": os.stat(path).st_ino, "birth_ns": _birth_ns(path), **kind}


def _birth_ns(path: str) -> int:
    """When a file was made, in ns since 1970, which os.stat does not tell; 0 where it is not known."""
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    if _libc.statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, buffer):
        return 0
    mask: int = struct.unpack_from("=I", buffer)[0]
    seconds, nanoseconds = struct.unpack_from("=qI", buffer, _BIRTH_AT)
    return int(seconds) * 1_000_000_000 + int(nanoseconds) if mask & _STATX_BTIME else 0


def open_catalogue(caches: str, identity: dict[str, str | int], *, with_words: bool = True) -> Opened:
    """The catalogue of the store with an *identity*, made if there is none that can be used.

    Raises:
        NoPlace: no file can be there, or the disk is full or fails, or this SQLite has no FTS5 for the words.
    """
    try:
        kind = _Kind(identity, schema.definitions(with_words=with_words), with_words)
        for _ in range(_ATTEMPTS):
            with suppress(FileNotFoundError):  # Its directory was just deleted, as it had not been seen.
                return _opened(_private_directory(caches, identity), kind)
    except sqlite3.Error as error:
        raise NoPlace(str(error)) from None
    except OSError as error:
        raise NoPlace(f"{error.filename or caches}: {error.strerror}") from None
    raise NoPlace(f"others keep deleting what is in {caches}")


def _opened(directory: int, kind: _Kind) -> Opened:
    """Takes over an open directory, also when it fails."""
    try:
        fcntl.flock(directory, fcntl.LOCK_SH)
        os.utime(directory)  # It was seen.
        lock = _private_file(directory, _LOCK)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                connection, why_new = _connected(directory, kind), None
            except schema.NotOurs as error:
                delete(directory)
                connection, why_new = _connected(directory, kind), str(error)
            return Opened(connection, directory, why_new, os.stat(_FILE, dir_fd=directory).st_ino)
        finally:
            os.close(lock)
    except BaseException as error:
        os.close(directory)
        if isinstance(error, schema.NotOurs):
            raise NoPlace(str(error)) from None
        raise


def _connected(directory: int, kind: _Kind) -> sqlite3.Connection:
    """Raises schema.NotOurs."""
    # Made here, as SQLite would make it with other permissions; what it has beside it gets the same ones. One
    # that is there is not opened: closing it would end the locks of this process's other connections to it.
    with suppress(FileExistsError):
        os.close(os.open(_FILE, _FILE_FLAGS | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory))
    for end in ("", *_BESIDE):
        with suppress(FileNotFoundError):
            _check_file(os.stat(_FILE + end, dir_fd=directory, follow_symlinks=False), _FILE + end)
    is_whole = _is_as_left(directory)
    # SQLite opens by paths alone; nobody else can put another directory at this one.
    path = os.path.join(os.readlink(f"/proc/self/fd/{directory}"), _FILE)
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        schema.prepare(connection)
        if schema.is_empty(connection):
            schema.create(connection, kind.identity, with_words=kind.with_words)
        else:
            schema.check(connection, kind.identity, kind.expected, is_whole=is_whole)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            raise schema.NotOurs(f"it is damaged: {error}") from None
        raise
    return connection


def _looks(directory: int) -> bytes | None:
    """What a catalogue and the log of SQLite look like in this boot; ``None``: they have just changed.

    Files that were not synced before a power cut may look so and hold something else.
    """
    with open(_BOOT, "rb") as boot:
        looks = [boot.read()]
    for name in (_FILE, f"{_FILE}-wal"):
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            looks.append(b"-")
            continue
        if abs(time.time_ns() - status.st_ctime_ns) < _SETTLES_NS:
            return None
        looks.append(b"%d %d %d" % (status.st_ino, status.st_size, status.st_ctime_ns))
    return b"\n".join(looks)


def _note_whole(directory: int) -> None:
    """A catalogue that is closed is whole, as it was when it was opened, and SQLite alone has changed it."""
    with suppress(OSError, NoPlace):  # Else it is read the next time.
        if looks := _looks(directory):
            whole = _private_file(directory, _WHOLE)
            try:
                os.ftruncate(whole, 0)
                os.write(whole, looks)
            finally:
                os.close(whole)


def _is_as_left(directory: int) -> bool:
    with suppress(OSError, NoPlace):
        whole = _private_file(directory, _WHOLE)
        try:
            return os.read(whole, 4096) == _looks(directory)
        finally:
            os.close(whole)
    return False


def open_to_read(caches: str, identity: dict[str, str | int]) -> sqlite3.Connection | None:
    """A catalogue as it is, perhaps behind or damaged; nothing is made, taken over or locked for long.
    ``None`` if it is of another version.

    Raises:
        NoPlace, OSError, sqlite3.Error: there is none that can be read.
    """
    path = caches
    for name in (_OURS, digest_of(identity), _FILE):
        path = os.path.join(path, name)
        _check_private(os.lstat(path), path)
    for special in "%?#":
        path = path.replace(special, f"%{ord(special):x}")
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute(f"PRAGMA busy_timeout = {schema.BUSY_MS}")
        if schema.is_of_this_version(connection):
            return connection
    except BaseException:
        connection.close()
        raise
    connection.close()
    return None


def age_s(directory: int) -> float:
    """How long ago the catalogue in an open directory was made; for ever where that is not known."""
    return time.time() - _birth_ns(f"/proc/self/fd/{directory}/{_FILE}") / 1e9


def delete(directory: int) -> None:
    """Deletes a catalogue, with what SQLite has beside it. Those that have it open go on with the old one."""
    for name in (_WHOLE, _FILE, *(_FILE + end for end in _BESIDE)):
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)


def begins_building(directory: int) -> bool:
    """Whether this process builds the catalogue in an open directory from now on, until it ends, and no other
    does. Raises NoPlace, OSError."""
    lock = _private_file(directory, _BUILDING)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    return True


def wait_for_builder(directory: int) -> None:
    """Returns when no process builds the catalogue in an open directory. Raises NoPlace, OSError."""
    lock = _private_file(directory, _BUILDING)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    finally:
        os.close(lock)


@contextmanager
def directory_of(caches: str, identity: dict[str, str | int]) -> Iterator[int]:
    """The directory of a catalogue, open. Raises NoPlace, OSError."""
    directory = _private_directory(caches, identity)
    try:
        yield directory
    finally:
        os.close(directory)


def _private_directory(caches: str, identity: dict[str, str | int]) -> int:
    """The directory of a catalogue, open. Raises NoPlace, OSError."""
    os.makedirs(caches, mode=0o700, exist_ok=True)
    if not is_local(caches):
        raise NoPlace(f"{caches} is not on a disk of this machine")
    opened = os.open(caches, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in (_OURS, digest_of(identity)):
        above, opened = opened, _entered(opened, name)
        os.close(above)
    return opened


def digest_of(identity: dict[str, str | int]) -> str:
    text = "\0".join(str(value) for value in identity.values())
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]


def _entered(above: int, name: str) -> int:
    """A directory in one that is open, made if it is missing. Closes *above* if it fails."""
    try:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=above)
        opened = os.open(name, _DIRECTORY_FLAGS, dir_fd=above)
        try:
            _check_private(os.fstat(opened), name)
        except BaseException:
            os.close(opened)
            raise
    except BaseException:
        os.close(above)
        raise
    return opened


def _private_file(directory: int, name: str) -> int:
    """A file in a directory, open, made if it is missing. Raises NoPlace, OSError."""
    opened = os.open(name, _FILE_FLAGS | os.O_CREAT | os.O_NONBLOCK, 0o600, dir_fd=directory)
    try:
        _check_file(os.fstat(opened), name)
    except BaseException:
        os.close(opened)
        raise
    return opened


def _check_file(status: os.stat_result, name: str) -> None:
    _check_private(status, name)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise NoPlace(f"{name} is no file of its own")


def _check_private(status: os.stat_result, name: str) -> None:
    if status.st_uid != os.geteuid():
        raise NoPlace(f"{name} is somebody else's")
    if status.st_mode & _WRITABLE_BY_OTHERS or stat.S_ISLNK(status.st_mode):
        raise NoPlace(f"others may write {name}")


def remove_unseen(caches: str) -> None:
    """Deletes catalogues that nobody has opened for 30 days; what cannot be deleted stays."""
    with suppress(OSError):
        opened = os.open(os.path.join(caches, _OURS), _DIRECTORY_FLAGS)
        try:
            for name in os.listdir(opened):
                if _IDENTITY.fullmatch(name):
                    with suppress(OSError):
                        _remove_if_unseen(opened, name)
        finally:
            os.close(opened)


def _remove_if_unseen(above: int, name: str) -> None:
    directory = os.open(name, _DIRECTORY_FLAGS, dir_fd=above)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.time() - os.fstat(directory).st_mtime < _UNSEEN_S:
            return
        delete(directory)
        for lock in (_LOCK, _BUILDING):
            with suppress(FileNotFoundError):
                os.unlink(lock, dir_fd=directory)
        os.rmdir(name, dir_fd=above)
    finally:
        os.close(directory)
