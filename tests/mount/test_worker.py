"""Workers: claiming by ``mv``, of which one succeeds, and a cancel in between."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from store import Run, Thread, ThreadStore
from tests.mount import scripts
from tests.mount.conftest import Mount, start, stop, wait_until
from tests.mount.scripts import document, new_run, new_thread, run, succeeds


@pytest.fixture(scope="module")
def second_mount(shared_mount: Mount, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """Another mount of the same store."""
    place = tmp_path_factory.mktemp("second")
    mounted = start(shared_mount.store, place / "mnt", place / "log")
    try:
        yield mounted
    finally:
        stop(mounted)
    assert "Traceback" not in mounted.log.read_text()


def queue(mount: Mount, thread: str, count: int) -> list[str]:
    """Queues that many runs as another program does, and returns the names of their links."""
    store = ThreadStore(mount.store)
    store.create_thread(Thread(id=thread))
    names = [f"{store.create_run(thread, Run(model='m')).id}@{thread}" for _ in range(count)]
    wait_until(lambda: set(names) <= set(os.listdir(mount.path("runs", "queued"))))
    return names


def claim(mounts: list[Mount], names: list[str]) -> list[list[str]]:
    """What each claimant got: one for each of *mounts*, all of which move each run at the same moment."""
    barrier = threading.Barrier(len(mounts))

    def work(mount: Mount) -> list[str]:
        won = []
        for name in names:
            barrier.wait(30)
            try:
                mount.path("runs", "queued", name).rename(mount.path("runs", "in_progress", name))
            except FileNotFoundError:
                continue
            won.append(name)
        return won

    with ThreadPoolExecutor(len(mounts)) as claimants:
        return list(claimants.map(work, mounts))


@pytest.mark.parametrize("claimants", [2, 3, 8])
def test_of_racing_claimants_exactly_one_wins_each_run(mount: Mount, tmp_path: Path, claimants: int) -> None:
    names = queue(mount, tmp_path.name, 100)
    won = claim([mount] * claimants, names)
    assert Counter(name for each in won for name in each) == Counter(names)
    assert sum(bool(each) for each in won) > 1, "nobody raced"
    assert set(names) <= set(os.listdir(mount.path("runs", "in_progress")))


def test_of_claimants_on_two_mounts_exactly_one_wins_each_run(
    mount: Mount, second_mount: Mount, tmp_path: Path
) -> None:
    names = queue(mount, tmp_path.name, 100)
    won = claim([mount, second_mount] * 2, names)
    assert Counter(name for each in won for name in each) == Counter(names)
    for each in (mount, second_mount):
        assert set(names) <= set(os.listdir(each.path("runs", "in_progress")))


@pytest.mark.parametrize("shell", scripts.SHELLS)
def test_mv_claims_a_run_and_a_second_mv_fails(mount: Mount, shell: str) -> None:
    thread = new_thread(mount)
    made = new_run(thread)
    script = f"mv 'runs/queued/{made.name}@{thread.name}' runs/in_progress/"
    succeeds(script, mount.root, shell)
    assert "started_at" in document(made / "status")
    assert "No such file" in run(script, mount.root, shell).stderr
    assert document(made / "status")["status"] == "in_progress"


def test_a_run_goes_back_to_the_queue_by_mv(mount: Mount) -> None:
    thread = new_thread(mount)
    made = new_run(thread)
    name = f"{made.name}@{thread.name}"
    for source, target in (("queued", "in_progress"), ("in_progress", "queued"), ("queued", "in_progress")):
        succeeds(f"mv 'runs/{source}/{name}' runs/{target}/", mount.root)
        assert os.listdir(mount.path("runs", target)).count(name) == 1
        assert name not in os.listdir(mount.path("runs", source))


@pytest.mark.parametrize("status", ["completed", "cancelled", "failed", "expired"])
def test_mv_of_a_run_that_has_ended_is_refused(mount: Mount, status: str) -> None:
    thread = new_thread(mount)
    made = new_run(thread, status)
    name = f"{made.name}@{thread.name}"
    before = scripts.stored(mount, made / "status").read_bytes()
    with pytest.raises(PermissionError) as refused:
        mount.path("runs", status, name).rename(mount.path("runs", "queued", name))
    assert refused.value.errno == errno.EPERM
    assert scripts.stored(mount, made / "status").read_bytes() == before


@pytest.mark.parametrize("target", ["runs/in_progress/other", "drafts/", "threads/"])
def test_a_link_is_moved_to_another_status_only(mount: Mount, target: str) -> None:
    thread = new_thread(mount)
    made = new_run(thread)
    assert "denied" in run(f"mv 'runs/queued/{made.name}@{thread.name}' {target}", mount.root).stderr
    assert document(made / "status")["status"] == "queued"


@pytest.mark.parametrize("word", ["completed", "failed", "in_progress"])
def test_a_cancel_while_a_worker_works_sticks_and_the_worker_sees_it(mount: Mount, word: str) -> None:
    made = new_run(new_thread(mount), "in_progress")
    worker = os.open(made / "status", os.O_WRONLY | os.O_TRUNC)
    try:
        (made / "cancel").write_text("1")
        before = scripts.stored(mount, made / "status").read_bytes()
        with pytest.raises(PermissionError) as refused:
            os.write(worker, word.encode() + b"\n")
        assert refused.value.errno == errno.EPERM
    finally:
        os.close(worker)
    assert scripts.stored(mount, made / "status").read_bytes() == before
    assert json.loads(before)["status"] == "cancelled"


def test_a_cancel_on_another_mount_sticks_too(mount: Mount, second_mount: Mount) -> None:
    thread = new_thread(mount)
    made = new_run(thread, "in_progress")
    there = second_mount.path("threads", thread.name, "runs", made.name)
    assert document(there / "status")["status"] == "in_progress"
    succeeds("echo 1 > cancel", there)
    assert "not permitted" in run("echo completed > status", made).stderr
    assert document(made / "status")["status"] == "cancelled"
