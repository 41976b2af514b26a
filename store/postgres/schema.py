"""The tables, in numbered steps: each SQL file in ``migrations/`` is applied once, in order.

The applied steps are listed in the table ``migrations``. A program refuses a database with a step that it
does not know, because a newer program may keep data there that this one would not see, or would break.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any, TypeAlias

import psycopg
from psycopg import errors

from store.errors import StoreError
from store.postgres.connections import SCHEMA, Connections, Session
from store.postgres.failures import storage_failed, words

# Programs that open an empty database wait for each other by this lock: any number, the same in all versions.
_LOCK = 7_403_215_880_192_116

# (number, SQL) of each, in order.
Steps: TypeAlias = list[tuple[int, str]]


class UnusableDatabase(StoreError):
    """The database cannot hold a store, or not for this program; the text says what to do."""


class NoTables(UnusableDatabase):
    """The database holds no store yet."""


def migrations() -> Steps:
    found = [
        file for file in files(__package__).joinpath("migrations").iterdir() if file.name.endswith(".sql")
    ]
    return sorted((int(file.name.partition("_")[0]), file.read_text(encoding="utf-8")) for file in found)


def prepare(connections: Connections, location: str, *, create: bool) -> bool:
    """Makes the tables, or brings them up to date, or checks them. Whether they have just been made.

    Args:
        location: the name of the database in messages.
        create: make tables that are missing, and bring older ones up to date. A database that is up to date
            is only read, so that this works on a standby, and for a user who may not make tables.

    Raises:
        UnusableDatabase: without tables, or with older ones, unless *create*; made by a newer program; not in
            UTF-8; or the user lacks a privilege.
        StorageFailed: the server cannot be reached, or refuses.
    """
    try:
        connection = connections.connect()
    except psycopg.Error as error:
        raise storage_failed(error, is_connecting=True) from None
    try:
        session = connections.session_on(connection)
        steps = migrations()
        version = _version(session, steps)
        if version == steps[-1][0]:
            return False
        if not create:
            refusal = UnusableDatabase if version else NoTables
            raise refusal(_what_to_do(version, steps, location))
        return _migrate(session, steps, location)
    except psycopg.Error as error:
        raise storage_failed(error) from None
    finally:
        connection.close()


def _what_to_do(version: int, steps: Steps, location: str) -> str:
    if not version:
        return f"{location} holds no store yet: mount it, import into it, or give --create"
    return (
        f"the tables in {location} are of an older version (step {version}, this one needs {steps[-1][0]}):"
        " their owner runs threadfs fsck --create"
    )


def _migrate(session: Session, steps: Steps, location: str) -> bool:
    """Whether there were no tables before."""
    ((encoding,),) = session.execute("SELECT current_setting('server_encoding')")
    if encoding != "UTF8":
        raise UnusableDatabase(f"the database is in {encoding}: make one with ENCODING 'UTF8'")
    session.execute("BEGIN")
    # This is not tried again, so it waits as long as for any answer.
    session.execute("SET LOCAL lock_timeout = 0")
    # Held until the transaction ends. Other programs wait here, and then find that all is done.
    session.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    before = _version(session, steps)
    try:
        _apply(session, [step for step in steps if step[0] > before], is_first=not before)
    except errors.InsufficientPrivilege as error:
        what, who = ("changed", "their owner") if before else ("made", "a role that may")
        raise UnusableDatabase(
            f"the tables in {location} cannot be {what} by this role ({words(error)}):"
            f" {who} runs threadfs fsck --create"
        ) from None
    session.execute("COMMIT")
    return before == 0


def _apply(session: Session, steps: Steps, *, is_first: bool) -> None:
    if not _one(session, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)", SCHEMA):
        session.execute(f"CREATE SCHEMA {SCHEMA}")
    if is_first:
        session.execute(
            "CREATE TABLE migrations"
            " (number integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
        )
    for number, sql in steps:
        session.execute_script(sql)
        session.execute("INSERT INTO migrations (number) VALUES (%s)", (number,))


def _version(session: Session, steps: Steps) -> int:
    """The last step that was applied; 0 in an empty database."""
    # From the catalogue: `to_regclass` remembers, from before it waited for the lock, that there was none.
    if not _one(
        session,
        "SELECT EXISTS (SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
        " WHERE nspname = %s AND relname = 'migrations')",
        SCHEMA,
    ):
        return 0
    try:
        version = int(_one(session, f"SELECT coalesce(max(number), 0) FROM {SCHEMA}.migrations"))
    except errors.InsufficientPrivilege as error:
        raise UnusableDatabase(
            f"this role may not read the store ({words(error)}):"
            " it has to be in threadfs_worker, which roles.sql makes"
        ) from None
    if version > steps[-1][0]:
        raise UnusableDatabase(
            f"a newer threadfs made the tables (step {version}, this one knows {steps[-1][0]}):"
            " upgrade threadfs"
        )
    return version


def _one(session: Session, query: str, *parameters: Any) -> Any:
    return session.execute(query, parameters)[0][0]
