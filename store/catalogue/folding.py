"""Text as words that are the same in any spelling: what is indexed, and what a query is compared with.

Case, accents and forms of one letter are folded (``École`` is ``ecole``, ``straße`` is ``strasse``), marks of
Hebrew and Arabic vowels too. Letters, digits and the vowel signs of Indic scripts make words; everything
else separates them. Of scripts that are written without blanks each character is a word, so that a part of
a sentence is found as words in a row; so is a Hangul syllable. SQLite and PostgreSQL get these words,
separated by blanks, and have nothing to find out about Unicode themselves: both backends find the same.
"""

from __future__ import annotations

import re
import unicodedata

# Longer words are the same if they begin with the same so many characters. (Those are keys and the like, and
# SQLite cuts words at 32,768 bytes.)
MAX_WORD = 1000

_ASCII_WORDS = re.compile("[a-z0-9]+")

# Ranges of characters, the last one included.
_Ranges = tuple[tuple[int, int], ...]

# Marks that are left out: accents, Hebrew points (not the hyphen U+05BE), Arabic vowels, variations of a
# form.
_DROPPED: _Ranges = (
    (0x0300, 0x036F),
    (0x0591, 0x05BD),
    (0x05BF, 0x05BF),
    (0x05C1, 0x05C2),
    (0x05C4, 0x05C5),
    (0x05C7, 0x05C7),
    (0x0610, 0x061A),
    (0x064B, 0x065F),
    (0x0670, 0x0670),
    (0x180B, 0x180F),
    (0xFE00, 0xFE0F),
    (0xE0100, 0xE01EF),
)
# Written without blanks: Han, kana and bopomofo, Hangul, Thai and Lao, Burmese, Khmer.
_UNSPACED: _Ranges = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1100, 0x11FF),
    (0x1780, 0x17FF),
    (0x2E80, 0x2FDF),
    (0x3005, 0x3007),
    (0x3021, 0x303C),
    (0x3041, 0x318F),
    (0x31A0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xA960, 0xA97F),
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAA7F),
    (0xAC00, 0xD7FF),
    (0xF900, 0xFAFF),
    (0x1B000, 0x1B16F),
    (0x20000, 0x3FFFF),
)
# Invisible within a word: soft hyphen, joiners, direction.
_INVISIBLE: _Ranges = (
    (0x00AD, 0x00AD),
    (0x061C, 0x061C),
    (0x200C, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0xFEFF, 0xFEFF),
)


def _is_in(code: int, ranges: _Ranges) -> bool:
    return any(first <= code <= last for first, last in ranges)


class _Marks(dict[int, int | None]):
    """For `str.translate`, filled as characters come: nothing for what is left out, else the character."""

    def __missing__(self, code: int) -> int | None:
        is_dropped = _is_in(code, _DROPPED) or _is_in(code, _INVISIBLE)
        self[code] = kept = None if is_dropped or unicodedata.category(chr(code)) == "Me" else code
        return kept


class _Words(dict[int, str]):
    """For `str.translate`: a blank for what separates, blanks around what is a word by itself."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if not character.isalnum() and unicodedata.category(character) not in ("Mn", "Mc"):
            made = " "
        elif _is_in(code, _UNSPACED):
            made = f" {character} "
        else:
            made = character
        self[code] = made
        return made


_MARKS = _Marks()
_WORDS = _Words()


def words_of(text: str) -> list[str]:
    """The words of a text in their order, folded; none has a blank in it."""
    if text.isascii():
        found = _ASCII_WORDS.findall(text.lower())
    else:
        # Some letters have a lower case, or an accent, only after the other was looked at.
        bare = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold()).translate(_MARKS)
        text = unicodedata.normalize("NFC", bare).translate(_WORDS)
        found = text.split()
    return [word[:MAX_WORD] for word in found] if len(text) > MAX_WORD else found


def folded(text: str) -> str:
    """The words of a text with a blank between: as it is indexed."""
    return " ".join(words_of(text))
