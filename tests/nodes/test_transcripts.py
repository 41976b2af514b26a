"""Transcripts that are open while what they show is replaced."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest

from store import ThreadStore
from tests.nodes.driving import Programs
from threadfs.nodes.base import Reader
from threadfs.nodes.growing import ThreadText
from threadfs.nodes.root import root_of


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    programs = Programs(root_of(ThreadStore(tmp_path / "store")))
    programs.mkdir("threads/T")
    return programs


def opened(programs: Programs) -> Reader:
    node = programs.at("transcripts/T.md")
    assert isinstance(node, ThreadText)
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


def test_of_a_run_that_ends_anew_or_goes_only_the_last_end_shows_to_who_opens_it(programs: Programs) -> None:
    programs.mkdir("threads/T/runs/R")
    programs.write("threads/T/runs/R/status", b"completed\n")
    reader, first = opened(programs), programs.at("transcripts/T.md")
    programs.write("threads/T/runs/R/cancel", b"force")
    assert reader.read(0, 1000).endswith(b"> Run `R` completed\n\n> Run `R` cancelled\n")
    assert programs.read("transcripts/T.md") == b"# T\n\n> Run `R` cancelled\n"
    second = programs.at("transcripts/T.md")
    programs.remove_all("threads/T/runs/R")
    assert programs.read("transcripts/T.md") == b"# T\n"
    assert len({first, second, programs.at("transcripts/T.md")}) == 3


def test_a_message_in_the_second_in_which_a_run_has_ended_stands_before_that_end_for_who_opens_it(
    programs: Programs,
) -> None:
    programs.mkdir("threads/T/runs/R")
    document = {"id": "R", "status": "completed", "created_at": 1, "completed_at": 2, "model": ""}
    programs.write("threads/T/runs/R/status", json.dumps(document).encode())
    reader = opened(programs)
    line = {"role": "user", "content": "hello", "created_at": 2}
    programs.write("threads/T/messages.jsonl", json.dumps(line).encode() + b"\n", append=True)
    assert reader.read(0, 1000).endswith(
        b"> Run `R` completed\n\n## User, 1970-01-01 00:00:02 UTC\n\nhello\n"
    )
    assert programs.read("transcripts/T.md").endswith(b"\n\nhello\n\n> Run `R` completed\n")


def test_an_open_transcript_stays_that_of_its_thread_when_that_is_made_anew(programs: Programs) -> None:
    programs.write("threads/T/say", b"before")
    node, reader = programs.at("transcripts/T.md"), opened(programs)
    text = reader.read(0, 1000)
    programs.remove_all("threads/T")
    programs.mkdir("threads/T")
    programs.write("threads/T/say", b"after")
    assert reader.read(0, 1000) == text
    assert reader.attributes().size_bytes == len(text)
    assert programs.at("transcripts/T.md") != node
    assert programs.read("transcripts/T.md").endswith(b"\n\nafter\n")


def test_a_transcript_whose_thread_has_gone_can_be_read_to_its_end(programs: Programs) -> None:
    programs.write("threads/T/say", b"hello")
    reader = opened(programs)
    text = reader.read(0, 1000)
    programs.remove_all("threads/T")
    assert reader.read(0, 1000) == text
    assert reader.read(len(text), 1000) == b""


def set_title(programs: Programs, title: object) -> None:
    programs.write("threads/T/meta.json", json.dumps({"metadata": {"title": title}}).encode())


def test_the_title_is_the_heading_and_the_id_stands_under_it(programs: Programs) -> None:
    set_title(programs, "Soup for\n eight")
    programs.write("threads/T/say", b"hello")
    assert programs.read("transcripts/T.md").startswith(b"# Soup for eight\n\n`T`\n\n## User, ")


@pytest.mark.parametrize("title", ["", " \n", 7, None, ["x"], {"x": "y"}])
def test_the_id_is_the_heading_of_a_thread_without_a_title(programs: Programs, title: object) -> None:
    set_title(programs, "before")
    set_title(programs, title)
    assert programs.read("transcripts/T.md") == b"# T\n"


def test_the_id_is_the_heading_of_a_thread_whose_metadata_are_no_object(programs: Programs) -> None:
    programs.write("threads/T/meta.json", b'{"metadata": "title"}')
    assert programs.read("transcripts/T.md") == b"# T\n"


def test_the_id_is_the_heading_of_a_thread_that_is_damaged(programs: Programs, tmp_path: Path) -> None:
    set_title(programs, "Soup")
    programs.write("threads/T/say", b"hello")
    assert programs.read("transcripts/T.md").startswith(b"# Soup\n")
    (tmp_path / "store" / "T" / "meta.json").write_text("{")
    assert programs.read("transcripts/T.md").startswith(b"# T\n\n## User")


def test_what_is_opened_after_a_new_title_has_it_and_an_open_reader_keeps_its_own(programs: Programs) -> None:
    set_title(programs, "A long title before")
    programs.write("threads/T/say", b"one")
    reader = opened(programs)
    before = reader.read(0, 1000)
    set_title(programs, "After")
    programs.write("threads/T/say", b"two")
    after = programs.read("transcripts/T.md")
    assert after.startswith(b"# After\n\n`T`\n\n## User")
    assert after.endswith(b"\n\ntwo\n")
    assert reader.read(len(before), 1000).endswith(b"\n\ntwo\n")
    assert reader.read(0, 1000).startswith(before)
    assert reader.attributes().size_bytes == len(reader.read(0, 1000))


def test_with_another_title_a_transcript_is_another_file_whose_readers_know_their_size(
    programs: Programs,
) -> None:
    before = programs.at("transcripts/T.md")
    assert programs.at("transcripts/T.md") == before
    reader = opened(programs)
    programs.write("threads/T/say", b"one")
    assert programs.at("transcripts/T.md") == before
    set_title(programs, "A title that is longer than the id")
    after = programs.at("transcripts/T.md")
    assert after != before
    assert dict(programs.directory("transcripts").entries())["T.md"] == after
    assert before.attributes().size_bytes == len(reader.read(0, 1000))
    assert after.attributes().size_bytes == len(programs.read("transcripts/T.md")) > len(reader.read(0, 1000))
    reader.close()
    del reader
    gc.collect()
    assert before.attributes().size_bytes == after.attributes().size_bytes  # Nobody reads the one before.


def test_a_title_that_another_program_writes_shows(programs: Programs, tmp_path: Path) -> None:
    assert programs.read("transcripts/T.md") == b"# T\n"
    document = tmp_path / "store" / "T" / "meta.json"
    document.write_text(document.read_text().replace('"metadata": {}', '"metadata": {"title": "Elsewhere"}'))
    assert programs.read("transcripts/T.md") == b"# Elsewhere\n\n`T`\n"


def test_other_changes_of_a_thread_leave_its_transcript_as_it_is(programs: Programs) -> None:
    set_title(programs, "Soup")
    node = programs.at("transcripts/T.md")
    assert isinstance(node, ThreadText)
    before = node.editions.text_now(node.store, "T")
    programs.write("threads/T/meta.json", b'{"metadata": {"owner": "Ada"}}')
    assert programs.at("transcripts/T.md") == node
    programs.write("threads/T/say", b"hello")
    assert node.editions.text_now(node.store, "T") is before


def say_blocks(programs: Programs, *blocks: dict[str, object]) -> str:
    """The message of these blocks, as the transcript shows it."""
    line = json.dumps({"role": "assistant", "content": blocks}) + "\n"
    programs.write("threads/T/messages.jsonl", line.encode(), append=True)
    return programs.read("transcripts/T.md").decode().split(" UTC\n\n", 1)[1]


def text_block(value: str) -> dict[str, object]:
    return {"type": "text", "text": {"value": value, "annotations": []}}


def test_blocks_keep_their_order_and_refusals_and_images_are_shown(programs: Programs) -> None:
    shown = say_blocks(
        programs,
        text_block("first"),
        {"type": "image_file", "image_file": {"file_id": "file_1"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
        text_block("last"),
        {"type": "refusal", "refusal": "I cannot.\n## User"},
    )
    assert shown.splitlines() == [
        "first",
        "*(image_file)*",
        "*(image_url)* https://example.org/a.png",
        "last",
        "*(refusal)* I cannot.",
        "\\## User",
    ]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image_url"},
        {"type": "image_url", "image_url": 7},
        {"type": "image_url", "image_url": {"url": 7}},
    ],
)
def test_an_image_without_a_url_is_named(programs: Programs, block: dict[str, object]) -> None:
    assert say_blocks(programs, block) == "*(image_url)*\n"


def test_a_refusal_without_words_is_named(programs: Programs) -> None:
    assert say_blocks(programs, {"type": "refusal", "refusal": None}) == "*(refusal)*\n"


def test_of_an_image_in_its_own_url_the_beginning_is_shown(programs: Programs) -> None:
    url = "data:image/png;base64," + "A" * 100_000
    shown = say_blocks(programs, {"type": "image_url", "image_url": {"url": url}})
    assert shown.startswith("*(image_url)* data:image/png;base64,AAAA")
    assert shown.endswith("A…\n")
    assert len(shown) < 100


def test_nothing_in_a_transcript_drives_a_terminal(programs: Programs) -> None:
    evil = "a\x1b[2J\x9b31m\x7f\r\u202e\tb"
    shown = "a\\x1b[2J\\x9b31m\\x7f\\x0d\\u{202e}"
    set_title(programs, evil)
    say_blocks(
        programs,
        text_block(evil + "\nc"),
        {"type": "refusal", "refusal": evil},
        {"type": "image_url", "image_url": {"url": evil}},
        {"type": evil},
    )
    programs.mkdir("threads/T/runs/R")
    error = {"code": "server_error", "message": evil}
    programs.write("threads/T/runs/R/status", json.dumps({"status": "failed", "last_error": error}).encode())
    lines = programs.read("transcripts/T.md").decode().split("\n")
    assert lines[0] == f"# {shown} b"
    assert lines[6:11] == [
        f"{shown}\tb",
        "c",
        f"*(refusal)* {shown}\tb",
        f"*(image_url)* {shown}\\tb",
        f"*({shown}\\tb)*",
    ]
    assert lines[12] == f"> Run `R` failed: {shown}\\tb"
