"""From the command to the unmounting: places that are refused, signals, killed processes, ./mount.sh."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from store import ThreadStore
from tests.cli.conftest import threadfs
from tests.mount.conftest import EXAMPLES, Mount, start, stop
from threadfs.commands import COMMANDS
from threadfs.fuse import session
from threadfs.fuse.operations import Operations
from threadfs.mounting import serving
from threadfs.nodes.root import root_of

ROOT = EXAMPLES.parent


@pytest.fixture
def mount(own_mount: Mount) -> Mount:
    return own_mount


def unmount(place: Path) -> None:
    subprocess.run(["fusermount3", "-uzq", str(place)], check=False)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Path]:
    """A directory with a store, whose mount on ``mnt`` is taken down whatever happens."""
    shutil.copytree(EXAMPLES / "household", tmp_path / "store")
    try:
        yield tmp_path
    finally:
        unmount(tmp_path / "mnt")


def assert_one_line(result: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    assert result.returncode == status, result.stderr
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


def test_a_store_that_is_a_file_is_refused(desk: Path) -> None:
    (desk / "file").write_text("")
    assert_one_line(threadfs("file", "mnt", cwd=desk), 1, "Not a directory")


def test_a_mount_point_that_is_a_file_is_refused(desk: Path) -> None:
    (desk / "file").write_text("")
    assert_one_line(threadfs("store", "file", cwd=desk), 1, "not a directory")


def test_a_mount_point_that_holds_something_is_refused(desk: Path) -> None:
    (desk / "full" / "something").mkdir(parents=True)
    assert_one_line(threadfs("store", "full", cwd=desk), 1, "not empty")


@pytest.mark.parametrize("place", ["store", "store/inside"])
def test_a_mount_point_in_the_store_is_refused_and_not_made(desk: Path, place: str) -> None:
    assert_one_line(threadfs("store", place, cwd=desk), 1, "inside the store")
    assert not (desk / "store" / "inside").exists()


def test_a_mount_point_that_holds_the_store_is_refused(desk: Path) -> None:
    assert_one_line(threadfs("outer/store", "outer", cwd=desk), 1, "hide its own store")


def test_a_log_that_cannot_be_written_is_said(desk: Path) -> None:
    assert_one_line(threadfs("--log", "none/log", "store", "mnt", cwd=desk), 1, "No such file")


@pytest.mark.parametrize("arguments", [[], ["store"], ["a", "b", "c"], ["--bogus", "store", "mnt"]])
def test_wrong_usage_is_one_line_and_status_2(desk: Path, arguments: list[str]) -> None:
    assert_one_line(threadfs(*arguments, cwd=desk), 2, "--help")


def test_the_command_returns_when_the_mount_answers_and_mounting_again_is_no_error(desk: Path) -> None:
    first = threadfs("store", "mnt", cwd=desk)
    assert (first.returncode, first.stderr) == (0, "")
    assert os.listdir(desk / "mnt" / "threads")
    again = threadfs("store", "mnt", cwd=desk)
    assert again.returncode == 0
    assert "already mounted" in again.stdout
    (desk / "other").mkdir()
    assert_one_line(threadfs("other", "mnt", cwd=desk), 1, "in use")


def test_a_missing_store_is_made_and_said_to_be_new(desk: Path) -> None:
    assert_one_line(threadfs("new/store", "mnt", cwd=desk), 1, f"there is no directory {desk}/new")
    assert not (desk / "new").exists()
    assert not (desk / "mnt").exists()
    (desk / "new").mkdir()
    result = threadfs("new/store", "mnt", cwd=desk)
    assert result.returncode == 0
    assert "new store" in result.stdout
    assert (desk / "new" / "store").is_dir()


def test_a_dead_mount_is_cleared_by_the_next_start(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "household", tmp_path / "store")
    mount = start(tmp_path / "store", tmp_path / "mnt", tmp_path / "log")
    try:
        mount.process.send_signal(signal.SIGKILL)
        mount.process.wait()
        with pytest.raises(OSError, match="not connected"):
            os.listdir(mount.root)
        result = threadfs("store", "mnt", cwd=tmp_path)
        assert result.returncode == 0
        assert result.stdout.startswith("cleared the dead mount")
        assert os.listdir(mount.root)
    finally:
        unmount(mount.root)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_unmounts_and_the_process_ends_well(mount: Mount, number: signal.Signals) -> None:
    mount.process.send_signal(number)
    assert mount.process.wait(10) == 0
    assert not os.path.ismount(mount.root)


def test_unmounting_from_outside_ends_the_process_well(mount: Mount) -> None:
    subprocess.run(["fusermount3", "-u", str(mount.root)], check=True)
    assert mount.process.wait(10) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone may do this")
def test_a_mount_whose_connection_is_aborted_ends_well_and_leaves_nothing(
    mount: Mount, tmp_path: Path
) -> None:
    connections = tmp_path / "connections"
    connections.mkdir()
    subprocess.run(["mount", "-t", "fusectl", "fusectl", connections], check=True)
    try:
        (connections / str(os.minor(os.stat(mount.root).st_dev)) / "abort").write_text("1")
    finally:
        subprocess.run(["umount", connections], check=True)
    assert mount.process.wait(10) == 0
    assert os.listdir(mount.root) == []


@pytest.mark.parametrize("code", [errno.ECONNABORTED, errno.ENODEV])
def test_serving_ends_when_the_kernel_says_that_the_connection_has(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with trio.open_nursery():
            raise OSError(code, "fuse_session_receive_buf failed")

    monkeypatch.setattr(session, "answer", main)
    store = ThreadStore(tmp_path)
    trio.run(serving._main, Operations(root_of(store)), "/nowhere", lambda: None)


def test_a_read_only_mount_refuses_with_erofs(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "household", tmp_path / "store")
    mount = start(tmp_path / "store", tmp_path / "mnt", tmp_path / "log", "--read-only")
    try:
        with pytest.raises(OSError, match="Read-only"):
            (mount.run("queued") / "cancel").write_text("1")
    finally:
        stop(mount)


def mount_sh(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "mount.sh"], env=environment, check=True, capture_output=True, text=True, timeout=60
    )


@pytest.mark.alone
def test_mount_sh_mounts_the_users_own_store_with_an_example_and_is_fast_again(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    place = tmp_path / "threadfs"
    try:
        first = subprocess.run(
            [ROOT / "mount.sh"], env=environment, check=True, capture_output=True, text=True
        )
        assert str(place) in first.stdout
        assert f"mount.sh import {tmp_path}/.local/share/threadfs FILE" in first.stdout
        (thread,) = os.listdir(place / "threads")
        assert "queued" in (place / "threads" / thread / "messages.jsonl").read_text()
        started = time.monotonic()
        again = subprocess.run(
            [ROOT / "mount.sh"], env=environment, check=True, capture_output=True, text=True
        )
        # Two seconds are what a user is promised, whatever else the machine does.
        assert time.monotonic() - started < 2
        assert "already mounted" in again.stdout
        assert "import" not in again.stdout
    finally:
        unmount(place)


def make_checkout(root: Path, program: str) -> None:
    """A checkout in which threadfs is another *program*, a shell script."""
    for name, script in (("scripts/setup", "exit 0"), (".venv/bin/threadfs", program)):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(f"#!/bin/sh\n{script}\n")
        (root / name).chmod(0o755)
    shutil.copy(ROOT / "mount.sh", root)


@pytest.mark.parametrize(
    ("words", "handed_on"),
    [
        ("mount store mnt", "./store ./mnt"),
        ("mount --read-only store mnt", "--read-only ./store ./mnt"),
        ("mount mount mnt", "./mount ./mnt"),
        ("unmount mnt", "unmount mnt"),
        ("umount --force mnt", "umount --force mnt"),
        ("ask mnt idea Hello", "ask mnt idea Hello"),
        ("work mnt --endpoint URL", "work mnt --endpoint URL"),
        *[(f"{command} mnt word", f"{command} mnt word") for command in COMMANDS],
        ("unmuont mnt", "unmuont ./mnt"),
        ("--create new mnt", "--create new ./mnt"),
        ("./new mnt", "./new ./mnt"),
        ("/new /mnt", "/new /mnt"),
        ("exprot postgresql://host/db", "exprot postgresql://host/db"),
        ("-- -odd mnt", "-- -odd ./mnt"),
    ],
)
def test_mount_sh_hands_on_what_threadfs_is_to_judge(tmp_path: Path, words: str, handed_on: str) -> None:
    make_checkout(tmp_path / "checkout", 'echo "$@"')
    for name in ("store", "mount"):
        (tmp_path / name).mkdir()
    said = subprocess.run(
        [tmp_path / "checkout" / "mount.sh", *words.split()],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert said.stdout == f"{handed_on}\n"


@pytest.mark.parametrize(("checkout", "mountpoint"), [("threadfs", "threads"), ("src", "threadfs")])
def test_mount_sh_never_mounts_on_its_own_checkout(tmp_path: Path, checkout: str, mountpoint: str) -> None:
    root = tmp_path / checkout
    make_checkout(root, 'echo "$2"')
    said = subprocess.run(
        [root / "mount.sh", "/store"],
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        check=True,
        capture_output=True,
        text=True,
    )
    assert said.stdout == f"{tmp_path}/{mountpoint}\n"
