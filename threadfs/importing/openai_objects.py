"""OpenAI's objects: what ``threadfs export`` writes, and saved pages and lines of Assistants objects.

An export is read line by line (`openai_lines`). Other objects may be spread over several FILEs, and pages
have the newest first: they are collected, in a file without a name, and then read as if they were exported.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from store import InvalidDocument, Store
from threadfs.importing.conversations import Skipped
from threadfs.importing.openai_lines import Import
from threadfs.importing.pieces import Item
from threadfs.importing.values import Fields, fields, id_of, objects, text, time_s
from threadfs.openai.objects import OWN_FIELD, line_of
from threadfs.openai.translation import KINDS

_IN_MEMORY_BYTES = 16 << 20
# The number of lines that show whether a file is an export.
_LINES = 3


def is_mine(value: Any) -> bool:
    kind = text(fields(value).get("object"))
    if kind == "list":
        return any(text(entry.get("object")) in KINDS for entry in objects(fields(value).get("data")))
    return kind in KINDS


def is_export(head: bytes) -> bool:
    """Whether a file with this beginning is lines in the order of an export."""
    lines = [line for line in head.split(b"\n")[: _LINES + 1] if line.strip()]
    found = [value for line in lines if is_mine(value := _parsed(line)) and value["object"] != "list"]
    if not found:
        return False
    first, following = found[0], found[1:]
    if OWN_FIELD in first or len(found) < len(lines):
        return True
    return first["object"] == "thread" and any(
        value.get("thread_id") == first.get("id") for value in following
    )


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


@dataclass(slots=True)
class _Place:
    """An object in the spool: by what it is sorted among those of its kind, and its place in bytes."""

    created_s: int
    order: int
    start: int
    size: int


@dataclass(slots=True)
class _Thread:
    """The objects of one thread, by their kind, and where the first one was."""

    file: str
    where: str
    places: dict[str, list[_Place]] = field(default_factory=dict)


def _spool() -> IO[bytes]:
    return tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)


@dataclass(slots=True)
class Collected:
    """Objects from any number of FILEs, which belong to threads that are imported at the end."""

    _spool: IO[bytes] = field(default_factory=_spool)
    _threads: dict[str, _Thread] = field(default_factory=dict)
    _end: int = 0
    _orders: int = 0

    def add(self, items: Iterable[Item], file: str) -> Iterator[Skipped]:
        """Collects the objects of one file; yields what is not an object."""
        lines: dict[tuple[str, str], list[_Place]] = {}
        for item in items:
            if item.error:
                yield Skipped(item.where, "", item.error)
            elif not is_mine(item.value):
                yield Skipped(item.where, "", "is no object of OpenAI's Assistants")
            elif item.value["object"] != "list":
                kind = item.value["object"], id_of(item.value.get("thread_id"))
                try:
                    lines.setdefault(kind, []).append(self._add(item.value, file, item.where))
                except (InvalidDocument, ValueError) as error:
                    yield Skipped(item.where, "", str(error))
            else:
                page: list[_Place] = []
                for made in item.value["data"]:
                    if not is_mine(made) or made["object"] == "list":
                        yield Skipped(item.where, "", "holds what is no object of OpenAI's Assistants")
                        continue
                    try:
                        page.append(self._add(made, file, item.where))
                    except (InvalidDocument, ValueError) as error:
                        yield Skipped(item.where, "", str(error))
                # The API lists the newest object first, unless a client asked for the other order.
                self._put_in_order(page, newest_first=not page or page[0].created_s >= page[-1].created_s)
        for places in filter(None, lines.values()):
            self._put_in_order(places, newest_first=places[0].created_s > places[-1].created_s)

    def _add(self, made: Fields, file: str, where: str) -> _Place:
        thread_id = id_of(made.get("id" if made["object"] == "thread" else "thread_id"))
        thread = self._threads.setdefault(thread_id, _Thread(file, where))
        data = line_of(made)
        self._spool.seek(self._end)
        self._spool.write(data)
        place = _Place(time_s(made.get("created_at")) or 0, 0, self._end, len(data))
        thread.places.setdefault(made["object"], []).append(place)
        self._end += len(data)
        return place

    def _put_in_order(self, places: list[_Place], *, newest_first: bool) -> None:
        """Gives the objects of one list their order, which counts among objects of the same second."""
        for place in places:
            self._orders += 1
            place.order = -self._orders if newest_first else self._orders

    def finish(self, store: Store, refused: Callable[[str, str, str], None]) -> Iterator[Import]:
        """Imports the threads. *refused* gets the file, the place and the reason of each that is refused."""
        for thread_id, thread in self._threads.items():
            where = thread.file, thread.where

            def refuse(said: str, where: tuple[str, str] = where) -> None:
                refused(*where, said.partition(": ")[2])

            if not thread_id:
                refused(*where, "thread_id: missing")
                continue
            importing = Import(store, refuse)
            importing.read(self._lines(thread))
            yield importing

    def _lines(self, thread: _Thread) -> Iterator[bytes]:
        for kind in KINDS:
            for place in sorted(
                thread.places.get(kind, ()), key=lambda place: (place.created_s, place.order)
            ):
                self._spool.seek(place.start)
                yield self._spool.read(place.size)
