"""Lists that are remembered: what other programs do to a directory, and to its times, is seen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from store import Run, Thread, ThreadStore
from store.disk import listing


def test_a_run_that_came_is_listed_also_when_the_time_of_the_list_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_SETTLED_NS", 0)
    store, other = ThreadStore(tmp_path), ThreadStore(tmp_path)
    store.create_thread(Thread(id="t"))
    for number in range(listing._REMEMBERED_LENGTH):
        store.create_run("t", Run(id=f"r{number}"))
    os.utime(tmp_path / "t" / "runs", (1, 1))
    store.list_run_ids("t")
    other.create_run("t", Run(id="new"))
    os.utime(tmp_path / "t" / "runs", (1, 1))
    assert "new" in store.list_run_ids("t")
