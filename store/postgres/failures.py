"""The errors of a server as the errors of a store."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout

from store.errors import StorageFailed, Unreachable

# By SQLSTATE; https://www.postgresql.org/docs/current/errcodes-appendix.html
_ERRNOS = {
    "25006": errno.EROFS,  # read_only_sql_transaction: a standby, or default_transaction_read_only
    "53100": errno.ENOSPC,  # disk_full
    "53200": errno.ENOMEM,  # out_of_memory
    "57014": errno.ETIMEDOUT,  # query_canceled: by statement_timeout
    "55P03": errno.ETIMEDOUT,  # lock_not_available: by lock_timeout
    "42501": errno.EACCES,  # insufficient_privilege
}

# The beginning of libpq's errors: which server, and that connecting failed.
_PREFIX = re.compile(r"^(- host: .*?: )?connection (failed|is bad): ")

# The connection and its transaction have ended; the same may work on another connection.
_LOST = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03", "53300"})
# The transaction was undone in favour of another one, or has waited long enough for the lock of another one.
# It may be run again.
_UNDONE = frozenset({"40001", "40P01", "55P03"})


class ServerAway(psycopg.OperationalError):
    """The server was not there when it was last looked for; the text is why."""


# Their words would add nothing to the server's.
_VAGUE = frozenset({errno.EIO, errno.ETIMEDOUT})


class ServerFailed(StorageFailed):
    """An error in the server's words, to which ``str(error)`` adds those of the ``errno``."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(number, reason)
        if number in _VAGUE:
            self.args = (reason,)


def is_passing(error: psycopg.Error) -> bool:
    """Whether the same may work on another connection, or at another time."""
    state = error.sqlstate
    if state is None:
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)) and not isinstance(
            error, (PoolTimeout, ServerAway)
        )
    return state in _LOST or state in _UNDONE or state.startswith("08")


def is_absence(error: psycopg.Error) -> bool:
    """Whether the server is missing: no connection to it, or no answer."""
    return isinstance(error, (PoolTimeout, ServerAway)) or (
        is_passing(error) and error.sqlstate not in _UNDONE
    )


def storage_failed(
    error: psycopg.Error,
    last_refusal: str = "",
    *,
    is_connecting: bool = False,
    is_unanswered: bool = False,
) -> StorageFailed:
    """*error* with the reason in words; *last_refusal* is why connecting failed when it last did."""
    what, reason = "the database failed", words(error)
    if is_connecting or isinstance(error, ServerAway):
        what = "no connection to the database"
    elif isinstance(error, (PoolTimeout, PoolClosed)):
        # All the time went into waiting for a connection.
        what, reason = "no connection to the database", last_refusal or reason
    if is_unanswered:
        what = "it is not known whether the database has made the change"
    said = f"{what} ({reason})"
    if is_absence(error):
        return Unreachable(said)
    return ServerFailed(_ERRNOS.get(error.sqlstate or "", errno.EIO), said)


def words(error: psycopg.Error | OSError) -> str:
    """The message of the server or of libpq in one line, which never holds a password."""
    said = (isinstance(error, psycopg.Error) and error.diag.message_primary) or str(error)
    # With several servers, the second part has one message for each; its address is in the message, too.
    said = said.partition("All failures were:\n")[2] or said
    return "".join(_joined(said.splitlines()))[:500] or type(error).__name__


def _joined(lines: Iterable[str]) -> Iterator[str]:
    """The lines as one: sentences, of which one may go on in an indented line, and lists."""
    before = ""
    for line in lines:
        text = _PREFIX.sub("", line).strip()
        if not text:
            continue
        if before and text[0].isupper():
            yield " " if before[-1] in ".?!:;," else ". "
        elif before:
            yield " " if line[0].isspace() else "; "
        yield text
        before = text
