"""Workers of a test: in a thread of this process, or as people run them."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import trio

from store import (
    ContentBlock,
    MessageRole,
    NotFound,
    Run,
    RunStatus,
    Store,
    Thread,
    ThreadMessage,
    ThreadStore,
)
from tests.cli.conftest import command
from threadfs.work.endpoint import Endpoint, Limits, base_url
from threadfs.work.settings import Settings
from threadfs.work.worker import work

T = TypeVar("T")

ENDS_S = 20.0
# As people have it, but for the pauses.
FAST: dict[str, Any] = {
    "pauses_s": (0.01, 0.01, 0.01),
    "longest_pause_s": 0.3,
    "probes_s": 0.05,
    "compares_s": 0.1,
    "store_pause_s": 0.02,
}


def settings(**others: Any) -> Settings:
    return Settings(**{**FAST, **others})


# ── What is asked ───────────────────────────────────────────────────────────────────────────────────────


def new_thread(store: Store, thread_id: str = "t", **metadata: object) -> str:
    return store.create_thread(Thread(id=thread_id, metadata=metadata)).id


def said(text: str, role: MessageRole = MessageRole.user, **fields: Any) -> ThreadMessage:
    return ThreadMessage(role=role, content=[ContentBlock.of_text(text)], **fields)


def run_with(**options: Any) -> Run:
    return Run.of({**Run().fields(), **options})


def ask(store: Store, text: str = "2 + 2?", thread_id: str = "t", **options: Any) -> Run:
    """Asks in a thread, which is made if need be; *options* of the run."""
    try:
        store.get_thread(thread_id)
    except NotFound:
        new_thread(store, thread_id)
    return store.ask(thread_id, said(text), run_with(**options))[1]


# ── What comes of it ────────────────────────────────────────────────────────────────────────────────────


def wait_until(condition: Callable[[], T | None], within_s: float = ENDS_S) -> T:
    """What the condition gives once that is true."""
    ends_s = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < ends_s, "it did not come true"
        time.sleep(0.005)
    return found


def ended(store: Store, run: Run, within_s: float = ENDS_S) -> Run:
    """The run once it has ended."""
    return wait_until(lambda: _if_ended(store, run), within_s)


def _if_ended(store: Store, run: Run) -> Run | None:
    stored = store.get_run(run.thread_id, run.id)
    return stored if stored.status.is_terminal else None


def has_status(store: Store, run: Run, status: RunStatus) -> Run:
    """The run once it has that status."""
    wait_until(lambda: store.get_run(run.thread_id, run.id).status is status)
    return store.get_run(run.thread_id, run.id)


def answers(store: Store, thread_id: str = "t") -> list[str]:
    """What the model said, oldest first."""
    return [
        message.text for message in store.iter_messages(thread_id) if message.role is MessageRole.assistant
    ]


def growing(store: Store, run: Run) -> str:
    """The answer as far as it can be seen while it grows."""
    for answer in store.growing_answers(run.thread_id):
        if answer.run_id == run.id:
            return (store.read_answer(answer, 0, 1 << 20) or b"").decode()
    return ""


def error_of(run: Run) -> tuple[str, str]:
    assert run.last_error is not None
    return run.last_error.code, run.last_error.message


# ── Workers ─────────────────────────────────────────────────────────────────────────────────────────────


class RunningWorker:
    """A worker in a thread, with a store of its own, as it is in a process of its own."""

    def __init__(self, store: Store, endpoint: Endpoint, given: Settings) -> None:
        self.none_failed: bool | None = None
        self.error: Exception | None = None
        self._store = store
        self._endpoint = endpoint
        self._settings = given
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()

    def _main(self) -> None:
        try:
            trio.run(self._work)
        except Exception as error:
            self.error = error
        finally:
            self._store.close()

    async def _work(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            async with self._endpoint:
                self.none_failed = await work(self._store, self._endpoint, self._settings)

    def waits(self) -> bool | None:
        """Waits until it ends by itself. Whether no run failed."""
        self._thread.join(ENDS_S)
        assert not self._thread.is_alive()
        if self.error:
            raise self.error
        return self.none_failed

    def stop(self) -> None:
        """As a signal does."""
        if self._thread.is_alive():
            wait_until(lambda: self._token is not None or not self._thread.is_alive())
            if self._token is not None:
                with suppress(trio.RunFinishedError):
                    self._token.run_sync_soon(self._scope.cancel)
        self._thread.join(ENDS_S)
        assert not self._thread.is_alive()


@contextmanager
def working(
    place: Path,
    url: str,
    given: Settings | None = None,
    *,
    key: str | None = None,
    limits: Limits | None = None,
    store: Store | None = None,
) -> Iterator[RunningWorker]:
    """A worker, as long as the block lasts."""
    endpoint = Endpoint(base_url(url), key, limits or Limits(idle_s=0.3))
    worker = RunningWorker(store or ThreadStore(place), endpoint, given or settings())
    try:
        yield worker
    finally:
        worker.stop()
    if worker.error:
        raise worker.error


def all_answered(place: Path, url: str, given: Settings | None = None, **others: Any) -> bool | None:
    """Has a worker answer what is queued, and end."""
    with working(place, url, given or settings(once=True), **others) as worker:
        return worker.waits()


def start(place: Path, url: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """A worker in a process of its own."""
    return subprocess.Popen(
        command("work", place, "--endpoint", url, *arguments),
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def unused_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])
