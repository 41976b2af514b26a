"""``python -m tests.cli.full_cache ...``: threadfs where the disk of the cache is full."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from store.catalogue.tables import Tables
from threadfs.cli import main


def fill() -> None:
    changing = Tables.changing

    @contextmanager
    def full(self: Tables) -> Iterator[None]:
        with changing(self):
            yield
            if self.has_words:
                raise sqlite3.OperationalError("database or disk is full")

    Tables.changing = full  # type: ignore[method-assign]


if __name__ == "__main__":
    fill()
    sys.exit(main())
