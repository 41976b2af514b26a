"""Connection URLs and keyword strings: the part that may be shown, and the defaults.

Everything that libpq knows works as libpq has it (``service=``, ``passfile=``, ``sslmode=``, several hosts,
``PG…`` environment variables), because it is libpq that reads it.
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote, unquote

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from store.errors import StoreError

_SECRETS = ("password", "sslpassword")

# Parameters that name files: in a URL, and in the environment.
_FILES = frozenset({"passfile", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir"})
_FILE_VARIABLES = (
    *("PGPASSFILE", "PGSERVICEFILE", "PGSYSCONFDIR"),
    *("PGSSLCERT", "PGSSLKEY", "PGSSLROOTCERT", "PGSSLCRL", "PGSSLCRLDIR"),
)

# A URL as libpq takes it apart: credentials end at the first "@" if that comes before any "/".
_URL = re.compile(
    r"(?P<scheme>postgres(?:ql)?://)(?:(?P<user>[^:@/]*)(?::(?P<password>[^@/]*))?@)?(?P<rest>.*)"
)

# A dead peer is noticed within 25 s on a connection that waits, and within 10 s on one that sends.
_DEFAULTS = {
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "client_encoding": "UTF8",
    "fallback_application_name": "threadfs",
}


class WrongUrl(StoreError):
    """The text names no database; it is not repeated, since it may hold a password."""


def without_password(url: str) -> tuple[str, str | None]:
    """*url* without its secrets, and the password that it held, if any.

    With the password elsewhere (``PGPASSWORD``, ``PGPASSFILE``) the rest is enough to connect. The
    password of a TLS key (``sslpassword``) goes too, and is not returned: it belongs into a service file.
    """
    parts = _URL.fullmatch(url)
    if parts is None:
        parameters = _parsed(url)
        password = parameters.get("password")
        shown = {name: value for name, value in parameters.items() if name not in _SECRETS}
        return make_conninfo("", **shown), password
    password = None if parts["password"] is None else unquote(parts["password"])
    place, question_mark, query = parts["rest"].partition("?")
    kept = []
    for parameter in query.split("&") if question_mark else []:
        name, _, value = parameter.partition("=")
        if unquote(name) == "password":
            password = unquote(value)
        if unquote(name) not in _SECRETS:
            kept.append(parameter)
    user = "" if parts["user"] is None else f"{parts['user']}@"
    return f"{parts['scheme']}{user}{place}{'?' if kept else ''}{'&'.join(kept)}", password or None


def with_absolute_paths(url: str) -> str:
    """*url*, to connect with from any directory: the files that it names are found from there, too.

    So are those that the environment names, which is changed.
    """
    for variable in _FILE_VARIABLES:
        if variable in os.environ:
            os.environ[variable] = _absolute(os.environ[variable])
    place, question_mark, query = url.partition("?")
    parameters = []
    for parameter in query.split("&"):
        name, _, value = parameter.partition("=")
        path = unquote(value)
        if unquote(name) in _FILES and _absolute(path) != path:
            parameter = f"{name}={quote(_absolute(path))}"
        parameters.append(parameter)
    return f"{place}{question_mark}{'&'.join(parameters)}"


def _absolute(path: str) -> str:
    """An absolute path. Values that name no file stay, such as ``sslrootcert=system``."""
    return os.path.join(os.getcwd(), path) if path != "system" and os.path.exists(path) else path


def connection_parameters(url: str, connect_timeout_s: int) -> dict[str, str]:
    """The parameters of *url*, with a bound for every wait that it does not set itself."""
    given = _parsed(url)
    defaults = dict(_DEFAULTS)
    if "PGCONNECT_TIMEOUT" not in os.environ:
        defaults["connect_timeout"] = str(connect_timeout_s)
    return {**defaults, **given}


def _parsed(url: str) -> dict[str, str]:
    try:
        return {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    except ProgrammingError:
        raise WrongUrl(
            "this names no database: write postgresql://USER@HOST/DATABASE, with special characters as %XX"
        ) from None
