"""examples/worker.sh: a worker in shell, with a command and with an endpoint that answer."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount import scripts
from tests.mount.conftest import EXAMPLES, Mount, wait_until
from tests.mount.endpoint import Endpoint, served
from tests.mount.scripts import document, messages, new_run, new_thread

WORKER = EXAMPLES / "worker.sh"


@pytest.fixture
def only(mount: Mount) -> Path:
    """A thread with the only runs that are queued."""
    for made in mount.path("runs", "queued").iterdir():
        (made / "cancel").write_text("1")
    thread = new_thread(mount)
    (thread / "say").write_text("What is 2 + 2?")
    return thread


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with served() as endpoint:
        yield endpoint


def work(mount: Mount, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """A worker in a group of processes of its own, as in a terminal."""
    return subprocess.Popen(
        [WORKER, mount.root, *arguments],
        env={**{name: value for name, value in os.environ.items() if "proxy" not in name}, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell has what it runs in the background ignore it, these tests perhaps.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def works(mount: Mount, *arguments: str, **environment: str) -> None:
    """A worker that goes through the queue without a word."""
    worker = work(mount, *arguments, **environment)
    assert worker.communicate(timeout=60) == ("", "")
    assert worker.returncode == 0


def start(thread: Path, **fields: object) -> Path:
    """A queued run that ``start`` makes of these fields."""
    before = set(os.listdir(thread / "runs"))
    (thread / "start").write_text(json.dumps(fields))
    (name,) = set(os.listdir(thread / "runs")) - before
    return thread / "runs" / name


def status(made: Path) -> str:
    return str(document(made / "status")["status"])


# ── A command ───────────────────────────────────────────────────────────────────────────────────────────


def test_each_run_is_answered_once(mount: Mount, only: Path) -> None:
    runs = [new_run(only) for _ in range(12)]
    # One that goes through the queue leaves out what has to wait for another run of its thread.
    while os.listdir(mount.path("runs", "queued")):
        workers = [work(mount, "sh", "-c", "tail -n 1 | sed 's/$/ \"4\"/'") for _ in range(4)]
        assert [worker.communicate(timeout=60) for worker in workers] == [("", "")] * 4
    answers = [message for message in messages(only) if message["role"] == "assistant"]
    assert sorted(answer["run_id"] for answer in answers) == sorted(made.name for made in runs)
    assert answers[0]["content"][0]["text"]["value"] == 'What is 2 + 2? "4"'
    assert {status(made) for made in runs} == {"completed"}


def test_runs_are_answered_in_the_order_in_which_they_were_queued(mount: Mount, only: Path) -> None:
    runs = []
    for number in range(5):
        runs.append(start(only, id=f"{9 - number}"))
        os.utime(runs[-1] / "status", (number + 1, number + 1))
    works(mount, "echo", "4")
    assert [message["run_id"] for message in messages(only)[1:]] == [made.name for made in runs]


def test_a_command_knows_the_model_and_the_instructions_of_its_run(mount: Mount, only: Path) -> None:
    start(only, model="llama3", instructions="Be brief.")
    works(mount, "sh", "-c", 'echo "$MODEL: $INSTRUCTIONS"')
    assert scripts.texts(only)[1:] == ["llama3: Be brief."]


def test_a_run_fails_with_what_its_command_said_last(mount: Mount, only: Path) -> None:
    made = new_run(only)
    works(mount, "sh", "-c", "echo loading; echo 'not enough memory' >&2; exit 3")
    assert document(made / "status")["last_error"] == {
        "code": "server_error",
        "message": "not enough memory",
    }
    assert status(made) == "failed"
    assert len(messages(only)) == 1


def test_a_run_whose_command_says_nothing_fails_with_its_exit_status(mount: Mount, only: Path) -> None:
    made = new_run(only)
    works(mount, "sh", "-c", "exit 3")
    assert document(made / "status")["last_error"]["message"] == "it ended with exit status 3"


def test_a_thread_that_has_a_run_in_progress_is_left_alone(mount: Mount, only: Path) -> None:
    busy, queued = start(only), start(only)
    (busy / "status").write_text("in_progress")
    works(mount, "echo", "4")
    assert (status(busy), status(queued)) == ("in_progress", "queued")


def test_nothing_is_said_by_a_command_that_printed_nothing(mount: Mount, only: Path) -> None:
    made = new_run(only)
    works(mount, "true")
    assert (status(made), len(messages(only))) == ("completed", 1)


@pytest.mark.alone
def test_a_command_and_all_that_it_started_end_when_the_run_is_cancelled(
    mount: Mount, only: Path, tmp_path: Path
) -> None:
    cancelled, other = start(only, id="a"), start(only, id="b")
    os.utime(cancelled / "status", (1, 1))
    marks = tmp_path / "marks"
    script = (
        'sleep 600 & echo "$$ $!" >> marks; [ "$(wc -l < marks)" = 2 ] && { kill $!; echo 4; exit; }; wait'
    )
    worker = work(mount, "sh", "-c", script.replace("marks", str(marks)))
    wait_until(lambda: marks.exists() and marks.read_text().endswith("\n"))
    (cancelled / "cancel").write_text("1")
    cancelled_s = time.monotonic()
    processes = [int(word) for word in marks.read_text().splitlines()[0].split()]
    wait_until(lambda: not any(Path(f"/proc/{process}/exe").exists() for process in processes))
    assert time.monotonic() - cancelled_s < 1
    assert worker.communicate(timeout=60) == ("", "")
    assert (status(cancelled), status(other)) == ("cancelled", "completed")
    assert scripts.texts(only)[1:] == ["4"]


# ── An endpoint ─────────────────────────────────────────────────────────────────────────────────────────


def test_an_endpoint_is_asked_with_the_conversation_and_its_answer_is_stored(
    mount: Mount, only: Path, endpoint: Endpoint
) -> None:
    with (only / "messages.jsonl").open("a") as log:
        log.write('{"role":"assistant","content":"Of what?\\n\\"Apples\\""}\n')
    with (mount.store / only.name / "messages.jsonl").open("a") as log:
        log.write("nonsense\n")
    (only / "say").write_text("Of pears")
    made = start(only, model="llama3", instructions="Be brief.")
    works(mount, endpoint.url)
    assert endpoint.paths == ["/v1/chat/completions"]
    assert endpoint.requests == [
        {
            "model": "llama3",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "What is 2 + 2?"},
                {"role": "assistant", "content": 'Of what?\n"Apples"'},
                {"role": "user", "content": "Of pears"},
            ],
        }
    ]
    answer = json.loads((only / "messages.jsonl").read_text().splitlines()[-1])
    assert (answer["role"], answer["run_id"]) == ("assistant", made.name)
    assert answer["content"][0]["text"]["value"] == "four"
    assert status(made) == "completed"


def test_the_instructions_of_the_thread_hold_for_runs_without_any(
    mount: Mount, only: Path, endpoint: Endpoint
) -> None:
    (only / "meta.json").write_text('{"metadata": {"instructions": "In French."}}')
    start(only, model="m")
    start(only, model="m", instructions="In Latin.")
    works(mount, endpoint.url)
    asked = sorted(request["messages"][0]["content"] for request in endpoint.requests)
    assert asked == ["In French.", "In Latin."]


def test_a_run_without_a_model_gets_the_one_of_the_environment_or_none(
    mount: Mount, only: Path, endpoint: Endpoint
) -> None:
    for environment in ({"MODEL": "small"}, {"MODEL": ""}):
        new_run(only)
        works(mount, endpoint.url, **environment)
    assert [request.get("model") for request in endpoint.requests] == ["small", None]


def test_options_go_to_curl(mount: Mount, only: Path, endpoint: Endpoint) -> None:
    made = new_run(only)
    endpoint.answers.clear()
    works(mount, endpoint.url, "--max-time", "0.3")
    assert "timed out" in document(made / "status")["last_error"]["message"]


@pytest.mark.parametrize(
    ("http_status", "code"),
    [
        (400, "invalid_prompt"),
        (413, "invalid_prompt"),
        (422, "invalid_prompt"),
        (429, "rate_limit_exceeded"),
        (401, "server_error"),
        (404, "server_error"),
        (500, "server_error"),
    ],
)
def test_an_endpoint_that_refuses_is_the_last_error_of_the_run(
    mount: Mount, only: Path, endpoint: Endpoint, http_status: int, code: str
) -> None:
    made = new_run(only)
    endpoint.fail(http_status, {"error": {"message": "so it is", "type": "t"}})
    works(mount, endpoint.url)
    assert document(made / "status")["last_error"] == {
        "code": code,
        "message": f"The requested URL returned error: {http_status}: so it is",
    }
    assert status(made) == "failed"
    assert len(messages(only)) == 1


@pytest.mark.parametrize(
    "body", ["<html>", "", "null", {"choices": []}, {"choices": [{"message": {"content": None}}]}]
)
def test_an_endpoint_without_an_answer_is_the_last_error_of_the_run(
    mount: Mount, only: Path, endpoint: Endpoint, body: object
) -> None:
    made = new_run(only)
    endpoint.fail(200, body)
    works(mount, endpoint.url)
    assert document(made / "status")["last_error"]["message"].startswith("there was no answer")
    assert len(messages(only)) == 1


def test_an_endpoint_that_is_not_there_is_the_last_error_of_the_run(mount: Mount, only: Path) -> None:
    made = new_run(only)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        works(mount, f"http://127.0.0.1:{port}/v1")
    error = document(made / "status")["last_error"]
    assert (error["code"], f"port {port}" in error["message"]) == ("server_error", True)


def test_a_cancel_closes_the_connection_within_a_second(mount: Mount, only: Path, endpoint: Endpoint) -> None:
    made = new_run(only)
    endpoint.answers.clear()
    worker = work(mount, endpoint.url)
    assert endpoint.asked.wait(20)
    (made / "cancel").write_text("1")
    assert endpoint.hung_up.wait(1)
    assert worker.communicate(timeout=60) == ("", "")
    assert (worker.returncode, status(made), len(messages(only))) == (0, "cancelled", 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_worker_that_is_stopped_hands_its_run_back(
    mount: Mount, only: Path, endpoint: Endpoint, number: signal.Signals
) -> None:
    made, other = new_run(only), new_run(only)
    endpoint.answers.clear()
    worker = work(mount, endpoint.url)
    assert endpoint.asked.wait(20)
    os.killpg(worker.pid, number)
    assert endpoint.hung_up.wait(1)
    assert worker.communicate(timeout=60) == ("", "")
    assert worker.returncode == -number  # So that a loop in a shell ends too.
    assert (status(made), status(other), len(messages(only))) == ("queued", "queued", 1)
    endpoint.answers.set()
    works(mount, endpoint.url)
    assert (status(made), status(other), len(messages(only))) == ("completed", "completed", 3)


@pytest.mark.parametrize("arguments", [[], ["."], ["MNT"], ["MNT", "no-such-command"]])
def test_a_worker_that_is_used_wrongly_says_how(mount: Mount, arguments: list[str]) -> None:
    given = [str(mount.root) if argument == "MNT" else argument for argument in arguments]
    result = subprocess.run([WORKER, *given], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("usage: worker.sh MNT")
