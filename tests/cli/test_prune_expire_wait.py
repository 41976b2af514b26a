"""Looking after a store: `threadfs prune`, `expire` and `wait`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from store import Run, RunError, RunStatus, Thread, ThreadStore
from tests.cli.conftest import OSLO, RUNNING, command, fails, status_of, succeeds, threadfs
from tests.conftest import inotify_limit
from tests.mount.conftest import wait_until

DAY_S = 86400


@pytest.fixture
def store(tmp_path: Path) -> ThreadStore:
    return ThreadStore(tmp_path / "store")


def changed_ago(store: ThreadStore, thread_id: str, age_s: float) -> None:
    """Makes a thread, and every file and directory in it, so old."""
    then = time.time() - age_s
    for root, directories, files in os.walk(store.thread_dir(thread_id), topdown=False):
        for name in [*directories, *files, "."]:
            os.utime(Path(root, name), (then, then))


def make_thread(store: ThreadStore, thread_id: str, *statuses: RunStatus, age_s: float = 0) -> None:
    """A thread with a run in each status, which has its name."""
    store.create_thread(Thread(id=thread_id))
    for status in statuses:
        store.create_run(thread_id, Run(id=status.value, status=status))
    changed_ago(store, thread_id, age_s)


# ── prune ───────────────────────────────────────────────────────────────────────────────────────────────


def test_threads_without_a_change_for_that_long_are_deleted_and_named(store: ThreadStore) -> None:
    make_thread(store, "old", RunStatus.completed, age_s=3 * DAY_S)
    make_thread(store, "older", age_s=300 * DAY_S)
    make_thread(store, "new", age_s=1 * DAY_S)
    assert succeeds(threadfs("prune", store.location, "--older-than", "2d")) == "old\nolder\n"
    assert ThreadStore(store.location).list_thread_ids() == ["new"]


def test_a_dry_run_names_the_same_and_deletes_nothing(store: ThreadStore) -> None:
    make_thread(store, "old", age_s=3 * DAY_S)
    make_thread(store, "busy", RunStatus.in_progress, age_s=3 * DAY_S)
    assert succeeds(threadfs("prune", store.location, "--older-than", "2d", "--dry-run")) == "old\n"
    assert len(store.list_thread_ids()) == 2


@pytest.mark.parametrize("status", [status for status in RunStatus if status.is_in_progress])
def test_a_thread_with_a_run_in_progress_is_never_deleted(store: ThreadStore, status: RunStatus) -> None:
    make_thread(store, "busy", status, age_s=300 * DAY_S)
    assert succeeds(threadfs("prune", store.location, "--older-than", "1s")) == ""
    assert store.list_thread_ids() == ["busy"]


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]], ids=["", "dry-run"])
def test_a_thread_with_a_damaged_run_stays_and_is_named(store: ThreadStore, dry_run: list[str]) -> None:
    make_thread(store, "broken", RunStatus.completed)
    make_thread(store, "old", RunStatus.completed, age_s=3 * DAY_S)
    (store.run_dir("broken", "completed") / "status.json").write_text("{")
    changed_ago(store, "broken", 3 * DAY_S)
    result = threadfs("prune", store.location, "--older-than", "2d", *dry_run)
    assert result.stdout == "old\n"
    fails(result, 1, "thread 'broken' stays", "broken/runs/completed/status.json is damaged")
    assert "broken" in ThreadStore(store.location).list_thread_ids()


def test_a_thread_is_as_old_as_the_last_change_in_it(store: ThreadStore) -> None:
    make_thread(store, "T", RunStatus.queued, age_s=300 * DAY_S)
    store.cancel_run("T", "queued")
    assert succeeds(threadfs("prune", store.location, "--older-than", "1d")) == ""


def test_a_thread_that_came_in_today_stays_however_old_its_times_are(store: ThreadStore) -> None:
    store.import_thread("T", b'{"created_at":1}', [], {}, modified_ns=1_000_000_000)
    assert store.thread_modified_ns("T") == 1_000_000_000
    assert succeeds(threadfs("prune", store.location, "--older-than", "1d")) == ""
    changed_ago(store, "T", 2 * DAY_S)
    assert succeeds(threadfs("prune", store.location, "--older-than", "1d")) == "T\n"


def test_with_statuses_only_such_runs_are_deleted(store: ThreadStore) -> None:
    make_thread(store, "T", *RunStatus, age_s=3 * DAY_S)
    said = succeeds(
        threadfs("prune", store.location, "--older-than", "2d", "--status", "failed", "expired", "queued")
    )
    assert said == "expired@T\nfailed@T\nqueued@T\n"
    remaining = {str(status) for status in RunStatus} - {"failed", "expired", "queued"}
    assert set(ThreadStore(store.location).list_run_ids("T")) == remaining


def test_runs_that_changed_since_are_not_deleted(store: ThreadStore) -> None:
    make_thread(store, "T", RunStatus.in_progress, age_s=3 * DAY_S)
    store.update_run_status("T", "in_progress", RunStatus.failed)
    arguments = ("--older-than", "2d", "--status", "failed")
    assert succeeds(threadfs("prune", store.location, *arguments)) == ""
    assert store.list_run_ids("T") == ["in_progress"]


# ── expire ──────────────────────────────────────────────────────────────────────────────────────────────


def test_runs_that_nobody_works_on_are_expired_and_named(store: ThreadStore) -> None:
    make_thread(store, "T", *RunStatus, age_s=3 * DAY_S)
    before = {run_id: store.get_run("T", run_id).status for run_id in store.list_run_ids("T")}
    said = succeeds(threadfs("expire", store.location, "--older-than", "2d"))
    assert said == "cancelling@T\nin_progress@T\nqueued@T\nrequires_action@T\n"
    after = {run_id: store.get_run("T", run_id).status for run_id in store.list_run_ids("T")}
    assert {run_id for run_id in after if after[run_id] is not before[run_id]} == {
        line.removesuffix("@T") for line in said.splitlines()
    }
    assert after["in_progress"] is RunStatus.expired


def test_a_dry_run_expires_nothing(household: Path) -> None:
    thread_id, run_id = RUNNING
    said = succeeds(threadfs("expire", household, "--older-than", "0s", "--dry-run"))
    assert f"{run_id}@{thread_id}" in said.splitlines()
    assert status_of(household, thread_id, run_id) == "in_progress"


def test_a_run_that_somebody_works_on_is_not_expired(store: ThreadStore) -> None:
    make_thread(store, "T", RunStatus.queued, age_s=3 * DAY_S)
    store.update_run_status("T", "queued", RunStatus.in_progress)
    assert succeeds(threadfs("expire", store.location, "--older-than", "2d")) == ""


# ── wait ────────────────────────────────────────────────────────────────────────────────────────────────


def waiting(store: Path) -> subprocess.Popen[str]:
    """A process that waits for the run in progress, and has begun to."""
    process = subprocess.Popen(
        command("wait", store, *RUNNING),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell has what it runs in the background ignore it, these tests perhaps.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    # Following takes a watch on the run's directory; before that a change would be seen at once.
    wait_until(lambda: process.poll() is not None or "inotify wd" in inotify_of(process))
    return process


def inotify_of(process: subprocess.Popen[str]) -> str:
    try:
        return "".join(
            (path.read_text()) for path in Path(f"/proc/{process.pid}/fdinfo").iterdir() if path.exists()
        )
    except OSError:
        return ""


@pytest.mark.alone
def test_waiting_ends_also_where_the_system_reports_no_changes(household: Path) -> None:
    with inotify_limit("max_user_instances", 0):
        process = subprocess.Popen(command("wait", household, *RUNNING), stdout=subprocess.PIPE)
        with process:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)
            ThreadStore(household).update_run_status(*RUNNING, RunStatus.completed)
            assert process.communicate(timeout=10)[0] == b"completed\n"


@pytest.mark.alone
def test_waiting_ends_also_when_a_watch_was_lost(household: Path) -> None:
    """As of a run that is replaced as a whole when no watch is left for what has its name then."""
    run = household / RUNNING[0] / "runs" / RUNNING[1]
    process = waiting(household)
    with process, inotify_limit("max_user_watches", 0):
        run.rename(household / "before")
        shutil.copytree(household / "before", run)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        ThreadStore(household).update_run_status(*RUNNING, RunStatus.completed)
        assert process.communicate(timeout=10)[0] == "completed\n"


def test_waiting_ends_when_the_run_is_completed(household: Path) -> None:
    process = waiting(household)
    with process:
        assert process.poll() is None
        ThreadStore(household).update_run_status(*RUNNING, RunStatus.completed)
        assert process.communicate(timeout=10) == ("completed\n", "")
    assert process.returncode == 0


def test_waiting_for_a_run_that_fails_ends_with_1_and_the_reason(household: Path) -> None:
    process = waiting(household)
    with process:
        error = RunError(code="server_error", message="no GPU\nleft")
        ThreadStore(household).update_run_status(*RUNNING, RunStatus.failed, error)
        said, reason = process.communicate(timeout=10)
    assert (process.returncode, said) == (1, "failed\n")
    assert reason == f"threadfs: run {RUNNING[1]!r} is failed: no GPU left\n"


def test_waiting_for_a_run_that_is_incomplete_ends_with_1_and_why(household: Path) -> None:
    run = household / OSLO / "runs" / "cut" / "status.json"
    run.parent.mkdir()
    fields = {"object": "thread.run", "created_at": 1, "thread_id": OSLO, "model": ""}
    fields |= {"status": "incomplete", "incomplete_details": {"reason": "max_completion_tokens"}}
    run.write_text(json.dumps({"id": "cut", **fields}))
    result = threadfs("wait", household, f"cut@{OSLO}")
    assert result.stdout == "incomplete\n"
    fails(result, 1, "run 'cut' is incomplete: max_completion_tokens")


def test_waiting_sees_what_a_program_writes_that_knows_nothing_of_us(household: Path) -> None:
    process = waiting(household)
    with process:
        status = household / RUNNING[0] / "runs" / RUNNING[1] / "status.json"
        new = status.with_name(".tmpAb12Cd")
        new.write_text(status.read_text().replace("in_progress", "expired"))
        new.rename(status)
        assert process.communicate(timeout=10)[0] == "expired\n"


@pytest.mark.parametrize("whole_thread", [False, True])
def test_waiting_ends_with_3_when_the_run_is_deleted(household: Path, whole_thread: bool) -> None:
    process = waiting(household)
    with process:
        if whole_thread:
            ThreadStore(household).delete_thread(RUNNING[0], force=True)
        else:
            ThreadStore(household).delete_run(*RUNNING, force=True)
        assert "no run" in process.communicate(timeout=10)[1]
    assert process.returncode == 3


def test_a_run_that_has_ended_is_not_waited_for(household: Path) -> None:
    run_id = "run_74710763d50d067d8ffe929ab97605f0"
    assert succeeds(threadfs("wait", household, OSLO, run_id)) == "completed\n"
    assert succeeds(threadfs("wait", household, f"{run_id}@{OSLO}")) == "completed\n"


def test_a_run_that_is_not_there_is_told_from_one_that_failed(household: Path) -> None:
    fails(threadfs("wait", household, OSLO, "none"), 3, "no run 'none'")
    fails(threadfs("wait", household, "none", "none"), 3, "no run 'none'")


def test_waiting_asks_the_disk_nothing_while_nothing_changes(household: Path) -> None:
    process = waiting(household)
    with process:
        tracing = subprocess.Popen(
            ["strace", "-f", "-c", "-e", "trace=%file,read,poll", "-p", str(process.pid)],
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(1)  # not for luck: for anything that happens meanwhile to be counted
        assert process.poll() is None
        process.kill()
        said = tracing.communicate(timeout=10)[1]
    assert "attached" in said
    assert not any(call in said for call in ("openat", "newfstatat", "statx", "access"))


def test_waiting_is_interrupted_without_a_word(household: Path) -> None:
    process = waiting(household)
    with process:
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == 130
