"""Scratch files: what programs leave behind vanishes by itself."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from store import Thread, ThreadStore
from threadfs.nodes.base import Directory
from threadfs.nodes.root import root_of
from threadfs.nodes.scratch import UNUSED_BACKUP_S, UNUSED_S


@pytest.fixture
def thread(tmp_path: Path) -> Directory:
    store = ThreadStore(tmp_path / "store")
    store.create_thread(Thread(id="T"))
    found = root_of(store).lookup("threads")
    assert isinstance(found, Directory)
    thread = found.lookup("T")
    assert isinstance(thread, Directory)
    return thread


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s + seconds)


def test_a_backup_that_an_editor_keeps_vanishes_soon(
    thread: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread.make_file("meta.json~")
    thread.make_file("tmp.notes")
    assert thread.holds("meta.json~")
    later(monkeypatch, UNUSED_BACKUP_S + 1)
    assert not thread.holds("meta.json~")
    assert thread.holds("tmp.notes")


def test_a_lock_link_that_a_killed_editor_left_vanishes_as_a_file_does(
    thread: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread.make_link(".#meta.json", "somebody@somewhere.1")
    thread.make_file("tmp.notes")
    later(monkeypatch, UNUSED_S + 1)
    assert not thread.holds(".#meta.json")
    assert not thread.holds("tmp.notes")
