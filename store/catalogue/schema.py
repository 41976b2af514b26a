"""The tables of a catalogue in SQLite, and opening them: a database that is not surely ours is refused.

Words are in an FTS5 table without contents, over text that `folding` has cut: its tokenizer ``ascii`` takes
all that is beyond ASCII as it is, and so knows exactly the words that we know. A row of ``texts`` is a
message or a title; its number is that of its words. Numbers sort by day:

    number = days since 1970 * 2^24 + how many of that day came before

so that the newest hits come first without all of them being sorted, and a range of days is a range of
numbers.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Final, TypeAlias

VERSION: Final = 1
# PRAGMA application_id: "tfs" and the kind.
_APPLICATION: Final = 0x74667301
# How long a change waits for another process that writes; then it is compared later.
BUSY_MS: Final = 20

_DAY_BITS: Final = 24
_DAY_S: Final = 86400
# Days before 1970 and after this one count as the first and the last: a number has 63 bits.
_LAST_DAY: Final = 1 << 38

_TABLES: Final = (
    """CREATE TABLE identity (key TEXT PRIMARY KEY, value) WITHOUT ROWID""",
    # log: what the backend knows of the log whose words are here, NULL while none are; log_…: what the log
    # looked like, as in signatures, NULL unless all its words are here.
    """CREATE TABLE threads (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, title TEXT NOT NULL,
        created_at INTEGER NOT NULL, changed_ns INTEGER NOT NULL, log BLOB, log_changed_ns INTEGER,
        log_size_bytes INTEGER, log_inode INTEGER)""",
    """CREATE INDEX threads_by_name ON threads (name)""",
    """CREATE INDEX threads_by_creation ON threads (created_at)""",
    """CREATE TABLE runs (
        thread INTEGER NOT NULL, id TEXT NOT NULL, status TEXT NOT NULL, model TEXT NOT NULL,
        created_at INTEGER NOT NULL, changed_ns INTEGER NOT NULL, PRIMARY KEY (thread, id)) WITHOUT ROWID""",
    """CREATE INDEX runs_by_status ON runs (status)""",
    # What the files and directories of a thread looked like when they were read: their paths in it, with NUL
    # between them, and the numbers of each (`tables`). Lists of runs that have not ended go by the first few
    # of them; log_…: what the log looked like.
    """CREATE TABLE signatures (
        thread INTEGER PRIMARY KEY, paths TEXT NOT NULL, numbers BLOB NOT NULL, of_lists INTEGER NOT NULL,
        log_changed_ns INTEGER, log_size_bytes INTEGER, log_inode INTEGER)""",
    # thread: 0 when it is gone, and its words are dead.
    """CREATE TABLE texts (
        number INTEGER PRIMARY KEY, thread INTEGER NOT NULL, kind INTEGER NOT NULL, line INTEGER NOT NULL,
        created_at INTEGER NOT NULL)""",
    """CREATE INDEX texts_by_thread ON texts (thread, line)""",
)
_WORDS: Final = """CREATE VIRTUAL TABLE words USING fts5 (text, content='', tokenize='ascii')"""


# The type, name and text of each table and index.
Definitions: TypeAlias = set[tuple[str, str, str | None]]


class NotOurs(Exception):
    """A database that is damaged, of another version or store, or not made by us; the text says which."""


def first_number(created_at: int) -> int:
    """The first number of the day of a time."""
    return min(max(created_at // _DAY_S, 0), _LAST_DAY) << _DAY_BITS


def day_of(number: int) -> int:
    """What is equal for numbers of one day."""
    return number >> _DAY_BITS


def first_of_day(number: int) -> int:
    """The first number of the same day."""
    return day_of(number) << _DAY_BITS


def after_day(number: int) -> int:
    """The first number of the next day."""
    return (day_of(number) + 1) << _DAY_BITS


def prepare(connection: sqlite3.Connection) -> None:
    """Settings of a connection. Nothing in a file makes SQLite run what is not ours."""
    connection.isolation_level = None
    for setting in (
        "trusted_schema = OFF",
        "cell_size_check = ON",
        f"busy_timeout = {BUSY_MS}",
        "journal_mode = WAL",
        "synchronous = NORMAL",
    ):
        connection.execute(f"PRAGMA {setting}")


def create(
    connection: sqlite3.Connection, identity: dict[str, str | int], *, with_words: bool = True
) -> None:
    """The tables, in one step, in a database that has none.

    Raises:
        sqlite3.OperationalError: another process writes, the disk is full, or there is no FTS5.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        for table in _tables(with_words=with_words):
            connection.execute(table)
        connection.executemany("INSERT INTO identity VALUES (?, ?)", identity.items())
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def in_memory() -> sqlite3.Connection:
    """Tables without words, which no other process sees."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    prepare(connection)
    create(connection, {}, with_words=False)
    return connection


def is_empty(connection: sqlite3.Connection) -> bool:
    return _number(connection, "SELECT count(*) FROM sqlite_master") == 0


def is_of_this_version(connection: sqlite3.Connection) -> bool:
    """Whether it says that it is a catalogue of this version."""
    found = _number(connection, "PRAGMA application_id"), _number(connection, "PRAGMA user_version")
    return found == (_APPLICATION, VERSION)


def check(
    connection: sqlite3.Connection,
    identity: dict[str, str | int],
    expected: Definitions,
    *,
    is_whole: bool = False,
) -> None:
    """Raises NotOurs unless this is a whole catalogue, of this version and of the store of *identity*.

    *is_whole*: that is known of it, and not all of it is read.
    """
    try:
        if _number(connection, "PRAGMA application_id") != _APPLICATION:
            raise NotOurs("it is no catalogue")
        if (version := _number(connection, "PRAGMA user_version")) != VERSION:
            raise NotOurs(f"its layout has version {version}, not {VERSION}")
        if _definitions_in(connection) != expected:
            raise NotOurs("its tables are not as threadfs makes them")
        if dict(connection.execute("SELECT key, value FROM identity")) != identity:
            raise NotOurs("it is of another store")
        found = ("ok",) if is_whole else connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if is_busy(error):
            raise
        raise NotOurs(f"it is damaged: {error}") from None
    if found != ("ok",):
        raise NotOurs(f"it is damaged: {found[0]}")


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another process writes."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _tables(*, with_words: bool) -> tuple[str, ...]:
    return (*_TABLES, _WORDS) if with_words else _TABLES


def _number(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])


def definitions(*, with_words: bool = True) -> Definitions:
    """What this SQLite makes of our tables, with those that FTS5 adds for the words.

    Raises:
        sqlite3.OperationalError: it has no FTS5.
    """
    with closing(sqlite3.connect(":memory:")) as connection:
        for table in _tables(with_words=with_words):
            connection.execute(table)
        return _definitions_in(connection)


def _definitions_in(connection: sqlite3.Connection) -> Definitions:
    return {*connection.execute("SELECT type, name, sql FROM sqlite_master")}
