"""The store in a PostgreSQL database, for when several machines work on the same threads."""

try:
    import psycopg  # noqa: F401
    import psycopg_pool  # noqa: F401
except ImportError:
    raise ImportError(
        "a postgresql:// store needs psycopg and psycopg_pool: install threadfs[postgres]"
    ) from None

from store.postgres.connections import Limits, without_password
from store.postgres.postgres_store import PostgresStore
from store.postgres.schema import NoTables
from store.postgres.urls import with_absolute_paths

__all__ = ["Limits", "NoTables", "PostgresStore", "with_absolute_paths", "without_password"]
