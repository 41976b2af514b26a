"""How many columns of a terminal a text takes: most characters take one, those of East Asia and emoji two."""

from __future__ import annotations

import unicodedata

_CUT = "…"


def width(text: str) -> int:
    return len(text) if text.isascii() else sum(map(_width, text))


def padded(text: str, columns: int) -> str:
    """With blanks after it, up to *columns*."""
    return text + " " * (columns - width(text))


def cut(text: str, columns: int) -> str:
    """As much of it as fits into *columns*, with … where something is missing."""
    if width(text) <= columns:
        return text
    kept, left = "", columns - 1
    for character in text:
        left -= _width(character)
        if left < 0:
            break
        kept += character
    return kept + _CUT


def _width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
