"""How benchmarks print: the table of the mount has one row for each thing that was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

# "other": the same done by threadfs or Python under other conditions, which the row names.
SIDES = ("bare", "bindfs", "floor", "other", "threadfs")

HEADER = (
    f"{'what':<46}"
    + "".join(f"{side:>11}" for side in SIDES)
    + f"{'ratio':>8}  {'target':<24} verdict\n"
    + "─" * 145
)


def duration(seconds: float) -> str:
    if seconds < 10e-3:
        return f"{seconds * 1e6:.1f} us" if seconds < 100e-6 else f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


def megabytes(size: float) -> str:
    return f"{size / 1e6:.0f} MB"


def gain(value: float) -> str:
    return f"{value:.2f} x"


def rate(per_second: float) -> str:
    return f"{per_second:,.0f}/s"


def number(value: float) -> str:
    return f"{value:.4g}"


@dataclass(frozen=True, slots=True)
class Row:
    """*value* is to be at most (``is_least``: at least) *limit*; without limit, a report.

    Args:
        sides: what was measured on each side, by its name in `SIDES`, all in the unit of *shown*.
        against: what *limit* is a multiple of, in words.
    """

    what: str
    sides: Mapping[str, float]
    value: float
    limit: float | None = None
    against: str = ""
    is_least: bool = False
    shown: Callable[[float], str] = field(default=duration)

    @property
    def is_missed(self) -> bool:
        if self.limit is None:
            return False
        return self.value < self.limit if self.is_least else self.value > self.limit

    def text(self) -> str:
        cells = "".join(f"{self.shown(self.sides[side]) if side in self.sides else '':>11}" for side in SIDES)
        target, verdict = "", ""
        if self.limit is not None:
            target = f"{'≥' if self.is_least else '≤'} {self.limit:g} {self.against}".rstrip()
            verdict = "MISSED" if self.is_missed else "met"
        return f"{self.what:<46}{cells}{self.value:>8.2f}  {target:<24} {verdict}".rstrip()


def against(
    peer: str,
    what: str,
    sides: Mapping[str, float],
    limit: float | None = None,
    *,
    is_least: bool = False,
    shown: Callable[[float], str] = duration,
) -> Row:
    """A row whose ratio is that of threadfs to *peer*."""
    value = sides["threadfs"] / sides[peer]
    return Row(what, sides, value, limit, f"x {peer}", is_least, shown)


def is_missed(what: str, value: float, unit: str, limit: float | None) -> bool:
    """Prints a figure that has no other side, and says whether it is above its limit, if it has one."""
    missed = limit is not None and value > limit
    verdict = "" if limit is None else f"<= {limit:.3g} {'MISSED' if missed else 'ok'}"
    print(f"    {what:<58}{value:>9.2f} {unit:<4} {verdict}".rstrip(), flush=True)
    return missed
