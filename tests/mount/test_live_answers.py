"""A worker answers in another process: what the mount shows meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from store import RunStatus
from store.tools import ToolCall
from store.working import Answer, Outcome, WorkerState
from tests.mount.conftest import Mount, wait_until
from tests.mount.scripts import document, new_thread, run, succeeds
from tests.nodes.working import Answering, finish


@pytest.fixture(scope="module")
def answering(shared_mount: Mount) -> Iterator[Answering]:
    answering = Answering(shared_mount.store)
    yield answering
    answering.close()


@pytest.fixture
def thread(mount: Mount) -> Path:
    return new_thread(mount)


@pytest.fixture
def answer(thread: Path, answering: Answering) -> Iterator[Answer]:
    """The attempt at a run that was asked for."""
    succeeds("echo Why? > ask", thread)
    with answering.claim(thread.name) as answer:
        yield answer


def shown(mount: Mount, directory: str, thread: Path) -> Path:
    return mount.path(directory, f"{thread.name}.md")


@contextmanager
def tail(path: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = ["tail", "-n", "+1", "-s", "0.05", *options, str(path)]
    tail = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=0)
    assert tail.stdout is not None
    os.set_blocking(tail.stdout.fileno(), False)
    try:
        yield tail
    finally:
        tail.terminate()
        tail.wait()
        tail.stdout.close()


class Printed:
    """What a program has printed so far."""

    def __init__(self, program: subprocess.Popen[str]) -> None:
        assert program.stdout is not None
        self._file = program.stdout.fileno()
        self.text = ""

    def ends_with(self, text: str) -> bool:
        try:
            while piece := os.read(self._file, 1 << 16):
                self.text += piece.decode()
        except BlockingIOError:
            pass
        return self.text.endswith(text)


@pytest.mark.parametrize("option", ["-f", "-F"])
def test_tail_shows_an_answer_as_it_comes_and_how_its_run_ends(
    mount: Mount, thread: Path, answer: Answer, option: str
) -> None:
    transcript = shown(mount, "transcripts", thread)
    with tail(transcript, option) as program:
        printed = Printed(program)
        wait_until(lambda: printed.ends_with("Why?\n"))
        for piece in ("Beca", "use", " of that."):
            answer.append(piece)
            wait_until(lambda piece=piece: printed.ends_with(piece))  # type: ignore[misc]
        number = transcript.stat().st_ino
        finish(answer)
        wait_until(lambda: printed.ends_with(f"Because of that.\n\n> Run `{answer.run.id}` completed\n"))
        assert transcript.read_text() == printed.text
        assert transcript.stat().st_ino == number


def test_tail_follows_the_name_when_an_attempt_is_handed_back(
    mount: Mount, thread: Path, answer: Answer, answering: Answering
) -> None:
    transcript = shown(mount, "transcripts", thread)
    answer.append("first")
    with tail(transcript, "-F", "--max-unchanged-stats=1") as program:
        printed = Printed(program)
        wait_until(lambda: printed.ends_with("first"))
        number = transcript.stat().st_ino
        with transcript.open() as held:
            answer.hand_back()
            answering.answer("second", thread_id=thread.name)
            assert transcript.stat().st_ino != number
            assert held.read().count("first\n\n*(begun again)*\n\n## Assistant, ") == 1
        wait_until(lambda: printed.ends_with(transcript.read_text()))
        assert printed.text.count("following new file") == 1


@pytest.mark.parametrize("directory", ["transcripts", "answers"])
def test_the_size_of_what_grows_is_exact_and_its_times_are_those_of_the_last_piece(
    mount: Mount, thread: Path, answer: Answer, directory: str
) -> None:
    path = shown(mount, directory, thread)
    before = path.stat()
    for piece in ("# User\n#", "# \x1b", "ü" * 5000):
        answer.append(piece)
        now = path.stat()
        assert now.st_mtime_ns > before.st_mtime_ns
        assert now.st_ctime_ns > before.st_ctime_ns
        assert now.st_size == len(path.read_bytes())
        before = now
    finish(answer)
    assert path.stat().st_mtime_ns >= before.st_mtime_ns


def test_copies_of_what_grows_are_whole(mount: Mount, thread: Path, answer: Answer, tmp_path: Path) -> None:
    transcript = shown(mount, "transcripts", thread)
    answer.append("Because")
    transcript.read_text()
    (thread / "say").write_text("Hurry!")
    succeeds(f"cp '{transcript}' copy.md && grep -r Hurry copy.md", tmp_path)
    assert (tmp_path / "copy.md").read_text().endswith("\n\nBecause")


def test_the_newest_answer_is_a_file(mount: Mount, thread: Path, answer: Answer) -> None:
    path = shown(mount, "answers", thread)
    assert path.read_text() == ""
    answer.append("Because")
    assert path.read_text() == "Because"
    finish(answer)
    assert succeeds(f"cat '{path}'", mount.root) == "Because\n"
    assert f"{thread.name}.md" in os.listdir(mount.path("answers"))
    assert run(f"echo x > '{path}'", mount.root).returncode != 0


def test_a_worker_is_listed_while_it_lives(mount: Mount, answering: Answering, answer: Answer) -> None:
    answering.worker.set_state(WorkerState("gpu\x1b:80", 2, "waiting: connection refused", ("a note",)))
    worker_id = answering.worker.id
    line = f"{worker_id}\tgpu\\x1b:80\t1 of 2\twaiting: connection refused; a note\n"
    assert mount.path(".threadfs", "workers").read_text() == line
    answering.worker.set_state(WorkerState("gpu:80", 2))
    other = Answering(mount.store)
    assert mount.path(".threadfs", "workers").read_text().count("\n") == 2
    other.close()
    assert mount.path(".threadfs", "workers").read_text() == f"{worker_id}\tgpu:80\t1 of 2\tready\n"


def test_a_shell_gives_the_tools_outputs_and_the_run_goes_on(
    mount: Mount, thread: Path, answer: Answer, shell: str
) -> None:
    calls = [ToolCall("call_1", "weather", '{"city":"Oslo"}'), ToolCall("call_2", "time", "{}")]
    assert not (thread / "runs" / answer.run.id / "tools").exists()
    answer.finish(Outcome(RunStatus.requires_action, tool_calls=calls))
    directory = thread / "runs" / answer.run.id
    wait_until(lambda: "tools" in os.listdir(directory))
    script = """
        cd tools/1.* && cat arguments && echo sun > output && cat output && cd ../2.time &&
        date -u -d @0 +%H > output && cd ../.. && ls
    """
    assert succeeds(script, directory, shell).split() == [
        '{"city":"Oslo"}',
        "sun",
        "cancel",
        "status",
        "steps",
    ]
    assert document(directory / "status")["status"] == "queued"
    outputs = [call["function"]["output"] for call in calls_in(directory)]
    assert outputs == ["sun", "00"]


def test_a_thread_whose_run_waits_for_tools_comes_back_without_them_and_has_them_again(
    mount: Mount, thread: Path, answer: Answer, tmp_path: Path
) -> None:
    answer.finish(Outcome(RunStatus.requires_action, tool_calls=[ToolCall("call_1", "weather", "{}")]))
    tools = f"runs/{answer.run.id}/tools"
    wait_until((thread / tools).exists)
    succeeds(f"cp -a '{thread}' backup && cp -a backup '{mount.path('drafts')}/of a copy'", tmp_path)
    succeeds("mv 'drafts/of a copy' threads/", mount.root)
    by_rsync = mount.path("threads", "by rsync")
    by_rsync.mkdir()
    succeeds(f"rsync -a --exclude='/runs/*/tools' backup/ '{by_rsync}/'", tmp_path)
    for copy in (by_rsync, mount.path("threads", "of a copy")):
        assert os.listdir(copy / tools) == ["1.weather"]
        (copy / "runs" / answer.run.id / "cancel").write_text("1")


def calls_in(directory: Path) -> list[dict[str, dict[str, str]]]:
    steps = [json.loads(path.read_text()) for path in (directory / "steps").iterdir()]
    (details,) = [step["step_details"] for step in steps if step["step_type"] == "tool_calls"]
    calls: list[dict[str, dict[str, str]]] = details["tool_calls"]
    return calls


def test_an_output_that_is_set_is_refused_to_a_shell(thread: Path, answer: Answer, shell: str) -> None:
    calls = [ToolCall("call_1", "weather", "{}"), ToolCall("call_2", "time", "{}")]
    answer.finish(Outcome(RunStatus.requires_action, tool_calls=calls))
    tools = thread / "runs" / answer.run.id / "tools"
    wait_until(tools.exists)
    succeeds("echo sun > 1.weather/output", tools, shell)
    assert "operation not permitted" in run("echo rain > 1.weather/output", tools, shell).stderr.lower()
    assert run("printf '\\377' > 2.time/output", tools, shell).returncode != 0
    refused = (
        run("rm -r tools .", tools.parent, "bash").stderr + run(f"rm -r '{thread}'", thread, "bash").stderr
    )
    assert "busy" in refused
    assert sorted(os.listdir(tools / "2.time")) == ["arguments", "output"]
    (tools.parent / "cancel").write_text("1")
    assert not tools.exists()
    succeeds(f"rm -r '{thread}'", thread.parent)
