"""Find messages and titles by their words, and write a line for each, the newest first: the file of a mount,
its line, who said it, and the words around what was found.

All WORDS are in the message, in any case, with or without accents: "in a row", begin*, -without, role:user,
title:word, model:m, status:failed, thread:id, before:2026-11-28, after:7d, on:DATE. Words that begin with a -
come after --, or within one argument.

The first search of a store reads all of it. Later ones read what has changed since: the words are kept in
the directory for caches, or in the database.

Exit status: 0 when something is found, 1 when nothing is, 2 when WORDS are no query.
"""

from __future__ import annotations

import argparse
import re
import time
from typing import TYPE_CHECKING

from threadfs.commands import UsedWrongly, progress
from threadfs.commands.places import add_store, tell_if_empty

if TYPE_CHECKING:
    from store.catalogue.api import Found
    from store.catalogue.queries import Query

EXAMPLES = """\
examples:
  threadfs search ~/assistants honey bees
  threadfs search ~/mnt 'role:user "src main.py" after:30d' -n 20
  threadfs search ~/assistants --sort relevance tax -- -income
  threadfs search ~/assistants --grep 'fetch_\\w+\\(' --json | jq -r .thread"""

_SORTS = ("newest", "relevance")
_LIMIT = 1000
# What regular expressions have, and words most often not.
_LIKE_A_PATTERN = re.compile(r"\\[A-Za-z().\[]|\.[*+]|\[[^]]+\]|\(\?|\w\|\w|^\^|\$$")


def arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("words", metavar="WORDS", nargs="*", help="what to find")
    parser.add_argument("--json", action="store_true", help="write an object for each hit, one a line")
    parser.add_argument(
        "-n", dest="limit", metavar="N", type=number, help=f"at most N hits (default: {_LIMIT:,})"
    )
    parser.add_argument(
        "--sort", choices=_SORTS, default="newest", help="newest (the default), or relevance: the best first"
    )
    parser.add_argument(
        "--grep",
        action="store_true",
        help="WORDS are a regular expression, as Python has them; all logs are read",
    )
    parser.add_argument("--no-words", action="store_true", help="keep and use no words: all logs are read")
    parser.add_argument(
        "--rebuild", action="store_true", help="forget the words that are kept, and read all anew"
    )


def number(text: str) -> int:
    """A number of lines. Raises ArgumentTypeError."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of lines")
    return int(text)


def run(options: argparse.Namespace) -> int:
    text = " ".join(options.words)
    if not text and not options.rebuild:
        raise UsedWrongly("search for what? Give WORDS after STORE")
    limit = _LIMIT if options.limit is None else options.limit
    is_plain = not (options.grep or options.rebuild or options.no_words or options.json)
    if is_plain and limit <= _LIMIT and options.sort == "newest":
        from threadfs.commands import mounted_search

        if (shown := mounted_search.asked(options.store, text)) is not None:
            for line in shown.lines[:limit]:
                progress.say(line)
            return _ended(options, bool(shown.lines[:limit]), shown.left_out, is_bounded=shown.is_bounded)
    return _search(options, text, limit)


def _search(options: argparse.Namespace, text: str, limit: int) -> int:
    from threadfs.stores import open_catalogued

    pattern = _pattern(text) if options.grep else None
    query = None if pattern or not text else _query(text)
    store = open_catalogued(options.store)
    tell_if_empty(options.store)
    try:
        catalogue = store.catalogue(keeps_words=not options.no_words)
        if options.rebuild:
            catalogue.rebuild()
        with progress.counting("thread") as tell:
            catalogue.refresh(words=pattern is None, progress=tell)
        if pattern:
            found = catalogue.grep(pattern, limit)
        elif query:
            is_ranked = options.sort == "relevance"
            found = catalogue.search(query, limit, by_relevance=is_ranked, with_links=False)
        else:
            return 0
    finally:
        store.close()
    for hit in found.hits:
        _print(hit, as_json=options.json)
    return _ended(options, bool(found.hits), found.hits_left_out, is_bounded=found.is_bounded)


def _ended(options: argparse.Namespace, has_found: bool, left_out: int, *, is_bounded: bool) -> int:
    """The exit status, with a word about what is not shown."""
    if left_out and options.limit is None:
        least = "at least " if is_bounded else ""
        progress.complain(f"{least}{left_out:,} further hits are left out: -n N shows more")
    if not has_found and not options.grep and _LIKE_A_PATTERN.search(" ".join(options.words)):
        progress.complain("nothing is found by these words; for a regular expression: --grep")
    return 0 if has_found else 1


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UsedWrongly(f"{text!r} is no regular expression: {error}") from None


def _query(text: str) -> Query:
    from store import InvalidQuery
    from store.catalogue.queries import parsed

    try:
        return parsed(text, int(time.time()))
    except InvalidQuery as error:
        raise UsedWrongly(f"{text!r} is no query: {error}") from None


def _print(hit: Found, *, as_json: bool) -> None:
    if not as_json:
        progress.say(f"{hit.place}: {hit.role}: {hit.snippet}")
        return
    fields = {
        "thread": hit.thread_id,
        "line": hit.line,
        "role": hit.role,
        "created_at": hit.created_at,
        "snippet": hit.snippet,
    }
    progress.say_json(fields)
