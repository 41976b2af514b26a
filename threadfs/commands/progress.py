"""What commands print, and a progress bar on stderr for those who watch, which no pipe or log gets."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")


class Bar(Protocol):
    def update(self, n: float | None = 1) -> object: ...


class _NoBar:
    def update(self, n: float | None = 1) -> object:
        return None


@contextmanager
def bar(total: int | None, unit: str) -> Iterator[Bar]:
    """Something to `update` as *unit* after *unit* is done; *total* is how many there will be, if known."""
    if not sys.stderr.isatty():
        yield _NoBar()
        return
    from tqdm import tqdm

    scale = unit == "B"
    with tqdm(
        total=total, unit=unit, unit_scale=scale, file=sys.stderr, leave=False, dynamic_ncols=True
    ) as shown:
        yield shown


def tracked(items: Iterable[T], unit: str, total: int | None = None) -> Iterator[T]:
    """*items*, one by one, with a bar."""
    with bar(total, unit) as shown:
        for item in items:
            yield item
            shown.update()


def say(line: str) -> None:
    """A line on stdout, also while a bar is on the terminal. It may hold text of a store."""
    _write(_printable(line), sys.stdout)


def complain(line: str) -> None:
    """A line on stderr, also while a bar is there."""
    _write(complaint(line), sys.stderr)


def complaint(line: str) -> str:
    """A reason as stderr shows it; the journal knows who speaks, and takes 3 for the priority of an error."""
    shown = _printable(line)
    return f"<3>{shown}" if is_journal() else f"threadfs: {shown}"


def _printable(line: str) -> str:
    if line.isprintable():
        return line
    # Not at the top: what it belongs to takes a while to import, and most lines do without.
    from store.printing import printable

    return printable(line)


def is_journal() -> bool:
    """stderr is the journal: systemd says which file that is."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _write(line: str, stream: object) -> None:
    if sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write(line, file=stream)  # type: ignore[arg-type]
    else:
        print(line, file=stream)  # type: ignore[call-overload]
