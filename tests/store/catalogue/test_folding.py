"""Text as words: what is one word, and which spellings are the same."""

from __future__ import annotations

import sqlite3
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.catalogue.folding import MAX_WORD, folded, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("École", "ecole"),
        ("STRASSE straße", "strasse strasse"),
        ("ΣΊΣΥΦΟΣ", "σισυφοσ"),
        ("Ёлка Йод", "елка иод"),
        ("\uff21\uff22\uff23 \ufb01ne x²", "abc fine x2"),
        ("İstanbul", "istanbul"),
        ("src/main.py fetch_user_by_id", "src main py fetch user by id"),
        ("don't; 12.5 -7", "don t 12 5 7"),
        ("札幌時計abc", "札 幌 時 計 abc"),
        ("ｶﾞ か\u3099", "ガ が"),
        ("한국어", "한 국 어"),
        ("กิน", "ก ิ น"),
        ("हिन्दी भाषा", "हिन्दी भाषा"),
        ("שָׁלוֹם־עולם", "שלום עולם"),
        ("مَرْحَبًا", "مرحبا"),
        ("co\u00adoperate می\u200cرود", "cooperate میرود"),
        ("a\u200bb", "a b"),
        ("1\ufe0f\u20e3 👍🏽", "1"),
        ("\x00\ud800…", ""),
    ],
)
def test_a_text_is_cut_into_words_that_are_the_same_in_any_spelling(text: str, words: str) -> None:
    assert folded(text) == words


def test_very_long_words_are_the_same_if_they_begin_the_same() -> None:
    assert words_of("x" * (MAX_WORD + 5)) == words_of("X" * (2 * MAX_WORD)) == ["x" * MAX_WORD]


TEXTS = st.text(st.characters())


@given(TEXTS)
def test_words_that_are_cut_again_stay_as_they_are(text: str) -> None:
    assert words_of(folded(text)) == words_of(text)


@given(TEXTS)
def test_composed_and_decomposed_texts_have_the_same_words(text: str) -> None:
    assert words_of(unicodedata.normalize("NFD", text)) == words_of(unicodedata.normalize("NFC", text))


@given(TEXTS)
def test_sqlite_finds_the_same_words_in_a_row_and_no_others(text: str) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIRTUAL TABLE words USING fts5 (text, tokenize='ascii')")
    connection.execute("CREATE VIRTUAL TABLE seen USING fts5vocab (words, instance)")
    connection.execute("INSERT INTO words VALUES (?)", (folded(text),))
    found = connection.execute("SELECT term FROM seen ORDER BY offset").fetchall()
    connection.close()
    assert [term for (term,) in found] == words_of(text)
