"""Loose files, of drafts and of editors: as on any disk, and counted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store import Thread, ThreadStore
from tests.nodes.driving import Programs, outcome
from threadfs.nodes import drafts, scratch, temporary
from threadfs.nodes.drafts import DraftsDirectory
from threadfs.nodes.loose_files import LooseFile
from threadfs.nodes.quota import Quota
from threadfs.nodes.root import root_of

MANY = 1 << 40


def new_programs(place: Path) -> Programs:
    store = ThreadStore(place)
    store.create_thread(Thread(id="T"))
    return Programs(root_of(store))


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return new_programs(tmp_path / "store")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Programs:
    """With room for 5 files and 100 bytes, beside the data as in drafts."""
    for module in (drafts, scratch):
        monkeypatch.setattr(module, "MAX_FILES", 6)
        monkeypatch.setattr(module, "MAX_BYTES", 100)
    return new_programs(tmp_path / "store")


OPERATIONS = st.lists(
    st.tuples(st.just("write"), st.integers(0, 60), st.binary(min_size=1, max_size=30))
    | st.tuples(st.just("append"), st.just(0), st.binary(min_size=1, max_size=30))
    | st.tuples(st.just("truncate"), st.integers(0, 90), st.just(b"")),
    max_size=12,
)


@pytest.mark.parametrize(("in_memory_bytes", "slot_bytes"), [(MANY, MANY), (20, MANY), (20, 40), (0, 0)])
@settings(max_examples=100, deadline=None)
@given(operations=OPERATIONS)
def test_a_loose_file_holds_what_is_written(
    in_memory_bytes: int, slot_bytes: int, operations: list[tuple[str, int, bytes]]
) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as place:
        patch.setattr(temporary, "IN_MEMORY_BYTES", in_memory_bytes)
        patch.setattr(temporary, "SLOT_BYTES", slot_bytes)
        file = LooseFile(root_of(ThreadStore(place)).tree, Quota(1, 200), "drafts", "file")
        expected = bytearray()
        for name, offset, data in operations:
            out = file.open_for_writing(truncate=False, append=name == "append")
            if name == "truncate":
                out.truncate(offset)
                expected = expected[:offset] + bytes(max(0, offset - len(expected)))
            else:
                start = len(expected) if name == "append" else offset
                out.write(offset, data)
                expected += bytes(max(0, start - len(expected)))
                expected[start : start + len(data)] = data
            out.close()
            assert file.read(0, 1000) == bytes(expected)
            assert file.attributes().size_bytes == len(expected)


@pytest.mark.parametrize("directory", ["drafts", "threads/T"])
def test_more_files_than_there_is_room_for_are_refused(small: Programs, directory: str) -> None:
    outcomes = [outcome(lambda n=n: small.write(f"{directory}/tmp{n}", b"")) for n in range(8)]  # type: ignore[misc]
    assert outcomes[:5] == ["ok"] * 5
    assert outcomes[-1] == "ENOSPC"
    small.unlink(f"{directory}/tmp0")
    small.write(f"{directory}/tmp_again", b"")


@pytest.mark.parametrize("directory", ["drafts", "threads/T"])
def test_more_bytes_than_there_is_room_for_are_refused_and_given_back(
    small: Programs, directory: str
) -> None:
    path = f"{directory}/tmp_file"
    for _ in range(3):
        small.write(path, b"x" * 60)
        assert outcome(lambda: small.write(f"{directory}/tmp_other", b"x" * 60)) == "ENOSPC"
        small.write(f"{directory}/tmp_other", b"x" * 40)
        small.unlink(path)
        small.unlink(f"{directory}/tmp_other")


def test_a_draft_that_became_a_thread_gives_its_room_back(small: Programs) -> None:
    for number in range(5):
        small.mkdir("drafts/draft")
        small.write("drafts/draft/meta.json", b'{"created_at":1}')
        small.write("drafts/draft/messages.jsonl", b'{"role":"user","content":"a long text"}\n')
        small.rename("drafts/draft", f"threads/{number}")


def test_a_file_that_was_removed_while_it_is_open_can_still_be_read(programs: Programs) -> None:
    programs.write("drafts/file", b"text")
    file = programs.at("drafts/file")
    assert isinstance(file, LooseFile)
    reader = file.open_for_reading()
    programs.unlink("drafts/file")
    assert reader.read(0, 10) == b"text"
    reader.close()


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("drafts/a/f", "drafts/g", "ok"),
        ("drafts/a", "drafts/b", "ok"),
        ("drafts/a", "drafts/a/inside", "EINVAL"),
        ("drafts/a", "drafts/full", "ENOTEMPTY"),
        ("drafts/a", "drafts/f", "ENOTDIR"),
        ("drafts/f", "drafts/a", "EISDIR"),
        ("drafts/f", "drafts/f", "ok"),
        ("drafts/none", "drafts/g", "ENOENT"),
        ("drafts/f", "threads/T/notes", "EXDEV"),
        ("threads/T/meta.json", "drafts/meta.json", "EXDEV"),
        ("drafts/a", "threads/T/sub", "EACCES"),
        ("drafts/a", "runs/queued/x", "EACCES"),
        ("drafts/a", "transcripts/x", "EACCES"),
        ("drafts/a", "x", "EACCES"),
        ("threads/T", "drafts/T", "EACCES"),
        ("threads/T", "threads/U", "EACCES"),
        ("threads/T/runs", "threads/T/others", "EACCES"),
    ],
)
def test_what_can_be_renamed_to_what(programs: Programs, source: str, target: str, expected: str) -> None:
    for directory in ("a", "full", "full/x"):
        programs.mkdir(f"drafts/{directory}")
    programs.write("drafts/f", b"text")
    programs.write("drafts/a/f", b"text")

    def rename() -> None:
        parent, _, name = source.rpartition("/")
        new_parent, _, new_name = target.rpartition("/")
        into = programs.directory(new_parent) if new_parent else programs.root
        programs.directory(parent).rename(name, into, new_name, replace=True)

    assert outcome(rename) == expected


def test_drafts_themselves_stay_as_they_are(programs: Programs) -> None:
    directory = programs.directory("drafts")
    assert isinstance(directory, DraftsDirectory)
    directory.set_permissions(0o700)
    assert directory.attributes().mode & 0o777 == 0o755
    assert outcome(lambda: programs.root.remove_directory("drafts")) == "EACCES"


CHANGES: dict[str, Callable[[Programs, LooseFile], object]] = {
    "write": lambda _, file: file.write(0, b"x"),
    "truncate": lambda _, file: file.truncate(0),
    "chmod": lambda _, file: file.set_permissions(0o600),
    "utimes": lambda _, file: file.set_modified(1),
    "rename": lambda programs, _: programs.rename("drafts/file", "drafts/other"),
    "unlink": lambda programs, _: programs.unlink("drafts/file"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_change_time_of_a_loose_file_goes_on_with_each_change(programs: Programs, change: str) -> None:
    programs.write("drafts/file", b"text")
    file = programs.at("drafts/file")
    assert isinstance(file, LooseFile)
    file.set_modified(1)
    before = file.attributes()
    assert (before.modified_ns, before.changed_ns or 0) > (0, 1)
    CHANGES[change](programs, file)
    assert (file.attributes().changed_ns or 0) > (before.changed_ns or 0)


@pytest.mark.parametrize("by", ["unlink", "replace"])
def test_what_has_lost_its_last_name_has_no_link(programs: Programs, by: str) -> None:
    programs.write("drafts/file", b"text")
    programs.write("drafts/other", b"text")
    file = programs.at("drafts/file")
    assert file.attributes().links == 1
    if by == "unlink":
        programs.unlink("drafts/file")
    else:
        programs.rename("drafts/other", "drafts/file")
    assert file.attributes().links == 0


def test_a_closed_file_can_be_made_among_drafts_and_where_programs_have_theirs(programs: Programs) -> None:
    assert programs.directory("drafts").make_closed_file("file").attributes().size_bytes == 0
    assert programs.directory("threads/T").make_closed_file(".swp").attributes().size_bytes == 0
    programs.mkdir("threads/T/runs/R")
    for path, name in [("threads/T", "notes"), ("threads/T/runs/R/steps", "s.json"), ("runs/queued", "tmp")]:
        assert outcome(lambda p=path, n=name: programs.directory(p).make_closed_file(n)) == "EACCES"  # type: ignore[misc]
    assert programs.names("threads/T/runs/R/steps") == []
