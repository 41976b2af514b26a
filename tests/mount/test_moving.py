"""Moving and mirroring whole threads and stores: what arrives is what left, and never half of it is seen."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import Mount, start, stop
from tests.mount.scripts import contents, make_older, new_run, new_thread, succeeds


@pytest.fixture
def thread(mount: Mount) -> Path:
    made = new_thread(mount)
    (made / "messages.jsonl").write_text('{"role":"user","content":"eins"}\n' * 3)
    for status in ("queued", "completed", "failed"):
        run = new_run(made, "in_progress")
        (run / "steps" / "s.json").write_text('{"step_type":"tool_calls"}')
        (run / "status").write_text(status)
    return made


@pytest.fixture
def empty_mount(tmp_path: Path) -> Iterator[Mount]:
    """Another store, with nothing in it."""
    mounted = start(tmp_path / "empty", tmp_path / "other", tmp_path / "log")
    try:
        yield mounted
    finally:
        stop(mounted)
    assert "Traceback" not in mounted.log.read_text()


def test_mv_takes_a_thread_out_and_puts_it_back(mount: Mount, thread: Path, tmp_path: Path) -> None:
    before = contents(mount.store / thread.name)
    succeeds(f"mv '{thread}' '{tmp_path}/moved'", mount.root)
    assert not thread.exists()
    succeeds(f"mv '{tmp_path}/moved' '{thread}'", mount.root)
    assert contents(mount.store / thread.name) == before
    assert not (tmp_path / "moved").exists()


@pytest.mark.parametrize("how", ["rsync -a threads/ '{}/threads/'", "tar cf - threads | tar -C '{}' -xf -"])
def test_a_whole_store_moves_to_another(mount: Mount, thread: Path, empty_mount: Mount, how: str) -> None:
    for each in mount.path("threads").iterdir():
        make_older(each)
    succeeds(how.format(empty_mount.root), mount.root)
    assert contents(empty_mount.store) == contents(mount.store)
    assert succeeds(f"rsync -ai threads/* '{empty_mount.root}/threads/'", mount.root) == ""


def test_a_mirror_with_delete_removes_what_is_not_in_the_backup(
    mount: Mount, thread: Path, tmp_path: Path
) -> None:
    before = contents(mount.store / thread.name)
    succeeds(f"cp -a '{thread}' '{tmp_path}/backup'", mount.root)
    extra = new_run(thread, "completed")
    (next(iter((thread / "runs").iterdir())) / "steps" / "extra.json").write_text(
        '{"step_type":"tool_calls"}'
    )
    succeeds(f"rsync -a --delete '{tmp_path}/backup/' '{thread}/'", mount.root)
    assert not extra.exists()
    kept = contents(mount.store / thread.name)
    assert {name: data for name, data in kept.items() if not name.endswith("extra.json")} == before


def test_find_delete_removes_a_thread(mount: Mount, thread: Path) -> None:
    succeeds(f"find '{thread}' -delete", mount.root)
    assert not (mount.store / thread.name).exists()


def test_chmod_and_chown_of_all_change_nothing(mount: Mount, thread: Path) -> None:
    before = contents(mount.store)
    modes = {path: path.stat().st_mode for path in thread.glob("**/*")}
    succeeds(f"chmod -R 700 '{thread}' && chown -R \"$(id -u):$(id -g)\" '{thread}'", mount.root)
    assert {path: path.stat().st_mode for path in thread.glob("**/*")} == modes
    assert contents(mount.store) == before


def test_nobody_sees_half_a_thread(mount: Mount, tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    for number in range(20):
        run = draft / "runs" / f"r{number}"
        run.mkdir(parents=True)
        (run / "status").write_text(json.dumps({"created_at": 1, "status": "queued", "model": "m"}))
    (draft / "meta.json").write_text('{"created_at":1}')
    (draft / "messages.jsonl").write_text('{"role":"user","content":"x"}\n' * 500)
    names = [f"whole {number}" for number in range(5)]
    is_over = threading.Event()
    seen: set[tuple[int, ...]] = set()

    def look() -> None:
        while not is_over.is_set():
            for name in names:
                # A run that is queued must find all the rest.
                queued = sum(link.endswith(f"@{name}") for link in os.listdir(mount.path("runs", "queued")))
                try:
                    runs = len(os.listdir(mount.path("threads", name, "runs")))
                    lines = mount.path("threads", name, "messages.jsonl").read_bytes().count(b"\n")
                except FileNotFoundError:
                    runs = lines = 0
                seen.add((queued, runs, lines))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for name in names:
            succeeds(f"cp -r '{draft}' 'drafts/{name}' && mv 'drafts/{name}' threads/", mount.root)
    finally:
        is_over.set()
        looking.join()
    # It may appear between one look and the next, but never in parts.
    assert seen <= {(0, 0, 0), (0, 0, 500), (0, 20, 500), (20, 20, 500)}
    assert (20, 20, 500) in seen
