"""What a person asks for, as terms, and what cannot be asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.catalogue.queries import Query, Term, parsed
from store.catalogue.values import Kind
from store.errors import InvalidQuery
from tests.store.catalogue.conftest import DAY_S, NOW_S

# 2026-11-28, in UTC.
THAT_DAY = Query(from_s=1_795_824_000, until_s=1_795_824_000 + DAY_S)


def term(words: str) -> Term:
    return Term(tuple(words.split()))


def prefix(words: str) -> Term:
    return Term(tuple(words.split()), is_prefix=True)


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("honey  Bées", Query(terms=(term("honey"), term("bees")))),
        ('"src main.py"', Query(terms=(term("src main py"),))),
        ("fetch_user", Query(terms=(term("fetch user"),))),
        ("begin* fetch_us* a-*", Query(terms=(prefix("begin"), prefix("fetch us"), term("a")))),
        (
            "cafe\u0301* ש\u05c1* x\u200d* क्*",
            Query(terms=(prefix("cafe"), prefix("ש"), prefix("x"), prefix("क्"))),
        ),
        ("札幌", Query(terms=(term("札 幌"),))),
        ('a -b -"c d"', Query(terms=(term("a"),), without=(term("b"), term("c d")))),
        ("--verbose - a", Query(terms=(term("verbose"), term("a")))),
        ("std::vector 12:30 a://x", Query(terms=(term("std vector"), term("12 30"), term("a x")))),
        ('foo:"a b"', Query(terms=(term("foo"), term("a b")))),
        ("role:user a", Query(terms=(term("a"),), kinds=(Kind.USER,))),
        ("-role:user a", Query(terms=(term("a"),), not_kinds=(Kind.USER,))),
        ('title:"two words" title:x*', Query(titles=(term("two words"), prefix("x")))),
        ("model:llama3.1:8b status:failed", Query(models=("llama3.1:8b",), statuses=("failed",))),
        ('thread:"Trip to Oslo" -thread:b', Query(thread_ids=("Trip to Oslo",), not_thread_ids=("b",))),
        ("title: a", Query(terms=(term("title"), term("a")))),
        ("on:2026-11-28", THAT_DAY),
        ("after:2026-11-27 before:2026-11-29", THAT_DAY),
        ("after:7d", Query(from_s=NOW_S - 7 * DAY_S)),
        ("before:2h after:1w", Query(from_s=NOW_S - 7 * DAY_S, until_s=NOW_S - 7200)),
        ("on:1d", Query(from_s=NOW_S // DAY_S * DAY_S - DAY_S, until_s=NOW_S // DAY_S * DAY_S)),
        ("after:1d after:2d", Query(from_s=NOW_S - DAY_S)),
    ],
)
def test_a_query_says(text: str, query: Query) -> None:
    assert parsed(text, NOW_S) == query


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no word"),
        ("... / -", "no word"),
        ('""', "no word"),
        ('a "b', "no other one"),
        ("-a", "not to be found"),
        ('-"a b" -title:c', "not to be found"),
        ("role:system", "user or assistant"),
        ("status:done", "completed"),
        ("on:2026-02-30", "no day"),
        ("after:soon", "no day"),
        ("before:²⁰²⁶-11-28", "no day"),
        ("-after:7d a", "-after"),
        (".*[a-z]+(", None),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_words(text: str, why: str | None) -> None:
    if why is None:  # A regular expression is words.
        assert parsed(text, NOW_S) == Query(terms=(term("a z"),))
        return
    with pytest.raises(InvalidQuery, match=why):
        parsed(text, NOW_S)


@given(st.text(st.one_of(st.sampled_from(' "-*:afonteirl2026dst'), st.characters())))
def test_any_text_is_a_query_or_refused(text: str) -> None:
    try:
        query = parsed(text, NOW_S)
    except InvalidQuery:
        return
    assert query.is_about_messages or query.is_about_threads
