"""Lists of what is in the tables of a catalogue."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from typing import Final, NamedTuple

from store.catalogue.api import Listed, Named
from store.catalogue.names import full_name, needs_id, told_apart
from store.errors import Ambiguous, ThreadNotFound

DAY_S: Final = 86400
# The numbers that SQLite has, and so the times.
_FIRST_S: Final = -(1 << 63)
_LAST_S: Final = (1 << 63) - 1


class Counts(NamedTuple):
    """*texts_dead*: texts that are gone, but not their words."""

    threads: int
    texts: int
    texts_dead: int


class Lists:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        # Within a change, which no other process makes meanwhile: the numbers of threads that were asked for,
        # ``None`` for those that are not here.
        self._numbers: dict[str, int | None] | None = None

    def has_thread(self, thread_id: str) -> bool:
        return self._find(thread_id) is not None

    def thread_ids(self) -> list[str]:
        return [thread_id for (thread_id,) in self.connection.execute("SELECT id FROM threads ORDER BY id")]

    def ids_between(self, after: str, last: str | None) -> list[str]:
        """The ids of threads after one, in the order of their bytes, to the *last* one, if it is given."""
        until, values = (" AND id <= ?", [after, last]) if last is not None else ("", [after])
        found = self.connection.execute(f"SELECT id FROM threads WHERE id > ?{until}", values)
        return [thread_id for (thread_id,) in found]

    def not_here(self, thread_ids: Collection[str]) -> list[str]:
        """Those of some threads that are not here."""
        here = self.thread_names(thread_ids)
        return [thread_id for thread_id in thread_ids if thread_id not in here]

    def count(self) -> int:
        """How many threads there are."""
        return int(self.connection.execute("SELECT count(*) FROM threads").fetchone()[0])

    def newest_first(self) -> Iterator[str]:
        """The ids of the threads, by their last change."""
        found = self.connection.execute("SELECT id FROM threads ORDER BY changed_ns DESC")
        return (thread_id for (thread_id,) in found)

    def statuses_in(self, thread_ids: Iterable[str]) -> list[tuple[str, str, str]]:
        """(thread id, run id, status) of each run of some threads."""
        return self.connection.execute(
            "SELECT threads.id, runs.id, status FROM runs JOIN threads ON number = thread"
            " WHERE threads.id IN (SELECT value FROM json_each(?))",
            (json.dumps([*thread_ids]),),
        ).fetchall()

    def runs(self, statuses: Collection[str]) -> Iterator[tuple[str, str, str]]:
        """(thread id, run id, status) of each run in one of these statuses."""
        marks = ", ".join("?" * len(statuses))
        yield from self.connection.execute(
            "SELECT threads.id, runs.id, status FROM runs JOIN threads ON number = thread"
            f" WHERE status IN ({marks})",
            tuple(statuses),
        )

    def changed_ns(self, thread_id: str) -> int:
        """When a thread last changed. Raises ThreadNotFound."""
        return int(self._thread(thread_id, "changed_ns"))

    def thread_names(self, thread_ids: Iterable[str]) -> dict[str, str]:
        """What threads are called, whatever others are called; nothing of those that are not here."""
        found = self.connection.execute(
            "SELECT id, name FROM threads WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps([*thread_ids]),),
        )
        return dict(found.fetchall())

    def titles_of(self, thread_ids: Iterable[str]) -> dict[str, str]:
        """As `titles_of_all`, of some threads; nothing of those that are not here."""
        found = self.connection.execute(
            "SELECT id, title FROM threads WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps([*thread_ids]),),
        )
        return dict(found.fetchall())

    def titles_of_all(self) -> dict[str, str]:
        """The title of each thread, by its id; empty for one that has none."""
        return dict(self.connection.execute("SELECT id, title FROM threads ORDER BY created_at").fetchall())

    def titles(self) -> list[Named]:
        """As `api.Catalogue.titles`."""
        return _named(self.connection.execute("SELECT name, id, changed_ns FROM threads ORDER BY name, id"))

    def thread_called(self, name: str, day_s: int | None = None) -> str:
        """As `api.Catalogue.thread_called`."""
        bare, mark, thread_id = name.partition("@")
        # With its id, as a thousand may be called the same.
        which, values = ("id = ? AND name = ?", (thread_id, bare)) if mark else ("name = ?", (bare,))
        found = self.connection.execute(
            f"SELECT id FROM threads WHERE {which} AND created_at BETWEEN ? AND ? ORDER BY id",
            (*values, *_within(day_s)),
        )
        ids = [found_id for (found_id,) in found]
        if not ids:
            raise ThreadNotFound(name)
        if not mark and needs_id(name, len(ids)):
            raise Ambiguous(name, [full_name(name, found_id) for found_id in ids])
        return str(ids[0])

    def days(self) -> list[int]:
        """The days on which a thread was created, as the seconds since 1970 when each began (UTC)."""
        days: list[int] = []
        after_s = _FIRST_S
        while after_s <= _LAST_S:
            # From day to day in the index, which is quicker than through all threads.
            found = self.connection.execute(
                "SELECT min(created_at) FROM threads WHERE created_at >= ?", (after_s,)
            )
            if (first := found.fetchone()[0]) is None:
                break
            days.append(first // DAY_S * DAY_S)
            after_s = days[-1] + DAY_S
        return days

    def created_on(self, day_s: int) -> list[Named]:
        """As `api.Catalogue.created_on`."""
        found = self.connection.execute(
            "SELECT name, id, changed_ns FROM threads WHERE created_at BETWEEN ? AND ? ORDER BY name, id",
            _within(day_s),
        )
        return _named(found)

    def list_threads(self) -> list[Listed]:
        """As `api.Catalogue.threads`."""
        found = self.connection.execute(
            "SELECT threads.id, NULL, name, coalesce(status, ''), coalesce(model, ''), threads.created_at,"
            " threads.changed_ns FROM threads LEFT JOIN runs ON thread = number AND runs.id = ("
            "SELECT id FROM runs WHERE thread = number ORDER BY created_at DESC, changed_ns DESC, id LIMIT 1)"
        )
        return list(map(Listed._make, found))

    def list_runs(self) -> list[Listed]:
        """As `api.Catalogue.runs`."""
        found = self.connection.execute(
            "SELECT threads.id, runs.id, name, status, model, runs.created_at, runs.changed_ns"
            " FROM runs JOIN threads ON number = thread"
        )
        return list(map(Listed._make, found))

    def counts(self) -> Counts:
        threads, texts = self.connection.execute(
            "SELECT count(*), (SELECT count(*) FROM texts) FROM threads"
        ).fetchone()
        return Counts(threads, texts, self.texts_dead())

    def texts_dead(self) -> int:
        """Texts that are gone, but not their words."""
        return int(self.connection.execute("SELECT count(*) FROM texts WHERE thread = 0").fetchone()[0])

    def messages(self) -> int:
        """How many messages have their words here."""
        found = self.connection.execute(
            "SELECT (SELECT count(*) FROM texts) - (SELECT count(*) FROM texts WHERE thread = 0)"
            " - (SELECT count(*) FROM threads WHERE title != '')"
        )
        return int(found.fetchone()[0])

    def _find(self, thread_id: str) -> int | None:
        if self._numbers is not None and thread_id in self._numbers:
            return self._numbers[thread_id]
        found = self.connection.execute("SELECT number FROM threads WHERE id = ?", (thread_id,)).fetchone()
        number = None if found is None else int(found[0])
        if self._numbers is not None:
            self._numbers[thread_id] = number
        return number

    def _number(self, thread_id: str) -> int:
        if (number := self._find(thread_id)) is None:
            raise ThreadNotFound(thread_id)
        return number

    def _thread(self, thread_id: str, column: str) -> str | int:
        found = self.connection.execute(f"SELECT {column} FROM threads WHERE id = ?", (thread_id,)).fetchone()
        if found is None:
            raise ThreadNotFound(thread_id)
        value: str | int = found[0]
        return value


def _named(rows: Iterable[tuple[str, str, int]]) -> list[Named]:
    given = list(rows)
    named = told_apart((name, thread_id) for name, thread_id, _ in given)
    return [Named(*one, changed_ns) for one, (_, _, changed_ns) in zip(named, given, strict=True)]


def _within(day_s: int | None) -> tuple[int, int]:
    """The first and the last second of a day, or of all time."""
    if day_s is None:
        return _FIRST_S, _LAST_S
    return max(day_s, _FIRST_S), min(day_s + DAY_S - 1, _LAST_S)
