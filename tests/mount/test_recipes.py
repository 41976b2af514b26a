"""What recipes in docs/recipes.md do to the store, and in shells other than the one of their sessions."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO

import pytest

from store import Run, RunStatus, Thread, ThreadStore
from tests.mount.conftest import EXAMPLES, Mount, start, stop, wait_until
from tests.mount.scripts import (
    contents,
    document,
    install_threadfs,
    new_run,
    new_thread,
    new_work,
    succeeds,
    texts,
)
from tests.store.conftest import message

RECIPES = EXAMPLES.parent / "docs" / "recipes.md"
OSLO = "Trip to Oslo"
# Of an indented block: what is typed in a session, and each line.
_TYPED, _ALL = r"(?m)^    [$>] (.*\n)", r"(?m)^    (.*\n)"


@pytest.fixture
def mount(own_mount: Mount) -> Mount:
    return own_mount


def recipes(heading: str) -> list[str]:
    """The scripts under a heading, one for each indented block: of a session, what is typed."""
    (section,) = re.findall(
        rf"^## {heading}\n(.*?)(?=^## |\Z)", RECIPES.read_text(), re.DOTALL | re.MULTILINE
    )
    blocks = re.findall(r"(?:^    .*\n)+", section, flags=re.MULTILINE)
    return ["".join(re.findall(_TYPED if "    $ " in block else _ALL, block)) for block in blocks]


def recipe(heading: str, tmp_path: Path) -> str:
    (script,) = recipes(heading)
    return "set -e\n" + script.replace("/tmp/", f"{tmp_path}/")


@pytest.mark.parametrize("shell", ["bash", "dash", "zsh"])
def test_one_message_is_redacted_and_all_else_stays(mount: Mount, tmp_path: Path, shell: str) -> None:
    before = contents(mount.store)
    times = {path: path.stat().st_mtime_ns for path in mount.store.glob("**/status.json")}
    succeeds(recipe("Redact one message of a thread", tmp_path), mount.root, shell)
    name = f"{OSLO}/messages.jsonl"
    assert before[name].count(b"kids are 7 and 10") == 1
    before[name] = before[name].replace(b"kids are 7 and 10", b"REDACTED")
    assert contents(mount.store) == before
    assert {path: path.stat().st_mtime_ns for path in mount.store.glob("**/status.json")} == times
    assert os.listdir(mount.path("drafts")) == []


def test_a_thread_is_copied_and_goes_another_way(mount: Mount, tmp_path: Path) -> None:
    before = contents(mount.store / OSLO)
    succeeds(recipe("Copy a thread to try something else", tmp_path), mount.root)
    assert contents(mount.store / OSLO) == before
    bergen = mount.path("threads", "Trip to Bergen")
    assert texts(bergen) == [*texts(mount.path("threads", OSLO)), "And if we went to Bergen?"]


def test_a_thread_is_restored_from_a_backup(mount: Mount, tmp_path: Path) -> None:
    before = contents(mount.store)
    succeeds(recipe("Back up all threads, and restore one", tmp_path), mount.root)
    assert contents(mount.store) == before


@pytest.mark.parametrize("shell", ["bash", "dash", "zsh"])
def test_the_queued_runs_of_one_model_are_cancelled(mount: Mount, tmp_path: Path, shell: str) -> None:
    thread = new_thread(mount)
    (thread / "start").write_text('{"id":"large","model":"llama3.1:70b"}')
    (thread / "start").write_text('{"id":"small","model":"llama3.1:8b"}')
    script = recipe("Cancel all queued runs of a model", tmp_path).partition("done\n")[0] + "done\n"
    succeeds(script, mount.root, shell)
    assert f"large@{thread.name}" in os.listdir(mount.path("runs", "queued"))
    assert document(thread / "runs" / "small" / "status")["status"] == "cancelled"


def test_stuck_runs_are_found_cancelled_and_given_back(mount: Mount) -> None:
    find, cancel, give_back, _ = recipes("Find stuck runs")
    for made in mount.path("runs", "in_progress").iterdir():
        (made / "cancel").write_text("1")
    thread = new_thread(mount)
    fresh, stuck, stuck_too = (new_run(thread, "in_progress") for _ in range(3))
    hours_ago_s = time.time() - 7200
    os.utime(stuck / "status", (hours_ago_s, hours_ago_s))
    assert succeeds(find, mount.root) == f"runs/in_progress/{stuck.name}@{thread.name}\n"
    succeeds(cancel, mount.root)
    assert succeeds(find, mount.root) == ""
    os.utime(stuck_too / "status", (hours_ago_s, hours_ago_s))
    succeeds(give_back, mount.root)
    statuses = [document(made / "status")["status"] for made in (fresh, stuck, stuck_too)]
    assert statuses == ["in_progress", "cancelled", "queued"]


@contextmanager
def running(script: str, mount: Mount, tmp_path: Path) -> Iterator[IO[str]]:
    """What a script prints that goes on until it is ended, with the command ``threadfs``."""
    if not (tmp_path / "bin").exists():
        install_threadfs(tmp_path / "bin")
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    follower = subprocess.Popen(
        ["setsid", "bash", "-c", script], cwd=mount.root, env=environment, stdout=subprocess.PIPE, text=True
    )
    with follower:
        try:
            assert follower.stdout is not None
            yield follower.stdout
        finally:
            os.killpg(follower.pid, 15)


@pytest.fixture
def called(tmp_path: Path) -> Callable[[str], Callable[[], list[str]]]:
    """``called(name)``: puts a command into the PATH that only notes what it is called with."""

    def install(name: str) -> Callable[[], list[str]]:
        install_threadfs(tmp_path / "bin")
        calls, program = tmp_path / "calls", tmp_path / "bin" / name
        calls.touch()
        program.write_text(f'#!/bin/sh\necho "$*" >> {calls}\n')
        program.chmod(0o755)
        return lambda: calls.read_text().splitlines()

    return install


def test_a_thread_is_followed_by_people_and_programs(mount: Mount, tmp_path: Path) -> None:
    log = mount.path("threads", OSLO, "messages.jsonl")
    lines = len(log.read_text().splitlines())
    for script in recipes("Follow a thread"):
        with running(script, mount, tmp_path) as printed:
            mount.path("threads", OSLO, "say").write_text(f"the end of {lines}")
            assert any(line.endswith(f"the end of {lines}\n") for line in printed)
            lines += 1


def test_a_script_is_run_at_every_completed_run(
    mount: Mount, tmp_path: Path, called: Callable[[str], Callable[[], list[str]]]
) -> None:
    notified = called("notify-send")
    script, _ = recipes("Run a script at every completed run")
    with closing(ThreadStore(mount.store)) as other, running(script, mount, tmp_path):

        def completes(run_id: str, status: RunStatus = RunStatus.completed) -> None:
            other.create_run(OSLO, Run(id=run_id))
            other.force_update_run_status(OSLO, run_id, status)

        numbers = count()

        def is_heard() -> bool:
            completes(f"before it listens {next(numbers)}")
            return notified() != []

        wait_until(is_heard)
        other.create_thread(Thread(id="a  b"))
        other.create_run("a  b", Run(id="R"))
        completes("failed", RunStatus.failed)
        other.force_update_run_status("a  b", "R", RunStatus.completed)
        (new_work(mount) / "status").write_text("completed")
        wait_until(lambda: notified()[-1].startswith("Idee"))
        assert notified().count("a  b has an answer") == 1
        assert len(notified()) <= next(numbers) + 2  # No other.


def test_a_script_that_waits_for_events_hears_of_the_end_of_the_mount(tmp_path: Path) -> None:
    _, script = recipes("Run a script at every completed run")
    store = Path(shutil.copytree(EXAMPLES / "household", tmp_path / "store"))
    mount = start(store, tmp_path / "mnt", tmp_path / "log")
    numbers = count()
    try:
        with (
            closing(ThreadStore(store)) as other,
            running(f"exec 2>&1; {script}", mount, tmp_path) as told,
        ):

            def is_heard() -> bool:
                other.create_thread(Thread(id=f"new {next(numbers)}"))
                return select.select([told], [], [], 0.1)[0] != []

            wait_until(is_heard)
            mount.process.send_signal(signal.SIGKILL)
            assert told.read().endswith("has ended\nno more events\n")
    finally:
        stop(mount)


def test_a_page_is_rebuilt_when_a_transcript_grows(
    mount: Mount, tmp_path: Path, called: Callable[[str], Callable[[], list[str]]]
) -> None:
    rebuilt = called("make")
    (script,) = recipes("Rebuild a page when a transcript grows")

    def wait_for_another(change: Callable[[], object]) -> None:
        before = len(rebuilt())

        def is_rebuilt() -> bool:
            change()  # Again: entr hears nothing in the 50 ms after it has run something.
            with suppress(AssertionError):  # And runs nothing until nothing has come for 50 ms.
                wait_until(lambda: len(rebuilt()) > before, 0.5)
            return len(rebuilt()) > before

        wait_until(is_rebuilt)

    with closing(ThreadStore(mount.store)) as other, running(script, mount, tmp_path):
        wait_until(lambda: rebuilt() != [])  # At the beginning.
        wait_for_another(lambda: other.append_message(OSLO, message("And by ferry?")))
        wait_for_another(lambda: other.create_thread(Thread(id=f"new {len(os.listdir(mount.store))}")))
        name = max(name for name in os.listdir(mount.path("threads")) if name.startswith("new "))
        wait_for_another(lambda: other.append_message(name, message("Where should we go?")))
    assert set(rebuilt()) == {f"-C {tmp_path}/site"}


def test_why_runs_failed_is_seen(mount: Mount, tmp_path: Path) -> None:
    printed = succeeds(recipe("See why runs failed", tmp_path), mount.root)
    failed = [json.loads((run / "status").read_text()) for run in mount.path("runs", "failed").iterdir()]
    assert sorted(printed.splitlines()) == sorted(
        f"{run['id']}\t{run['last_error']['message']}" for run in failed
    )
