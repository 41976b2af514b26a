"""Transcripts that are open while what they show is replaced."""

from __future__ import annotations

import json
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


def test_a_log_that_got_the_inode_number_of_the_one_before_is_rendered_anew(
    programs: Programs, tmp_path: Path
) -> None:
    for text in b"one", b"two":
        programs.write("threads/T/say", text)
    log = tmp_path / "store" / "T" / "messages.jsonl"
    first = log.read_text().splitlines()[0]
    assert programs.read("transcripts/T.md").count(b"\n## ") == 2
    with log.open("w") as file:  # The same file, as far as its number tells.
        file.write(first.replace('"one"', json.dumps("another " * 100)) + "\n")
    assert programs.read("transcripts/T.md").count(b"\n## ") == 1


def test_a_log_is_known_by_its_last_message_however_long_that_is(programs: Programs, tmp_path: Path) -> None:
    programs.write("threads/T/say", b"x" * 10_000)
    log = tmp_path / "store" / "T" / "messages.jsonl"
    before = log.read_text()
    assert b"xxx" in programs.read("transcripts/T.md")
    message = json.loads(before) | {"id": "msg_" + "0" * 32, "role": "user"}
    with log.open("r+") as file:  # As long as it was, and no other file.
        file.write(json.dumps(message, separators=(",", ":")).replace("xxx", "yyy", 1) + "\n")
    assert log.stat().st_size == len(before)
    assert b"yyy" in programs.read("transcripts/T.md")


def test_a_run_that_got_the_name_of_one_that_has_ended_has_not(programs: Programs) -> None:
    programs.mkdir("threads/T/runs/R")
    programs.write("threads/T/runs/R/cancel", b"1")
    assert b"> Run `R` cancelled" in programs.read("transcripts/T.md")
    for _ in range(2):  # Deleted and made again, and nobody looked in between.
        programs.remove_all("threads/T")
        programs.mkdir("threads/T")
        programs.mkdir("threads/T/runs/R")
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
