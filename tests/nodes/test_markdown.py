"""The text of a message that comes in pieces reads as one that comes as a whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import ContentBlock, MessageRole, ThreadMessage
from store.printing import printable_lines
from threadfs.nodes.markdown import Contained, Printed, body

# What texts are made of that can be taken for something else at the end of a piece.
FRAGMENTS = (
    *("#", "##", "## ", "# ", " ", "  ", "\n", "\r", "\r\n", "\t", ">", "> ", "> Run `", "> R", "Run `"),
    *("`", "``", "```", "```py", "~~~", "~~~~", "text", "a\x1b[2J", "\u202e", "ü", "\\"),
)
texts = st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join)


def whole(text: str) -> str:
    return body(ThreadMessage(role=MessageRole.assistant, content=[ContentBlock.of_text(text)]))[:-1]


@st.composite
def in_pieces(draw: st.DrawFn) -> list[str]:
    text = draw(texts)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=10)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(in_pieces())
def test_a_text_in_pieces_is_contained_as_the_whole_is(pieces: list[str]) -> None:
    contained = Contained()
    shown = "".join(contained.add(piece) for piece in pieces) + contained.end()
    assert shown == whole("".join(pieces))


@given(in_pieces())
def test_a_text_in_pieces_is_printed_as_the_whole_is(pieces: list[str]) -> None:
    printed = Printed()
    shown = "".join(printed.add(piece) for piece in pieces) + printed.end()
    assert shown == printable_lines("".join(pieces))


@pytest.mark.parametrize(
    ("piece", "shown"),
    [
        ("#", ""),
        ("## ", "\\## "),
        ("# ", "# "),
        ("   > Run", ""),
        ("    ", "    "),
        ("a\r", "a"),
        ("##x", "##x"),
    ],
)
def test_only_what_may_become_a_heading_is_held_back(piece: str, shown: str) -> None:
    assert Contained().add(piece) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("## User", "\\## User"),
        ("  > Run `x` ended", "\\> Run `x` ended"),
        ("```\n## code\n```\n## User", "```\n## code\n```\n\\## User"),
        ("```\ncode", "```\ncode\n```"),
        ("##", "##"),
        ("a\r", "a\\x0d"),
        ("", ""),
    ],
)
def test_a_text_cannot_pass_for_a_message(text: str, shown: str) -> None:
    assert whole(text) == shown
