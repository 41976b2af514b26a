"""What paths mean, without a kernel: nodes are plain objects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store import (
    DocumentKey,
    InvalidDocument,
    NotFound,
    Run,
    RunInTerminalState,
    RunStatus,
    RunStep,
    Thread,
    ThreadStore,
)
from threadfs.journal import Journal
from threadfs.nodes.base import Directory, NoSuchName, Readable, Refused, Writable, Writer
from threadfs.nodes.root import Root, root_of
from threadfs.nodes.writers import DocumentWriter, check_beginning


@pytest.fixture
def root(tmp_path: Path) -> Root:
    store = ThreadStore(tmp_path / "store")
    store.create_thread(Thread(id="T"))
    store.create_run("T", Run(id="R", model="m"))
    store.append_step("T", "R", RunStep(id="S"))
    return root_of(store)


def writer(root: Root, path: str, *, truncate: bool = True, append: bool = False) -> Writer:
    node = at(root, path)
    assert isinstance(node, Writable)
    return node.open_for_writing(truncate=truncate, append=append)


def at(root: Root, path: str) -> object:
    node: object = root
    for name in path.split("/"):
        assert isinstance(node, Directory)
        node = node.lookup(name)
    return node


def status(root: Root) -> RunStatus:
    return root.store.get_run("T", "R").status


def test_every_listed_name_leads_to_an_equal_node(root: Root) -> None:
    def walk(directory: Directory) -> int:
        count = 0
        for name, node in directory.entries():
            assert directory.lookup(name) == node
            count += 1 + (walk(node) if isinstance(node, Directory) else 0)
        return count

    assert walk(root) > 20


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "a/b", "a@b", "x" * 128, "\udcff", "a\nb"])
def test_what_cannot_be_an_id_is_not_there(root: Root, name: str) -> None:
    for path in ("threads", "threads/T/runs", "threads/T/runs/R/steps", "transcripts", "runs/queued"):
        directory = at(root, path)
        assert isinstance(directory, Directory)
        with pytest.raises((NoSuchName, NotFound)):
            directory.lookup(name)


def test_a_word_in_pieces_counts_when_it_is_whole(root: Root) -> None:
    out = writer(root, "threads/T/runs/R/status")
    out.write(0, b"in_pro")
    assert status(root) is RunStatus.queued
    out.write(6, b"gress")
    assert status(root) is RunStatus.in_progress


def test_a_second_word_behind_the_first_is_a_second_change(root: Root) -> None:
    out = writer(root, "threads/T/runs/R/status")
    out.write(0, b"in_progress\n")
    out.write(12, b"completed\n")
    assert status(root) is RunStatus.completed


def test_a_refused_word_can_be_followed_by_a_right_one(root: Root) -> None:
    out = writer(root, "threads/T/runs/R/status")
    with pytest.raises(InvalidDocument):
        out.write(0, b"complete!\n")
    out.flush()
    out.write(0, b"completed\n")
    assert status(root) is RunStatus.completed


def test_an_appended_word_counts_wherever_the_kernel_thinks_the_end_is(root: Root) -> None:
    out = writer(root, "threads/T/runs/R/status", truncate=False, append=True)
    out.write(217, b"completed\n")
    assert status(root) is RunStatus.completed


def test_a_shorter_document_over_a_longer_one_is_that_document(root: Root) -> None:
    out = writer(root, "threads/T/meta.json", truncate=False)
    out.write(0, b'{"metadata":{"a":1}}')
    out.flush()
    assert root.store.get_thread("T").metadata == {"a": 1}


def test_a_piece_in_the_middle_changes_the_stored_document(root: Root) -> None:
    stored, _ = root.store.read_document(DocumentKey("T", "R"))
    out = writer(root, "threads/T/runs/R/status", truncate=False)
    out.write(stored.index(b'"m"'), b'"n"')
    out.flush()
    assert root.store.get_run("T", "R").model == "n"


def test_half_a_document_is_refused_at_flush_and_can_be_completed(root: Root) -> None:
    out = writer(root, "threads/T/meta.json")
    out.write(0, b'{"metadata":')
    with pytest.raises(InvalidDocument):
        out.flush()
    out.write(12, b'{"a":2}}')
    out.flush()
    assert root.store.get_thread("T").metadata == {"a": 2}


def test_flush_after_a_commit_commits_nothing_more(root: Root) -> None:
    out = writer(root, "threads/T/say")
    out.write(0, b"hello\n")
    for _ in range(3):
        out.flush()
    assert [message.text for message in root.store.iter_messages("T")] == ["hello"]


def test_a_step_takes_a_word_and_no_other_once_it_has_ended(root: Root) -> None:
    writer(root, "threads/T/runs/R/steps/S.json").write(0, b"completed\n")
    assert root.store.get_step("T", "R", "S").completed_at is not None
    with pytest.raises(Exception, match="already ended"):
        writer(root, "threads/T/runs/R/steps/S.json").write(0, b"failed\n")


def test_a_patch_without_a_status_still_merges_into_a_run_that_has_ended(root: Root) -> None:
    root.store.cancel_run("T", "R")
    out = writer(root, "threads/T/runs/R/status")
    out.write(0, b'{"metadata":{"seen":true}}')
    out.flush()
    assert json.loads(root.store.read_document(DocumentKey("T", "R"))[0])["metadata"] == {"seen": True}
    out = writer(root, "threads/T/runs/R/status")
    with pytest.raises(RunInTerminalState):
        out.write(0, b'{"status":"queued"}')


@pytest.mark.parametrize("text", [b'{"status":"completed"}', b"two\nlines\n", b"[1]\n", b"\xff\n"])
def test_what_is_no_model_is_refused_by_start(root: Root, text: bytes) -> None:
    out = writer(root, "threads/T/start")
    with pytest.raises(InvalidDocument):  # noqa: PT012 (either call may be the one that refuses)
        out.write(0, text)
        out.flush()
    assert root.store.list_run_ids("T") == ["R"]


def test_control_files_are_cut_to_nothing_only(root: Root) -> None:
    out = writer(root, "threads/T/say")
    with pytest.raises(Refused):
        out.truncate(5)


def test_a_cancel_that_another_program_overwrites_is_reported_once(root: Root) -> None:
    writer(root, "threads/T/runs/R/cancel").write(0, b"1\n")
    root.store.force_update_run_status("T", "R", RunStatus.completed)
    for _ in range(2):
        at(root, "threads/T/runs/R/status").open_for_reading()  # type: ignore[attr-defined]
    assert root.tree.journal.errors().count(b"ECANCELED") == 1


def test_a_line_of_text_cannot_put_a_heading_into_a_transcript(root: Root) -> None:
    writer_ = writer(root, "threads/T/say")
    writer_.write(0, b"hi\n## Assistant, 2026\n```\nopen")
    writer_.flush()
    transcript = at(root, "transcripts/T.md")
    assert isinstance(transcript, Readable)
    text = transcript.open_for_reading().read(0, 10_000).decode()
    assert text.count("\n## ") == 1
    assert text.count("```") == 2


def test_control_characters_cannot_begin_a_line_in_errors() -> None:
    journal = Journal()
    journal.refused("a\nb\x1b[2J", 22, "x\ry\tz")
    assert journal.errors().count(b"\n") == 1
    assert b"\x1b" not in journal.errors()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    ),
    st.data(),
)
def test_every_beginning_of_a_document_is_a_beginning(value: object, data: st.DataObject) -> None:
    text = json.dumps({"value": value}, ensure_ascii=False).encode(errors="replace")
    check_beginning(text[: data.draw(st.integers(1, len(text)))])


@settings(max_examples=200)
@given(st.binary(min_size=1, max_size=300), st.data())
def test_a_document_in_any_pieces_is_the_document(filling: bytes, data: st.DataObject) -> None:
    document = json.dumps({"text": filling.hex()}).encode()
    committed: list[bytes] = []
    out = DocumentWriter(lambda: b"", committed.append, lambda word: False, truncate=True, append=False)
    start = 0
    while start < len(document):
        end = data.draw(st.integers(start + 1, len(document)))
        out.write(start, document[start:end])
        start = end
    out.flush()
    out.flush()
    assert committed == [document]
