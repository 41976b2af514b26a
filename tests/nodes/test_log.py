"""The message log as programs write it: appended to, rewritten, in pieces, by several at once."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store import InvalidDocument, Thread, ThreadStore, WouldWait, without_waiting
from store.documents import MAX_LINE_BYTES
from tests.conftest import open_files
from tests.mount.conftest import wait_until
from tests.nodes.driving import Programs
from threadfs.nodes.base import Refused, Writable, Writer
from threadfs.nodes.log import LogFile
from threadfs.nodes.root import root_of

LOG = "threads/T/messages.jsonl"
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=4)


class Tree(Programs):
    def __init__(self, place: Path) -> None:
        store = ThreadStore(place)
        store.create_thread(Thread(id="T"))
        super().__init__(root_of(store))

    def texts(self) -> list[str]:
        return [message.text for message in self.root.store.iter_messages("T")]

    def writer(self, *, truncate: bool = False, append: bool = False) -> Writer:
        node = self.at(LOG)
        assert isinstance(node, Writable)
        return node.open_for_writing(truncate=truncate, append=append)

    def commits(self) -> int:
        return self.root.tree.store.announcer.commits


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "store")


def lines(*texts: str, role: str = "user") -> bytes:
    documents = ({"role": role, "content": text} for text in texts)
    return b"".join(json.dumps(each, ensure_ascii=False).encode() + b"\n" for each in documents)


def pieces(data: bytes, cuts: list[int]) -> Iterator[tuple[int, bytes]]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return ((start, data[start:end]) for start, end in pairwise(edges))


CUTS = st.lists(st.integers(0, 2000), max_size=6)


@settings(max_examples=50, deadline=None)
@given(TEXTS, TEXTS, CUTS, CUTS)
def test_appending_in_any_pieces_appends_each_line(
    before: list[str], more: list[str], cuts: list[int], other_cuts: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        tree = Tree(Path(place))
        for texts, where in ((before, cuts), (more, other_cuts)):
            out = tree.writer(append=True)
            for start, piece in pieces(lines(*texts), where):
                out.write(7 * start, piece)
            out.flush()
            out.close()
        assert tree.texts() == before + more


@settings(max_examples=50, deadline=None)
@given(TEXTS, TEXTS, CUTS, st.booleans())
def test_rewriting_in_any_pieces_appends_what_is_new(
    before: list[str], more: list[str], cuts: list[int], is_short: bool
) -> None:
    with tempfile.TemporaryDirectory() as place:
        tree = Tree(Path(place))
        tree.write(LOG, lines(*before))
        stored = tree.read(LOG)
        out = tree.writer(truncate=True)
        data = (lines(*before) if is_short else stored) + lines(*more)
        for start, piece in pieces(data, cuts):
            out.write(start, piece)
        out.flush()
        assert tree.texts() == before + more
        assert tree.read(LOG).startswith(stored)


def test_a_last_line_without_a_newline_counts_at_flush(tree: Tree) -> None:
    out = tree.writer(append=True)
    out.write(0, lines("one", "two").rstrip())
    assert tree.texts() == ["one"]
    out.flush()
    out.flush()
    assert tree.texts() == ["one", "two"]


def test_lines_in_one_write_are_one_commit(tree: Tree) -> None:
    before = tree.commits()
    tree.write(LOG, lines("one", "two", "three"), append=True)
    assert (tree.texts(), tree.commits() - before) == (["one", "two", "three"], 1)


def test_of_lines_in_one_write_of_which_one_is_wrong_none_counts(tree: Tree) -> None:
    out = tree.writer(append=True)
    with pytest.raises(InvalidDocument, match="line 2"):
        out.write(0, lines("one") + b"nonsense\n" + lines("two"))
    assert tree.texts() == []


def test_a_right_line_follows_a_refused_one(tree: Tree) -> None:
    out = tree.writer(append=True)
    with pytest.raises(InvalidDocument):
        out.write(0, b"nonsense\n")
    out.write(0, lines("one"))
    out.flush()
    assert tree.texts() == ["one"]


def test_writing_at_the_end_appends_and_in_the_middle_is_refused(tree: Tree) -> None:
    tree.write(LOG, lines("one"))
    size = len(tree.read(LOG))
    out = tree.writer()
    for offset in (1, size - 1, size + 1):
        with pytest.raises(Refused, match="append only"):
            out.write(offset, lines("two"))
    out.write(size, lines("two"))
    out.flush()
    assert tree.texts() == ["one", "two"]


def test_a_piece_that_is_there_already_may_be_written_again(tree: Tree) -> None:
    tree.write(LOG, lines("one", "two"))
    stored = tree.read(LOG)
    out = tree.writer()
    line = len(stored.splitlines(keepends=True)[0])
    for start, end in ((10, 30), (30, line), (line, len(stored))):
        out.write(start, stored[start:end])
    out.flush()
    assert tree.read(LOG) == stored


def test_two_who_append_take_turns_by_line(tree: Tree) -> None:
    one, two = tree.writer(append=True), tree.writer(append=True)
    data, other = lines("from one"), lines("from two")
    one.write(0, data[:9])
    two.write(0, other[:5])
    two.write(5, other[5:])
    one.write(9, data[9:])
    assert tree.texts() == ["from two", "from one"]


def test_a_rewrite_sees_what_another_appends_meanwhile(tree: Tree) -> None:
    tree.write(LOG, lines("one"))
    out = tree.writer(truncate=True)
    out.write(0, lines("one"))
    tree.write(LOG, lines("two"), append=True)
    with pytest.raises(Refused, match="append only"):
        out.write(len(lines("one")), lines("three"))
    assert tree.texts() == ["one", "two"]


@pytest.mark.parametrize("changed", [lines("other"), lines("one", role="assistant"), b'{"id":"msg_x"}\n'])
def test_a_line_that_says_something_else_is_refused(tree: Tree, changed: bytes) -> None:
    tree.write(LOG, lines("one"))
    with pytest.raises(Refused, match="append only"):
        tree.writer(truncate=True).write(0, changed)


def test_a_rewrite_that_stops_short_is_refused_at_flush(tree: Tree) -> None:
    tree.write(LOG, lines("one", "two"))
    out = tree.writer(truncate=True)
    out.write(0, lines("one"))
    with pytest.raises(Refused, match="leaves messages out"):
        out.flush()
    out.write(len(lines("one")), lines("two", "three"))
    out.flush()
    assert tree.texts() == ["one", "two", "three"]


def test_truncating_to_what_was_written_is_accepted(tree: Tree) -> None:
    tree.write(LOG, lines("one"))
    out, stored = tree.writer(), tree.read(LOG)
    out.write(0, stored)
    out.truncate(len(stored))
    with pytest.raises(Refused, match="append only"):
        out.truncate(len(stored) - 1)
    out.flush()
    assert tree.read(LOG) == stored


def test_the_path_says_whose_message_it_is(tree: Tree) -> None:
    tree.write(LOG, b'{"role":"user","content":"x","thread_id":"other","id":"msg_1","created_at":5}\n')
    (message,) = tree.root.store.list_messages("T")
    assert (message.thread_id, message.id, message.created_at) == ("T", "msg_1", 5)


def test_a_line_beyond_the_limit_is_too_large_and_spoils_nothing(tree: Tree) -> None:
    out = tree.writer(append=True)
    with pytest.raises(Refused, match="at most"):
        out.write(0, lines("one") + b'{"role":"' + b"x" * MAX_LINE_BYTES)
    out.write(0, lines("two"))
    out.flush()
    assert tree.texts() == ["two"]


def test_a_log_that_goes_with_its_thread_takes_no_more(tree: Tree) -> None:
    out = tree.writer(append=True)
    tree.remove_all("threads/T")
    with pytest.raises(Exception, match="T"):
        out.write(0, lines("one"))
    assert tree.names("threads") == []


def test_a_log_that_only_the_disk_has_leaves_no_descriptor_open(tree: Tree, tmp_path: Path) -> None:
    log = tree.at(LOG)
    assert isinstance(log, LogFile)
    tree.write(LOG, lines("one"))
    path = tmp_path / "store" / "T" / "messages.jsonl"
    file = os.open(path, os.O_RDONLY)
    wait_until(lambda: open_files().count(str(path)) == 1)  # What stays open after a change is closed.

    def only_the_disk_has_it() -> bool:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)  # The kernel keeps what it is still busy with.
        try:
            with without_waiting():
                log.open_for_reading().close()
        except WouldWait:
            return True
        return False

    wait_until(only_the_disk_has_it)
    assert open_files().count(str(path)) == 1
    os.close(file)
