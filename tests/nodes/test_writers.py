"""When a write counts: once, however many pieces, flushes and descriptors."""

from __future__ import annotations

import codecs
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import InvalidDocument
from threadfs.nodes.base import Refused
from threadfs.nodes.writers import DocumentWriter, TextWriter

WORDS = (b"queued", b"completed")


class Committed(list[bytes]):
    """What was committed; words as documents."""

    def word(self, data: bytes) -> bool:
        if (word := data.strip()) in WORDS:
            self.append(word)
            return True
        if data.endswith(b"\n") or not any(known.startswith(word) for known in WORDS):
            raise InvalidDocument("no such word")
        return False

    def writer(self, stored: bytes = b"", *, truncate: bool = True, append: bool = False) -> DocumentWriter:
        return DocumentWriter(lambda: stored, self.append, self.word, truncate=truncate, append=append)


@pytest.fixture
def committed() -> Committed:
    return Committed()


@given(st.lists(st.integers(0, 12), max_size=4), st.sampled_from([b"completed\n", b" completed \n\n"]))
def test_a_word_in_any_pieces_counts_once(cuts: list[int], data: bytes) -> None:
    committed = Committed()
    out = committed.writer()
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    for start, end in pairwise(edges):
        out.write(start, data[start:end])
    out.flush()
    assert committed == [b"completed"]


def test_blanks_behind_a_committed_document_are_no_change(committed: Committed) -> None:
    out = committed.writer()
    out.write(0, b'{"a":1}')
    out.flush()
    out.write(7, b"\n")
    out.flush()
    assert committed == [b'{"a":1}']


def test_a_document_is_committed_by_the_write_in_which_it_closes(committed: Committed) -> None:
    out = committed.writer()
    out.write(0, b'{"a":"}')
    assert committed == []
    out.write(7, b'"}\n')
    assert committed == [b'{"a":"}"}']
    out.flush()
    assert committed == [b'{"a":"}"}']


@pytest.mark.parametrize("behind", [b" x", b"{}", b"\n{}", b"}"])
def test_a_write_in_which_something_follows_the_document_is_refused_whole(
    committed: Committed, behind: bytes
) -> None:
    out = committed.writer()
    with pytest.raises(InvalidDocument, match="follows"):
        out.write(0, b'{"a":1}' + behind)
    out.flush()
    assert committed == []
    out.write(0, b'{"a":2}')
    assert committed == [b'{"a":2}']


def test_a_document_that_the_store_refuses_can_be_written_again(committed: Committed) -> None:
    def commit(data: bytes) -> None:
        if b"bad" in data:
            raise InvalidDocument("bad")
        committed.append(data)

    out = DocumentWriter(lambda: b"", commit, committed.word, truncate=True, append=False)
    out.write(0, b'{"a":')
    with pytest.raises(InvalidDocument):
        out.write(5, b'"bad"}')
    out.flush()
    out.write(5, b'"good"}')
    out.flush()
    assert committed == [b'{"a":"good"}']


@pytest.mark.parametrize("piece", [1, 3, 100])
def test_a_shorter_document_in_place_of_a_longer_one_is_committed_without_its_rest(
    committed: Committed, piece: int
) -> None:
    out = committed.writer(b'{"stored":"and longer"}', truncate=False)
    new = b'{"new":1}\n'
    for start in range(0, len(new), piece):
        out.write(start, new[start : start + piece])
    assert committed == [b'{"new":1}']
    out.truncate(len(new))
    out.flush()
    assert committed == [b'{"new":1}']
    assert out.read(0, 100) == new


def test_a_write_into_the_middle_is_judged_at_flush(committed: Committed) -> None:
    out = committed.writer(b'{"stored":1}', truncate=False)
    out.write(10, b"2}")
    assert committed == []
    out.flush()
    assert committed == [b'{"stored":2}']


def test_a_document_behind_a_committed_one_is_the_next(committed: Committed) -> None:
    out = committed.writer()
    out.write(0, b'{"a":1}')
    out.flush()
    out.write(7, b'\n{"b":2}')
    out.flush()
    out.write(15, b"completed\n")
    assert [each.strip() for each in committed] == [b'{"a":1}', b'{"b":2}', b"completed"]


def test_a_word_that_is_refused_leaves_what_was_there(committed: Committed) -> None:
    out = committed.writer()
    with pytest.raises(InvalidDocument):
        out.write(0, b"compleat\n")
    out.write(0, b"com")
    with pytest.raises(InvalidDocument):
        out.write(3, b"mon")
    out.write(3, b"pleted")
    assert committed == [b"completed"]


