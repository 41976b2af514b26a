"""What a shell offers for the arguments THREAD and RUN. The scripts of `completion` ask so:

    threadfs --complete bash BREAKS LINE       the command line up to the cursor, as it was typed; at each of
                                               BREAKS a word ends for bash, which then leaves that as it is
    threadfs --complete zsh|fish WORD...       its words after the program, without quotes, the last one up to
                                               the cursor, which may be empty

Each line of the answer is a word: for bash what is to be typed on, with its quotes, for the others with a tab
and what it stands for. Nothing is said of an error, since whoever types looks at a prompt, and nothing is
imported that takes long. A store in a database is not asked, as that would take long, too.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from store.disk.offers import Offer

_SPECIAL = re.compile(r"[^\w@%+=:,./-]")
_SPECIAL_IN_QUOTES = re.compile(r'["$`\\]')
_QUOTES = "'\""
# Those of bash's breaks that may stand in a word.
_MARKS = "@:="


class Typed(NamedTuple):
    """A command line up to the cursor: its *words* without quotes, the last of which is being typed.

    *raw* is that one as it was typed, and *quote* the one that is open in it, or ``""``.
    """

    words: list[str]
    raw: str
    quote: str


def complete(arguments: Sequence[str]) -> int:
    """``threadfs --complete ARGUMENTS``."""
    with suppress(Exception):  # Whatever it is, the shell then offers nothing.
        shell, *given = arguments
        if shell == "bash":
            breaks, line = given
            typed = typed_in(line)
            found = _offers(typed.words[1:])
            lines = [shown for offer in found if (shown := typed_on(offer.word, typed, breaks))]
        else:
            from store.printing import printable

            # zsh and fish may match by more than the beginning.
            found = _offers(given) or _offers([*given[:-1], ""])
            lines = [f"{offer.word}\t{printable(offer.meaning)}" for offer in found]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    return 0


def _offers(words: Sequence[str]) -> list[Offer]:
    """For the last one of the words after the program."""
    from store.disk import offers
    from threadfs.commands.parser import command_parser

    command, *given, typing = words
    place, *before = _positional(command_parser(command), given)
    if (store := _directory(place)) is None:
        return []
    if command != "wait":
        return [offer for offer in offers.threads(store, os.environ, typing) if offer.word not in before]
    if not before:
        return offers.runs(store, os.environ, typing)
    return offers.runs_of(store, before[0], typing) if len(before) == 1 else []


def _positional(parser: argparse.ArgumentParser, words: Iterable[str]) -> list[str]:
    """The words that are neither options nor their values."""
    takes_value = {
        option
        for action in parser._get_optional_actions()
        for option in action.option_strings
        if action.nargs != 0
    }
    found = []
    is_value = are_all_positional = False
    for word in words:
        if is_value:
            is_value = False
        elif are_all_positional or not word.startswith("-"):
            found.append(word)
        else:
            are_all_positional = word == "--"
            is_value = word in takes_value
    return found


def _directory(place: str) -> str | None:
    """The directory of the store at a place, or of the one that is mounted there; ``None``: it has none."""
    from threadfs.mounting.mount_table import on_top, place_of

    path = os.path.expanduser(os.path.expandvars(place))
    mount = on_top(place_of(path))
    if mount is not None and mount.is_threadfs:
        if mount.owner[0] not in (0, os.geteuid()):
            return None  # It may claim to be of any store.
        path = mount.source
    return path if os.path.isdir(path) else None


def typed_in(line: str) -> Typed:
    """What stands on a command line of bash."""
    words: list[str] = []
    word = raw = quote = ""
    is_escaped = False
    for character in line:
        if not (quote or is_escaped) and character.isspace():
            if raw:
                words.append(word)
            word = raw = ""
            continue
        raw += character
        if is_escaped:
            word += character
            is_escaped = False
        elif character == "\\" and quote != "'":
            is_escaped = True
        elif character == quote:
            quote = ""
        elif not quote and character in _QUOTES:
            quote = character
        else:
            word += character
    return Typed([*words, word], raw, quote)


def typed_on(word: str, typed: Typed, breaks: str) -> str:
    """What bash has to put in the place of the word that is typed, to make it *word*; empty where bash would
    put it in another place: the word has been quoted in parts, or has a backslash after one of *breaks*."""
    before, within = typed.raw[:1], typed.raw[1:]
    if typed.quote:
        if before != typed.quote or typed.quote in within or (typed.quote == "'" and "'" in word):
            return ""
        return word if typed.quote == "'" else _SPECIAL_IN_QUOTES.sub(r"\\\g<0>", word)
    if any(quote in typed.raw for quote in _QUOTES):
        return ""
    quoted = _SPECIAL.sub(r"\\\g<0>", word)
    kept = 1 + max((typed.raw.rfind(mark) for mark in _MARKS if mark in breaks), default=-1)
    if kept and typed.raw.endswith("@"):
        kept -= 1  # It is what bash takes for the word.
    if "\\" in typed.raw[kept:] and kept:
        return ""
    return quoted[kept:] if quoted.startswith(typed.raw[:kept]) else ""
