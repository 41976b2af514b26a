"""Text of a store, made safe for a terminal."""

from __future__ import annotations

import json
import unicodedata
from functools import cache

import pytest

from store.printing import printable, printable_json, printable_lines

TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@cache  # Looks at a million characters, for the one process that runs these tests.
def in_category(category: str) -> list[str]:
    return [found for found in map(chr, range(0x110000)) if unicodedata.category(found) == category]


def controls() -> list[str]:
    return in_category("Cc")


def directions() -> list[str]:
    turns = [found for found in in_category("Cf") if unicodedata.bidirectional(found) in TURNS]
    return [*turns, "\u061c", "\u200e", "\u200f"]


def test_control_characters_are_shown_by_their_numbers_but_for_newline_and_tab() -> None:
    for character in controls():
        shown = character if character in "\n\t" else f"\\x{ord(character):02x}"
        assert printable_lines(f"a{character}b") == f"a{shown}b"


def test_direction_characters_are_shown_by_their_numbers() -> None:
    assert len(directions()) == 12
    for character in directions():
        for show in (printable, printable_lines):
            assert show(f"a{character}b") == f"a\\u{{{ord(character):x}}}b"


def test_a_line_stays_one_line() -> None:
    assert printable("a\nb\tc\r\u2028\u2029\x85") == "a\\nb\\tc\\x0d\\u{2028}\\u{2029}\\x85"


def test_the_line_ends_of_windows_are_newlines() -> None:
    assert printable_lines("a\r\nb\rc") == "a\nb\\x0dc"


@pytest.mark.parametrize(
    "text", ["Grüße, мир, 日本語, שלום", "👩‍🚀 🏴‍☠️", "a\u00a0b\u00adc", "می‌خواهم", "\U0010fffd"]
)
def test_all_other_text_stays(text: str) -> None:
    assert printable(text) == printable_lines(text) == text


def test_halves_of_surrogate_pairs_can_be_written() -> None:
    assert printable("\ud83d").encode() == b"\\ud83d"


def test_a_document_means_the_same() -> None:
    text = "".join([*controls(), *directions(), "ü\U0001f600"])
    line = json.dumps({"text": text}, ensure_ascii=False) + "\n"
    shown = printable_json(line)
    assert json.loads(shown) == {"text": text}
    assert shown.count("\n") == 1
    assert not set(shown) & {*controls(), *directions()} - {"\n"}
    assert "ü\U0001f600" in shown
