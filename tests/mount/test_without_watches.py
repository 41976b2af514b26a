"""Where changes of other programs are not reported, or not all, the mount shows them within a second, too."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import inotify_limit
from tests.mount.conftest import Mount, checked_mount, start, stop, wait_until
from tests.mount.pair import compare_under_random_changes
from tests.mount.scripts import stats

# How many watches there are, and of what the log has to warn.
LIMITS = {
    "no instance": ("none", "no inotify instance is left"),
    "no watch": ("0", "no inotify watch is left"),
    "six watches": ("6", ""),
}
# All that there is is read from the store after each change: one thread is enough, beside those that change.
BYSTANDERS = ["Trip to Oslo"]


@pytest.fixture(params=LIMITS)
def unwatched(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mount]:
    watches, warning = LIMITS[request.param]
    with checked_mount(tmp_path, warns=warning, module=("tests.mount.few_watches", watches)) as mount:
        yield mount


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[tuple[Path, Mount]]:
    """A store on a file system that other hosts may change, and where these do it, with the mount."""
    behind, place = tmp_path / "behind", tmp_path / "place"
    place.mkdir()
    (behind / "store").mkdir(parents=True)
    remote = subprocess.Popen(
        ["bindfs", "-f", "-o", "attr_timeout=0,entry_timeout=0", str(behind), str(place)]
    )
    try:
        wait_until(lambda: os.path.ismount(place))
        mount = start(place / "store", tmp_path / "mnt", tmp_path / "log")
        try:
            yield behind / "store", mount
        finally:
            stop(mount)
    finally:
        subprocess.run(["fusermount3", "-uz", str(place)], check=True)
        remote.wait()


def test_the_mount_shows_what_the_store_holds_under_random_changes(unwatched: Mount) -> None:
    compare_under_random_changes(unwatched, unwatched.store, seed=0, rounds=40, leaving=BYSTANDERS)


def test_the_mount_shows_what_other_hosts_change_at_random(behind: tuple[Path, Mount]) -> None:
    store, mount = behind
    compare_under_random_changes(mount, store, seed=0, rounds=40, leaving=BYSTANDERS)


def test_the_stats_say_what_is_not_followed(unwatched: Mount) -> None:
    for status in unwatched.path("threads").glob("*/runs/*/status"):
        status.read_bytes()
    assert stats(unwatched)["not_followed"] > 0


def test_the_stats_say_that_nothing_of_other_hosts_is_followed(behind: tuple[Path, Mount]) -> None:
    assert stats(behind[1])["followed"] == 0 < stats(behind[1])["not_followed"]


@pytest.mark.alone
def test_the_mount_follows_others_as_soon_as_that_is_possible(tmp_path: Path) -> None:
    until_raised = ExitStack()
    until_raised.enter_context(inotify_limit("max_user_instances", 0))
    with until_raised, checked_mount(tmp_path, warns="not followed") as mount:
        run = mount.run("queued")
        assert '"queued"' in (run / "status").read_text()
        assert stats(mount)["not_followed"] > 0
        until_raised.close()
        wait_until(lambda: stats(mount)["not_followed"] == 0, timeout_s=30)
        assert stats(mount)["followed"] > 0
        assert '"queued"' in (run / "status").read_text()
        new = mount.stored(run).with_name(".tmpAb12Cd")
        new.write_text(mount.stored(run).read_text().replace("queued", "in_progress"))
        new.rename(mount.stored(run))
        wait_until(lambda: '"in_progress"' in (run / "status").read_text(), timeout_s=1)
        wait_until(lambda: len(os.listdir(mount.path("runs", "queued"))) == 0, timeout_s=1)
