"""The look for servers of language models, whose result the command that mounts tells."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cli.conftest import succeeds, threadfs
from tests.mount.conftest import ANSWERS_S
from tests.mount.test_life import make_checkout
from threadfs.commands import local_endpoints
from threadfs.commands.local_endpoints import LocalEndpoint, find, how_to_get_answers

TWO_MODELS = json.dumps({"object": "list", "data": [{"id": "llama3.1:8b"}, {"id": "tiny"}]})


@contextmanager
def answering(body: str, status: int = 200) -> Iterator[int]:
    """The port of a server that gives *body* for its models, and 404 for all else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/v1/models" else 404)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever, args=(0.02,))
    serving.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Of a server that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_a_server_that_lists_models_is_found_with_its_first_model(closed_port: int) -> None:
    with answering(TWO_MODELS) as port:
        found = find([("ollama", closed_port), ("llama.cpp", port)], ANSWERS_S)
    assert found == LocalEndpoint("llama.cpp", f"http://127.0.0.1:{port}/v1", "llama3.1:8b")


def test_of_two_servers_the_first_in_the_list_is_found() -> None:
    with answering(TWO_MODELS) as one, answering(TWO_MODELS) as two:
        found = find([("ollama", one), ("llama.cpp", two)], ANSWERS_S)
    assert found is not None
    assert found.program == "ollama"


@pytest.mark.parametrize(
    ("body", "status"),
    [("<html>", 200), ("[]", 200), ('{"data": {}}', 200), ('{"data": [1]}', 200), (TWO_MODELS, 401)],
)
def test_another_program_at_the_port_is_not_taken_for_one(body: str, status: int) -> None:
    with answering(body, status) as port:
        assert find([("llama.cpp", port)], ANSWERS_S) is None


def test_a_server_that_says_nothing_is_not_waited_for(silent_port: int) -> None:
    started_s = time.monotonic()
    assert find([("ollama", silent_port)]) is None
    assert time.monotonic() - started_s < ANSWERS_S


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "threadfs work /m --endpoint URL "),
        (
            LocalEndpoint("ollama", "http://h/v1", "a b"),
            "--endpoint http://h/v1 --model 'a b'    (ollama is there)",
        ),
        (
            LocalEndpoint("ollama", "http://h/v1", ""),
            "--endpoint http://h/v1    (ollama is there, but has no model",
        ),
    ],
)
def test_the_hint_is_a_command_to_copy(
    monkeypatch: pytest.MonkeyPatch, found: LocalEndpoint | None, said: str
) -> None:
    monkeypatch.setattr(local_endpoints, "find", lambda: found)
    assert said in how_to_get_answers("/m")


def test_who_mounts_is_told_how_to_get_answers(household: Path, tmp_path: Path) -> None:
    place = tmp_path / "mnt"
    said = succeeds(threadfs(household, place, "--log", tmp_path / "log"))
    succeeds(threadfs("umount", place))
    assert f"threadfs work {place} --endpoint " in said


def test_who_mounts_read_only_is_not_told_how_to_get_answers(household: Path, tmp_path: Path) -> None:
    place = tmp_path / "mnt"
    said = succeeds(threadfs("--read-only", household, place, "--log", tmp_path / "log"))
    succeeds(threadfs("umount", place))
    assert "mounted" in said
    assert "--endpoint" not in said


def test_mount_sh_names_itself_in_the_hint(tmp_path: Path) -> None:
    make_checkout(tmp_path, 'echo "$THREADFS_COMMAND"')
    program = tmp_path / "mount.sh"
    said = subprocess.run([program, "/s", "/m"], check=True, capture_output=True, text=True).stdout
    assert said == f"{program}\n"
