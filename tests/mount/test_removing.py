"""Taking back and removing, with rmdir and rm: the same scripts in three shells."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.mount.conftest import Mount
from tests.mount.scripts import contents, document, new_run, new_thread, run, stored, succeeds


@pytest.fixture
def thread(mount: Mount) -> Path:
    """A thread with a message and a run of each kind."""
    made = new_thread(mount)
    (made / "say").write_text("hello")
    ended = new_run(made, "in_progress")
    (ended / "steps" / "one.json").write_text('{"step_type":"tool_calls"}')
    (ended / "status").write_text("completed")
    new_run(made)
    return made


def test_rmdir_takes_back_what_mkdir_made(mount: Mount, shell: str) -> None:
    succeeds("mkdir T && mkdir T/runs/R && rmdir T/runs/R && rmdir T", mount.path("threads"), shell)
    assert not (mount.store / "T").exists()


def test_rmdir_of_a_thread_that_holds_something_is_refused(mount: Mount, thread: Path, shell: str) -> None:
    before = contents(mount.store)
    assert "not empty" in run(f"rmdir '{thread.name}'", thread.parent, shell).stderr
    for made in (thread / "runs").iterdir():
        if document(made / "status")["status"] == "completed":
            assert "not empty" in run(f"rmdir 'runs/{made.name}'", thread, shell).stderr
    assert contents(mount.store) == before


def test_rmdir_of_a_thread_with_a_foreign_file_names_it_and_rm_r_takes_it_along(
    mount: Mount, shell: str
) -> None:
    thread = new_thread(mount)
    foreign = stored(mount, thread) / "attachment.txt"
    foreign.write_text("mine")
    assert "not empty" in run(f"rmdir '{thread.name}'", thread.parent, shell).stderr
    assert f"ENOTEMPTY\t{foreign} is no part of a thread: rm -r takes it along" in mount.errors()
    assert foreign.read_text() == "mine"
    succeeds(f"rm -r '{thread.name}'", thread.parent, shell)
    assert not foreign.parent.exists()


def test_rmdir_of_a_run_in_progress_is_refused_as_busy(mount: Mount, thread: Path, shell: str) -> None:
    busy = new_run(thread, "in_progress")
    before = contents(mount.store)
    assert "busy" in run(f"rmdir 'runs/{busy.name}'", thread, shell).stderr
    assert contents(mount.store) == before


def test_rmdir_of_a_thread_with_a_run_in_progress_is_refused_as_busy(mount: Mount, shell: str) -> None:
    thread = new_thread(mount)
    new_run(thread, "in_progress")
    before = contents(mount.store)
    assert "busy" in run(f"rmdir '{thread.name}'", thread.parent, shell).stderr
    assert contents(mount.store) == before


@pytest.mark.parametrize("command", ["rm -r", "rm -rf"])
def test_rm_r_removes_a_thread_with_all_that_it_holds(
    mount: Mount, thread: Path, shell: str, command: str
) -> None:
    succeeds(f"{command} '{thread.name}' && mkdir '{thread.name}'", thread.parent, shell)
    assert os.listdir(thread / "runs") == []
    assert list(contents(stored(mount, thread))) == ["meta.json"]


def test_rm_r_removes_one_run_alone(mount: Mount, thread: Path, shell: str) -> None:
    ended, queued = sorted((thread / "runs").iterdir(), key=lambda made: document(made / "status")["status"])
    succeeds(f"rm -r 'runs/{ended.name}'", thread, shell)
    assert os.listdir(thread / "runs") == [queued.name]
    assert not stored(mount, ended).exists()


def test_rm_r_of_all_runs_leaves_the_thread(mount: Mount, thread: Path, shell: str) -> None:
    succeeds("rm -r runs/*", thread, shell)
    assert os.listdir(thread / "runs") == []
    assert "messages.jsonl" in os.listdir(stored(mount, thread))


def test_rm_r_of_a_thread_with_a_run_in_progress_ends_busy_and_keeps_that_run(
    mount: Mount, thread: Path, shell: str
) -> None:
    busy = new_run(thread, "in_progress")
    log = (thread / "messages.jsonl").read_bytes()
    result = run(f"rm -r '{thread.name}'", thread.parent, shell)
    assert result.returncode != 0
    assert "busy" in result.stderr
    assert os.listdir(thread / "runs") == [busy.name]
    assert document(busy / "status")["status"] == "in_progress"
    assert (thread / "messages.jsonl").read_bytes() == log


@pytest.mark.parametrize("name", ["meta.json", "messages.jsonl", "say"])
def test_rm_of_one_file_hides_it_and_loses_nothing(mount: Mount, thread: Path, shell: str, name: str) -> None:
    before = contents(mount.store)
    assert name not in succeeds(f"rm {name} && ls", thread, shell).split()
    assert contents(mount.store) == before


def test_a_file_that_was_removed_and_written_again_is_replaced(
    mount: Mount, thread: Path, shell: str
) -> None:
    succeeds("""rm meta.json && echo '{"metadata":{"b":2}}' > meta.json""", thread, shell)
    assert document(stored(mount, thread / "meta.json"))["metadata"] == {"b": 2}


def test_a_removed_file_is_back_at_once_when_its_replacement_is_refused(thread: Path, shell: str) -> None:
    before = (thread / "meta.json").read_bytes()
    result = run("cp meta.json /tmp/$$; rm meta.json; echo nonsense > meta.json", thread, shell)
    assert "nvalid argument" in result.stderr or "I/O error" in result.stderr
    assert (thread / "meta.json").read_bytes() == before


def test_a_removed_step_is_written_again_with_its_name(mount: Mount, thread: Path, shell: str) -> None:
    made = new_run(thread, "in_progress")
    step = made / "steps" / "s.json"
    step.write_text('{"step_type":"tool_calls"}')
    before = document(step)
    succeeds("cp steps/s.json tmp.s && rm steps/s.json && cp tmp.s steps/s.json && rm tmp.s", made, shell)
    assert document(stored(mount, step)) == before


def test_a_run_with_steps_whose_status_is_removed_is_not_empty(
    mount: Mount, thread: Path, shell: str
) -> None:
    before = contents(mount.store)
    (ended,) = (
        made for made in (thread / "runs").iterdir() if document(made / "status")["status"] == "completed"
    )
    result = run(f"rm 'runs/{ended.name}/status'; rmdir 'runs/{ended.name}'", thread, shell)
    assert "not empty" in result.stderr
    assert contents(mount.store) == before
    assert (ended / "status").exists()


def test_rm_of_the_structure_is_refused(mount: Mount, shell: str) -> None:
    before = contents(mount.store)
    script = "rm README.md; rmdir drafts; rm transcripts/*; rm runs/queued/*; rm .threadfs/stats; rmdir runs"
    result = run(script, mount.root, shell)
    assert result.stderr.count("Permission denied") == len(result.stderr.splitlines()) >= 6
    assert contents(mount.store) == before
