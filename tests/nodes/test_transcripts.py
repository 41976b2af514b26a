"""Transcripts that are open while what they show is replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from store import ThreadStore
from tests.nodes.driving import Programs
from threadfs.nodes.base import Reader
from threadfs.nodes.root import root_of
from threadfs.nodes.transcripts import Transcript


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    programs = Programs(root_of(ThreadStore(tmp_path / "store")))
    programs.mkdir("threads/T")
    return programs


def opened(programs: Programs) -> Reader:
    node = programs.at("transcripts/T.md")
    assert isinstance(node, Transcript)
    return node.open_for_reading()


def test_an_open_transcript_grows(programs: Programs) -> None:
    reader = opened(programs)
    before = reader.read(0, 1000)
    programs.write("threads/T/say", b"hello")
    assert reader.read(len(before), 1000).endswith(b"\n\nhello\n")
    assert reader.attributes().size_bytes == len(reader.read(0, 1000))


def test_a_thread_made_anew_shows_no_run_of_the_one_before(programs: Programs) -> None:
    programs.mkdir("threads/T/runs/R")
    programs.write("threads/T/runs/R/cancel", b"1")
    assert b"> Run `R` cancelled" in programs.read("transcripts/T.md")
    programs.remove_all("threads/T")
    programs.mkdir("threads/T")
    assert programs.read("transcripts/T.md") == b"# T\n"


def test_an_open_transcript_goes_on_with_the_thread_made_anew(programs: Programs) -> None:
    programs.write("threads/T/say", b"before")
    reader = opened(programs)
    assert b"before" in reader.read(0, 1000)
    programs.remove_all("threads/T")
    programs.mkdir("threads/T")
    programs.write("threads/T/say", b"after")
    assert reader.read(0, 1000).endswith(b"\n\nafter\n")
    assert reader.attributes().size_bytes == len(reader.read(0, 1000))
    programs.write("threads/T/say", b"and on")
    assert reader.read(0, 1000).endswith(b"\n\nand on\n")


def test_a_transcript_whose_thread_has_gone_can_be_read_to_its_end(programs: Programs) -> None:
    programs.write("threads/T/say", b"hello")
    reader = opened(programs)
    text = reader.read(0, 1000)
    programs.remove_all("threads/T")
    assert reader.read(0, 1000) == text
    assert reader.read(len(text), 1000) == b""
