"""Servers of language models on this machine, at their usual ports: for a hint, and on loopback alone."""

from __future__ import annotations

import json
import os
import shlex
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

HOST = "127.0.0.1"
_USUAL = (("ollama", 11434), ("llama.cpp", 8080), ("LM Studio", 1234))
_ANSWERS_S = 0.4
_MOST_BYTES = 1 << 20


class LocalEndpoint(NamedTuple):
    """An endpoint for chat completions; *model* is the first of its models, or empty if it has none."""

    program: str
    url: str
    model: str


def how_to_get_answers(place: str) -> str:
    """The command that starts a worker for the store at *place*, with an endpoint of this machine if any."""
    # mount.sh sets it to its own name, as `threadfs` may not be in the PATH.
    words = [os.environ.get("THREADFS_COMMAND") or "threadfs", "work", place, "--endpoint"]
    endpoint = find()
    if endpoint is None:
        return f"{shlex.join(words)} URL    (of ollama, llama.cpp, vLLM, LM Studio, OpenAI or others)"
    words.append(endpoint.url)
    if not endpoint.model:
        return f"{shlex.join(words)}    ({endpoint.program} is there, but has no model yet)"
    return f"{shlex.join([*words, '--model', endpoint.model])}    ({endpoint.program} is there)"


def find(usual: Sequence[tuple[str, int]] = _USUAL, answers_s: float = _ANSWERS_S) -> LocalEndpoint | None:
    """The first program of *usual*, with its port, that lists models; ``None`` if none does in *answers_s*.

    Other programs use these ports as well, so an open port alone is no answer.
    """
    found: dict[int, LocalEndpoint] = {}

    def look(program: str, port: int) -> None:
        # Whatever listens there may answer anything.
        with suppress(Exception):
            if endpoint := _listed(program, port, answers_s):
                found[port] = endpoint

    # At once, in threads, as a server may send its answer byte by byte.
    looking = [threading.Thread(target=look, args=place, daemon=True) for place in usual]
    for thread in looking:
        thread.start()
    until_s = time.monotonic() + answers_s
    for thread, (_, port) in zip(looking, usual, strict=True):
        thread.join(max(0.0, until_s - time.monotonic()))
        if port in found:
            return found[port]
    return None


def _listed(program: str, port: int, timeout_s: float) -> LocalEndpoint | None:
    with socket.create_connection((HOST, port), timeout_s) as connection:
        # Imported here, as it takes longer than the rest, and mostly nobody listens.
        from http.client import HTTPResponse

        connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        response = HTTPResponse(connection)
        response.begin()
        models = json.loads(response.read(_MOST_BYTES))["data"]
    if response.status != 200 or not isinstance(models, list):
        return None
    model = models[0]["id"] if models else ""
    return LocalEndpoint(program, f"http://{HOST}:{port}/v1", str(model))
