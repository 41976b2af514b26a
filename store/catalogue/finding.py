"""What is looked for in threads that are read, and what is shown of hits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from store.api import LogReader
from store.catalogue.api import Found, Results
from store.catalogue.folding import folded
from store.catalogue.matching import holds, matches, matches_thread, piece, snippet
from store.catalogue.names import name_of, told_apart
from store.catalogue.queries import Query
from store.catalogue.values import Hit, Kind, Link, MessageText, RunSummary, ThreadSummary
from store.lines import iter_lines, message_of

# Where a title and where messages stand.
_DOCUMENT: Final = "meta.json"
_LOG: Final = "messages.jsonl"


@dataclass(frozen=True, slots=True)
class Described:
    """A thread and its runs, as they were just read."""

    thread: ThreadSummary
    runs: Sequence[RunSummary]

    @property
    def name(self) -> str:
        return name_of(self.thread.id, self.thread.title, self.thread.said_first)

    @property
    def title(self) -> MessageText:
        """The title, or what the thread is called instead."""
        shown = self.thread.title or self.name
        return MessageText(self.thread.title_line, Kind.TITLE, self.thread.created_at, shown)


# The texts of a thread that are hits, of all that is said in it.
Look: TypeAlias = Callable[[Described, Iterable[MessageText]], Iterator[MessageText]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for: *look* finds it in a thread, *is_in* in one text, *show* shows it there."""

    look: Look
    is_in: Callable[[Hit, str], bool]
    show: Callable[[str], str]


def by_time(hit: Hit) -> tuple[int, str, int]:
    """The newest first, of one moment and thread the last one first."""
    return -hit.created_at, hit.thread_id, -hit.line


def texts_of(log: LogReader, thread_id: str) -> Iterator[MessageText]:
    for number, (line, _) in enumerate(iter_lines(log.read), 1):
        if text := text_of(line, number, thread_id):
            yield text


def text_of(line: bytes, number: int, thread_id: str) -> MessageText | None:
    """The message in a line of a log, whose *number* is from 1 on; ``None`` when it holds none."""
    if (message := message_of(line, thread_id)) is None:
        return None
    return MessageText(number, Kind[message.role.upper()], message.created_at, message.text)


def of_query(query: Query) -> Wanted:
    def look(one: Described, messages: Iterable[MessageText]) -> Iterator[MessageText]:
        if not matches_thread(query, one.thread.id, one.thread.title, one.runs):
            return
        titles = [one.title] if one.thread.title else []
        if query.is_about_messages:
            for text in (*titles, *messages):
                if matches(query, text.kind, text.created_at, text.text):
                    yield text
        elif not query.without or not any(
            holds(term, words)
            for words in (folded(text.text) for text in (*titles, *messages))
            for term in query.without
        ):
            yield one.title

    def is_in(hit: Hit, text: str) -> bool:
        return not query.is_about_messages or matches(query, hit.kind, hit.created_at, text)

    return Wanted(look, is_in, lambda text: snippet(query, text))


def of_pattern(pattern: re.Pattern[str]) -> Wanted:
    def look(one: Described, messages: Iterable[MessageText]) -> Iterator[MessageText]:
        titles = [one.title] if one.thread.title else []
        return (text for text in (*titles, *messages) if pattern.search(text.text))

    def show(text: str) -> str:
        found = pattern.search(text)
        return piece(text, found.start() if found else 0)

    return Wanted(look, lambda _, text: bool(pattern.search(text)), show)


def results(
    shown: Iterable[tuple[Hit, str]],
    newest: Iterable[Hit],
    names: Mapping[str, str],
    left_out: tuple[int, int],
    show: Callable[[str], str],
) -> Results:
    """From the hits to show, with their texts, and the newest hit of each thread to link to."""
    times = {hit.thread_id: hit.created_at for hit in newest}
    links = [
        Link(name, thread_id, times[thread_id])
        for name, thread_id in told_apart((names[thread_id], thread_id) for thread_id in times)
    ]
    hits = [
        Found(
            hit.thread_id,
            hit.line,
            hit.kind.shown,
            hit.created_at,
            show(text),
            _DOCUMENT if hit.kind is Kind.TITLE else _LOG,
        )
        for hit, text in shown
    ]
    return Results(hits, links, *left_out)
