"""`threadfs ask`, `follow` and `next`, with a worker that answers as the test says."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from store import (
    ContentBlock,
    DocumentKey,
    MessageRole,
    Run,
    RunError,
    RunStatus,
    Store,
    Thread,
    ThreadMessage,
    ThreadStore,
)
from store.tools import ToolCall
from store.working import Answer, Outcome, Registration, WorkerState
from tests.cli.conftest import Result, command, fails, succeeds, threadfs
from tests.mount.conftest import ANSWERS_S, start, stop, wait_until
from threadfs.asking import model_of
from threadfs.cli import main

COMPLETED = Outcome(RunStatus.completed)
ENDS = [signal.SIGINT, signal.SIGHUP]
numbers = count()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = ThreadStore(tmp_path_factory.mktemp("ask") / "store")
    yield store
    store.close()


@pytest.fixture
def thread(store: Store) -> str:
    """A thread of the test's own."""
    return store.create_thread(Thread(id=f"idea {next(numbers)}")).id


@pytest.fixture
def worker(store: Store) -> Iterator[Registration]:
    with store.register_worker(WorkerState("localhost:1")) as worker:
        yield worker


@contextmanager
def running(*arguments: object, stdout: int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    """A command, with its output in pipes. It is killed in the end."""
    process = subprocess.Popen(
        command(*arguments),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        # A shell has what it runs in the background ignore it, these tests perhaps.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Runs a command within this process, which takes no time to start."""

    def run(*arguments: object) -> Result:
        words = [*map(str, arguments)]
        return Result(words, main(words), *capfd.readouterr())

    return run


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[None]:
    """Does *work* in a thread while the block runs."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def queued(store: Store, thread: str) -> str:
    """The id of the first queued run of a thread, which may be still to come."""

    def run_ids() -> list[str]:
        ids = store.list_run_ids(thread)
        return [run_id for run_id in ids if store.get_run(thread, run_id).status is RunStatus.queued]

    wait_until(lambda: bool(run_ids()))
    return run_ids()[0]


def claimed(store: Store, thread: str, worker: Registration) -> Answer:
    return worker.claim(thread, queued(store, thread))


def read(process: subprocess.Popen[str], size: int) -> str:
    assert process.stdout is not None
    return process.stdout.read(size)


def say(store: Store, thread: str, text: str, role: MessageRole = MessageRole.user, run_id: str = "") -> None:
    content = [ContentBlock.of_text(text)]
    store.append_message(thread, ThreadMessage(role=role, content=content, run_id=run_id or None))


def statuses(store: Store, thread: str) -> list[str]:
    return [store.get_run(thread, run_id).status for run_id in store.list_run_ids(thread)]


# ── ask ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_answer_is_printed_as_it_comes(store: Store, thread: str, worker: Registration) -> None:
    with running("ask", store.location, thread, "Where to?") as process:
        with claimed(store, thread, worker) as answer:
            answer.append("To the ")
            assert read(process, 7) == "To the "
            answer.append("sea.")
            answer.finish(COMPLETED)
        assert process.communicate(timeout=ANSWERS_S) == ("sea.\n", "")
        assert process.returncode == 0
    asked, _ = store.list_messages(thread)
    assert (asked.role, asked.text) == ("user", "Where to?")
    assert store.get_run(thread, answer.run.id).asked == asked.id


def test_what_is_asked_is_read_from_stdin(
    store: Store,
    thread: str,
    worker: Registration,
    here: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Where to?\nWe are four.\n")))
    with meanwhile(lambda: claimed(store, thread, worker).finish(COMPLETED)):
        assert succeeds(here("ask", store.location, thread, "--model", "tiny")) == ""
    assert store.list_messages(thread)[0].text == "Where to?\nWe are four."
    (run_id,) = store.list_run_ids(thread)
    assert store.get_run(thread, run_id).model == "tiny"


def test_the_answer_of_a_program_that_shows_nothing_before_the_end_is_printed(
    store: Store, thread: str, here: Callable[..., Result]
) -> None:
    def answer() -> None:
        run_id = queued(store, thread)
        say(store, thread, "Ah, and not too far.")
        say(store, thread, "To the sea.", MessageRole.assistant, run_id)
        store.update_run_status(thread, run_id, RunStatus.completed)

    with meanwhile(answer):
        result = here("ask", store.location, thread, "Where to?")
    assert (result.returncode, result.stdout) == (0, "To the sea.\n")


def test_asking_ends_with_1_and_the_reason_when_the_run_fails(
    store: Store, thread: str, worker: Registration, here: Callable[..., Result]
) -> None:
    error = RunError(code="server_error", message="no GPU")

    def fail() -> None:
        with claimed(store, thread, worker) as answer:
            answer.append("To")
            answer.finish(Outcome(RunStatus.failed, message_is_cut="run_failed", error=error))

    with meanwhile(fail):
        result = here("ask", store.location, thread, "Where to?")
    fails(result, 1, "is failed: no GPU")
    assert result.stdout == "To\n"


def test_an_answer_that_begins_again_is_said_to(store: Store, thread: str, worker: Registration) -> None:
    with running("ask", store.location, thread, "Where to?") as process:
        with claimed(store, thread, worker) as answer:
            answer.append("To the")
            assert read(process, 6) == "To the"
        with claimed(store, thread, worker) as answer:
            answer.append("Home.")
            answer.finish(COMPLETED)
        assert process.communicate(timeout=ANSWERS_S) == ("\nHome.\n", "threadfs: the answer begins again\n")


@pytest.mark.parametrize("number", ENDS, ids=lambda number: number.name)
def test_an_interrupt_cancels_the_run(store: Store, thread: str, worker: Registration, number: int) -> None:
    asking = running("ask", store.location, thread, "Where to?")
    with asking as process, claimed(store, thread, worker) as answer:
        answer.append("To")
        assert read(process, 2) == "To"
        process.send_signal(number)
        assert process.communicate(timeout=ANSWERS_S) == ("\n", "")
        assert process.returncode == 130
        assert statuses(store, thread) == ["cancelled"]


def test_the_end_of_the_reader_cancels_the_run_though_nothing_was_answered(store: Store, thread: str) -> None:
    with running("ask", store.location, thread, "Where to?") as process:
        queued(store, thread)
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(ANSWERS_S) == 1
    assert statuses(store, thread) == ["cancelled"]


def test_who_asks_is_told_what_the_run_waits_for(store: Store, thread: str) -> None:
    other = store.create_run(thread, Run())
    store.update_run_status(thread, other.id, RunStatus.in_progress)
    with running("ask", store.location, thread, "Where to?") as process:
        run_id = queued(store, thread)
        assert process.stderr is not None
        said = process.stderr.readline()
        assert said.startswith(f"threadfs: {run_id} waits for {other.id}, another program's; ")
        assert f"threadfs expire {store.location}" in said
        store.update_run_status(thread, other.id, RunStatus.completed)
        said = process.stderr.readline()
        assert said == f"threadfs: no worker lives: threadfs work {store.location} --endpoint URL\n"
        state = WorkerState("localhost:1", state="waiting: connection refused since 10:15")
        with store.register_worker(state) as worker:
            said = process.stderr.readline()
            assert said == f"threadfs: no worker is ready: localhost:1 is {state.state}\n"
            with worker.claim(thread, run_id) as answer:
                calls = [ToolCall("call_1", "weather", "{}")]
                answer.finish(Outcome(RunStatus.requires_action, tool_calls=calls))
            said = process.stderr.readline()
            assert said.startswith(f"threadfs: {run_id} waits for the outputs of its tools")


def test_control_characters_of_an_answer_are_escaped_on_a_terminal(
    store: Store, thread: str, worker: Registration
) -> None:
    shown, terminal = pty.openpty()
    with running("ask", store.location, thread, "Where to?", stdout=terminal) as process:
        os.close(terminal)
        with claimed(store, thread, worker) as answer:
            answer.append("red: \x1b[31m, sea: \u2248")
            answer.finish(COMPLETED)
        process.wait(ANSWERS_S)
    said = os.read(shown, 1000)
    os.close(shown)
    assert said.decode() == "red: \\x1b[31m, sea: \u2248\r\n"


@pytest.mark.parametrize("given", [b"", b"\n", b"\xff"], ids=repr)
def test_what_is_no_text_is_not_asked(
    store: Store,
    thread: str,
    given: bytes,
    here: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    fails(here("ask", store.location, thread), 2, "asked")
    assert not store.list_run_ids(thread)
    assert not store.list_messages(thread)


@pytest.mark.parametrize(
    "words", [["ask", "{}", "none", "Hello"], ["follow", "{}", "none"]], ids=lambda words: words[0]
)
def test_a_thread_that_is_not_there_is_not_made(
    store: Store, words: list[str], here: Callable[..., Result]
) -> None:
    fails(here(*(word.format(store.location) for word in words)), 1, "no thread 'none'")
    assert not (Path(store.location) / "none").exists()


def test_the_model_of_a_thread_is_that_of_its_metadata(store: Store, thread: str) -> None:
    assert model_of(store, thread) == ""
    store.patch_document(DocumentKey(thread), {"metadata": {"model": "llama3.1"}})
    assert model_of(store, thread) == "llama3.1"


def test_the_model_of_an_imported_thread_is_that_of_the_last_run_answered_here(
    store: Store, thread: str, worker: Registration
) -> None:
    store.patch_document(DocumentKey(thread), {"metadata": {"model": "gpt-4o", "source": "chatgpt"}})
    store.create_run(thread, Run(model="gpt-4o", status=RunStatus.completed))
    assert model_of(store, thread) == ""
    store.create_run(thread, Run(model="llama3.1"))
    with claimed(store, thread, worker) as answer:
        answer.finish(COMPLETED)
    assert model_of(store, thread) == "llama3.1"


# ── follow ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_transcript_is_printed_from_its_beginning_and_as_it_grows(
    store: Store, thread: str, worker: Registration
) -> None:
    say(store, thread, "Where to?")
    store.create_run(thread, Run(model="tiny"))
    with running("follow", store.location, thread) as process:
        shown = process.stdout
        assert shown is not None

        def shows(line: str) -> None:
            assert line in iter(shown.readline, "")

        shows("Where to?\n")
        with claimed(store, thread, worker) as answer:
            answer.append("To the sea,\nwhere")
            shows("To the sea,\n")
            answer.append(" it is cool.")
            answer.finish(COMPLETED)
        shows("where it is cool.\n")
        shows(f"> Run `{answer.run.id}` by tiny completed\n")
        say(store, thread, "Thank you.")
        shows("Thank you.\n")
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=ANSWERS_S) == ("", "")
        assert process.returncode == 130


def test_following_ends_with_its_reader_though_nothing_happens(store: Store, thread: str) -> None:
    with running("follow", store.location, thread) as process:
        assert read(process, 2) == "# "
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(ANSWERS_S) == 1


# ── next ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[ThreadStore]:
    """A store without runs, with two threads."""
    store = ThreadStore(tmp_path / "queue")
    for thread_id in ("A", "B"):
        store.create_thread(Thread(id=thread_id))
    yield store
    store.close()


def test_the_oldest_run_whose_turn_it_is_is_claimed_and_its_path_printed(
    queue: ThreadStore, here: Callable[..., Result]
) -> None:
    queue.create_run("A", Run(id="busy"))
    queue.update_run_status("A", "busy", RunStatus.in_progress)
    for thread_id, run_id, created_at in (("A", "waits", 1), ("B", "second", 3), ("B", "first", 2)):
        queue.create_run(thread_id, Run(id=run_id, created_at=created_at))
    assert succeeds(here("next", queue.location)) == f"{queue.location}/B/runs/first\n"
    assert queue.get_run("B", "first").status is RunStatus.in_progress


def test_of_two_runs_of_a_second_one_is_claimed_whatever_the_times_of_their_files(
    queue: ThreadStore, here: Callable[..., Result]
) -> None:
    for run_id in ("first", "second"):
        queue.create_run("A", Run(id=run_id, created_at=1))
    queue.set_document_modified(DocumentKey("A", "first"), time.time_ns() + 10**9)
    assert "/A/runs/" in succeeds(here("next", queue.location))


def test_a_run_is_waited_for(queue: ThreadStore) -> None:
    with running("next", queue.location) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        queue.create_run("A", Run(id="R"))
        assert process.communicate(timeout=ANSWERS_S) == (f"{queue.location}/A/runs/R\n", "")


def test_a_run_whose_model_matches_goes_before_older_ones_of_other_models(
    queue: ThreadStore, here: Callable[..., Result]
) -> None:
    queue.create_run("A", Run(id="old", model="gpt-4o", created_at=1))
    queue.create_run("A", Run(id="new", model="llama3.1", created_at=2))
    assert succeeds(here("next", queue.location, "--model", "llama*")).endswith("/A/runs/new\n")


def test_the_path_of_a_run_is_in_the_mount_that_was_given(queue: ThreadStore, tmp_path: Path) -> None:
    mount = start(Path(queue.location), tmp_path / "mnt", tmp_path / "log")
    try:
        queue.create_run("A", Run(id="R"))
        said = succeeds(threadfs("next", "mnt", cwd=tmp_path))
        assert said == f"{mount.root}/threads/A/runs/R\n"
        assert "in_progress" in Path(said.strip(), "status").read_text()
    finally:
        stop(mount)


def test_a_run_whose_path_nobody_reads_is_handed_back(queue: ThreadStore) -> None:
    queue.create_run("A", Run(id="R"))
    reading, writing = os.pipe()
    os.close(reading)
    with running("next", queue.location, stdout=writing) as process:
        os.close(writing)
        assert process.wait(ANSWERS_S) == 1
    assert queue.get_run("A", "R").status is RunStatus.queued


def test_a_database_without_a_mount_has_no_paths(here: Callable[..., Result]) -> None:
    fails(here("next", "postgresql://localhost/none"), 2, "where it is mounted")
