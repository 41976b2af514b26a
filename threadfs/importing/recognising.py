"""Which source a file is of: by its content, never by its name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from typing import Protocol, cast

from threadfs.importing import SOURCES
from threadfs.importing.conversations import Outcome
from threadfs.importing.databases import databases
from threadfs.importing.files import SQLITE, File, is_surely_json, look_of, may_be_json
from threadfs.importing.openai_objects import is_export
from threadfs.importing.pieces import Item, Pieces

# One of the first values must be of a source: so many are tried.
_VALUES = 100


class Source(Protocol):
    def is_mine(self, value: object) -> bool: ...
    def conversations(self, items: Iterable[Item], file: File) -> Iterator[Outcome]: ...


@dataclass(frozen=True, slots=True)
class Recognised:
    """A file of a source, with all its values from the first on. Without a source: an empty list."""

    source: str
    items: Iterator[Item]
    is_export: bool = False


@dataclass(frozen=True, slots=True)
class Nobodys:
    """A file that is of no source: what it looks like, or what is wrong with it, if it should be of one."""

    look: str
    broken: Item | None = None


def module_of(source: str) -> Source:
    return cast(Source, import_module(f"threadfs.importing.{SOURCES[source]}"))


def recognised(file: File, wanted: str | None = None) -> Recognised | Nobodys:
    """Raises Unreadable."""
    head = file.head()
    is_database = head.startswith(SQLITE)
    if not is_database and not may_be_json(head):
        return Nobodys(look_of(head))
    if wanted in (None, "openai") and is_export(head):
        # `openai_lines` reads it line by line.
        return Recognised("openai", iter(()), is_export=True)
    sources = [wanted] if wanted else list(SOURCES)
    items = databases(file) if is_database else iter(Pieces(file.read))
    seen: list[Item] = []
    values = 0
    for item in items:
        seen.append(item)
        if item.error:
            if len(seen) > _VALUES:
                break
            continue
        values += 1
        for source in sources:
            if module_of(source).is_mine(item.value):
                return Recognised(source, chain(seen, items))
        if values >= _VALUES:
            break
    if not seen:
        return Recognised("", iter(()))
    if is_database:
        return Nobodys(look_of(head))
    broken = next((item for item in seen if item.error), None)
    if broken is not None and is_surely_json(head):
        return Nobodys("JSON", broken)
    return Nobodys(_look_of_values(seen))


def _look_of_values(seen: list[Item]) -> str:
    first = seen[0].value
    if isinstance(first, dict):
        names = ", ".join(list(first)[:4])
        return f"JSON with {names}" if names else "JSON with nothing in it"
    return "a text" if seen[0].error else "JSON"
