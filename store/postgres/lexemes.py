"""Words as PostgreSQL keeps and looks for them: the text of a ``tsvector`` and of a ``tsquery``.

Both are written here, of words that `store.catalogue.folding` has made of letters, digits and marks: no
parser of the server cuts them, whatever its version and locale, and nothing in them is its syntax.

A ``tsvector`` takes 1 MiB, 16,383 places, and 256 places of one word; what is beyond it drops silently. So a
long message is cut into parts, each of which begins with the last words of the one before: words in a row
stand in one of them. Of a long word the beginning and a hash are kept. What cannot be asked for then, many
words in a row or a long beginning, is looked for in the messages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from store.catalogue.queries import Query, Term

# Of a part: with words of 40 characters it takes less than 1 MiB.
PART_WORDS: Final = 5000
PLACES: Final = 250
OVERLAP: Final = 100
# Of a word, in characters.
_KEPT: Final = 40
# Of a query: more would be more than the server wants to parse.
_MOST_WORDS: Final = 1000


def vectors(words: Sequence[str]) -> list[str]:
    """The words of a message as the text of a ``tsvector`` each; more than one when it is long."""
    made = []
    begins = 0
    while True:
        vector, ends = _vector(words, begins)
        made.append(vector)
        if ends == len(words):
            return made
        begins = ends - OVERLAP


def _vector(words: Sequence[str], begins: int) -> tuple[str, int]:
    """A part, and where it ends."""
    places: dict[str, list[str]] = {}
    ends = min(len(words), begins + PART_WORDS)
    for place, word in enumerate(words[begins:ends], 1):
        of_word = places.setdefault(word, [])
        if len(of_word) == PLACES:
            ends = begins + place - 1
            break
        of_word.append(str(place))
    return " ".join(f"{_lexeme(word)}:{','.join(at)}" for word, at in places.items()), ends


def can_be_asked_for(query: Query) -> bool:
    """Whether the words say all that a query wants to know of messages."""
    terms = (*query.terms, *query.without)
    return sum(len(term.words) for term in terms) <= _MOST_WORDS and all(
        len(term.words) <= OVERLAP and not (term.is_prefix and len(term.words[-1]) > _KEPT) for term in terms
    )


def any_of(terms: Iterable[Term]) -> str:
    return " | ".join(map(row, terms))


def row(term: Term) -> str:
    """The words of a term, in a row, as the text of a ``tsquery``."""
    words = " <-> ".join(map(_lexeme, term.words))
    return f"({words}{':*' if term.is_prefix else ''})"


def _lexeme(word: str) -> str:
    if len(word) <= _KEPT:
        return f"'{word}'"
    # A word has no hyphen in it: this is no beginning, and no other word.
    return f"'{word[:_KEPT]}-{hashlib.blake2b(word.encode(), digest_size=8).hexdigest()}'"
