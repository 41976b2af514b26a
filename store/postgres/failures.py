"""What a server says when it does not do what was asked, as what a store says."""

from __future__ import annotations

import errno
import os
import re

import psycopg
from psycopg import errors
from psycopg_pool import PoolTimeout

from store.errors import StorageFailed
from store.postgres.watchdog import NoAnswer

# By SQLSTATE; https://www.postgresql.org/docs/current/errcodes-appendix.html
_ERRNOS = {
    "25006": errno.EROFS,  # read_only_sql_transaction: a standby, or default_transaction_read_only
    "53100": errno.ENOSPC,  # disk_full
    "53200": errno.ENOMEM,  # out_of_memory
    "57014": errno.ETIMEDOUT,  # query_canceled: by statement_timeout
    "55P03": errno.ETIMEDOUT,  # lock_not_available: by lock_timeout
    "42501": errno.EACCES,  # insufficient_privilege
}

# The connection has ended with what was done on it, and another one may fare better.
_LOST = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03", "53300"})
# The transaction was undone in favour of another one, or has waited long enough for what that one has locked,
# and may be run again.
_UNDONE = frozenset({"40001", "40P01", "55P03"})


def is_passing(error: psycopg.Error) -> bool:
    """Whether the same may work on another connection, or at another time."""
    state = error.sqlstate
    if state is None:
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)) and not isinstance(
            error, PoolTimeout
        )
    return state in _LOST or state in _UNDONE or state.startswith("08")


def storage_failed(
    error: psycopg.Error,
    last_refusal: psycopg.Error | None = None,
    *,
    is_connecting: bool = False,
    is_unanswered: bool = False,
) -> StorageFailed:
    """*error* with the reason in words; *last_refusal* is why connecting failed when it last did."""
    number = _ERRNOS.get(error.sqlstate or "", errno.EIO)
    what = "no connection to the database" if is_connecting else "the database failed"
    reason = error
    if isinstance(error, PoolTimeout):
        # All the time went into waiting for a connection.
        what, reason = "no connection to the database", last_refusal or error
    if isinstance(reason, (PoolTimeout, errors.ConnectionTimeout, NoAnswer)):
        number = errno.ETIMEDOUT
    if is_unanswered:
        what = "it is not known whether the database has made the change"
    words = _words(reason)
    # The system's name for it may tell more than the server's words; that there was an error does not.
    return StorageFailed(number, what, words if number == errno.EIO else f"{os.strerror(number)} ({words})")


# What psycopg puts before the words of libpq, and the system before its own.
_PREFIX = re.compile(r"connection (failed|is bad): |\[Errno -?\d+\] ")
# Of several hosts psycopg gives the last failure, and then a list of all, an item a line.
_LIST, _ITEM = "Multiple connection attempts failed", re.compile(r"- host: .*?, hostaddr: '[^']*': ")


def _words(error: psycopg.Error) -> str:
    """What the server or libpq said, in one line, which never holds a password."""
    said, _, of_all = (error.diag.message_primary or _PREFIX.sub("", str(error))).partition(_LIST)
    items = [_ITEM.sub("", line) for line in of_all.splitlines() if _ITEM.match(line)]
    # Each line is a sentence of its own.
    sentences = [" ".join(line.split()) for line in items or said.splitlines()]
    line = ". ".join(sentence for sentence in sentences if sentence)
    return re.sub(r"([.?!:;,])\. ", r"\1 ", line)[:500] or type(error).__name__
