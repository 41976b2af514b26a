"""A store that is damaged, moved, full or gone while it is mounted: errno, reason, and service after."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from store import Run, Thread, ThreadStore
from tests.attacks.conftest import attacked, told
from tests.mount.conftest import Mount, wait_until
from tests.mount.scripts import SHELLS, run
from tests.nodes.driving import outcome

HUGE_BYTES = 65 << 20  # More than a document may have.


def system(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True, capture_output=True)


@pytest.fixture
def thread(mount: Mount) -> Path:
    """A thread with a run and a message, that nobody has looked at yet."""
    made = mount.path("threads", "a")
    made.mkdir()
    (made / "runs" / "r").mkdir()
    (made / "say").write_text("Hello")
    mount.path("threads", "neighbour").mkdir()
    return made


def neighbour_is_served(mount: Mount) -> None:
    before = told(mount.store, "neighbour")
    mount.path("threads", "neighbour", "say").write_text("still here")
    assert told(mount.store, "neighbour") == [*before, "still here"]


def as_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def as_link(path: Path) -> None:
    outside = path.parents[2] / f"outside {path.name}"
    outside.write_text("a secret")
    path.unlink()
    path.symlink_to(outside)


def as_huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(HUGE_BYTES)


def as_nonsense(path: Path) -> None:
    path.write_bytes(b"\0\xff{")


REPLACEMENTS = [as_directory, as_fifo, as_link, as_huge, as_nonsense]


@pytest.mark.parametrize("replace", REPLACEMENTS)
def test_a_run_that_is_no_document_any_more_is_an_error_of_its_own(
    mount: Mount, thread: Path, replace: Callable[[Path], None]
) -> None:
    stored = mount.store / "a" / "runs" / "r" / "status.json"
    whole = stored.read_bytes()
    replace(stored)
    said = outcome(lambda: (thread / "runs" / "r" / "status").write_text("completed"))
    assert said == "EIO"
    assert outcome(lambda: (thread / "runs" / "r" / "cancel").write_text("1")) == "EIO"
    assert "threads/a/runs/r" in mount.errors()
    assert "status.json is damaged" in mount.errors()
    assert told(mount.store, "a") == ["Hello"]
    neighbour_is_served(mount)
    shutil.rmtree(stored) if stored.is_dir() else stored.unlink()
    stored.write_bytes(whole)
    wait_until(lambda: outcome(lambda: (thread / "runs" / "r" / "status").write_text("completed")) == "ok", 2)


@pytest.mark.parametrize("replace", [as_directory, as_fifo, as_link])
def test_a_log_that_is_no_file_any_more_is_neither_read_nor_written(
    mount: Mount, thread: Path, replace: Callable[[Path], None]
) -> None:
    stored = mount.store / "a" / "messages.jsonl"
    whole = stored.read_bytes()
    replace(stored)
    assert outcome(lambda: (thread / "say").write_text("more")) == "EIO"
    assert "threads/a/say\tEIO\t" in mount.errors()
    assert outcome(lambda: (thread / "messages.jsonl").read_bytes()) == "EIO"
    neighbour_is_served(mount)
    shutil.rmtree(stored) if stored.is_dir() else stored.unlink()
    stored.write_bytes(whole)
    wait_until(lambda: outcome(lambda: (thread / "say").write_text("more")) == "ok", 2)
    assert told(mount.store, "a") == ["Hello", "more"]


def test_no_link_in_the_store_leads_out_of_it(mount: Mount, thread: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(mount.store / "a", outside / "a")
    before = sorted((path, path.stat().st_mtime_ns) for path in outside.glob("**/*"))
    (mount.store / "planted").symlink_to(outside / "a")
    (mount.store / "neighbour" / "runs").mkdir(exist_ok=True)
    (mount.store / "neighbour" / "runs" / "planted").symlink_to(outside / "a" / "runs" / "r")
    for path in ("threads/planted/say", "threads/neighbour/runs/planted/cancel"):
        assert outcome(lambda path=path: mount.path(path).write_text("1")) == "ENOENT"  # type: ignore[misc]
    assert "planted" not in os.listdir(mount.path("threads"))
    assert sorted((path, path.stat().st_mtime_ns) for path in outside.glob("**/*")) == before


# ── The whole store ─────────────────────────────────────────────────────────────────────────────────────


def test_a_store_that_is_moved_away_is_an_error_and_service_resumes_when_it_is_back(
    mount: Mount, thread: Path, tmp_path: Path
) -> None:
    away = tmp_path / "away"
    mount.store.rename(away)
    assert outcome(lambda: (thread / "say").write_text("lost?")) in ("EIO", "ENOENT")
    assert outcome(lambda: mount.path("threads", "new").mkdir()) in ("EIO", "ENOENT")
    assert f"{mount.store}" in mount.errors()
    away.rename(mount.store)
    wait_until(lambda: outcome(lambda: (thread / "say").write_text("back")) == "ok", 2)
    assert told(mount.store, "a") == ["Hello", "back"]


def test_a_store_that_is_deleted_and_restored_is_served_again(
    mount: Mount, thread: Path, tmp_path: Path
) -> None:
    shutil.copytree(mount.store, tmp_path / "backup")
    assert (thread / "messages.jsonl").read_bytes()
    shutil.rmtree(mount.store)
    assert outcome(lambda: (thread / "say").write_text("lost?")) in ("EIO", "ENOENT")
    assert not mount.store.exists(), "writing into a store that is gone made one"
    shutil.copytree(tmp_path / "backup", mount.store)
    wait_until(lambda: outcome(lambda: (thread / "say").write_text("back")) == "ok", 2)
    assert "back" in (thread / "messages.jsonl").read_text()
    mount.path("threads", "new").mkdir()
    assert (mount.store / "new" / "meta.json").exists()
    # Followed again: what other programs do shows.
    shutil.copytree(mount.store / "new", mount.store / "other")
    wait_until(lambda: "other" in os.listdir(mount.path("threads")), 1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    try:
        system("mount", "-t", "tmpfs", "-o", "size=1m", "none", place)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"needs root: {error.stderr!r}")
    try:
        yield place
    finally:
        system("umount", "-l", place)


@pytest.fixture
def disk_mount(small_disk: Path, tmp_path: Path) -> Iterator[Mount]:
    """A mount whose store is on the small disk."""
    with attacked(tmp_path, store=small_disk / "store") as mounted:
        mounted.path("threads", "a").mkdir()
        mounted.path("threads", "a", "runs", "r").mkdir()
        yield mounted


def fill(disk: Path) -> Path:
    """The file that takes all that is left of a disk."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        while outcome(lambda: file.write(bytes(4096))) == "ok":
            pass
    return filler


