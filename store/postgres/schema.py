"""The tables, in numbered steps: each SQL file in ``migrations/`` is applied once, in order.

What is applied stands in the table ``migrations``. A program refuses a database with a step that it does not
know, because a newer program may keep there what this one would not see or would break.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import psycopg

from store.errors import StoreError
from store.postgres.connections import SCHEMA, Connections, Session
from store.postgres.failures import storage_failed

# Two programs that meet an empty database wait for each other: any number, the same in all versions.
_LOCK = 7_403_215_880_192_116


class UnusableDatabase(StoreError):
    """The database cannot hold a store, or not for this program; the text says what to do."""


def migrations() -> list[tuple[int, str]]:
    """(number, SQL) of each step, in order."""
    found = [
        file for file in files(__package__).joinpath("migrations").iterdir() if file.name.endswith(".sql")
    ]
    return sorted((int(file.name.partition("_")[0]), file.read_text(encoding="utf-8")) for file in found)


def prepare(connections: Connections) -> bool:
    """Brings the database up to date; whether it held no store before.

    A database that is up to date is only read, so that this works on a standby, and for a user who may
    not make tables.

    Raises:
        UnusableDatabase: made by a newer program, or not in UTF-8.
        StorageFailed: the server cannot be reached, refuses the user, or refuses to make the tables.
    """
    try:
        connection = connections.connect()
    except psycopg.Error as error:
        raise storage_failed(error, is_connecting=True) from None
    try:
        return _migrate(connections.session_on(connection))
    except psycopg.Error as error:
        raise storage_failed(error) from None
    finally:
        connection.close()


def _migrate(session: Session) -> bool:
    steps = migrations()
    before = _version(session, steps)
    if before == steps[-1][0]:
        return False
    ((encoding,),) = session.execute("SELECT current_setting('server_encoding')")
    if encoding != "UTF8":
        raise UnusableDatabase(f"the database is in {encoding}: make one with ENCODING 'UTF8'")
    session.execute("BEGIN")
    # Nobody tries this again: it waits as long as for any answer.
    session.execute("SET LOCAL lock_timeout = 0")
    # Held until the transaction ends. Others wait here, and then find that all is done.
    session.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    before = _version(session, steps)
    if not _one(session, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)", SCHEMA):
        session.execute(f"CREATE SCHEMA {SCHEMA}")
    if not before:
        session.execute(
            "CREATE TABLE migrations"
            " (number integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
        )
    for number, sql in steps:
        if number > before:
            session.execute_script(sql)
            session.execute("INSERT INTO migrations (number) VALUES (%s)", (number,))
    session.execute("COMMIT")
    return before == 0


def _version(session: Session, steps: list[tuple[int, str]]) -> int:
    """The last step that was applied; 0 in an empty database."""
    # From the catalogue: `to_regclass` remembers, from before it waited for the lock, that there was none.
    if not _one(
        session,
        "SELECT EXISTS (SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
        " WHERE nspname = %s AND relname = 'migrations')",
        SCHEMA,
    ):
        return 0
    version = int(_one(session, f"SELECT coalesce(max(number), 0) FROM {SCHEMA}.migrations"))
    if version > steps[-1][0]:
        raise UnusableDatabase(
            f"a newer threadfs made the tables (step {version}, this one knows {steps[-1][0]}):"
            " upgrade threadfs"
        )
    return version


def _one(session: Session, query: str, *parameters: Any) -> Any:
    return session.execute(query, parameters)[0][0]
