"""Listings that the kernel keeps: they cost nothing and are right. Without the shim they are as right."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from store import Run, RunStatus, RunStep, Thread, ThreadStore
from tests.mount.conftest import Mount, checked_mount, wait_until

# How long changes by other programs may take to show, and a little more.
_SHOWS_S = 1.5


@pytest.fixture(scope="module", params=["shim", "noshim"])
def mount(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    options = ["-o", "noshim"] if request.param == "noshim" else []
    with checked_mount(tmp_path_factory.mktemp(request.param), *options) as mounted:
        yield mounted


@pytest.fixture
def with_shim(mount: Mount) -> bool:
    return stats(mount)["shim"] == 1


@pytest.fixture
def other(mount: Mount) -> Iterator[ThreadStore]:
    """Another program that uses the store."""
    store = ThreadStore(mount.store)
    yield store
    store.close()


def stats(mount: Mount) -> dict[str, int]:
    lines = mount.path(".threadfs", "stats").read_text().splitlines()
    return {name: int(value) for name, value in (line.split() for line in lines)}


def test_the_shim_is_in_effect_unless_it_is_switched_off(
    mount: Mount, request: pytest.FixtureRequest
) -> None:
    assert stats(mount)["shim"] == ("[shim]" in request.node.name)


def test_a_second_walk_sends_no_request(mount: Mount, with_shim: bool) -> None:
    if not with_shim:
        pytest.skip("this is what the shim is for")
    for _ in range(2):  # The second one asks for the attributes that the first one left out.
        subprocess.run(["ls", "-lR", mount.path("threads")], check=True, stdout=subprocess.DEVNULL)
    looks = stats(mount)["operations"]
    looks = stats(mount)["operations"] - looks
    before = stats(mount)["operations"]
    subprocess.run(["ls", "-lR", mount.path("threads")], check=True, stdout=subprocess.DEVNULL)
    assert stats(mount)["operations"] - before == looks


def test_reading_a_file_again_costs_open_and_release_alone(mount: Mount, with_shim: bool) -> None:
    if not with_shim:
        pytest.skip("this is what the shim is for")
    status = mount.run("queued") / "status"
    for _ in range(2):
        status.read_bytes()
    looks = stats(mount)["operations"]
    looks = stats(mount)["operations"] - looks
    before = stats(mount)["operations"]
    status.read_bytes()
    assert stats(mount)["operations"] - before <= looks + 2


def test_a_name_that_comes_or_goes_shows_at_once_where_this_mount_makes_it(mount: Mount) -> None:
    for number in range(3):
        thread = mount.path("threads", f"own {number}")
        thread.mkdir()
        assert thread.name in os.listdir(thread.parent)
        assert f"{thread.name}.md" in os.listdir(mount.path("transcripts"))
        (thread / "start").write_text('{"id": "R"}')
        assert os.listdir(thread / "runs") == ["R"]
        assert f"R@{thread.name}" in os.listdir(mount.path("runs", "queued"))
        (thread / "runs" / "R" / "cancel").write_text("1")
        assert f"R@{thread.name}" not in os.listdir(mount.path("runs", "queued"))
        assert f"R@{thread.name}" in os.listdir(mount.path("runs", "cancelled"))
        (thread / ".tmp").write_text("x")
        assert ".tmp" in os.listdir(thread)
        (thread / ".tmp").unlink()
        (thread / "meta.json").unlink()
        assert not {".tmp", "meta.json"} & set(os.listdir(thread))
        subprocess.run(["rm", "-r", thread], check=True)
        assert thread.name not in os.listdir(thread.parent)
        assert f"{thread.name}.md" not in os.listdir(mount.path("transcripts"))


def test_a_document_that_never_got_its_bytes_is_not_listed(mount: Mount) -> None:
    steps = mount.run("in_progress") / "steps"
    before = os.listdir(steps)
    (steps / "S.json").touch()
    assert os.listdir(steps) == before
    with pytest.raises(OSError, match="Invalid"):
        (steps / "S.json").write_text("nonsense")
    assert os.listdir(steps) == before


def test_what_was_removed_for_a_while_comes_back_to_its_place(mount: Mount) -> None:
    thread = mount.path("threads", "for a while")
    thread.mkdir()
    names = os.listdir(thread)
    (thread / "meta.json").unlink()
    assert os.listdir(thread) == names[1:]
    with pytest.raises(OSError, match="Invalid"):
        (thread / "meta.json").write_text("nonsense")
    assert os.listdir(thread) == names


def test_each_name_that_stays_is_seen_once_by_several_readers_while_others_come_and_go(mount: Mount) -> None:
    draft = mount.path("drafts", "many")
    draft.mkdir()
    stay = {f"stays {number:04}" for number in range(400)}
    for name in stay:
        (draft / name).touch()
    for number in range(100):
        (draft / f"goes {number}").touch()
    readers = [os.scandir(draft) for _ in range(3)]
    found: list[list[str]] = [[], [], []]
    for number in range(100):
        for names, reader in zip(found, readers, strict=True):
            names += [entry.name for entry in islice(reader, 5 if number < 99 else None)]
        (draft / f"goes {number}").unlink()
        (draft / f"comes {number}").touch()
        os.listdir(draft)
    for names in found:
        assert sorted(name for name in names if name in stay) == sorted(stay)
        assert len(names) == len(set(names))


def test_a_reader_that_seeks_back_sees_what_there_is_now(mount: Mount) -> None:
    directory = mount.path("threads")
    file = os.open(directory, os.O_RDONLY)
    try:
        before = set(os.listdir(file))
        (directory / "while it is open").mkdir()
        assert set(os.listdir(file)) - before == {"while it is open"}  # It rewinds first.
    finally:
        os.close(file)


def shown(mount: Mount) -> dict[str, set[str]]:
    """What the lists show; nothing when one of them goes meanwhile."""
    try:
        return {path: set(os.listdir(mount.path(path))) for path in lists(mount)}
    except FileNotFoundError:
        return {}


def lists(mount: Mount) -> list[str]:
    found = ["threads", *(f"runs/{status}" for status in ("queued", "in_progress", "completed"))]
    for thread in ("a", "b"):
        if mount.path("threads", thread).is_dir():
            found.append(f"threads/{thread}/runs")
            runs = sorted(os.listdir(mount.path("threads", thread, "runs")))
            found += [f"threads/{thread}/runs/{run}/steps" for run in runs]
    return found


def stored(store: ThreadStore) -> dict[str, set[str]]:
    """What the lists have to show, by plain reading."""
    found = {"threads": set(store.list_thread_ids())}
    for status in (RunStatus.queued, RunStatus.in_progress, RunStatus.completed):
        found[f"runs/{status}"] = set()
    for thread in store.list_thread_ids():
        for run in store.list_run_ids(thread):
            if (path := f"runs/{store.get_run(thread, run).status}") in found:
                found[path].add(f"{run}@{thread}")
            if thread in ("a", "b"):
                found[f"threads/{thread}/runs/{run}/steps"] = {
                    f"{step}.json" for step in store.list_step_ids(thread, run)
                }
        if thread in ("a", "b"):
            found[f"threads/{thread}/runs"] = set(store.list_run_ids(thread))
    return found


@pytest.mark.parametrize("seed", [1, 2])
def test_lists_show_what_the_store_holds_whoever_changes_it(
    mount: Mount, other: ThreadStore, seed: int
) -> None:
    chance = random.Random(seed)
    for number in range(60):
        change_something(chance, mount, other, f"{seed}-{number}")
        if chance.random() < 0.5:
            shown(mount)
        if chance.random() < 0.3:
            wait_until(lambda: shown(mount) == stored(other), _SHOWS_S)
    wait_until(lambda: shown(mount) == stored(other), _SHOWS_S)


def change_something(chance: random.Random, mount: Mount, other: ThreadStore, name: str) -> None:
    thread = chance.choice(["a", "b"])
    path = mount.path("threads", thread)
    is_here = chance.random() < 0.5
    threads = other.list_thread_ids()
    if thread not in threads:
        path.mkdir() if is_here else other.create_thread(Thread(id=thread))
        return
    runs = sorted(other.list_run_ids(thread))
    what = chance.choice(["remove", "run", "run", "step", "step", "status", "status"])
    if what == "remove":
        delete(path) if is_here else other.delete_thread(thread, force=True)
    elif what == "run" or not runs:
        if is_here:
            (path / "start").write_text(f'{{"id": "r{name}"}}')
        else:
            other.create_run(thread, Run(id=f"r{name}"))
    elif what == "step":
        run = chance.choice(runs)
        step = RunStep(id=f"s{name}", thread_id=thread, run_id=run)
        if is_here:
            document = step.model_dump_json(exclude_none=True)
            (path / "runs" / run / "steps" / f"s{name}.json").write_text(document)
        else:
            other.append_step(thread, run, step)
    else:
        run = chance.choice(runs)
        if not other.get_run(thread, run).status.is_terminal:
            status = chance.choice([RunStatus.in_progress, RunStatus.completed])
            if is_here:
                (path / "runs" / run / "status").write_text(f"{status}\n")
            else:
                other.update_run_status(thread, run, status)


def delete(thread: Path) -> None:
    for link in thread.parent.parent.joinpath("runs", "in_progress").glob(f"*@{thread.name}"):
        (thread / "runs" / link.name.split("@")[0] / "cancel").write_text("1")
    subprocess.run(["rm", "-r", thread], check=True)
