"""The output of commands, and a progress bar on stderr if that is a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
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
    """A progress bar to `update` after each *unit*; *total* is the number of units, if known."""
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
    """Yields *items* one by one, with a bar."""
    with bar(total, unit) as shown:
        for item in items:
            yield item
            shown.update()


@contextmanager
def counting(unit: str) -> Iterator[Callable[[int, int], None]]:
    """Shows what takes longer than a moment, to who calls it with how much is done and how much that is."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from tqdm import tqdm

    with tqdm(unit=unit, file=sys.stderr, leave=False, dynamic_ncols=True, delay=0.5) as shown:

        def tell(done: int, total: int) -> None:
            shown.total = total
            shown.update(done - shown.n)

        yield tell


def say_json(fields: dict[str, object]) -> None:
    """Prints an object as a line that a terminal can show, and that means the same in a pipe."""
    import json

    from store.printing import printable_json

    _write(printable_json(json.dumps(fields, ensure_ascii=False)), sys.stdout)


def say_columns(*columns: str) -> None:
    """Prints columns with tabs between; a tab within one is escaped."""
    _write("\t".join(map(printed, columns)), sys.stdout)


def say(line: str) -> None:
    """Prints a line to stdout, also while a bar is shown. The line may hold text of a store."""
    _write(printed(line), sys.stdout)


def complain(line: str) -> None:
    """Prints a line to stderr, also while a bar is shown."""
    _write(complaint(line), sys.stderr)


def complain_of_warnings() -> None:
    """Has what is logged as a warning, by a command that has no log, said as `complain` does."""
    import logging

    class Complaints(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            complain(record.getMessage())

    logging.lastResort = Complaints(logging.WARNING)


def complaint(line: str) -> str:
    """A reason as a line for stderr: with our name, or for the journal with the priority of an error."""
    shown = printed(line)
    return f"<3>{shown}" if is_journal() else f"threadfs: {shown}"


def printed(line: str) -> str:
    """Text of a store as one line for a terminal."""
    if line.isprintable():
        return line
    # Imported here, as `store` takes a while to import, and most lines do not need it.
    from store.printing import printable

    return printable(line)


def is_journal() -> bool:
    """Whether stderr is the journal; systemd puts the numbers of that file into the environment."""
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
