"""Listings are right, with the listings that the kernel keeps and without: whoever changes what is listed."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from store import Run, RunStatus, RunStep, Thread, ThreadStore
from tests.mount.conftest import Mount, checked_mount, wait_until
from tests.mount.getdents import OpenDirectory

_FEW_ENTRIES_BYTES = 120
_DROP_CACHES = Path("/proc/sys/vm/drop_caches")


@pytest.fixture(scope="module", params=["shim", "noshim"])
def mount(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    options = ["-o", "noshim"] if request.param == "noshim" else []
    with checked_mount(tmp_path_factory.mktemp(request.param), *options) as mounted:
        stats = mounted.path(".threadfs", "stats").read_text().splitlines()
        assert f"shim {int(request.param == 'shim')}" in stats
        yield mounted


@pytest.fixture
def other(mount: Mount) -> Iterator[ThreadStore]:
    """Another program that uses the store."""
    store = ThreadStore(mount.store)
    yield store
    store.close()


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
    (thread / "meta.json").unlink()
    names = os.listdir(thread)
    with pytest.raises(OSError, match="Invalid"):
        (thread / "meta.json").write_text("nonsense")
    assert os.listdir(thread) == ["meta.json", *names]


def test_names_that_come_and_go_elsewhere_do_so_here_though_the_time_of_the_directory_stays(
    mount: Mount, other: ThreadStore
) -> None:
    other.create_thread(Thread(id="steps"))
    other.create_run("steps", Run(id="R"))
    for step_id in ("first", "last"):
        other.append_step("steps", "R", RunStep(id=step_id, thread_id="steps", run_id="R"))
    (step,) = mount.store.glob("steps/runs/R/**/first.json")
    copy = mount.store / ".copy"
    shutil.copy2(step, copy)
    steps = mount.path("threads", "steps", "runs", "R", "steps")
    wait_until((steps / "last.json").exists)
    for _ in range(2):
        assert sorted(os.listdir(steps)) == ["first.json", "last.json"]
    time_ns = steps.stat().st_mtime_ns
    copy.rename(step.with_name("copy.json"))
    wait_until(lambda: sorted(os.listdir(steps)) == ["copy.json", "first.json", "last.json"])
    step.unlink()
    wait_until(lambda: sorted(os.listdir(steps)) == ["copy.json", "last.json"])
    assert steps.stat().st_mtime_ns == time_ns


def test_a_name_that_goes_by_itself_goes_though_nothing_reports_it(mount: Mount) -> None:
    run = mount.run("completed")
    names = os.listdir(run)
    (run / "status~").write_text("as an editor keeps it")
    assert os.listdir(run) == [*names, "status~"]
    wait_until(lambda: os.listdir(run) == names)


def test_each_name_that_stays_is_seen_once_by_several_readers_while_others_come_and_go(mount: Mount) -> None:
    draft = mount.path("drafts", "many")
    draft.mkdir()
    stay = {f"stays {number:03}" for number in range(200)}
    for name in stay:
        (draft / name).touch()
    for number in range(40):
        (draft / f"goes {number}").touch()
    readers = [OpenDirectory(draft) for _ in range(3)]
    for number in range(40):
        for reader in readers:
            reader.read_on(5 * _FEW_ENTRIES_BYTES // 3)
        (draft / f"goes {number}").unlink()
        (draft / f"comes {number}").touch()
        os.listdir(draft)
    for reader in readers:
        names = reader.read_all()
        assert sorted(name for name in names if name in stay) == sorted(stay)
        assert len(names) == len(set(names))
        reader.close()


def test_a_reader_that_goes_back_to_a_place_reads_on_from_there(mount: Mount) -> None:
    runs = OpenDirectory(mount.path("runs"))
    names = list(runs.read_all(_FEW_ENTRIES_BYTES))
    for count in (4, 2, 0):
        runs.seek(count)
        assert runs.read_all(_FEW_ENTRIES_BYTES) == names
    runs.close()


def test_a_reader_that_rewinds_sees_what_there_is_now(mount: Mount) -> None:
    threads = OpenDirectory(mount.path("threads"))
    before = set(threads.read_all())
    mount.path("threads", "while it is open").mkdir()
    threads.rewind()
    assert set(threads.read_all()) - before == {"while it is open"}
    threads.close()


# ── Random changes ──────────────────────────────────────────────────────────────────────────────────────


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


class Walker:
    """Reads a list in pieces, rewinds and seeks, and knows what it has to have seen."""

    def __init__(self, mount: Mount, path: str) -> None:
        self.path = path
        self.directory = OpenDirectory(mount.path(path))
        # What was there all the time since the beginning, and what was there at any time.
        self.always: set[str] | None = None
        self.ever: set[str] = set()

    def is_told(self, lists: dict[str, set[str]]) -> None:
        """What there is now; to be called after each change."""
        now = lists.get(self.path, set())
        self.always = now if self.always is None else self.always & now
        self.ever |= now

    def step(self, chance: random.Random, lists: dict[str, set[str]]) -> None:
        what = chance.choice(["read", "read", "read", "seek", "rewind", "lose pages", "end"])
        if what == "lose pages":
            self.directory.lose_pages()
        elif what == "seek":
            self.directory.seek(chance.randrange(len(self.directory.read) + 1))
        elif what == "rewind":
            self._begin(lists)
        elif what == "read":
            self.directory.read_on(_FEW_ENTRIES_BYTES)
        else:
            self.directory.read_all(_FEW_ENTRIES_BYTES)
            self.check()
            self._begin(lists)

    def _begin(self, lists: dict[str, set[str]]) -> None:
        self.directory.rewind()
        self.always = None
        self.is_told(lists)

    def check(self) -> None:
        names = self.directory.names
        assert len(names) == len(set(names)), names
        assert set(names) <= self.ever
        # What another program has just made may be missing.
        assert self.always is not None
        assert {name for name in self.always if name.startswith("own")} <= set(names)


@pytest.mark.parametrize("seed", [1, 2])
def test_lists_show_what_the_store_holds_whoever_changes_it(
    mount: Mount, other: ThreadStore, seed: int
) -> None:
    chance = random.Random(seed)
    walkers = [Walker(mount, path) for path in ("threads", "runs/queued", "runs/completed") * 2]
    for number in range(40):
        change_something(chance, mount, other, f"{seed}-{number}")
        now = stored(other)
        for walker in walkers:
            walker.is_told(now)
            walker.step(chance, now)
        if chance.random() < 0.5:
            shown(mount)
        if chance.random() < 0.2:
            wait_until(lambda: shown(mount) == stored(other))
        if number == 20:
            with suppress(PermissionError):  # Unless it is root that tests.
                _DROP_CACHES.write_text("2")
    wait_until(lambda: shown(mount) == stored(other))
    for walker in walkers:
        walker.directory.rewind()
        assert sorted(walker.directory.read_all()) == sorted(stored(other)[walker.path])
        walker.directory.close()


def change_something(chance: random.Random, mount: Mount, other: ThreadStore, name: str) -> None:
    """One change in the threads ``a`` and ``b``; names begin with ``own`` where this mount makes them."""
    thread = chance.choice(["a", "b"])
    path = mount.path("threads", thread)
    is_here = chance.random() < 0.5
    name = f"{'own' if is_here else 'other'}-{name}"
    if thread not in other.list_thread_ids():
        path.mkdir() if is_here else other.create_thread(Thread(id=thread))
        return
    runs = sorted(other.list_run_ids(thread))
    what = chance.choice(["remove", "thread", "run", "run", "step", "step", "status", "status"])
    if what == "remove":
        delete(path) if is_here else other.delete_thread(thread, force=True)
    elif what == "thread":
        mount.path("threads", name).mkdir() if is_here else other.create_thread(Thread(id=name))
    elif what == "run" or not runs:
        if is_here:
            (path / "start").write_text(f'{{"id": "{name}"}}')
        else:
            other.create_run(thread, Run(id=name))
    elif what == "step":
        run = chance.choice(runs)
        step = RunStep(id=name, thread_id=thread, run_id=run)
        if is_here:
            document = step.model_dump_json(exclude_none=True)
            (path / "runs" / run / "steps" / f"{name}.json").write_text(document)
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
