"""``transcripts/`` and ``answers/`` while a run answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from store import RunStatus, ThreadStore
from tests.nodes.driving import Programs
from tests.nodes.working import Answering, finish
from threadfs.nodes.base import Node, Reader
from threadfs.nodes.growing import ThreadText
from threadfs.nodes.root import root_of


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    programs = Programs(root_of(ThreadStore(tmp_path / "store")))
    programs.mkdir("threads/T")
    return programs


@pytest.fixture
def answering(programs: Programs, tmp_path: Path) -> Iterator[Answering]:
    answering = Answering(tmp_path / "store")
    yield answering
    answering.close()


def at(programs: Programs, directory: str) -> Node:
    return programs.at(f"{directory}/T.md")


def opened(programs: Programs, directory: str = "transcripts") -> Reader:
    node = at(programs, directory)
    assert isinstance(node, ThreadText)
    return node.open_for_reading()


def whole(reader: Reader) -> str:
    """All of it, as ``tail -f`` gets it in the end."""
    text = reader.read(0, 1 << 20)
    assert reader.attributes().size_bytes == len(text)
    return text.decode()


def transcript(programs: Programs) -> str:
    """As it is opened now, which is what a new mount shows."""
    text = programs.read("transcripts/T.md").decode()
    fresh = Programs(root_of(ThreadStore(programs.root.tree.store.location)))
    assert fresh.read("transcripts/T.md").decode() == text
    return text


def answer_text(programs: Programs) -> str:
    text = programs.read("answers/T.md").decode()
    fresh = Programs(root_of(ThreadStore(programs.root.tree.store.location)))
    assert fresh.read("answers/T.md").decode() == text
    return text


def ask(programs: Programs, text: str = "Why?") -> None:
    programs.write("threads/T/ask", text.encode())


def test_an_answer_shows_in_the_transcript_as_it_comes(programs: Programs, answering: Answering) -> None:
    ask(programs)
    reader, node = opened(programs), at(programs, "transcripts")
    question = whole(reader)
    answer = answering.claim()
    assert whole(reader) == question
    answer.append("Beca")
    head, _, grown = whole(reader).removeprefix(question).partition(" UTC\n\n")
    assert head.startswith("\n## Assistant, ")
    assert grown == "Beca"
    answer.append("use.")
    assert whole(reader) == transcript(programs)
    assert whole(reader).endswith("\n\nBecause.")
    finish(answer)
    assert whole(reader).endswith(f"\n\nBecause.\n\n> Run `{answer.run.id}` completed\n")
    assert whole(reader) == transcript(programs)
    assert at(programs, "transcripts") == node


def test_an_answer_that_was_not_read_while_it_grew_shows_as_one_message(
    programs: Programs, answering: Answering
) -> None:
    ask(programs)
    answering.answer("Because", " of that.")
    assert transcript(programs).count("## Assistant") == 1
    assert "\n\nBecause of that.\n\n> Run" in transcript(programs)


def test_what_is_said_meanwhile_stands_before_the_answer_for_who_opens_it_and_after_it_for_who_reads_it(
    programs: Programs, answering: Answering
) -> None:
    ask(programs)
    answer = answering.claim()
    answer.append("Because")
    reader, node = opened(programs), at(programs, "transcripts")
    programs.write("threads/T/say", b"Hurry!")
    assert whole(reader).endswith("Because")
    assert at(programs, "transcripts") != node
    assert transcript(programs).endswith("Because")
    assert "Hurry!" in transcript(programs)
    answer.append(".")
    finish(answer)
    assert whole(reader).index("Because.") < whole(reader).index("Hurry!")
    assert transcript(programs).index("Hurry!") < transcript(programs).index("Because.")
    assert transcript(programs).count("Because.") == whole(reader).count("Because.") == 1


def test_it_is_so_also_if_nobody_looks_before_the_answer_has_ended(
    programs: Programs, answering: Answering
) -> None:
    ask(programs)
    answer = answering.claim()
    answer.append("Because")
    reader, node = opened(programs), at(programs, "transcripts")
    programs.write("threads/T/say", b"Hurry!")
    finish(answer)
    assert whole(reader).index("Because") < whole(reader).index("Hurry!")
    assert at(programs, "transcripts") != node
    assert transcript(programs).index("Hurry!") < transcript(programs).index("Because")


def test_an_attempt_that_is_handed_back_is_told_to_who_has_read_it_and_to_nobody_else(
    programs: Programs, answering: Answering
) -> None:
    ask(programs)
    answer = answering.claim()
    answer.append("```\nfirst")
    reader, node = opened(programs), at(programs, "transcripts")
    answer.hand_back()
    assert whole(reader).endswith("```\nfirst\n```\n\n*(begun again)*\n")
    assert at(programs, "transcripts") != node
    assert "first" not in transcript(programs)
    other = opened(programs)
    second = answering.claim()
    second.append("another")
    assert whole(other).endswith("another")
    second.hand_back()
    answering.answer("second")
    assert "another\n\n*(begun again)*\n\n## Assistant, " in whole(other)
    assert "(begun again)*\n\n## Assistant, " in whole(reader)
    assert whole(reader).count("second\n\n> Run ") == transcript(programs).count("second\n\n> Run ") == 1


def test_the_answer_of_a_worker_that_dies_is_begun_again_by_another(
    programs: Programs, answering: Answering, tmp_path: Path
) -> None:
    ask(programs)
    answering.claim().append("first")
    reader = opened(programs)
    answering.worker.close()
    assert whole(reader).endswith("first\n\n*(begun again)*\n")
    assert "first" not in transcript(programs)
    another = Answering(tmp_path / "store")
    another.store.take_over()
    another.answer("second")
    assert whole(reader).count("second\n\n> Run ") == transcript(programs).count("second\n\n> Run ") == 1
    another.close()


def test_the_end_of_a_run_that_is_cancelled_stands_after_what_there_is_of_its_answer(
    programs: Programs, answering: Answering
) -> None:
    ask(programs)
    answer = answering.claim()
    answer.append("Because")
    reader, node = opened(programs), at(programs, "transcripts")
    programs.write(f"threads/T/runs/{answer.run.id}/cancel", b"1")
    assert whole(reader).endswith("Because")
    assert transcript(programs) == whole(reader)
    finish(answer, RunStatus.cancelled)
    assert whole(reader).endswith(f"Because\n\n> Run `{answer.run.id}` cancelled\n")
    assert transcript(programs) == whole(reader)
    assert at(programs, "transcripts") == node


def test_the_end_of_a_run_that_was_told_before_its_worker_said_a_word_is_after_the_answer_for_who_opens_it(
    programs: Programs, answering: Answering
) -> None:
    ask(programs)
    answer = answering.claim()
    programs.write(f"threads/T/runs/{answer.run.id}/cancel", b"1")
    assert "cancelled" in transcript(programs)
    answer.append("Because")
    assert "cancelled" not in transcript(programs)
    assert transcript(programs).endswith("Because")


def test_an_answer_that_is_cut_is_told_with_the_reason(programs: Programs, answering: Answering) -> None:
    ask(programs)
    answer = answering.claim()
    answer.append("Because")
    finish(answer, RunStatus.incomplete)
    assert transcript(programs).endswith(f"> Run `{answer.run.id}` incomplete: max_completion_tokens\n")


def test_of_a_run_that_is_deleted_the_reader_keeps_what_it_has_read(
    programs: Programs, answering: Answering
) -> None:
    ask(programs)
    answer = answering.claim()
    answer.append("Because")
    reader = opened(programs)
    programs.write(f"threads/T/runs/{answer.run.id}/cancel", b"1")
    programs.remove_all(f"threads/T/runs/{answer.run.id}")
    assert whole(reader).endswith("Because\n")
    assert "Because" not in transcript(programs)


def test_an_answer_cannot_pass_for_a_message_nor_drive_a_terminal_while_it_grows(
    programs: Programs, answering: Answering
) -> None:
    ask(programs)
    answer = answering.claim()
    reader = opened(programs)
    for piece in ("\x1b[2J#", "# User\n#", "# User\r", "\n"):
        answer.append(piece)
        whole(reader)
    assert whole(reader).endswith("\n\n\\x1b[2J## User\n\\## User\n")
    finish(answer)
    assert whole(reader) == transcript(programs)


def test_a_character_that_is_cut_in_two_shows_once_it_is_whole(
    programs: Programs, answering: Answering, tmp_path: Path
) -> None:
    ask(programs)
    answer = answering.claim()
    answer.append("gr")
    reader = opened(programs)
    (growing,) = (tmp_path / "store" / "T" / "runs" / answer.run.id).glob(".threadfs-answer-*")
    with growing.open("ab") as file:
        file.write("ü".encode()[:1])
    assert whole(reader).endswith("gr")
    with growing.open("ab") as file:
        file.write("ü".encode()[1:] + b"n")
    assert whole(reader).endswith("grün")


def test_a_message_whose_text_is_not_what_was_shown_is_shown_whole(
    programs: Programs, answering: Answering
) -> None:
    ask(programs)
    answer = answering.claim()
    answer.append("Because")
    reader, node = opened(programs), at(programs, "transcripts")
    message = {
        "id": answer.message_id,
        "role": "assistant",
        "content": "Indeed.",
        "run_id": answer.run.id,
    }
    programs.write("threads/T/messages.jsonl", json.dumps(message).encode() + b"\n", append=True)
    assert "Because\n\n*(begun again)*\n\n## Assistant, " in whole(reader)
    assert whole(reader).endswith("Indeed.\n")
    assert at(programs, "transcripts") != node
    assert "Because" not in transcript(programs)


def test_a_message_with_another_time_than_was_shown_has_it_for_who_opens_it(
    programs: Programs, answering: Answering
) -> None:
    ask(programs)
    answer = answering.claim()
    answer.append("Becau")
    reader, node = opened(programs), at(programs, "transcripts")
    message = {
        "id": answer.message_id,
        "role": "assistant",
        "content": "Because",
        "run_id": answer.run.id,
        "created_at": 1,
    }
    programs.write("threads/T/messages.jsonl", json.dumps(message).encode() + b"\n", append=True)
    assert whole(reader).endswith("Because\n")
    assert at(programs, "transcripts") != node
    assert "## Assistant, 1970-01-01 00:00:01 UTC\n\nBecause\n" in transcript(programs)


# ── The newest answer ───────────────────────────────────────────────────────────────────────────────────


def test_the_newest_answer_is_empty_until_there_is_one(programs: Programs, answering: Answering) -> None:
    assert answer_text(programs) == ""
    ask(programs)
    assert answer_text(programs) == ""
    answering.claim()
    assert answer_text(programs) == ""


def test_the_newest_answer_grows_and_ends_with_a_newline(programs: Programs, answering: Answering) -> None:
    reader, node = opened(programs, "answers"), at(programs, "answers")
    ask(programs)
    answer = answering.claim()
    answer.append("## Be")
    assert whole(reader) == answer_text(programs) == "## Be"
    answer.append("cause\x07")
    assert whole(reader) == answer_text(programs) == "## Because\\x07"
    finish(answer)
    assert whole(reader) == answer_text(programs) == "## Because\\x07\n"
    programs.write("threads/T/say", b"Thanks")
    assert whole(reader) == answer_text(programs) == "## Because\\x07\n"
    assert at(programs, "answers") == node


def test_the_next_answer_is_another_file_and_who_reads_the_one_before_keeps_it(
    programs: Programs, answering: Answering
) -> None:
    ask(programs)
    answering.answer("one")
    ask(programs)
    answer = answering.claim()
    reader, node = opened(programs, "answers"), at(programs, "answers")
    answer.append("tw")
    assert at(programs, "answers") != node
    assert answer_text(programs) == "tw"
    following = opened(programs, "answers")
    finish(answer)
    assert (whole(reader), whole(following), answer_text(programs)) == ("one\n", "tw\n", "tw\n")


def test_of_an_answer_that_is_handed_back_the_reader_keeps_what_it_has_read(
    programs: Programs, answering: Answering
) -> None:
    ask(programs)
    answer = answering.claim()
    answer.append("one")
    reader = opened(programs, "answers")
    answer.hand_back()
    assert (whole(reader), answer_text(programs)) == ("one\n", "")
    answering.answer("two")
    assert (whole(reader), answer_text(programs)) == ("one\n", "two\n")


@pytest.mark.parametrize("length", [10, 70_000, 200_000])
def test_the_newest_answer_is_found_behind_others_and_before_long_messages(
    programs: Programs, length: int
) -> None:
    lines = [
        {"role": "assistant", "content": "older"},
        {"role": "assistant", "content": "newest"},
        {"role": "user", "content": "x" * length},
        {"role": "user", "content": "last"},
    ]
    log = "".join(json.dumps(line) + "\n" for line in lines)
    programs.write("threads/T/messages.jsonl", log.encode(), append=True)
    assert answer_text(programs) == "newest\n"


def test_an_answer_that_another_program_appends_is_the_newest(programs: Programs, tmp_path: Path) -> None:
    reader = opened(programs, "answers")
    line = {"id": "msg_theirs", "role": "assistant", "content": "theirs"}
    programs.write("threads/T/messages.jsonl", json.dumps(line).encode() + b"\n", append=True)
    log = tmp_path / "store" / "T" / "messages.jsonl"
    assert whole(reader) == answer_text(programs) == "theirs\n"
    with log.open("a") as file:
        file.write("nonsense\n" + log.read_text().replace("theirs", "others"))
    assert (whole(reader), answer_text(programs)) == ("theirs\n", "others\n")


def test_a_thread_made_anew_has_no_answer(programs: Programs) -> None:
    line = {"role": "assistant", "content": "theirs"}
    programs.write("threads/T/messages.jsonl", json.dumps(line).encode() + b"\n", append=True)
    reader = opened(programs, "answers")
    programs.remove_all("threads/T")
    programs.mkdir("threads/T")
    assert (whole(reader), answer_text(programs)) == ("theirs\n", "")
