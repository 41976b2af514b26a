"""A real model behind llama.cpp's server: it answers, streams, is stopped, and refuses what is too long."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from store import RunStatus, Store
from tests.cli.conftest import ROOT
from tests.work.running import (
    all_answered,
    answers,
    ask,
    ended,
    error_of,
    growing,
    wait_until,
    working,
)
from threadfs.work.endpoint import Limits

PATIENT = Limits(idle_s=60)
OPTIONS: dict[str, Any] = {"temperature": 0, "seed": 1}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The URL of a model server, which runs until the module is done."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.work.model_server"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        yield f"{server.stdout.readline().strip()}/v1"
    finally:
        server.stdin.close()
        server.wait(20)


def test_it_answers_with_an_end_and_its_own_count_of_tokens(store: Store, place: Path, url: str) -> None:
    run = ask(
        store, "Say yes or no.", instructions="Answer with one word.", max_completion_tokens=6, **OPTIONS
    )
    all_answered(place, url, limits=PATIENT)
    stored = store.get_run("t", run.id)
    assert stored.status in (RunStatus.completed, RunStatus.incomplete)
    usage = stored.extra("usage")
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]
    assert 0 < usage["completion_tokens"] <= 6
    assert len(answers(store)) == 1
    assert answers(store)[0].strip()


def test_it_is_heard_word_by_word(store: Store, place: Path, url: str) -> None:
    run = ask(store, "Count from one to ten.", max_completion_tokens=12, **OPTIONS)
    seen: list[str] = []
    with working(place, url, limits=PATIENT):
        while not store.get_run("t", run.id).status.is_terminal:
            if (text := growing(store, run)) and text not in seen:
                seen.append(text)
            time.sleep(0.005)
        ended(store, run)
    [whole] = answers(store)
    assert len(seen) > 2
    assert all(whole.startswith(text) for text in seen)


def test_a_cancel_stops_the_model(store: Store, place: Path, url: str) -> None:
    run = ask(store, "Tell me a long story about the sea.", **OPTIONS)
    with working(place, url, limits=PATIENT):
        wait_until(lambda: len(growing(store, run)) > 10)
        store.cancel_run("t", run.id)
        [text] = wait_until(lambda: answers(store))
        # The model is free again at once: both of its places take another run.
        others = [ask(store, "Hi", thread, max_completion_tokens=1, **OPTIONS) for thread in ("u", "v")]
        for other in others:
            assert ended(store, other).status is RunStatus.incomplete
    assert store.get_run("t", run.id).status is RunStatus.cancelled
    assert store.list_messages("t")[-1].extra("incomplete_details") == {"reason": "run_cancelled"}
    assert len(text) < 1000


def test_a_conversation_that_is_too_long_is_refused_with_both_numbers(
    store: Store, place: Path, url: str
) -> None:
    run = ask(store, "hello " * 2000)
    all_answered(place, url, limits=PATIENT)
    code, message = error_of(store.get_run("t", run.id))
    assert code == "invalid_prompt"
    assert "exceeds the available context size (1024 tokens)" in message
    assert answers(store) == []
