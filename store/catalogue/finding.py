"""What is looked for in threads that are read, and what is shown of hits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

from store import documents
from store.api import LogReader
from store.catalogue import usual
from store.catalogue.api import Found, Results
from store.catalogue.folding import folded
from store.catalogue.matching import holds, matches, matches_thread, piece, snippet
from store.catalogue.names import name_of, told_apart
from store.catalogue.queries import Query, Term
from store.catalogue.values import Hit, Kind, Link, MessageText, RunSummary, ThreadSummary
from store.documents import MAX_LINE_BYTES
from store.errors import InvalidDocument
from store.lines import iter_lines

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
    """What is looked for: *look* finds it in a thread, *is_in* in one text, *show* shows it there.

    *may_be_in* says of a line of a log whether it is worth to be parsed.
    """

    look: Look
    may_be_in: Callable[[bytes], bool]
    is_in: Callable[[Hit, str], bool]
    show: Callable[[str], str]


def by_time(hit: Hit) -> tuple[int, str, int]:
    """The newest first, of one moment and thread the last one first."""
    return -hit.created_at, hit.thread_id, -hit.line


def texts_of(
    lines: Iterable[bytes], thread_id: str, may_be_in: Callable[[bytes], bool]
) -> Iterator[MessageText]:
    """The messages in the lines of a whole log that are worth to be parsed."""
    for number, line in enumerate(lines, 1):
        if may_be_in(line) and (text := text_of(line, number, thread_id)):
            yield text


def lines_of(log: LogReader) -> Iterator[bytes]:
    return (line for line, _ in iter_lines(log.read))


def text_of(line: bytes, number: int, thread_id: str) -> MessageText | None:
    """The message in a line of a log, whose *number* is from 1 on; ``None`` when it holds none."""
    if not line.strip() or len(line) > MAX_LINE_BYTES:
        return None
    with suppress(InvalidDocument):
        if text := usual.message(documents.parse(line), number):
            return text
    from store.messages import message_of  # Few need it, and its model takes a while to import.

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

    return Wanted(look, _may_hold(query.terms), is_in, lambda text: snippet(query, text))


def _may_hold(terms: Sequence[Term]) -> Callable[[bytes], bool]:
    """Whether a line may have the words of all *terms*: in ASCII they stand there as they are."""
    words = [word for term in terms for word in term.words]
    is_ascii = all(word.isascii() for word in words)
    wanted = [word.encode() for word in words]

    def may_hold(line: bytes) -> bool:
        if not line.isascii() or b"\\u" in line:
            return True
        lower = line.lower()
        return is_ascii and all(word in lower for word in wanted)

    return may_hold if words else lambda _: True


def of_pattern(pattern: re.Pattern[str]) -> Wanted:
    def look(one: Described, messages: Iterable[MessageText]) -> Iterator[MessageText]:
        titles = [one.title] if one.thread.title else []
        return (text for text in (*titles, *messages) if pattern.search(text.text))

    def show(text: str) -> str:
        found = pattern.search(text)
        return piece(text, found.start() if found else 0)

    return Wanted(look, lambda _: True, lambda _, text: bool(pattern.search(text)), show)


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
