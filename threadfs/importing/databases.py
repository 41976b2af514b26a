"""SQLite databases, which another program may be using: read from a copy, and nothing is made beside them.

In write-ahead mode new pages are in a second file, until they are copied into the first. So the copy is good
if that file has not begun anew meanwhile: its header then has other salts. In the other mode the database is
written in place, and a journal beside it has what was there before. A copy of both is good if neither has
changed meanwhile: SQLite takes back what was not complete.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import IO

from threadfs.importing.containers import Directory
from threadfs.importing.files import File, Unreadable
from threadfs.importing.pieces import Item

_PIECE_BYTES = 1 << 20
_WAL, _JOURNAL = "-wal", "-journal"
_WAL_HEADER_BYTES = 32
# How long a database may change during each copy, until somebody has to look.
_ATTEMPTS = 50
_PAUSE_S = 0.1
# Changes within so long can have the same time.
_TICK_NS = 20_000_000


def databases(file: File) -> Iterator[Item]:
    """One item: a `sqlite3.Connection` to a copy, open until the next is asked for. Raises Unreadable."""
    with tempfile.TemporaryDirectory(prefix="threadfs-") as directory:
        copy = Path(directory) / "copy.db"
        try:
            if file.name and (file.container is None or isinstance(file.container, Directory)):
                _copy(Path(file.name), copy)
            else:
                _spool(file, copy)
        except OSError as error:
            raise Unreadable(f"cannot be copied to {directory}: {error.strerror}") from None
        with closing(sqlite3.connect(copy)) as database:
            # Other programs may have written bytes that are not UTF-8.
            database.text_factory = lambda data: data.decode(errors="replace")
            database.execute("PRAGMA trusted_schema = OFF")
            yield Item(1, False, database)


def _spool(file: File, copy: Path) -> None:
    """A database that comes through a pipe, or in a zip, perhaps with what was not in it yet."""
    with copy.open("wb") as written:
        _pass(file, written)
    wal = file.member + _WAL
    if file.container is not None and wal in file.container.members():
        with closing(file.container.opened(wal)) as stream, _beside(copy, _WAL).open("wb") as written:
            _pass(File(wal, stream, lambda size: None), written)


def _pass(file: File, written: IO[bytes]) -> None:
    while data := file.read(_PIECE_BYTES):
        written.write(data)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _copy(path: Path, copy: Path) -> None:
    """A copy of a database of this machine, of one moment. Raises Unreadable."""
    for _ in range(_ATTEMPTS):
        before = _state(path)
        if before is not None:
            shutil.copyfile(path, copy)
            for suffix in (_WAL, _JOURNAL):
                _beside(copy, suffix).unlink(missing_ok=True)
                with suppress(FileNotFoundError):
                    shutil.copyfile(_beside(path, suffix), _beside(copy, suffix))
            if _state(path) == before:
                return
        time.sleep(_PAUSE_S)
    raise Unreadable("another program keeps changing it: import it again later")


def _state(path: Path) -> object:
    """What is the same as long as copies are good; ``None`` just after a change."""
    with suppress(FileNotFoundError), _beside(path, _WAL).open("rb") as wal:
        header = wal.read(_WAL_HEADER_BYTES)
        if len(header) == _WAL_HEADER_BYTES:
            return header
    found = []
    for file in (path, _beside(path, _JOURNAL)):
        with suppress(FileNotFoundError):
            info = os.stat(file)
            if 0 <= time.time_ns() - info.st_mtime_ns < _TICK_NS:
                return None
            found.append((info.st_ino, info.st_size, info.st_mtime_ns))
    return found
