"""What a person asks for, as terms.

    honey bees              words that one message, or title, holds, in any order
    "src main.py"           words in a row; punctuation separates words, here as in messages
    begin*                  a word that begins so
    -word  -"two words"     not in the same message
    role:user               of the user or the assistant: no title
    title:word  title:"…"   of threads with these words in their title
    model:m  status:failed  of threads with a run of this model and status, together
    thread:id               of one thread
    before:2026-11-28       by the time of a message, or of the creation of a thread for its title, in UTC;
    after:7d  on:…          the day itself is neither before nor after; an age counts from now

A field that is none of these is text. Where nothing but threads is asked for, by ``title:``, ``model:``,
``status:`` or ``thread:``, each is found once, by its title; ``-word`` then means none of its messages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from store.catalogue.folding import words_of
from store.catalogue.values import Kind
from store.errors import InvalidQuery
from store.statuses import RunStatus

DAY_S: Final = 86400

_TERM = re.compile(
    r"""(?P<not>(?<!\S)-(?=[\w"]))?
        (?:(?P<field>role|title|model|status|thread|before|after|on):(?=[^\s"]|"[^"]))?
        (?:"(?P<row>[^"]*)"|(?P<text>[^\s"]+))""",
    re.VERBOSE,
)
_AGE = re.compile(r"([0-9]{1,9})([smhdwy])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": DAY_S, "w": 7 * DAY_S, "y": 365 * DAY_S}
_ROLES = {"user": Kind.USER, "assistant": Kind.ASSISTANT}


@dataclass(frozen=True, slots=True)
class Term:
    """Words in a row, folded; the last one may be the beginning of a word."""

    words: tuple[str, ...]
    is_prefix: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """Everything that must hold, and what must not. Times are in seconds since 1970."""

    terms: tuple[Term, ...] = ()
    without: tuple[Term, ...] = ()
    kinds: tuple[Kind, ...] = ()
    not_kinds: tuple[Kind, ...] = ()
    # Created at this time or later; created before this time.
    from_s: int | None = None
    until_s: int | None = None
    titles: tuple[Term, ...] = ()
    not_titles: tuple[Term, ...] = ()
    models: tuple[str, ...] = ()
    not_models: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    not_statuses: tuple[str, ...] = ()
    thread_ids: tuple[str, ...] = ()
    not_thread_ids: tuple[str, ...] = ()

    @property
    def is_about_messages(self) -> bool:
        """Whether it says anything that a message has to be, and not the thread alone."""
        return bool(self.terms or self.kinds or self.from_s is not None or self.until_s is not None)

    @property
    def is_about_threads(self) -> bool:
        return bool(self.titles or self.models or self.statuses or self.thread_ids)


def parsed(text: str, now_s: int) -> Query:
    """Raises InvalidQuery."""
    if text.count('"') % 2:
        raise InvalidQuery('a " has no other one that ends what it begins')
    query = Query()
    for found in _TERM.finditer(text):
        query = _with_term(query, found, now_s)
    if not query.is_about_messages and not query.is_about_threads:
        only_negative = query != Query()
        raise InvalidQuery(
            "it only says what is not to be found" if only_negative else "there is no word in it"
        )
    return query


def _with_term(query: Query, found: re.Match[str], now_s: int) -> Query:
    name, is_not = found["field"], bool(found["not"])
    value = found["row"] if found["row"] is not None else found["text"]
    if name in ("before", "after", "on"):
        if is_not:
            raise InvalidQuery(f"-{name}: is not possible: write before: or after:")
        return _within(query, name, value, now_s)
    if name == "role":
        if value not in _ROLES:
            raise InvalidQuery(f"role: is user or assistant, not {value!r}")
        return _added(query, "kinds", _ROLES[value], is_not)
    if name == "status":
        if value not in {*RunStatus}:
            raise InvalidQuery(f"status: is one of {', '.join(RunStatus)}, not {value!r}")
        return _added(query, "statuses", value, is_not)
    if name == "model":
        return _added(query, "models", value, is_not)
    if name == "thread":
        return _added(query, "thread_ids", value, is_not)
    if (term := _term(value, is_row=found["row"] is not None)) is None:
        return query
    if name == "title":
        return _added(query, "titles", term, is_not)
    return replace(query, without=(*query.without, term)) if is_not else _added(query, "terms", term, False)


def _term(value: str, *, is_row: bool) -> Term | None:
    """``None`` when there is no word in it."""
    if not (words := words_of(value)):
        return None
    # The last word goes on: a mark may be left out, or belong to the letter before.
    is_prefix = not is_row and value.endswith("*") and len(words_of(f"{value[:-1]}x")) == len(words)
    return Term(tuple(words), is_prefix)


def terms_of(text: str) -> list[Term]:
    """Words, and the beginnings of words, where nothing else may be asked for."""
    terms = (_term(value, is_row=False) for value in text.split())
    return [term for term in terms if term]


def _added(query: Query, name: str, value: object, is_not: bool) -> Query:
    name = f"not_{name}" if is_not else name
    changed: dict[str, Any] = {name: (*getattr(query, name), value)}
    return replace(query, **changed)


def _within(query: Query, name: str, value: str, now_s: int) -> Query:
    from_s, until_s = query.from_s, query.until_s
    if age := _AGE.fullmatch(value):
        begins_s = ends_s = now_s - int(age[1]) * _SECONDS[age[2]]
        if name == "on":
            begins_s -= begins_s % DAY_S
            ends_s = begins_s + DAY_S
    else:
        begins_s = _day(value)
        ends_s = begins_s + DAY_S
    if name in ("after", "on"):
        first_s = ends_s if name == "after" else begins_s
        from_s = first_s if from_s is None else max(from_s, first_s)
    if name in ("before", "on"):
        last_s = begins_s if name == "before" else ends_s
        until_s = last_s if until_s is None else min(until_s, last_s)
    return replace(query, from_s=from_s, until_s=until_s)


def _day(value: str) -> int:
    """When a day begins."""
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        try:
            return int(datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
        except ValueError:
            pass
    raise InvalidQuery(f"{value!r} is no day like 2026-11-28, and no age like 7d")
