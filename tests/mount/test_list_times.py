"""The times of `threads/`, `transcripts/` and `runs/<status>/`: when a name in them last came or went."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.mount.conftest import Mount, wait_until
from tests.mount.scripts import new_run, new_thread

THREADS = ["threads", "transcripts"]
LISTS = [*THREADS, "runs/queued", "runs/in_progress", "runs/completed", "runs/failed"]


def times(mount: Mount) -> dict[str, int]:
    return {name: mount.path(name).stat().st_mtime_ns for name in LISTS}


def changed(mount: Mount, before: dict[str, int]) -> list[str]:
    now = times(mount)
    assert all(now[name] >= before[name] for name in LISTS)
    return [name for name in LISTS if now[name] != before[name]]


def write_thread(place: Path) -> None:
    place.mkdir()
    (place / "meta.json").write_text(json.dumps({"id": place.name, "object": "thread", "created_at": 1}))


def write_run(place: Path, status: str) -> None:
    place.mkdir(parents=True, exist_ok=True)
    run = {"id": place.name, "object": "thread.run", "created_at": 1, "thread_id": "T", "status": status}
    (place / "status.json").write_text(json.dumps({**run, "model": ""}))


def test_each_name_that_comes_or_goes_changes_the_time_of_its_list_at_once(mount: Mount) -> None:
    thread = mount.path("threads", "comes and goes")
    run = thread / "runs" / "R"
    steps: list[tuple[Callable[[], object], list[str]]] = [
        (thread.mkdir, THREADS),
        (lambda: (thread / "say").write_text("Hello"), []),
        (lambda: (thread / "meta.json").write_text('{"metadata":{"a":1}}'), []),
        (run.mkdir, ["runs/queued"]),
        (lambda: (run / "status").write_text("in_progress\n"), ["runs/queued", "runs/in_progress"]),
        (lambda: (run / "status").write_text('{"metadata":{"a":1}}'), []),
        (lambda: (run / "cancel").write_text("1"), ["runs/in_progress"]),
        (lambda: shutil.rmtree(thread), THREADS),
    ]
    for step, expected in steps:
        before = times(mount)
        step()
        assert changed(mount, before) == expected


def test_what_other_programs_make_and_remove_is_a_change_of_the_list(mount: Mount) -> None:
    thread = mount.store / "of another program"
    steps: list[tuple[Callable[[], object], list[str]]] = [
        (lambda: write_thread(thread), THREADS),
        (lambda: write_run(thread / "runs" / "R", "queued"), ["runs/queued"]),
        (lambda: write_run(thread / "runs" / "R", "in_progress"), ["runs/queued", "runs/in_progress"]),
        (lambda: write_run(thread / "runs" / "R", "failed"), ["runs/in_progress", "runs/failed"]),
        (lambda: shutil.rmtree(thread), [*THREADS, "runs/failed"]),
    ]
    for step, expected in steps:
        before = times(mount)
        step()
        wait_until(lambda b=before, e=expected: changed(mount, b) == e)  # type: ignore[misc]


def test_a_claim_changes_the_lists_that_it_leaves_and_comes_to(mount: Mount) -> None:
    run = new_run(new_thread(mount))
    name = f"{run.name}@{run.parent.parent.name}"
    before = times(mount)
    mount.path("runs", "queued", name).rename(mount.path("runs", "in_progress", name))
    assert changed(mount, before) == ["runs/queued", "runs/in_progress"]
