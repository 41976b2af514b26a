"""Mounts to be attacked, and how long: seconds, or with ``--long`` minutes and hours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from store import DocumentKey, ThreadStore
from tests.mount.conftest import Mount, start, stop

_LONG_TIMEOUT_S = 3 * 3600


class Effort(Protocol):
    def __call__(self, short: int, long: int) -> int: ...


@pytest.fixture(scope="session")
def effort(request: pytest.FixtureRequest) -> Effort:
    """Chooses between the number for everyday and the one for ``--long``."""
    is_long = request.config.getoption("long")
    return lambda short, long: long if is_long else short


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("long"):
        for item in items:
            if Path(__file__).parent in item.path.parents:
                # Before a shorter one of its own.
                item.add_marker(pytest.mark.timeout(_LONG_TIMEOUT_S), append=False)


@contextmanager
def attacked(place: Path, *options: str, store: Path | None = None) -> Iterator[Mount]:
    """A mount of its own in *place*, judged at the end: it lives, its log has no traceback, it goes well."""
    where = store or place / "store"
    where.mkdir(exist_ok=True)
    mounted = start(where, place / "mnt", place / "log", *options)
    try:
        yield mounted
        assert mounted.process.poll() is None, f"the mount has ended: {mounted.log.read_text()[-2000:]}"
        assert "threadfs" in mounted.path(".threadfs", "version").read_text()
    finally:
        stop(mounted)
    assert "Traceback" not in mounted.log.read_text()
    assert mounted.process.returncode == 0


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    with attacked(tmp_path) as mounted:
        yield mounted


@pytest.fixture(scope="module")
def shared_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """One for all tests of a module, each of which makes the threads that it changes."""
    with attacked(tmp_path_factory.mktemp("shared")) as mounted:
        yield mounted


def told(store: Path, thread_id: str) -> list[str]:
    """The texts of all messages that the store holds."""
    return [message.text for message in ThreadStore(store).list_messages(thread_id)]


def stored_bytes(store: Path) -> dict[str, bytes]:
    """Every document and log, by its path."""
    opened = ThreadStore(store)
    found = {}
    for thread_id in opened.list_thread_ids():
        found[thread_id] = opened.read_document(DocumentKey(thread_id))[0]
        log = opened.open_log(thread_id)
        found[f"{thread_id}/log"] = log.read(0, log.info().size_bytes)
        log.close()
        for run_id in opened.list_run_ids(thread_id):
            key = DocumentKey(thread_id, run_id)
            found[f"{thread_id}/{run_id}"] = opened.read_document(key)[0]
            for step_id in opened.list_step_ids(thread_id, run_id):
                key = DocumentKey(thread_id, run_id, step_id)
                found[f"{thread_id}/{run_id}/{step_id}"] = opened.read_document(key)[0]
    return found


def open_files(mount: Mount) -> int:
    return len(os.listdir(f"/proc/{mount.process.pid}/fd"))