def test_a_full_disk_refuses_with_enospc_changes_nothing_and_takes_writes_when_there_is_room(
    disk_mount: Mount, small_disk: Path
) -> None:
    thread = disk_mount.path("threads", "a")
    filler = fill(small_disk)
    before = (thread / "runs" / "r" / "status").read_bytes()
    assert outcome(lambda: (thread / "say").write_text("x" * 5000)) == "ENOSPC"
    assert outcome(lambda: (thread / "runs" / "r" / "status").write_text("completed")) == "ENOSPC"
    assert outcome(lambda: disk_mount.path("threads", "b").mkdir()) == "ENOSPC"
    assert "threads/a/say\tENOSPC\t" in disk_mount.errors()
    assert (thread / "runs" / "r" / "status").read_bytes() == before
    assert told(disk_mount.store, "a") == []
    filler.unlink()
    (thread / "say").write_text("room")
    (thread / "runs" / "r" / "cancel").write_text("1")
    assert told(disk_mount.store, "a") == ["room"]


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_asked_is_refused_when_there_is_room_for_the_message_alone(
    disk_mount: Mount, small_disk: Path, shell: str
) -> None:
    filler = fill(small_disk)
    os.truncate(filler, filler.stat().st_size - 8192)
    thread = disk_mount.path("threads", "a")
    assert run("echo question > ask", thread, shell).returncode != 0
    assert disk_mount.errors().splitlines()[-1].split("\t")[1:3] == ["threads/a/ask", "ENOSPC"]
    assert run("echo message > say", thread, shell).returncode == 0
    assert told(disk_mount.store, "a") == ["message"]
    assert os.listdir(disk_mount.store / "a" / "runs") == ["r"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_full_disk_is_said_by_the_builtin_that_writes(
    disk_mount: Mount, small_disk: Path, shell: str
) -> None:
    fill(small_disk)
    for script in (
        "echo hello > say",
        "printf hello > say",
        "echo hello > ask",
        "printf hello > ask",
        "echo m > start",
        "printf m > start",
        """printf '{"model":"m"}' > start""",
        """echo '{"metadata":{"a":"1"}}' > meta.json""",
        """printf '{"role":"user","content":"x"}' >> messages.jsonl""",
    ):
        result = run(script, disk_mount.path("threads", "a"), shell)
        assert result.returncode != 0, script
        assert disk_mount.errors().splitlines()[-1].split("\t")[2] == "ENOSPC"
    assert told(disk_mount.store, "a") == []
    assert os.listdir(disk_mount.store / "a" / "runs") == ["r"]


def test_a_disk_that_turns_read_only_refuses_with_erofs_until_it_is_writable(
    disk_mount: Mount, small_disk: Path
) -> None:
    thread = disk_mount.path("threads", "a")
    system("mount", "-o", "remount,ro", small_disk)
    try:
        assert outcome(lambda: (thread / "say").write_text("no")) == "EROFS"
        for script in ("echo no > say", "echo no > ask"):
            assert subprocess.run(["bash", "-c", script], cwd=thread, check=False).returncode == 1
        assert outcome(lambda: (thread / "runs" / "r" / "cancel").write_text("1")) == "EROFS"
        assert outcome(lambda: disk_mount.path("threads", "b").mkdir()) == "EROFS"
        assert '"queued"' in (thread / "runs" / "r" / "status").read_text()
        assert "threads/a/runs/r/cancel\tEROFS\t" in disk_mount.errors()
    finally:
        system("mount", "-o", "remount,rw", small_disk)
    (thread / "runs" / "r" / "cancel").write_text("1")
    assert '"cancelled"' in (disk_mount.store / "a" / "runs" / "r" / "status.json").read_text()


def test_a_disk_that_is_unmounted_under_the_mount_is_an_error_and_nothing_is_written_below_it(
    disk_mount: Mount, small_disk: Path, tmp_path: Path
) -> None:
    thread = disk_mount.path("threads", "a")
    kept = tmp_path / "kept"
    kept.mkdir()
    system("mount", "--bind", small_disk, kept)
    system("umount", "-l", small_disk)
    try:
        assert outcome(lambda: (thread / "say").write_text("where?")) in ("EIO", "ENOENT")
        assert outcome(lambda: disk_mount.path("threads", "b").mkdir()) in ("EIO", "ENOENT")
        assert os.listdir(small_disk) == []
    finally:
        system("mount", "--bind", kept, small_disk)
        system("umount", kept)
    wait_until(lambda: outcome(lambda: (thread / "say").write_text("back")) == "ok", 2)
    assert told(disk_mount.store, "a") == ["back"]


def test_what_the_disk_forbids_is_an_error_until_it_allows_it(mount: Mount, thread: Path) -> None:
    """Root ignores permissions, but not the attribute that makes a file immutable."""
    stored = mount.store / "a" / "messages.jsonl"
    try:
        system("chattr", "+i", stored)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no such attribute here: {error.stderr!r}")
    try:
        assert outcome(lambda: (thread / "say").write_text("no")) in ("EPERM", "EACCES")
        assert "threads/a/say\tE" in mount.errors()
    finally:
        system("chattr", "-i", stored)
    (thread / "say").write_text("yes")
    assert told(mount.store, "a") == ["Hello", "yes"]


def check_that_it_follows(mount: Mount) -> None:
    """What other programs make, change and delete from now on shows."""
    threads, queued = mount.path("threads"), mount.path("runs", "queued")
    store = ThreadStore(mount.store)
    before = os.listdir(threads)
    for _ in range(3):
        store.create_thread(Thread(id="t"))
        wait_until(lambda: "t" in os.listdir(threads), 1)
        store.create_run("t", Run(id="r"))
        wait_until(lambda: "r@t" in os.listdir(queued), 1)
        store.delete_thread("t")
        wait_until(lambda: os.listdir(threads) == before, 1)


def test_a_store_that_another_one_takes_the_place_of_is_followed(
    mount: Mount, thread: Path, tmp_path: Path
) -> None:
    ThreadStore(tmp_path / "new").create_thread(Thread(id="new"))
    assert "a" in os.listdir(thread.parent)
    mount.store.rename(tmp_path / "old")
    (tmp_path / "new").rename(mount.store)
    wait_until(lambda: os.listdir(thread.parent) == ["new"], 1)
    check_that_it_follows(mount)


def test_a_disk_that_is_unmounted_and_comes_back_is_followed(small_disk: Path, tmp_path: Path) -> None:
    with attacked(tmp_path, store=small_disk) as mount:
        threads = mount.path("threads")
        threads.joinpath("a").mkdir()
        wait_until(lambda: subprocess.run(["umount", small_disk], check=False).returncode == 0)
        wait_until(lambda: os.listdir(threads) == [], 1)
        system("mount", "-t", "tmpfs", "-o", "size=1m", "none", small_disk)
        check_that_it_follows(mount)
