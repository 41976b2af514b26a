"""What a thread is called."""

from __future__ import annotations

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.catalogue.names import MAX_BYTES, name_of, told_apart


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Trip to Oslo", "Trip to Oslo"),
        ("src/main.py @ home", "src\u2215main.py \uff20 home"),
        ("  two\nlines\t and\x00 more ", "two lines and more"),
        ("..hidden", "hidden"),
        ("-rf ~", "rf ~"),
        ("~/notes", "\u2215notes"),
        ("dots...", "dots..."),
        ("evil\u202egpj", "evilgpj"),
        ("Cafe\u0301", "Café"),
        ("Cafe\u200b\u0301", "Café"),
        ("👩\u200d👧", "👩\u200d👧"),
        ("a\u200b\ufeffb\ud800", "ab"),
        ("\u200e", "thread_1"),
        ("...", "thread_1"),
        ("", "thread_1"),
    ],
)
def test_a_title_is_a_name_without_what_a_path_or_a_terminal_does_not_take(title: str, name: str) -> None:
    assert name_of("thread_1", title, "") == name


def test_without_a_title_the_first_eight_words_are_the_name() -> None:
    assert name_of("t", "", "How do\n bees sleep?") == "How do bees sleep?"
    assert name_of("t", "", "1 2 3 4 5 6 7 8 9") == "1 2 3 4 5 6 7 8…"
    assert name_of("t", " \n", "x" * 100_000) == "x" * (MAX_BYTES - 3) + "…"


@pytest.mark.parametrize("end", ["e\u0323\u0302", "👩\u200d👩\u200d👧", "👍🏽", "कि"])
def test_a_long_title_is_cut_before_a_character_and_never_within_one(end: str) -> None:
    end = unicodedata.normalize("NFC", end)
    for size in range(MAX_BYTES - 40, MAX_BYTES):
        name = name_of("t", "x" * size + end * 3, "")
        kept = name.removesuffix("…").removeprefix("x" * min(size, MAX_BYTES - 3))
        assert kept in {"", end, end * 2, end * 3}
        assert len(name.encode()) <= MAX_BYTES


@given(title=st.text(st.characters()), said=st.text(st.characters()))
def test_any_title_makes_a_name_that_is_one_part_of_a_path(title: str, said: str) -> None:
    name = name_of("thread_1", title, said)
    assert name
    assert name[0] not in ".-~ "
    assert not {"/", "@", "\n", "\x00"} & {*name}
    assert len(os.fsencode(name)) <= MAX_BYTES
    assert name == unicodedata.normalize("NFC", name)


def test_only_threads_that_are_called_the_same_have_their_ids_in_their_names() -> None:
    named = [("New chat", "1"), ("Oslo", "2"), ("New chat", "3"), ("new chat", "4"), ("hits.txt", "5")]
    assert told_apart(named) == [
        ("New chat@1", "1"),
        ("Oslo", "2"),
        ("New chat@3", "3"),
        ("new chat", "4"),
        ("hits.txt@5", "5"),
    ]