def test_what_is_read_while_writing_is_what_was_written(committed: Committed) -> None:
    out = committed.writer(b'{"stored":1}', truncate=False)
    assert out.read(0, 100) == b'{"stored":1}'
    out.write(10, b"2")
    assert out.read(0, 100) == b'{"stored":2}'
    out.truncate(0)
    assert out.read(0, 100) == b""
    out.flush()
    assert committed == []


@pytest.mark.parametrize("size", range(1, 13))
def test_a_document_that_is_cut_to_any_size_commits_once_it_is_whole_again(
    committed: Committed, size: int
) -> None:
    stored = b'{"stored":1}'
    out = committed.writer(stored, truncate=False)
    out.truncate(size)
    if size < len(stored):
        out.write(size, stored[size:])
    out.flush()
    assert committed == ([stored] if size < len(stored) else [])


def test_a_text_is_put_together_wherever_it_is_written() -> None:
    committed: list[bytes] = []
    out = TextWriter(committed.append, limit_bytes=100)
    out.write(0, b"one ")
    out.write(7000, b"two")
    out.flush()
    out.flush()
    assert committed == [b"one two"]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.lists(st.integers(0, 40), max_size=5))
def test_a_character_may_be_split_between_two_writes(text: str, cuts: list[int]) -> None:
    committed: list[bytes] = []
    out, data = TextWriter(committed.append, limit_bytes=1000), text.encode()
    for start, end in pairwise(sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})):
        out.write(start, data[start:end])
    out.flush()
    assert b"".join(committed) == data


@given(st.binary(max_size=12), st.integers(0, 12))
def test_what_is_no_utf_8_is_refused_in_its_write(data: bytes, cut: int) -> None:
    out, taken = TextWriter(lambda text: None, limit_bytes=1000), b""
    for piece in (data[:cut], data[cut:]):
        try:
            out.write(0, piece)
            taken += piece
        except InvalidDocument:
            with pytest.raises(UnicodeDecodeError) as error:
                (taken + piece).decode()
            assert error.value.reason != "unexpected end of data"
    codecs.getincrementaldecoder("utf-8")().decode(taken)


def test_a_refused_piece_of_a_text_leaves_what_was_there_for_the_next(committed: Committed) -> None:
    out = TextWriter(committed.append, limit_bytes=100)
    out.write(0, b"gr\xc3")
    with pytest.raises(InvalidDocument):
        out.write(3, b"\xff")
    out.flush()
    assert committed == []
    out.write(3, b"\xbcn")
    out.flush()
    assert committed == ["grün".encode()]


def test_a_text_that_the_store_could_not_take_is_refused_before_it_is_taken(committed: Committed) -> None:
    def check(size_bytes: int) -> None:
        if size_bytes > 5:
            raise Refused(28, "full")

    out = TextWriter(committed.append, limit_bytes=100, check=check)
    with pytest.raises(Refused):
        out.write(0, b"too long")
    out.flush()
    out.write(0, b"short")
    with pytest.raises(Refused):
        out.write(5, b"er")
    out.write(5, b"")
    out.flush()
    assert committed == [b"short"]


def test_nothing_of_a_text_beyond_the_limit_counts_until_it_is_begun_again() -> None:
    committed: list[bytes] = []
    out = TextWriter(committed.append, limit_bytes=10)
    out.write(0, b"beginning")
    for data in (b"middle", b"end"):
        with pytest.raises(Refused):
            out.write(0, data)
    out.flush()
    assert committed == []
    out.truncate(0)
    out.write(0, b"anew")
    out.flush()
    assert committed == [b"anew"]


def test_a_document_may_begin_with_many_blanks(committed: Committed) -> None:
    out = committed.writer()
    for start, piece in ((0, b" " * 100), (100, b"\n{"), (102, b"}")):
        out.write(start, piece)
    out.flush()
    assert committed == [b" " * 100 + b"\n{}"]


def test_what_was_cut_off_again_does_not_count(committed: Committed) -> None:
    out = committed.writer(b'{"stored":"and longer"}', truncate=False)
    out.write(0, b'{"new":1')
    out.truncate(5)
    out.flush()
    assert committed == [b'{"new']


@pytest.mark.alone
def test_a_large_document_in_small_pieces_takes_no_longer_than_its_size(committed: Committed) -> None:
    data = b'{"metadata":"' + b"x" * (48 << 20) + b'"}'
    out = committed.writer()
    started_s = time.process_time()
    for start in range(0, len(data), 131072):
        out.write(start, data[start : start + 131072])
    out.flush()
    assert time.process_time() - started_s < 2
    assert committed == [data]
