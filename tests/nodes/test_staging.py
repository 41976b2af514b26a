"""Removals of files that are part of a thread: staged, until written again or given up."""

from __future__ import annotations

import errno
import time
from pathlib import Path

import pytest

from store import NotEmpty, Run, RunStep, Thread, ThreadStore
from tests.nodes.driving import Programs, outcome
from threadfs.fuse.errnos import errno_of
from threadfs.nodes.root import root_of
from threadfs.nodes.scratch import STAGED_S

RUN = "threads/T/runs/R"


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    store = ThreadStore(tmp_path / "store")
    store.create_thread(Thread(id="T"))
    store.create_run("T", Run(id="R"))
    store.append_step("T", "R", RunStep(id="S"))
    return Programs(root_of(store))


FILES = ["threads/T/meta.json", "threads/T/say", f"{RUN}/status", f"{RUN}/cancel", f"{RUN}/steps/S.json"]


@pytest.mark.parametrize("path", FILES)
def test_a_removed_file_is_hidden_and_back_after_a_minute(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    parent, _, name = path.rpartition("/")
    before = programs.read(path)
    programs.unlink(path)
    assert name not in programs.names(parent)
    assert outcome(lambda: programs.read(path)) == outcome(lambda: programs.unlink(path)) == "ENOENT"
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s + STAGED_S + 1)
    assert name in programs.names(parent)
    assert programs.read(path) == before


@pytest.mark.parametrize("path", FILES[::2])
def test_a_refused_replacement_brings_the_file_back(programs: Programs, path: str) -> None:
    before = programs.read(path)
    programs.unlink(path)
    assert outcome(lambda: programs.write(path, b"nonsense\n")) == "EINVAL"
    assert programs.read(path) == before


@pytest.mark.parametrize("path", FILES[::2])
def test_a_refused_rename_over_it_brings_the_file_back(programs: Programs, path: str) -> None:
    before = programs.read(path)
    temporary = f"{path.rpartition('/')[0]}/.tmp"
    programs.write(temporary, b"nonsense\n")
    programs.unlink(path)
    assert outcome(lambda: programs.rename(temporary, path)) == "EBADMSG"
    assert programs.read(path) == before


def test_nothing_is_removed_in_the_store_before_the_directory_is(programs: Programs) -> None:
    for path in (f"{RUN}/steps/S.json", f"{RUN}/status", f"{RUN}/cancel"):
        programs.unlink(path)
    programs.rmdir(f"{RUN}/steps")
    assert programs.names(RUN) == []
    assert programs.root.store.list_step_ids("T", "R") == ["S"]
    programs.rmdir(RUN)
    assert programs.root.store.list_run_ids("T") == []


def test_a_step_that_came_meanwhile_keeps_the_run(programs: Programs) -> None:
    for path in (f"{RUN}/steps/S.json", f"{RUN}/status", f"{RUN}/cancel"):
        programs.unlink(path)
    programs.rmdir(f"{RUN}/steps")
    programs.root.store.append_step("T", "R", RunStep(id="new"))
    assert outcome(lambda: programs.rmdir(RUN)) == "ENOTEMPTY"
    assert programs.names(RUN) == ["status", "cancel", "steps"]
    assert sorted(programs.names(f"{RUN}/steps")) == ["S.json", "new.json"]


def test_a_run_that_came_meanwhile_keeps_the_thread(programs: Programs) -> None:
    programs.remove_all(RUN)
    for name in ("meta.json", "messages.jsonl", "say", "ask", "start"):
        programs.unlink(f"threads/T/{name}")
    programs.rmdir("threads/T/runs")
    programs.root.store.create_run("T", Run(id="new"))
    assert outcome(lambda: programs.rmdir("threads/T")) == "ENOTEMPTY"
    assert programs.names("threads/T") == ["meta.json", "messages.jsonl", "say", "ask", "start", "runs"]


def test_mkdir_of_a_removed_directory_brings_it_back(programs: Programs) -> None:
    programs.unlink(f"{RUN}/steps/S.json")
    programs.rmdir(f"{RUN}/steps")
    assert "steps" not in programs.names(RUN)
    programs.mkdir(f"{RUN}/steps")
    assert "steps" in programs.names(RUN)


def test_a_thread_made_anew_has_nothing_hidden(programs: Programs) -> None:
    programs.remove_all("threads/T")
    programs.mkdir("threads/T")
    programs.mkdir(RUN)
    assert programs.names("threads/T") == ["meta.json", "messages.jsonl", "say", "ask", "start", "runs"]
    assert programs.names(RUN) == ["status", "cancel", "steps"]


def test_scratch_files_keep_a_directory_from_being_removed(programs: Programs) -> None:
    programs.write(f"{RUN}/.swp", b"x")
    programs.unlink(f"{RUN}/status")
    assert outcome(lambda: programs.rmdir(RUN)) == "ENOTEMPTY"
    programs.remove_all(RUN)
    assert programs.names("threads/T/runs") == []


@pytest.mark.parametrize("path", ["threads/E", "threads/E/runs/R"])
def test_rmdir_keeps_what_holds_a_foreign_file_and_names_it(programs: Programs, path: str) -> None:
    programs.mkdir("threads/E")
    programs.mkdir("threads/E/runs/R")
    if path == "threads/E":
        programs.rmdir("threads/E/runs/R")
    foreign = Path(programs.root.store.location, path.removeprefix("threads/"), "attachment.txt")
    foreign.write_text("mine")
    with pytest.raises(NotEmpty) as refusal:
        programs.rmdir(path)
    assert errno_of(refusal.value) == errno.ENOTEMPTY
    assert str(refusal.value) == f"{foreign} is no part of a thread: rm -r takes it along"
    assert foreign.read_text() == "mine"


@pytest.mark.parametrize("place", ["", "runs", "runs/R", "runs/R/steps"])
def test_rm_r_takes_a_foreign_file_along(programs: Programs, place: str) -> None:
    thread = Path(programs.root.store.location, "T")
    (thread / place / "attachment.txt").write_text("mine")
    programs.remove_all("threads/T")
    assert not thread.exists()


@pytest.mark.parametrize("meta", ["", '{"name": "web"}'])
def test_rm_r_removes_what_has_a_damaged_document_if_nothing_else_is_in_it(
    programs: Programs, meta: str
) -> None:
    thread = Path(programs.root.store.location, "T")
    (thread / "meta.json").write_text(meta)
    (thread / "main.py").write_text("work")
    assert outcome(lambda: programs.remove_all("threads/T")) == "ENOTEMPTY"
    assert sorted(path.name for path in thread.iterdir() if path.is_file()) == ["main.py", "meta.json"]
    (thread / "main.py").unlink()
    programs.remove_all("threads/T")
    assert not thread.exists()
