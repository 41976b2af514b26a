"""Trees of drafts of any depth: moved, refused and removed, and never lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from store import ThreadStore
from tests.nodes.driving import Programs, outcome
from threadfs.nodes.loose_directories import LooseDirectory
from threadfs.nodes.root import root_of

LEVELS = 1_100


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(root_of(ThreadStore(tmp_path / "store")))


def dig(directory: LooseDirectory, levels: int = LEVELS) -> LooseDirectory:
    for _ in range(levels):
        below = directory.make_directory("d")
        assert isinstance(below, LooseDirectory)
        directory = below
    directory.make_file("deepest")
    return directory


def top(programs: Programs, path: str) -> LooseDirectory:
    programs.mkdir(path)
    made = programs.directory(path)
    assert isinstance(made, LooseDirectory)
    return made


def depth(programs: Programs, path: str) -> int:
    directory, levels = programs.directory(path), 0
    while "d" in dict(directory.entries()):
        below = directory.lookup("d")
        assert isinstance(below, LooseDirectory)
        directory, levels = below, levels + 1
    assert directory.holds("deepest")
    return levels


@pytest.mark.parametrize("place", ["", "/runs", "/runs/R", "/runs/R/steps"])
def test_a_deep_tree_is_no_thread_and_stays_a_draft(programs: Programs, place: str) -> None:
    path = "drafts/x"
    top(programs, path)
    for name in place.split("/")[1:]:
        path = f"{path}/{name}"
        top(programs, path)
    dig(programs.directory(path))  # type: ignore[arg-type]
    assert outcome(lambda: programs.rename("drafts/x", "threads/x")) == "EBADMSG"
    assert programs.names("threads") == []
    assert depth(programs, path) == LEVELS


def test_a_deep_tree_in_which_a_file_is_being_written_stays_a_draft(programs: Programs) -> None:
    writer = (
        dig(top(programs, "drafts/x"))
        .lookup("deepest")
        .open_for_writing(  # type: ignore[attr-defined]
            truncate=False, append=False
        )
    )
    assert outcome(lambda: programs.rename("drafts/x", "threads/x")) == "EBUSY"
    writer.close()
    assert depth(programs, "drafts/x") == LEVELS


def test_a_deep_tree_is_moved_among_drafts(programs: Programs) -> None:
    deepest = dig(top(programs, "drafts/x"))
    programs.mkdir("drafts/y")
    programs.rename("drafts/x", "drafts/y/z")
    assert depth(programs, "drafts/y/z") == LEVELS
    assert deepest.path.startswith("drafts/y/z/d/d/")
    assert outcome(lambda: programs.directory("drafts").rename("y", deepest, "in itself", replace=True)) == (
        "EINVAL"
    )


def test_a_deep_tree_that_is_ignored_goes_with_its_draft(programs: Programs) -> None:
    for path in ("drafts/x", "drafts/x/runs", "drafts/x/runs/R"):
        programs.mkdir(path)
    programs.write("drafts/x/runs/R/status", b"{}")
    deepest = dig(top(programs, "drafts/x/runs/R/tools"))
    programs.rename("drafts/x", "threads/x")
    assert programs.names("threads/x/runs/R") == ["status", "cancel", "steps"]
    assert deepest.attributes().links == 0
    assert outcome(lambda: deepest.make_file("in what has gone")) == "ENOENT"


def test_what_is_said_of_a_very_deep_file_is_short(programs: Programs) -> None:
    directory = top(programs, "drafts/x")
    for _ in range(LEVELS):
        directory = directory.make_directory("n" * 200)  # type: ignore[assignment]
    assert len(directory.path) < 5_000
    assert directory.path.startswith("…/nnn")
