"""Whether a text holds what a query asks for, and the piece of it that shows it: for texts that are at hand.

A log whose words are not known yet is searched with this. So is what is shown of a hit: no catalogue keeps
texts.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterator

from store.catalogue.folding import folded, words_of
from store.catalogue.queries import Query, Term
from store.catalogue.values import Kind, RunSummary
from store.printing import printable

_CHUNK = re.compile(r"\S+")
# A piece of a text: so many characters, and so many of them before what was found.
_SHOWN = 160
_BEFORE = 40
# So many characters before another one say whether it goes on with their word: Unicode combines no more.
_JOINED = 32


def holds(term: Term, folded_text: str) -> bool:
    """Whether a text that was folded has the words in a row."""
    wanted = " ".join(term.words)
    return f" {wanted}" in f" {folded_text}" if term.is_prefix else f" {wanted} " in f" {folded_text} "


def matches(query: Query, kind: Kind, created_at: int, text: str) -> bool:
    """Whether a message or title is what a query asks for; what it asks for threads is not looked at."""
    if (query.kinds and {kind} != {*query.kinds}) or kind in query.not_kinds:
        return False
    if query.from_s is not None and created_at < query.from_s:
        return False
    if query.until_s is not None and created_at >= query.until_s:
        return False
    words = folded(text)
    return all(holds(term, words) for term in query.terms) and not any(
        holds(term, words) for term in query.without
    )


def matches_thread(query: Query, thread_id: str, title: str, runs: Collection[RunSummary]) -> bool:
    """Whether a thread is what a query asks for; its messages are not looked at."""
    if any(thread_id != wanted for wanted in query.thread_ids) or thread_id in query.not_thread_ids:
        return False
    words = folded(title)
    if not all(holds(term, words) for term in query.titles):
        return False
    if any(holds(term, words) for term in query.not_titles):
        return False
    if any(run.model in query.not_models or run.status in query.not_statuses for run in runs):
        return False
    return not (query.models or query.statuses) or any(
        all(run.model == model for model in query.models)
        and all(run.status == status for status in query.statuses)
        for run in runs
    )


def snippet(query: Query, text: str) -> str:
    """The piece of a text around the first thing that was asked for, as one line for a terminal."""
    return piece(text, _place(query, text))


def piece(text: str, place: int) -> str:
    """The piece of a text around a place, as one line for a terminal."""
    begins = max(0, place - _BEFORE)
    if begins:
        # From the beginning of a word on, if one begins soon.
        begins += max(0, text[begins : begins + _BEFORE].find(" ") + 1)
    shown = " ".join(text[begins : begins + _SHOWN].split())
    is_cut = begins + _SHOWN < len(text)
    return printable(f"{'…' if begins else ''}{shown}{'…' if is_cut else ''}")


def _place(query: Query, text: str) -> int:
    """Where the words of the first term begin; 0 when there are none."""
    if not query.terms:
        return 0
    term = query.terms[0]
    row: deque[tuple[str, int]] = deque(maxlen=len(term.words))
    for word_at in _placed_words(text):
        row.append(word_at)
        words = tuple(word for word, _ in row)
        is_last = words[-1].startswith(term.words[-1]) if term.is_prefix else words[-1] == term.words[-1]
        if is_last and words[:-1] == term.words[:-1]:
            return row[0][1]
    return 0


def _placed_words(text: str) -> Iterator[tuple[str, int]]:
    """The words of a text, each with the place of what it stands in: a piece without a blank."""
    for chunk in _CHUNK.finditer(text):
        for begins, piece in _pieces(chunk[0]):
            yield from ((word, chunk.start() + begins) for word in words_of(piece))


def _pieces(chunk: str) -> Iterator[tuple[int, str]]:
    """A chunk that is long is cut where a character is a word by itself: it may be a page of Chinese."""
    begins = 0
    if len(chunk) > _BEFORE:
        for index in range(1, len(chunk)):
            before, here = chunk[max(begins, index - _JOINED) : index], chunk[index]
            if words_of(before) + words_of(here) == words_of(before + here):
                yield begins, chunk[begins:index]
                begins = index
    yield begins, chunk[begins:]
