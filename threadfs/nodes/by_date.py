"""``by-date/<yyyy>/<mm>/<dd>/``: a link to each thread, on the day (UTC) on which it was created."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from store import NotFound
from store.catalogue.api import Catalogue
from threadfs.nodes.base import Node, NoSuchName
from threadfs.nodes.lives import Life
from threadfs.nodes.views import ThreadLink, ViewDirectory, called, checked, time_of, time_of_threads

_DAY_S: Final = 86400


class Date(NamedTuple):
    """A year, a month or a day, as the names that lead to it."""

    year: str = ""
    month: str = ""
    day: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in self if name)


def date_of(day_s: int) -> Date:
    """The date of a time in seconds since 1970: of any, also where `datetime` ends.

    By years that begin in March, so that a leap day ends one; an era has 400 of them (Howard Hinnant,
    "chrono-Compatible Low-Level Date Algorithms").
    """
    era, of_era = divmod(day_s // _DAY_S + 719468, 146097)
    year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    from_march = (5 * of_year + 2) // 153
    day = of_year - (153 * from_march + 2) // 5 + 1
    month = from_march + 3 if from_march < 10 else from_march - 9
    year += 400 * era + (month <= 2)
    return Date(f"{year:04d}", f"{month:02d}", f"{day:02d}")


def _calendar(days: Iterable[int]) -> dict[tuple[str, ...], dict[str, int]]:
    """What is in ``by-date/``, in each year and in each month: names, and the newest day of each.

    *days*: when each began, in seconds since 1970, the oldest first.
    """
    inside: dict[tuple[str, ...], dict[str, int]] = {}
    for day_s in days:
        names = date_of(day_s).names
        for depth, name in enumerate(names):
            inside.setdefault(names[:depth], {})[name] = day_s
    return inside


@dataclass(frozen=True, slots=True)
class ByDateDirectory(ViewDirectory):
    """``by-date/``, or a year or month in it: the years, months or days on which a thread was created."""

    date: Date

    @property
    def life(self) -> Life:
        return Life.UNREPORTED if self.date.year else Life.NAME

    @property
    def path(self) -> str:
        return "/".join(("by-date", *self.date.names))

    def time_ns(self) -> int:
        """That of the newest day in it, at its beginning."""
        inside = self._inside()
        if not inside and self.date.year:
            raise NotFound(f"no thread was created then: {self.path}")
        newest_s = max(inside.values(), default=self.started_s)
        return time_of(newest_s, ((name, "") for name in inside))

    def lookup(self, name: str) -> Node:
        inside = self._inside()
        if name not in inside:
            raise NoSuchName(name)
        return self._child(name, inside[name])

    def entries(self) -> Iterable[tuple[str, Node]]:
        for name, day_s in self._inside().items():
            yield name, self._child(name, day_s)

    def _inside(self) -> Mapping[str, int]:
        """The years, months or days in it, and the newest day of each."""
        calendar = self.tree.finding.answer("days", lambda catalogue: _calendar(catalogue.days()))
        return calendar.get(self.date.names, {})

    def _child(self, name: str, day_s: int) -> Node:
        if self.date.month:
            return DayDirectory(self.tree, day_s)
        year = self.date.year
        return ByDateDirectory(self.tree, Date(year, name) if year else Date(name))


@dataclass(frozen=True, slots=True)
class DayDirectory(ViewDirectory):
    """The threads that were created on one day, which began at *day_s* seconds since 1970."""

    day_s: int

    @property
    def path(self) -> str:
        return "/".join(("by-date", *date_of(self.day_s)))

    def time_ns(self) -> int:
        return self.tree.finding.answer(self.path, self._time_ns)

    def _time_ns(self, catalogue: Catalogue) -> int:
        threads = catalogue.created_on(self.day_s)
        if not threads:
            raise NotFound(f"no thread was created then: {self.path}")
        return time_of_threads(threads, 0)

    def lookup(self, name: str) -> Node:
        return ThreadLink(self.tree, self, name, called(self.tree, checked(name), self.day_s))

    def entries(self) -> Iterable[tuple[str, Node]]:
        for name, thread_id, _ in self.tree.finding.asking(lambda found: found.created_on(self.day_s)):
            yield name, ThreadLink(self.tree, self, name, thread_id)
