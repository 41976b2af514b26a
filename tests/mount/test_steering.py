"""The tree, for steering: cancel, status, say, start and mkdir, from a shell on a real mount."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.mount.conftest import Mount
from tests.mount.scripts import new_run, new_thread

TERMINAL = ("completed", "failed", "expired")


def shell(script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", script], cwd=cwd, capture_output=True, text=True, check=False)


def document(path: Path) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(path.read_text())
    return parsed


def thread_of(mount: Mount) -> Path:
    """A new thread with a message and a run."""
    thread = new_thread(mount)
    (thread / "messages.jsonl").write_text('{"role":"user","content":"Hello"}\n')
    new_run(thread)
    return thread


def run_of(mount: Mount, status: str) -> Path:
    """A new run in *status*, with fields that no change of its status is to touch."""
    run = new_run(thread_of(mount))
    (run / "status").write_text('{"model":"llama3","instructions":"Kürzer, bitte.","usage":{"n":1e3}}')
    if status != "queued":
        (run / "status").write_text(status)
    return run


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_echo_into_cancel_cancels_the_run_on_disk(mount: Mount, status: str) -> None:
    run = run_of(mount, status)
    before = document(mount.stored(run))
    assert shell("echo 1 > cancel", run).returncode == 0
    after = document(mount.stored(run))
    assert after.pop("cancelled_at") >= before["created_at"]
    assert after == {**before, "status": "cancelled"}
    assert (run / "status").read_bytes() == mount.stored(run).read_bytes()


@pytest.mark.parametrize("status", TERMINAL)
def test_cancel_of_a_run_that_has_ended_is_refused_and_changes_nothing(mount: Mount, status: str) -> None:
    run = run_of(mount, status)
    before = mount.stored(run).read_bytes()
    result = shell("echo 1 > cancel", run)
    assert result.returncode == 1
    assert "Operation not permitted" in result.stderr
    assert mount.stored(run).read_bytes() == before
    assert "\tEPERM\t" in mount.errors().splitlines()[-1]


@pytest.mark.parametrize("status", TERMINAL)
def test_force_cancels_a_run_that_has_ended(mount: Mount, status: str) -> None:
    run = run_of(mount, status)
    assert shell("echo force > cancel", run).returncode == 0
    assert document(mount.stored(run))["status"] == "cancelled"


def test_cancel_of_a_cancelled_run_succeeds_and_changes_nothing(mount: Mount) -> None:
    run = run_of(mount, "cancelled")
    before = mount.stored(run).read_bytes()
    assert shell("echo 1 > cancel", run).returncode == 0
    assert mount.stored(run).read_bytes() == before


@pytest.mark.parametrize("how", ["echo completed", "printf completed", "echo ' completed'"])
def test_a_bare_word_sets_the_status_and_its_time(mount: Mount, how: str) -> None:
    run = run_of(mount, "in_progress")
    assert shell(f"{how} > status", run).returncode == 0
    after = document(mount.stored(run))
    assert after["status"] == "completed"
    assert "completed_at" in after


def test_a_merge_patch_sets_status_and_error_at_once(mount: Mount) -> None:
    run = run_of(mount, "in_progress")
    patch = '{"status":"failed","last_error":{"code":"server_error","message":"out of memory"}}'
    assert shell(f"echo '{patch}' > status", run).returncode == 0
    after = document(mount.stored(run))
    assert after["last_error"] == {"code": "server_error", "message": "out of memory"}
    assert after["status"] == "failed"


def test_a_whole_document_is_stored_as_it_says(mount: Mount) -> None:
    run = run_of(mount, "queued")
    changed = {**document(mount.stored(run)), "model": "another"}
    (run / "status").write_text(json.dumps(changed))
    assert document(mount.stored(run)) == changed


@pytest.mark.parametrize(
    "text", ["nonsense\n", "{bad\n", "[1]", '"completed"', "{}}", "\xff\xfe\n", '{"status":"no"}', "  \n"]
)
def test_nonsense_in_status_is_refused_as_invalid_and_changes_nothing(mount: Mount, text: str) -> None:
    run = run_of(mount, "queued")
    before = mount.stored(run).read_bytes()
    descriptor = os.open(run / "status", os.O_WRONLY | os.O_TRUNC)
    try:
        with pytest.raises(OSError, match="Invalid argument"):  # noqa: PT012 (either call may be the one that refuses)
            os.write(descriptor, text.encode("latin-1"))
            os.fsync(descriptor)
    finally:
        with suppress(OSError):  # It says so again.
            os.close(descriptor)
    assert mount.stored(run).read_bytes() == before


def test_a_document_in_many_pieces_is_committed_by_the_last(mount: Mount) -> None:
    run = run_of(mount, "queued")
    changed = {**document(mount.stored(run)), "note": "é" * 50_000}
    data = json.dumps(changed, ensure_ascii=False).encode()
    with (run / "status").open("wb", buffering=0) as writer:
        for start in range(0, len(data), 4095):
            assert "note" not in document(mount.stored(run))
            writer.write(data[start : start + 4095])
        assert document(mount.stored(run)) == changed
    assert document(mount.stored(run)) == changed


def test_say_appends_one_user_message(mount: Mount) -> None:
    thread = thread_of(mount)
    before = (thread / "messages.jsonl").read_text().splitlines()
    assert shell("printf 'two\\nlines\\n' > say", thread).returncode == 0
    after = (thread / "messages.jsonl").read_text().splitlines()
    assert after[:-1] == before
    message = json.loads(after[-1])
    assert (message["role"], message["content"][0]["text"]["value"]) == ("user", "two\nlines")


def test_opening_say_without_writing_says_nothing(mount: Mount) -> None:
    thread = thread_of(mount)
    before = (thread / "messages.jsonl").read_bytes()
    assert shell(": > say", thread).returncode == 0
    assert (thread / "messages.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "model"), [("llama3\n", "llama3"), ("llama3", "llama3"), ("\n", ""), ('{"model":"m"}', "m")]
)
def test_start_queues_one_run_of_the_model(mount: Mount, text: str, model: str) -> None:
    thread = thread_of(mount)
    before = set(os.listdir(thread / "runs"))
    (thread / "start").write_text(text)
    (new,) = set(os.listdir(thread / "runs")) - before
    run = document(thread / "runs" / new / "status")
    assert (run["status"], run["model"]) == ("queued", model)


def test_mkdir_makes_a_thread_with_all_its_files(mount: Mount) -> None:
    assert shell("mkdir 'Trip to Malmö' && ls 'Trip to Malmö'", mount.path("threads")).stdout.split() == [
        "ask",
        "messages.jsonl",
        "meta.json",
        "runs",
        "say",
        "start",
    ]
    assert (mount.store / "Trip to Malmö" / "meta.json").is_file()


def test_mkdir_in_runs_queues_a_run(mount: Mount) -> None:
    thread = thread_of(mount)
    (thread / "runs" / "mine").mkdir()
    assert document(thread / "runs" / "mine" / "status")["status"] == "queued"
    assert mount.path("runs", "queued", f"mine@{thread.name}").exists()


@pytest.mark.parametrize("name", [".hidden", "a@b", "tab\there", "x" * 128])
def test_mkdir_refuses_what_is_no_id(mount: Mount, name: str) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        mount.path("threads", name).mkdir()


def test_mkdir_of_a_taken_id_says_that_it_exists(mount: Mount) -> None:
    (mount.store / "taken").mkdir()
    (mount.store / "taken" / "something").write_text("x")
    with pytest.raises(FileExistsError):
        mount.path("threads", "taken").mkdir()


@pytest.mark.parametrize(
    "place", ["", "transcripts", "runs", "runs/queued", "by-title", "by-date", ".threadfs"]
)
def test_the_structure_is_not_the_users_to_change(mount: Mount, place: str) -> None:
    with pytest.raises(PermissionError):
        mount.path(place, "new").mkdir()
    with pytest.raises(PermissionError):
        mount.path(place, "new").write_text("x")


def test_a_hundred_nonsense_operations_leave_the_store_as_it_was(mount: Mount) -> None:
    run = run_of(mount, "queued")
    before = {path: path.read_bytes() for path in mount.store.glob("**/*") if path.is_file()}
    names = ("", "threads", "transcripts", "runs", "by-title", "by-date")
    places = [run.parent, *(mount.path(name) for name in names)]
    for place in places:
        for name in ("nothing", "a" * 255, "..x", "\udcff\udcfe", "a\nb", "-"):
            with pytest.raises(FileNotFoundError):
                (place / name).stat()
            with pytest.raises(PermissionError):
                os.open(place / name, os.O_CREAT | os.O_WRONLY)
        with pytest.raises(OSError, match=os.strerror(errno.ENAMETOOLONG)):
            (place / ("a" * 256)).stat()
        for path in place.iterdir():
            with pytest.raises(PermissionError):
                path.rename(path.with_name("other"))
    after = {path: path.read_bytes() for path in mount.store.glob("**/*") if path.is_file()}
    assert after == before
