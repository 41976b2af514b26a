"""A thread with all that it holds, made in one step."""

from __future__ import annotations

import filecmp
import os
from pathlib import Path

import pytest

from store import AlreadyExists, DocumentKey, InvalidDocument, RunContents, ThreadNotFound, ThreadStore

HOUSEHOLD = Path(__file__).parents[2] / "examples" / "household"


def copy(source: ThreadStore, target: ThreadStore, thread_id: str, new_id: str) -> None:
    def read(run_id: str | None = None, step_id: str | None = None) -> bytes:
        return source.read_document(DocumentKey(thread_id, run_id, step_id))[0]

    runs = {
        run_id: RunContents(
            read(run_id), {step: read(run_id, step) for step in source.list_step_ids(thread_id, run_id)}
        )
        for run_id in source.list_run_ids(thread_id)
    }
    lines = source.thread_dir(thread_id).joinpath("messages.jsonl").read_bytes().splitlines()
    target.import_thread(new_id, read(), lines, runs)


def differences(one: Path, other: Path) -> list[str]:
    compared = filecmp.dircmp(one, other)
    found = compared.left_only + compared.right_only
    found += filecmp.cmpfiles(one, other, compared.common_files, shallow=False)[1]
    for name in compared.common_dirs:
        found += differences(one / name, other / name)
    return found


def test_an_imported_thread_has_the_same_bytes(tmp_path: Path) -> None:
    source, target = ThreadStore(HOUSEHOLD), ThreadStore(tmp_path / "target")
    for thread_id in source.list_thread_ids():
        copy(source, target, thread_id, thread_id)
    assert differences(HOUSEHOLD, tmp_path / "target") == []


def test_an_import_under_another_id_has_that_id_in_all_its_documents(tmp_path: Path) -> None:
    source, target = ThreadStore(HOUSEHOLD), ThreadStore(tmp_path / "target")
    copy(source, target, "Trip to Oslo", "clone")
    assert target.get_thread("clone").id == "clone"
    for run_id in target.list_run_ids("clone"):
        assert target.read_document(DocumentKey("clone", run_id))[0].count(b'"thread_id": "clone"') == 1
    assert {message.thread_id for message in target.iter_messages("clone")} == {"clone"}


def test_an_import_of_a_taken_id_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    store = ThreadStore(tmp_path)
    store.import_thread("T", b'{"created_at":1}', [], {})
    with pytest.raises(AlreadyExists):
        store.import_thread("T", b'{"created_at":2}', [], {})
    assert store.get_thread("T").created_at == 1
    assert os.listdir(tmp_path) == ["T"]


@pytest.mark.parametrize(
    ("lines", "run", "place"),
    [
        ([b"{}"], b'{"created_at":1,"status":"queued"}', "messages.jsonl:1"),
        ([], b'{"created_at":1}', "runs/R/status.json: status"),
    ],
)
def test_a_wrong_document_is_named_and_nothing_is_made(
    tmp_path: Path, lines: list[bytes], run: bytes, place: str
) -> None:
    store = ThreadStore(tmp_path)
    with pytest.raises(InvalidDocument, match=place):
        store.import_thread("T", b'{"created_at":1}', lines, {"R": RunContents(run)})
    with pytest.raises(ThreadNotFound):
        store.get_thread("T")
    assert os.listdir(tmp_path) == []
