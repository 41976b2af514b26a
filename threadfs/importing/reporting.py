"""What an import tells: a line for each thing that is not imported, and the numbers at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from threadfs.importing.merging import BRANCHES, EMPTY, EXTENDED, IMPORTED, LEFT

_MAX_TITLE = 60


@dataclass(slots=True)
class Report:
    """*complain* gets lines, which may hold any character: it makes them printable."""

    complain: Callable[[str], None]
    counts: Counter[str] = field(default_factory=Counter)
    unknown: int = 0
    skipped: list[dict[str, Any]] = field(default_factory=list)

    def skip(self, file: str, where: str, title: str, reason: str) -> None:
        """*where*: ``line 3``, ``number 3`` of a list, or nothing for the file as a whole."""
        kind, _, number = where.partition(" ")
        if file and kind == "line" and number:
            place = f"{file}:{number}"
        else:
            place = ", ".join(filter(None, (file, where)))
        if title:
            shown = title if len(title) <= _MAX_TITLE else title[: _MAX_TITLE - 1] + "…"
            place += f' "{shown}"'
        self.complain(f"{place}: {reason}" if place else reason)
        self.skipped.append({"file": file or "-", "where": where, "title": title or None, "reason": reason})

    @property
    def exit_status(self) -> int:
        return 1 if self.skipped else 0

    def summary(self) -> str:
        """The numbers in one line of text."""
        counts = self.counts
        branches = counts[BRANCHES]
        said = (
            f"{counts[IMPORTED]} imported, {counts[EXTENDED]} extended,"
            f" {branches} {'branch' if branches == 1 else 'branches'}, {counts[LEFT]} were there already,"
            f" {counts[EMPTY]} empty, {len(self.skipped)} skipped"
        )
        return said + (f", {self.unknown} unknown contents" if self.unknown else "")

    def as_object(self) -> dict[str, Any]:
        numbers = {name: self.counts[name] for name in (IMPORTED, EXTENDED, BRANCHES, LEFT, EMPTY)}
        return {**numbers, "unknown_contents": self.unknown, "skipped": self.skipped}
