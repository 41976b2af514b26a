"""What a thread is called, as a name for a file.

That is its title; else the first words of what the user said first; else its id. Where several are called the
same, each has ``@`` and its id. No other name has an ``@``, as no id has one.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator

MAX_BYTES = 120
_MAX_FIRST_WORDS = 8
_CUT = "…"
# By a division slash, and by an at-sign of full width: they are no part of a path, or of what we add.
_REPLACED = str.maketrans({"/": "\u2215", "@": "\uff20"})
# Controls are blanks; direction, other invisible characters, halves of pairs and no characters at all are
# left out, but for the joiners of emoji and of scripts.
_BLANK = ("Cc", "Zs", "Zl", "Zp")
_LEFT_OUT = ("Cf", "Cs", "Co", "Cn")
_JOINERS = "\u200c\u200d"
# Shells and programs take a name that begins with these for something else.
_NOT_FIRST = ".-~ "
# What is not to be parted from the character before: skin tones, and all marks.
_TONES = re.compile("[\U0001f3fb-\U0001f3ff]")
# What `search/<query>/` has beside threads.
_ALWAYS_WITH_ID = ("hits.txt",)


def name_of(thread_id: str, title: str, said_first: str) -> str:
    """What a thread is called, whatever others are called."""
    if name := _as_name(title):
        return name
    words = said_first[: 4 * MAX_BYTES].split()
    is_all = len(words) <= _MAX_FIRST_WORDS and len(said_first) <= 4 * MAX_BYTES
    return _as_name(" ".join(words[:_MAX_FIRST_WORDS]), "" if is_all else _CUT) or thread_id


def _as_name(text: str, end: str = "") -> str:
    """*text* as a name, with *end* after it; none when nothing is left of it."""
    is_plain = text.isascii() and text.isprintable()
    kept = text.translate(_REPLACED) if is_plain else unicodedata.normalize("NFC", "".join(_characters(text)))
    cleaned = " ".join(kept.split()).lstrip(_NOT_FIRST)
    if not cleaned:
        return ""
    if len((cleaned + end).encode()) <= MAX_BYTES:
        return cleaned + end
    end_at = len(cleaned.encode()[: MAX_BYTES - len(_CUT.encode())].decode(errors="ignore"))
    while end_at > 0 and _continues(cleaned, end_at):
        end_at -= 1
    return cleaned[:end_at].rstrip() + _CUT


def _characters(text: str) -> Iterator[str]:
    for character in text.translate(_REPLACED):
        category = unicodedata.category(character)
        if category in _BLANK:
            yield " "
        elif category not in _LEFT_OUT or character in _JOINERS:
            yield character


def _continues(text: str, index: int) -> bool:
    """Whether the character at *index* belongs to the one before."""
    character = text[index]
    return (
        unicodedata.category(character) in ("Mn", "Mc", "Me")
        or character in _JOINERS
        or text[index - 1] in _JOINERS
        or bool(_TONES.match(character))
    )


def full_name(name: str, thread_id: str) -> str:
    """The name that leads to a thread whatever others are called."""
    return f"{name}@{thread_id}"


def needs_id(name: str, threads_called_so: int) -> bool:
    return threads_called_so > 1 or name in _ALWAYS_WITH_ID


def told_apart(named: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """(name, thread id) of each, with the id in the name where several of these are called the same."""
    given = list(named)
    counts = Counter(name for name, _ in given)
    return [
        (full_name(name, thread_id) if needs_id(name, counts[name]) else name, thread_id)
        for name, thread_id in given
    ]
